"""What must hold after every step; run in tests, never in production."""

from __future__ import annotations

from opentailr_agent.core.model import NodeState, Phase


def validate(state: NodeState) -> None:
    """Raises AssertionError naming the rule that is broken."""
    numbers = [entry.seq for entry in state.outbox.entries]
    assert numbers == list(range(state.outbox.next_seq - len(numbers), state.outbox.next_seq)), (
        "numbers of reports are contiguous"
    )
    assert state.outbox.sent < state.outbox.next_seq, "nothing is sent that has no number"
    terminal = [entry.report.subject for entry in state.outbox.entries if entry.report.terminal]
    assert len(terminal) == len(set(terminal)), "an attempt or a build has at most one outcome"
    assert not set(terminal) & set(state.outbox.waiting), "nothing is told after the end"

    for record in state.attempts.values():
        about = f"attempt {record.attempt_id} in {record.phase.name}"
        assert (record.phase is Phase.DONE) == (record.attempt_id in terminal), (
            f"{about}: the outcome is in the outbox exactly until it is acknowledged"
        )
        assert record.phase < Phase.STARTING or record.spec is None, f"{about}: keeps no secrets"
        assert (record.phase is Phase.ENDED) == (record.outcome is not None), f"{about}: outcome waits"
        assert not record.stop_sent or record.handed_over, f"{about}: a stop follows the order"

    assert state.attempt_limit <= state.received_attempts + state.slots, "credit stays within the slots"
    assert state.connected or not state.synced, "no set without a session"
