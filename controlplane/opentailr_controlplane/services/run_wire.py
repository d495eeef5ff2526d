"""Runs, their tasks and attempts on the wire: the part of `wire` that is about executions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from datatailr.v1 import common_pb2, run_pb2

from ..core.causes import decode_cause
from ..core.rows import AttemptRow, OutcomeRow, RunRow, TaskRow
from ..core.values import AttemptState, PeopleState, TaskDefinition, TaskState
from ..store.reads import StoredLate
from . import wire


def run_out(row: RunRow, waiting_for: Sequence[str] = ()) -> run_pb2.Run:
    """One run."""
    return run_pb2.Run(
        run_id=row.run_id,
        job_id=row.job_id,
        job_name=row.job_name,
        display_name=row.display_name,
        environment=wire.environment_out(row.environment),
        type=cast("common_pb2.JobType", row.type),
        job_version=row.version,
        state=wire.state_out(row.people_state),
        original_run_id=row.original_run_id,
        partial_rerun=row.partial_rerun,
        submit_time=row.submit_time,
        start_provisioning_time=row.start_provisioning_time,
        start_time=row.start_time,
        end_time=row.end_time,
        scheduled_time=row.scheduled_time,
        tried_to_start_time=1 if row.start_provisioning_time else 0,
        run_as=row.run_as,
        started_by=row.started_by,
        cause=wire.cause_out(decode_cause(row.cause_kind, row.cause_message, row.cause_detail)),
        counts=run_pb2.TaskCounts(
            total=row.tasks_total,
            pending=row.tasks_pending,
            running=row.tasks_running,
            completed=row.tasks_completed,
            failed=row.tasks_failed,
            other=row.tasks_other,
        ),
        cancel_requested=row.cancel_requested,
        waiting_for=waiting_for,
    )


def run_task_out(
    row: TaskRow,
    run: RunRow,
    definition: TaskDefinition | None,
    outcome: OutcomeRow | None,
    waiting_for: Sequence[str] = (),
    *,
    platform_failure_limit: int = 0,
) -> run_pb2.RunTask:
    """A task of a run, with what its version says of it (clause B150)."""
    cause = decode_cause(
        row.cause_kind,
        row.cause_message,
        row.cause_detail,
        exit_code=row.exit_code,
        signal=row.signal,
    )
    ended = TaskState(row.state).terminal
    if cause is not None and outcome is not None and ended:
        cause = replace(cause, traceback=outcome.traceback)
    # A task that did not run has no times at all (clause B151).
    ran = row.people_state != PeopleState.DID_NOT_RUN
    return run_pb2.RunTask(
        run_id=row.run_id,
        task_id=row.task_id,
        name=definition.name if definition is not None else "",
        state=wire.state_out(row.people_state),
        dependencies=definition.depends_on if definition is not None else (),
        resources=wire.resources_out(definition.resources) if definition is not None else None,
        submit_time=run.submit_time if ran else 0,
        start_provisioning_time=row.start_provisioning_time if ran else 0,
        start_time=row.start_time if ran else 0,
        end_time=row.end_time if ran else 0,
        scheduled_time=run.scheduled_time if ran else 0,
        tried_to_start_time=row.attempts if ran else 0,
        cause=wire.cause_out(cause) if ended else None,
        node=row.node,
        attempt_id=row.attempt_id,
        fence=row.fence,
        preview=outcome.preview if outcome is not None else "",
        peak_memory_bytes=row.peak_memory_bytes,
        reused=row.state == TaskState.CACHED,
        waiting_for=waiting_for,
        entrypoint=definition.entrypoint if definition is not None else "",
        platform_failures=row.infra_failures,
        platform_failure_limit=platform_failure_limit,
        last_failure=None if ended else wire.cause_out(cause),
    )


_OUTCOMES = {
    AttemptState.RUNNING: run_pb2.ATTEMPT_OUTCOME_RUNNING,
    AttemptState.STOPPING: run_pb2.ATTEMPT_OUTCOME_RUNNING,
    AttemptState.SUCCEEDED: run_pb2.ATTEMPT_OUTCOME_COMPLETED,
    AttemptState.FAILED: run_pb2.ATTEMPT_OUTCOME_FAILED,
    AttemptState.OUT_OF_MEMORY: run_pb2.ATTEMPT_OUTCOME_OUT_OF_MEMORY,
    AttemptState.CANCELLED: run_pb2.ATTEMPT_OUTCOME_STOPPED,
    AttemptState.REJECTED: run_pb2.ATTEMPT_OUTCOME_REJECTED,
    AttemptState.LOST: run_pb2.ATTEMPT_OUTCOME_LOST,
    AttemptState.WITHDRAWN: run_pb2.ATTEMPT_OUTCOME_WITHDRAWN,
}


def _outcome_out(state: int) -> run_pb2.AttemptOutcome:
    return _OUTCOMES.get(AttemptState(state), run_pb2.ATTEMPT_OUTCOME_STARTING)


def attempt_out(
    row: AttemptRow, late: StoredLate | None = None, *, node: str, traceback: str = ""
) -> run_pb2.Attempt:
    """One try of a task; `node` is the name of its agent, `traceback` that of the task's last attempt."""
    cause = decode_cause(
        row.cause_kind, row.cause_message, row.cause_detail, exit_code=row.exit_code, signal=row.signal
    )
    if cause is not None:
        cause = replace(cause, traceback=traceback)
    return run_pb2.Attempt(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        task_id=row.task_id,
        fence=row.fence,
        outcome=_outcome_out(row.state),
        node=node,
        assigned_time=row.assigned_time,
        start_time=row.start_time,
        end_time=row.end_time,
        cause=wire.cause_out(cause),
        peak_memory_bytes=row.peak_memory_bytes,
        late=None
        if late is None
        else run_pb2.LateOutcome(
            outcome=_outcome_out(late.state),
            heard_time=late.heard_time,
            start_time=late.start_time,
            end_time=late.end_time,
            cause=wire.cause_out(decode_cause(late.cause_kind, late.cause_message, late.cause_detail)),
        ),
    )
