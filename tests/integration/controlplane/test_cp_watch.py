"""Following a run: nothing between present and changes, slow readers read again, other users see theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from controlplane_harness import Client, FakeEngine, FakeRunning, refused
from controlplane_rows import run_row, task_row

from datatailr.v1 import common_pb2, run_pb2
from opentailr_controlplane.core.errors import NotFound, PermissionDenied
from opentailr_controlplane.core.model import Job, Version
from opentailr_controlplane.core.values import Acl, Environment, JobType, PeopleState, RunState, TaskState
from opentailr_controlplane.ports import Resync, RunChange
from opentailr_controlplane.security.access import Permission
from opentailr_controlplane.security.authentication import Caller, set_caller
from opentailr_controlplane.security.tokens import Role
from opentailr_controlplane.security.users import User
from opentailr_controlplane.server import ControlPlane
from opentailr_controlplane.services import runs
from opentailr_controlplane.services.lookup import Lookup
from opentailr_controlplane.store import schema

RUNNING = {"state": int(TaskState.ACTIVE), "people_state": int(PeopleState.RUNNING)}
DONE = {"state": int(TaskState.SUCCEEDED), "people_state": int(PeopleState.COMPLETED)}
ENDED = {"state": int(RunState.SUCCEEDED), "people_state": int(PeopleState.COMPLETED)}


async def read(call: Any) -> run_pb2.WatchRunResponse:
    answer = await asyncio.wait_for(call.read(), 10)
    assert isinstance(answer, run_pb2.WatchRunResponse), answer
    return answer


async def test_changes_follow_the_present_and_end_with_the_run(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(0), task_row(1))
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    first = await read(call)
    assert (first.run.run_id, [task.task_id for task in first.tasks], first.synced) == (1, [0, 1], True)
    running.engine.tell(RunChange(1, None, (task_row(0, **RUNNING),)))
    second = await read(call)
    assert not second.HasField("run")
    assert [(task.task_id, task.state) for task in second.tasks] == [(0, common_pb2.STATE_RUNNING)]
    running.engine.tell(RunChange(1, run_row(**ENDED), (task_row(0, **DONE), task_row(1, **DONE))))
    last = await read(call)
    assert last.run.state == common_pb2.STATE_COMPLETED
    assert len(last.tasks) == 2
    assert await asyncio.wait_for(call.read(), 10) is grpc.aio.EOF
    assert all(changes.closed for changes in running.engine.subscriptions[1:])


@pytest.mark.parametrize("change", [Resync(), RunChange(1, None, (), all_tasks=True)])
async def test_a_slow_reader_gets_the_present_again(user: Client, running: FakeRunning, change: Any) -> None:
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(0))
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    await read(call)
    await running.put(schema.runs, run_row(**ENDED))
    await running.put(schema.run_tasks, task_row(0, **DONE))
    running.engine.tell(change)
    again = await read(call)
    assert (again.run.state, again.tasks[0].state) == (common_pb2.STATE_COMPLETED, common_pb2.STATE_COMPLETED)
    assert await asyncio.wait_for(call.read(), 10) is grpc.aio.EOF


async def test_silence_is_broken(user: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_WATCH_SILENCE", 0.05)
    await running.put(schema.runs, run_row())
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    await read(call)
    assert (await read(call)).run.run_id == 1
    call.cancel()
    async with asyncio.timeout(10):
        while not all(changes.closed for changes in running.engine.subscriptions[1:]):
            await asyncio.sleep(0.01)


async def test_large_texts_are_spread_over_messages(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row(**ENDED))
    failed = {"state": int(TaskState.FAILED), "people_state": int(PeopleState.FAILED), "cause_kind": 1}
    await running.put(schema.run_tasks, *(task_row(number, **failed) for number in range(30)))
    text = "x" * 400_000
    await running.put(schema.outcomes, *((1, number, "", text, b"") for number in range(30)))
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    messages = [message async for message in call]
    assert len(messages) > 2
    assert [task.task_id for message in messages for task in message.tasks] == list(range(30))
    assert [message.synced for message in messages] == [False] * (len(messages) - 1) + [True]
    assert [message.HasField("run") for message in messages].count(True) == 1
    page = await user.call(user.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=1))
    assert 0 < len(page.tasks) < 30
    assert page.next_page_token


async def test_a_server_that_stops_says_so(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row())
    call = user.stream(user.runs.WatchRun, run_pb2.WatchRunRequest(run_id=1))
    await read(call)
    await running.disconnect()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    assert failure.value.code() is grpc.StatusCode.ABORTED


# ------------------------------------------------------------------------ other users


def job(name: str, acl: Acl) -> Job:
    made = Job(f"job_{name}", name, name.title(), Environment.DEV, JobType.BATCH, acl, 1)
    made.versions[1] = Version(made.job_id, 1, 1, "k" * 64, 1, False, False, 1, "root")
    return made


@pytest.fixture
def alice() -> Lookup:
    """Lookups by alice, who may read one of two jobs."""
    engine = FakeEngine(jobs_here=[job("open", Acl(read=(2,))), job("closed", Acl(read=(1,)))])
    set_caller(Caller(Role.USER, User(2, "alice")))
    return Lookup(engine, None)  # type: ignore[arg-type]


@pytest.mark.clause("B235", "B241")
def test_others_see_what_they_may_read(alice: Lookup) -> None:
    assert [found.name for found in alice.readable()] == ["open"]
    assert alice.job("Open", Environment.DEV, Permission.READ).name == "open"
    with pytest.raises(PermissionDenied, match="read on job 'closed'"):
        alice.job("closed", Environment.DEV, Permission.READ)
    with pytest.raises(PermissionDenied, match="operate on job 'open'"):
        alice.job("open", Environment.DEV, Permission.OPERATE)


@pytest.mark.clause("B241")
def test_suggestions_do_not_betray_what_one_may_not_read(alice: Lookup) -> None:
    with pytest.raises(NotFound) as failure:
        alice.job("close", Environment.DEV, Permission.READ)
    assert "closed" not in failure.value.hint
    with pytest.raises(NotFound) as failure:
        alice.job("opn", Environment.DEV, Permission.READ)
    assert "open" in failure.value.hint


async def test_unknown_runs_are_not_found_before_they_are_denied(user: Client, faked: ControlPlane) -> None:
    refusal = await refused(user.call(user.runs.GetRun, run_pb2.GetRunRequest(run_id=1 << 62)))
    assert refusal.detail.reason == "run_not_found"
