"""Credit travels in large steps, and no slot stays idle for want of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.machine import step
from opentailr_agent.core.model import (
    AttemptRecord,
    AttemptReport,
    AttemptState,
    Cause,
    CauseKind,
    Desired,
    NodeState,
    Phase,
)
from opentailr_agent.ports import EndState, Outcome


class _Fleet:
    """A node and a control plane that uses its credit; attempts need no preparation."""

    def __init__(self, slots: int) -> None:
        self.state = NodeState(slots=slots)
        self.running: list[str] = []
        self.sent = self.limit = self.messages = self.revision = 0
        self.feed(ev.Welcomed(frozenset(), frozenset(), frozenset(), 0))
        self.feed(ev.Assigned(full=True, base=0, revision=1))
        self.revision = 1

    def feed(self, event: ev.Event) -> None:
        for effect in step(self.state, event, 0):
            if isinstance(effect, do.SendCredit):
                assert effect.attempt_limit >= self.limit
                self.limit = effect.attempt_limit
                self.messages += 1

    def assign(self) -> None:
        self.sent += 1
        name = f"att_{self.sent}"
        wanted = ev.WantedAttempt(name, 1, Desired.RUN, 0.0, object())
        self.feed(ev.Assigned(base=self.revision, revision=self.revision + 1, attempts=(wanted,), full=False))
        self.revision += 1
        self.feed(ev.Prepared(name))
        self.feed(ev.HandedOver(name))
        self.feed(ev.ProcessStarted(name, 1))
        self.running.append(name)

    def end(self) -> None:
        self.feed(ev.ProcessEnded(Outcome(self.running.pop(0), EndState.SUCCEEDED, result=b"")))
        self.feed(ev.Acknowledged(self.state.outbox.next_seq - 1))


def test_a_chain_needs_few_grants() -> None:
    fleet = _Fleet(slots=64)

    for _ in range(320):
        fleet.assign()
        fleet.end()

    assert fleet.messages <= 11


@given(slots=st.integers(1, 9), moves=st.lists(st.booleans(), max_size=60))
def test_while_a_slot_is_free_another_attempt_may_come(slots: int, moves: list[bool]) -> None:
    fleet = _Fleet(slots)

    for assign in moves:
        if assign and fleet.sent < fleet.limit:
            fleet.assign()
        elif not assign and fleet.running:
            fleet.end()

        free = slots - len(fleet.running)
        unused = fleet.limit - fleet.sent
        assert 0 <= unused <= free
        assert 2 * unused >= free


def test_credit_is_told_again_after_late_words_of_a_drain() -> None:
    """The control plane closes the credit of a node that ends; a restarted agent did not end."""
    state = NodeState(slots=4)
    drained = Cause(CauseKind.NODE_DRAINED, "the operator of the node ended the agent and its attempts")
    state.attempts["att_1"] = AttemptRecord("att_1", 1, Phase.DONE)
    state.outbox.put(AttemptReport("att_1", 1, AttemptState.FAILED, 0, cause=drained))
    step(state, ev.Welcomed(frozenset(), frozenset(), frozenset(), 0), 0)
    stopped = ev.WantedAttempt("att_1", 1, Desired.STOP)
    granted = step(state, ev.Assigned(full=True, base=0, revision=1, attempts=(stopped,)), 0)
    assert do.SendCredit(4, 2) in granted
    assert do.SendCredit(4, 2) in step(state, ev.Acknowledged(1), 0)
