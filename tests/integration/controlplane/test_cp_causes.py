"""Attempts and reasons to wait over the wire: paged, bounded, and told again when they change."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from controlplane_harness import Client, FakeRunning, refused
from controlplane_rows import attempt_row, run_row, task_row

from datatailr.v1 import common_pb2, run_pb2
from opentailr_controlplane.core.rows import OutcomeRow
from opentailr_controlplane.core.values import AttemptState, CauseKind, PeopleState, RunState, TaskState
from opentailr_controlplane.services import runs
from opentailr_controlplane.store import schema

FAILED = {"state": int(RunState.FAILED), "people_state": int(PeopleState.FAILED)}


async def put_attempts(running: FakeRunning) -> None:
    await running.put(schema.runs, run_row(**FAILED))
    lost = '{"node":"n1","since":17}'
    rows = [
        attempt_row(
            "att_1",
            state=int(AttemptState.LOST),
            cause_kind=int(CauseKind.LEASE_LOST),
            cause_message="Lost node n1.",
            cause_detail=lost,
        ),
        attempt_row(
            "att_2",
            fence=2,
            state=int(AttemptState.FAILED),
            cause_kind=int(CauseKind.SIGNAL),
            cause_message="killed",
            signal=9,
            peak_memory_bytes=5,
        ),
        attempt_row("att_3", task_id=3, state=int(AttemptState.SUCCEEDED)),
    ]
    await running.put(schema.attempts, *rows)
    await running.put(schema.outcomes, OutcomeRow(1, 0, "", "Traceback", b""))
    late = ("att_1", int(AttemptState.SUCCEEDED), 99, 50, 60, 0, "", "")
    await running.put(schema.late_outcomes, late)


async def test_attempts_carry_their_causes(user: Client, running: FakeRunning) -> None:
    await put_attempts(running)
    answer = await user.call(user.runs.ListAttempts, run_pb2.ListAttemptsRequest(run_id=1))
    first, second, third = answer.attempts
    assert (first.attempt_id, first.fence, first.outcome) == ("att_1", 1, run_pb2.ATTEMPT_OUTCOME_LOST)
    assert (first.cause.kind, first.cause.node, first.cause.since) == (
        common_pb2.CAUSE_KIND_LEASE_LOST,
        "n1",
        17,
    )
    assert first.late == run_pb2.LateOutcome(
        outcome=run_pb2.ATTEMPT_OUTCOME_COMPLETED, heard_time=99, start_time=50, end_time=60
    )
    assert (second.cause.signal, second.cause.signal_name) == (9, "SIGKILL")
    assert (first.cause.traceback, second.cause.traceback) == ("", "Traceback")
    assert second.peak_memory_bytes == 5 and not second.HasField("late")
    assert third.outcome == run_pb2.ATTEMPT_OUTCOME_COMPLETED and not third.HasField("cause")
    assert [attempt.node for attempt in answer.attempts] == ["agt_1"] * 3


async def test_attempts_come_in_pages(user: Client, running: FakeRunning) -> None:
    await put_attempts(running)
    request = run_pb2.ListAttemptsRequest(run_id=1, page_size=1)
    found = []
    for _ in range(3):
        page = await user.call(user.runs.ListAttempts, request)
        found.extend(attempt.attempt_id for attempt in page.attempts)
        request.page_token = page.next_page_token
    assert found == ["att_1", "att_2", "att_3"] and not request.page_token


async def test_attempts_of_some_tasks(user: Client, running: FakeRunning) -> None:
    await put_attempts(running)
    request = run_pb2.ListAttemptsRequest(run_id=1, task_ids=[3, 8])
    answer = await user.call(user.runs.ListAttempts, request)
    assert [attempt.attempt_id for attempt in answer.attempts] == ["att_3"]


@pytest.mark.clause("B285")
@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (run_pb2.ListAttemptsRequest(run_id=9), grpc.StatusCode.NOT_FOUND, "run_id"),
        (
            run_pb2.ListAttemptsRequest(run_id=1, task_ids=range(501)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "task_ids",
        ),
        (
            run_pb2.ListAttemptsRequest(run_id=1, page_token="x"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "page_token",
        ),
    ],
)
async def test_wrong_questions_name_the_field(
    user: Client,
    running: FakeRunning,
    request_: run_pb2.ListAttemptsRequest,
    code: grpc.StatusCode,
    field: str,
) -> None:
    await put_attempts(running)
    refusal = await refused(user.call(user.runs.ListAttempts, request_))
    assert (refusal.code, refusal.detail.field) == (code, field)


async def test_a_failure_of_the_platform_is_no_end(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row())
    failed = {"cause_kind": int(CauseKind.NODE_FAULT), "cause_message": "no disk", "infra_failures": 1}
    await running.put(
        schema.run_tasks,
        task_row(0, state=int(TaskState.BACKOFF), attempts=1, **failed),
        task_row(1, state=int(TaskState.FAILED), people_state=int(PeopleState.FAILED), **failed),
    )
    answer = await user.call(user.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=1))
    going, ended = answer.tasks
    assert not going.HasField("cause") and going.last_failure.message == "no disk"
    assert (going.platform_failures, going.platform_failure_limit) == (1, 3)
    assert ended.cause.message == "no disk" and not ended.HasField("last_failure")


async def test_reasons_that_change_are_told_again(
    user: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_FIRST_LOOK", 0.02)
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(0), task_row(1))
    running.engine.waiting = {0: ("room",)}
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    first = await asyncio.wait_for(call.read(), 10)
    assert [list(task.waiting_for) for task in first.tasks] == [["room"], []]
    running.engine.waiting = {0: ("room",), 1: ("disk",)}
    told: dict[int, list[str]] = {}
    while told.get(1) != ["disk"]:
        news = await asyncio.wait_for(call.read(), 10)
        told.update({task.task_id: list(task.waiting_for) for task in news.tasks})
    call.cancel()
