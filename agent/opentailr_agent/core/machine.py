"""The step function: one event in, effects out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from opentailr_agent.core import builds, desired
from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.attempts import (
    advance,
    describe,
    fail,
    forget,
    request_stop,
    retire_or_wait,
    settle,
)
from opentailr_agent.core.ending import terminal_report
from opentailr_agent.core.model import (
    AnyReport,
    AttemptRecord,
    AttemptState,
    Cause,
    CauseKind,
    Desired,
    NodeState,
    Phase,
)

ANSWERABLE: Final = (Phase.STARTING, Phase.RUNNING)
"""Phases in which the runtime may speak of an attempt."""

FREES_NOTHING: Final = (
    ev.Prepared,
    ev.HandedOver,
    ev.ProcessStarted,
    ev.FlushDue,
    ev.LogsShipped,
    ev.Removed,
)
"""Events after which no more can be taken than before: most of them, so slots are not counted then."""


def step(state: NodeState, event: ev.Event, now: int) -> list[do.Effect]:
    """Applies one event.

    Args:
        state: Changed in place.
        event: What happened. Repeats, and events about attempts that are gone, change nothing.
        now: Microseconds since the epoch, for the times in reports only.

    Returns:
        Effects; those for the journal are to be committed before the others are carried out.
    """
    out: list[do.Effect] = []
    _apply(state, event, now, out)
    _send_reports(state, out)

    if not isinstance(event, FREES_NOTHING):
        _give_credit(state, out)

    return out


def _apply(state: NodeState, event: ev.Event, now: int, out: list[do.Effect]) -> None:
    match event:
        case ev.Recovered():
            _recover(state, event, now, out)
        case ev.Welcomed():
            _welcome(state, event, now, out)
        case ev.Disconnected():
            state.connected = False
            state.synced = False
        case ev.Assigned():
            desired.apply(state, event, now, out)
        case ev.Acknowledged():
            _acknowledge(state, event.seq, out)
        case ev.FlushDue():
            out.extend(do.SaveReport(entry) for entry in state.outbox.flush())
        case ev.PressureChanged():
            state.pressure = event.reason
        case ev.Drain():
            _drain(state, now, out)
        case ev.BuildEnded():
            builds.ended(state, event, now, out)
        case ev.LogsShipped():
            record = state.attempts.get(event.log_id)

            if record is not None:
                record.logs_shipped = True
                retire_or_wait(record, out)
        case ev.ProcessEnded():
            _ended(state, event, now, out)
        case _:
            record = state.attempts.get(event.attempt_id)

            if record is not None:
                _attempt_event(state, record, event, now, out)


AttemptEvent = (
    ev.Prepared
    | ev.PrepareFailed
    | ev.HandedOver
    | ev.StartFailed
    | ev.ProcessStarted
    | ev.ResultStored
    | ev.StoreFailed
    | ev.Removed
)


def _attempt_event(
    state: NodeState, record: AttemptRecord, event: AttemptEvent, now: int, out: list[do.Effect]
) -> None:
    match event:
        case ev.Prepared() if record.phase is Phase.PREPARING and record.spec is not None:
            advance(record, Phase.STARTING)
            out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))
            out.append(do.Start(record.attempt_id, record.spec))
            # The token and the variables in it are not needed again.
            record.spec = None
            describe(state, record, AttemptState.STARTING, now)
        case ev.PrepareFailed() if record.phase is Phase.PREPARING:
            # An image that cannot be built fails its tasks; anything else is the node's fault.
            built = event.cause.kind is not CauseKind.BUILD_FAILED
            fail(
                state, record, AttemptState.REJECTED if built else AttemptState.FAILED, event.cause, now, out
            )
        case ev.HandedOver() if record.phase in ANSWERABLE:
            record.handed_over = True
            _stop_if_asked(record, out)
        case ev.StartFailed() if record.phase is Phase.STARTING:
            cause = Cause(CauseKind.NODE_FAULT, f"the node could not start the process: {event.message}")
            fail(state, record, AttemptState.REJECTED, cause, now, out)
        case ev.ProcessStarted() if record.phase is Phase.STARTING:
            advance(record, Phase.RUNNING)
            record.handed_over = True
            record.started_at = event.started_at
            describe(state, record, AttemptState.RUNNING, now)
            _stop_if_asked(record, out)
        case ev.ResultStored() if record.phase is Phase.ENDED and record.outcome is not None:
            settle(state, record, replace(record.outcome, result=event.result), out)
        case ev.StoreFailed() if record.phase is Phase.ENDED and record.outcome is not None:
            cause = Cause(CauseKind.RESULT, f"the result could not be stored: {event.message}")
            report = replace(record.outcome, state=AttemptState.FAILED, cause=cause, result=None, preview="")
            settle(state, record, report, out)
        case ev.Removed() if record.phase is Phase.ACKNOWLEDGED:
            advance(record, Phase.RETIRED)
            desired.drop_if_undesired(state, record, out)
        case _:
            pass


def _stop_if_asked(record: AttemptRecord, out: list[do.Effect]) -> None:
    if record.handed_over and not record.stop_sent and (record.desired is Desired.STOP or record.forgotten):
        record.stop_sent = True
        out.append(do.Stop(record.attempt_id, record.grace))


def _ended(state: NodeState, event: ev.ProcessEnded, now: int, out: list[do.Effect]) -> None:
    record = state.attempts.get(event.outcome.attempt_id)

    if record is None or record.phase not in ANSWERABLE:
        return

    if record.forgotten:
        # Its outcome is final elsewhere; what it wrote since then is of no interest.
        advance(record, Phase.ACKNOWLEDGED)
        record.logs_shipped = True
        out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))
        out.append(do.DiscardLogs(record.attempt_id))
        out.append(do.Remove(record.attempt_id))
        return

    out.append(do.FinishLogs(record.attempt_id))
    report = terminal_report(record, event.outcome, now)

    if report.state is AttemptState.SUCCEEDED and report.result is None:
        advance(record, Phase.ENDED)
        record.outcome = report
        out.append(do.StoreResult(record.attempt_id, event.outcome))
    else:
        settle(state, record, report, out)


def _recover(state: NodeState, event: ev.Recovered, now: int, out: list[do.Effect]) -> None:
    for record in list(state.attempts.values()):
        if record.phase in (Phase.DONE, Phase.ACKNOWLEDGED):
            out.append(do.FinishLogs(record.attempt_id))
        elif event.rebooted and record.phase < Phase.DONE:
            cause = Cause(CauseKind.NODE_RESTARTED, "the node restarted while it had the task")
            fail(state, record, AttemptState.FAILED, cause, now, out)
        elif record.phase in ANSWERABLE:
            found = event.found.get(record.attempt_id)

            if found is None:
                cause = Cause(
                    CauseKind.LOST_BY_RUNTIME,
                    "the supervising process on the node is gone and left no outcome",
                )
                fail(state, record, AttemptState.FAILED, cause, now, out)
            elif found.running:
                record.phase = Phase.RUNNING
                record.handed_over = True
                describe(state, record, AttemptState.RUNNING, now)
            elif found.outcome is not None:
                _ended(state, ev.ProcessEnded(found.outcome), now, out)


def _welcome(state: NodeState, event: ev.Welcomed, now: int, out: list[do.Effect]) -> None:
    state.connected = True
    state.synced = False
    state.received_attempts = state.received_builds = 0
    state.attempt_limit = state.build_limit = 0
    _acknowledge(state, event.acknowledged, out)
    state.outbox.restart()

    for attempt_id in event.forget:
        record = state.attempts.get(attempt_id)

        if record is not None:
            forget(state, record, out)

    for attempt_id in event.stop:
        record = state.attempts.get(attempt_id)

        if record is not None:
            request_stop(state, record, record.grace, now, out)


def _acknowledge(state: NodeState, seq: int, out: list[do.Effect]) -> None:
    dropped = state.outbox.acknowledge(seq)

    if not dropped:
        return

    out.append(do.DropReports(dropped[-1].seq))

    for entry in dropped:
        record = state.attempts.get(entry.report.subject)

        if record is not None and entry.report.terminal and record.phase is Phase.DONE:
            advance(record, Phase.ACKNOWLEDGED)
            out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))
            retire_or_wait(record, out)

    if state.synced and not state.draining and any(_tells_of_a_drain(entry.report) for entry in dropped):
        # Told late, by a new process of the agent: the control plane took it that the node ends and closed
        # its credit, which nothing else would open again.
        out.append(do.SendCredit(state.attempt_limit, state.build_limit))


def _tells_of_a_drain(report: AnyReport) -> bool:
    return report.cause is not None and report.cause.kind is CauseKind.NODE_DRAINED


def _drain(state: NodeState, now: int, out: list[do.Effect]) -> None:
    state.draining = True

    for record in list(state.attempts.values()):
        if record.phase < Phase.DONE and record.desired is Desired.RUN:
            record.drained = True
            request_stop(state, record, state.drain_grace, now, out)

    out.extend(do.CancelBuild(build.build_id) for build in state.builds.values() if not build.done)


def _send_reports(state: NodeState, out: list[do.Effect]) -> None:
    if state.connected:
        out.extend(do.SendReports(batch) for batch in state.outbox.take())


def _give_credit(state: NodeState, out: list[do.Effect]) -> None:
    """Grants what is free; credit is cumulative per session and never taken back.

    As long as more than half of what is free has been granted already, the grant waits: a message
    for every slot that comes free would double those of a short task. What waits is granted as soon
    as the control plane uses up what it has, so no slot stays idle for want of credit.
    """
    if not state.synced or state.pressure or state.draining:
        return

    attempts = _limit(state.attempt_limit, state.received_attempts, state.slots - state.live_attempts)
    building = _limit(state.build_limit, state.received_builds, state.build_slots - state.live_builds)

    if (attempts, building) != (state.attempt_limit, state.build_limit):
        state.attempt_limit, state.build_limit = attempts, building
        out.append(do.SendCredit(attempts, building))


def _limit(granted: int, received: int, free: int) -> int:
    """The limit to grant, which is the present one where that leaves enough."""
    unused, free = granted - received, max(0, free)
    return granted if 2 * unused > free else max(granted, received + free)
