"""`dt job get` on how the newest run stands: why it stopped, why it waits, and each try."""

from __future__ import annotations

import json
from typing import Any, Protocol

import grpc
import pytest
from fake_server import FakeState, Fault

from datatailr.cli.exits import Exit
from datatailr.v1 import common_pb2, job_pb2, run_pb2

BEGIN = 1_700_000_000_000_000
SECOND = 1_000_000
BUNDLE = common_pb2.Bundle(digest="0" * 64, size=1, directory="pkg")
FAILED, PENDING = common_pb2.STATE_FAILED, common_pb2.STATE_PENDING


class Done(Protocol):
    code: int
    out: str
    err: str


class Dt(Protocol):
    def __call__(self, *arguments: str) -> Done: ...


def a_run(run_id: int, state: common_pb2.State, **fields: Any) -> run_pb2.Run:
    return run_pb2.Run(
        run_id=run_id,
        job_id="job_1",
        job_name="my-flow",
        job_version=1,
        state=state,
        submit_time=BEGIN,
        **fields,
    )


def a_task(task_id: int, name: str, state: common_pb2.State, **fields: Any) -> run_pb2.RunTask:
    return run_pb2.RunTask(run_id=4, task_id=task_id, name=name, state=state, **fields)


LOST = common_pb2.Cause(
    kind=common_pb2.CAUSE_KIND_LEASE_LOST, message="Lost node n1 (no heartbeat).", node="n1"
)
EXITED = common_pb2.Cause(kind=common_pb2.CAUSE_KIND_EXIT_CODE, message="it ended", exit_code=3)


@pytest.fixture
def failed(state: FakeState) -> FakeState:
    """A run that failed: one task after it was tried twice, one that never began."""
    state.saved.append(
        job_pb2.JobDefinition(name="my-flow", environment=1, type=1, run_as="ann", bundle=BUNDLE)
    )
    cause = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_EXIT_CODE, message="Task 'train': it ended", exit_code=3, task="train"
    )
    counts = run_pb2.TaskCounts(total=3, completed=1, failed=1, other=1)
    state.runs[4] = a_run(
        4, FAILED, cause=cause, counts=counts, end_time=BEGIN + 3 * SECOND, started_by="ann"
    )
    upstream = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_UPSTREAM, message="Task 'train' did not complete.", task="train"
    )
    state.tasks[4] = [
        a_task(0, "load", common_pb2.STATE_COMPLETED, tried_to_start_time=1),
        a_task(1, "train", FAILED, cause=EXITED, tried_to_start_time=2, platform_failures=1),
        a_task(2, "after", common_pb2.STATE_DID_NOT_RUN, cause=upstream),
    ]
    state.attempts = [
        run_pb2.Attempt(
            task_id=1,
            fence=1,
            outcome=run_pb2.ATTEMPT_OUTCOME_LOST,
            node="n1",
            end_time=BEGIN + SECOND,
            cause=LOST,
            late=run_pb2.LateOutcome(
                outcome=run_pb2.ATTEMPT_OUTCOME_COMPLETED, heard_time=BEGIN + 2 * SECOND
            ),
        ),
        run_pb2.Attempt(
            task_id=1,
            fence=2,
            outcome=run_pb2.ATTEMPT_OUTCOME_FAILED,
            node="n2",
            cause=EXITED,
            end_time=BEGIN,
        ),
    ]
    return state


def test_the_newest_run_is_told_with_every_try(dt: Dt, failed: FakeState) -> None:
    lines = [" ".join(line.split()) for line in dt("job", "get", "my-flow", "-u").out.splitlines()]
    begin = lines.index("Run 4 of version 1")
    assert lines[begin:] == [
        "Run 4 of version 1",
        "State failed after 3.00 s",
        "Started 2023-11-14 22:13:20Z by ann",
        "Done 1 of 3",
        "Because Task 'train': it ended (exit code 3)",
        "",
        "TASK ATTEMPT NODE STATE ENDED BECAUSE",
        "train 1 n1 lost 2023-11-14 22:13:21Z lease lost: Lost node n1 (no heartbeat).",
        "(completed: its node said so too late, 2023-11-14 22:13:22Z)",
        "train 2 n2 failed 2023-11-14 22:13:20Z exit code 3: it ended",
        "after - - did_not_run - upstream train: Task 'train' did not complete.",
    ]


@pytest.mark.clause("B270")
def test_json_has_the_run_when_it_is_asked_for(dt: Dt, failed: FakeState) -> None:
    assert "run" not in json.loads(dt("job", "get", "my-flow", "-j").out)[0]
    for which in ("latest", "4"):
        [job] = json.loads(dt("job", "get", "my-flow", "-j", "-i", which).out)
        run = job["run"]
        assert run["cause"]["kind"] == "exit_code" and run["cause"]["task"] == "train"
        assert [len(task["attempts"]) for task in run["tasks"]] == [0, 2, 0]
        first = run["tasks"][1]["attempts"][0]
        assert first["cause"]["node"] == "n1" and first["late"]["state"] == "completed"
        assert first["cause"]["hint"]


@pytest.mark.clause("B285")
def test_a_run_of_another_job_and_nonsense_are_refused(dt: Dt, failed: FakeState) -> None:
    failed.runs[5] = a_run(5, FAILED)
    failed.runs[5].job_name = "other"
    other = dt("job", "get", "my-flow", "-i", "5")
    assert other.code != 0 and "run 5 is one of 'other'" in other.err and "hint:" in other.err
    wrong = dt("job", "get", "my-flow", "-i", "newest")
    assert wrong.code == Exit.USAGE and "'newest'" in wrong.err


def test_a_server_that_knows_no_tries_is_no_obstacle(dt: Dt, failed: FakeState) -> None:
    failed.fail("ListAttempts", Fault(code=grpc.StatusCode.UNIMPLEMENTED))
    done = dt("job", "get", "my-flow")
    assert done.code == 0 and "exit code 3" in done.out


def test_waiting_tasks_stand_in_a_table_the_ready_ones_first(dt: Dt, failed: FakeState) -> None:
    failed.runs[4] = a_run(4, PENDING, counts=run_pb2.TaskCounts(total=14), waiting_for=["No node."])
    retried = {"tried_to_start_time": 1, "platform_failures": 1, "platform_failure_limit": 3}
    failed.tasks[4] = [
        *(a_task(n, f"t{n}", PENDING, dependencies=[13], waiting_for=["Waits for 'a'."]) for n in range(12)),
        a_task(12, "b", PENDING, waiting_for=["Tried again soon."], last_failure=LOST, **retried),
        a_task(13, "a", PENDING, waiting_for=["No node."]),
    ]
    failed.attempts = []
    out = dt("job", "get", "my-flow").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    begin = lines.index("TASK NAME WAITS")
    assert "Waits No node." in lines
    assert lines[begin + 1 : begin + 4] == ["12 b Tried again soon.", "13 a No node.", "0 t0 Waits for 'a'."]
    assert "… and 4 more waiting tasks" in lines
    assert lines[-1] == "b: lost node n1 (no heartbeat), trying again 2 of 4"


def test_a_large_run_that_completed_is_not_looked_through(dt: Dt, failed: FakeState) -> None:
    failed.runs[4] = a_run(4, common_pb2.STATE_COMPLETED, counts=run_pb2.TaskCounts(total=10_000))
    assert dt("job", "get", "my-flow").code == 0
    assert not failed.called("ListRunTasks")
    assert "lease lost" in dt("job", "get", "my-flow", "-i", "4").out


def test_a_job_that_never_ran(dt: Dt, failed: FakeState) -> None:
    failed.runs.clear()
    assert "Run" not in [line.split(" ")[0] for line in dt("job", "get", "my-flow").out.splitlines()]
    assert json.loads(dt("job", "get", "my-flow", "-j", "-i", "latest").out)[0]["run"] is None
