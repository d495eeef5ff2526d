"""Rows of the store with harmless values, for tests that put their own in."""

from __future__ import annotations

from opentailr_controlplane.core.rows import AttemptRow, RunRow, TaskRow
from opentailr_controlplane.core.values import AttemptState, PeopleState, RunState, TaskState


def run_row(run_id: int = 1, **changes: object) -> RunRow:
    values: dict[str, object] = dict.fromkeys(RunRow._fields, 0)
    values.update(
        run_id=run_id,
        job_id="job_1",
        job_name="my-job",
        display_name="My Job",
        environment=1,
        type=1,
        version=1,
        state=int(RunState.RUNNING),
        people_state=int(PeopleState.RUNNING),
        run_as="root",
        started_by="root",
        run_date="2026-01-02",
        cause_message="",
        cause_detail="",
        original_run_id=-1,
        submit_time=1_700_000_000_000_000,
        tasks_total=1,
    )
    return RunRow(**{**values, **changes})  # type: ignore[arg-type]


def task_row(task_id: int = 0, run_id: int = 1, **changes: object) -> TaskRow:
    values: dict[str, object] = dict.fromkeys(TaskRow._fields, 0)
    values.update(
        run_id=run_id,
        task_id=task_id,
        state=int(TaskState.BLOCKED),
        people_state=int(PeopleState.PENDING),
        attempt_id="",
        cause_message="",
        cause_detail="",
        result_digest=None,
        node="",
    )
    return TaskRow(**{**values, **changes})  # type: ignore[arg-type]


def attempt_row(attempt_id: str, **changes: object) -> AttemptRow:
    values: dict[str, object] = dict.fromkeys(AttemptRow._fields, 0)
    values.update(
        attempt_id=attempt_id,
        run_id=1,
        fence=1,
        agent_id="agt_1",
        state=int(AttemptState.RUNNING),
        cause_message="",
        cause_detail="",
    )
    return AttemptRow(**{**values, **changes})  # type: ignore[arg-type]
