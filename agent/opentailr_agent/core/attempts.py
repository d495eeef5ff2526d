"""Moves of a single attempt that several events share."""

from __future__ import annotations

from opentailr_agent.core import effects as do
from opentailr_agent.core.ending import stop_cause
from opentailr_agent.core.model import (
    PHASES,
    AttemptRecord,
    AttemptReport,
    AttemptState,
    Cause,
    Desired,
    NodeState,
    Phase,
)


class IllegalMove(AssertionError):
    """An attempt was moved against the table of phases: a mistake in the agent itself."""


def advance(record: AttemptRecord, phase: Phase) -> None:
    """Moves along an edge of `PHASES`.

    Raises:
        IllegalMove: The table has no such edge.
    """
    if phase not in PHASES[record.phase]:
        raise IllegalMove(f"attempt {record.attempt_id}: {record.phase.name} -> {phase.name}")

    record.phase = phase


def describe(state: NodeState, record: AttemptRecord, told: AttemptState, now: int) -> None:
    """Lets a state that is not terminal be reported, unless a later one was told already."""
    if told <= record.told or record.forgotten:
        return

    record.told = told
    state.outbox.put(AttemptReport(record.attempt_id, record.fence, told, now, started_at=record.started_at))


def begin(state: NodeState, record: AttemptRecord, now: int, out: list[do.Effect]) -> None:
    """Prepares an accepted attempt as soon as its spec is known."""
    if record.phase is Phase.ACCEPTED and record.spec is not None:
        advance(record, Phase.PREPARING)
        out.append(do.Prepare(record.attempt_id, record.spec))
        describe(state, record, AttemptState.PREPARING, now)


def settle(state: NodeState, record: AttemptRecord, report: AttemptReport, out: list[do.Effect]) -> None:
    """Puts the terminal report into journal and outbox."""
    if record.forgotten:
        drop(record, out)
        return

    advance(record, Phase.DONE)
    record.told = report.state
    record.outcome = None
    record.spec = None
    entry = state.outbox.put(report)
    assert entry is not None
    out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))
    out.append(do.SaveReport(entry))


def fail(
    state: NodeState,
    record: AttemptRecord,
    told: AttemptState,
    cause: Cause,
    now: int,
    out: list[do.Effect],
) -> None:
    """Ends an attempt that has no process."""
    out.append(do.FinishLogs(record.attempt_id))
    report = AttemptReport(
        record.attempt_id,
        record.fence,
        told,
        now,
        cause=cause,
        started_at=record.started_at,
        ended_at=now if record.started_at else 0,
    )
    settle(state, record, report, out)


def request_stop(
    state: NodeState, record: AttemptRecord, grace: float, now: int, out: list[do.Effect]
) -> None:
    """Ends an attempt wherever it is: before its start at once, else by asking the runtime."""
    if record.phase >= Phase.ENDED:
        return

    record.desired = Desired.STOP
    record.grace = grace

    if record.phase < Phase.STARTING:
        if record.phase is Phase.PREPARING:
            out.append(do.CancelPreparation(record.attempt_id))

        told, cause = stop_cause(record)
        fail(state, record, told, cause, now, out)
        return

    describe(state, record, AttemptState.STOPPING, now)

    if record.handed_over and not record.stop_sent:
        record.stop_sent = True
        out.append(do.Stop(record.attempt_id, grace))


def forget(state: NodeState, record: AttemptRecord, out: list[do.Effect]) -> None:
    """Nobody awaits this attempt any more: end it quietly and remove what is left.

    An outcome that is in the outbox already stays there until it is acknowledged.
    """
    if record.phase >= Phase.DONE or record.forgotten:
        return

    record.forgotten = True
    state.outbox.forget(record.attempt_id)

    if record.phase in (Phase.STARTING, Phase.RUNNING):
        if record.handed_over and not record.stop_sent:
            record.stop_sent = True
            out.append(do.Stop(record.attempt_id, record.grace))

        return

    if record.phase is Phase.PREPARING:
        out.append(do.CancelPreparation(record.attempt_id))

    if record.phase is not Phase.ENDED:
        drop(record, out)


def drop(record: AttemptRecord, out: list[do.Effect]) -> None:
    """Removes an attempt that has no process and whose outcome nobody awaits."""
    advance(record, Phase.ACKNOWLEDGED)
    record.logs_shipped = True
    record.spec = None
    record.outcome = None
    out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))
    out.append(do.DiscardLogs(record.attempt_id))
    out.append(do.Remove(record.attempt_id))


def retire_or_wait(record: AttemptRecord, out: list[do.Effect]) -> None:
    """Removes files once the outcome is acknowledged and the log is shipped."""
    if record.phase is Phase.ACKNOWLEDGED and record.logs_shipped:
        out.append(do.Remove(record.attempt_id))
