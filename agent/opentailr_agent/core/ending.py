"""From the end of a process to what the control plane is told."""

from __future__ import annotations

from typing import Final

from opentailr_agent.core.model import (
    AttemptRecord,
    AttemptReport,
    AttemptState,
    Cause,
    CauseKind,
    StoredResult,
)
from opentailr_agent.ports import EndState, Failure, Outcome

_KINDS: Final = {
    "exit": CauseKind.EXIT_CODE,
    "signal": CauseKind.SIGNAL,
    "out_of_memory": CauseKind.OUT_OF_MEMORY,
    "result": CauseKind.RESULT,
    "import": CauseKind.IMPORT,
}
"""Words of the runtime for causes that are not an exception of user code."""


def micros(seconds: float) -> int:
    """Seconds since the epoch as the integer microseconds of the wire."""
    return round(seconds * 1_000_000)


def failure_cause(failure: Failure | None, *, exit_code: int | None, signal: int | None) -> Cause:
    """The cause of a FAILED outcome."""
    kind = _KINDS.get(failure.kind, CauseKind.EXCEPTION) if failure else None

    if kind is None:
        kind = CauseKind.SIGNAL if signal else CauseKind.EXIT_CODE

    message = failure.message if failure else ""

    if failure and kind is CauseKind.EXCEPTION:
        # what ends the traceback: the words alone, such as those of a KeyError, say too little
        message = f"{failure.kind}: {message}" if message else failure.kind

    if not message and kind is CauseKind.SIGNAL:
        message = f"the process was killed by signal {signal}"
    elif not message and kind is CauseKind.EXIT_CODE:
        message = f"the process ended with exit code {exit_code}"

    return Cause(
        kind,
        message,
        traceback=failure.traceback if failure else "",
        exit_code=exit_code or 0,
        signal=signal or 0,
    )


def stop_cause(record: AttemptRecord) -> tuple[AttemptState, Cause]:
    """How an attempt that was asked to stop is reported: by a person, or by the node's operator."""
    if record.drained:
        return AttemptState.FAILED, Cause(
            CauseKind.NODE_DRAINED, "the operator of the node ended the agent and its attempts"
        )

    return AttemptState.CANCELLED, Cause(CauseKind.STOPPED, "stopped on request")


def terminal_report(record: AttemptRecord, outcome: Outcome, now: int) -> AttemptReport:
    """The report for an outcome; a result that must be stored first is not in it yet."""
    state = AttemptState.FAILED
    cause: Cause | None

    match outcome.state:
        case EndState.SUCCEEDED if outcome.result is None and outcome.result_file is None:
            cause = Cause(CauseKind.RESULT, "the process ended well but left no result")
        case EndState.SUCCEEDED:
            state, cause = AttemptState.SUCCEEDED, None
        case EndState.OUT_OF_MEMORY:
            state = AttemptState.OUT_OF_MEMORY
            message = outcome.failure.message if outcome.failure else "the memory limit was passed"
            cause = Cause(CauseKind.OUT_OF_MEMORY, message)
        case EndState.STOPPED:
            state, cause = stop_cause(record)
        case EndState.LOST:
            cause = Cause(
                CauseKind.LOST_BY_RUNTIME,
                "the supervising process on the node is gone and left no outcome",
            )
        case _:
            cause = failure_cause(outcome.failure, exit_code=outcome.exit_code, signal=outcome.signal)

    result = None

    if state is AttemptState.SUCCEEDED and outcome.result is not None:
        result = StoredResult(len(outcome.result), inline=outcome.result)

    failure = outcome.failure if state is AttemptState.FAILED else None
    return AttemptReport(
        attempt_id=record.attempt_id,
        fence=record.fence,
        state=state,
        observed_at=now,
        cause=cause,
        started_at=micros(outcome.started_at) or record.started_at,
        ended_at=micros(outcome.ended_at) or now,
        result=result,
        preview=outcome.preview if state is AttemptState.SUCCEEDED else "",
        peak_memory_bytes=outcome.peak_memory_bytes,
        exception=(failure.exception or b"") if failure else b"",
    )
