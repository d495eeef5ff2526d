"""The course of runs: order, failures, retries, stopping, deadlines, reruns."""

from __future__ import annotations

import pytest
from cp_world import GIB, World, task

from opentailr_controlplane.core import waiting
from opentailr_controlplane.core.commands import (
    CancelRun,
    Rerun,
    Retire,
    SetNodeSchedulable,
    StartVersion,
    StopJob,
)
from opentailr_controlplane.core.errors import FailedPrecondition, NotFound
from opentailr_controlplane.core.model import NeedsPrior, PriorRun, PriorTask, Run, State, Task
from opentailr_controlplane.core.people import run_state, task_state
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    CauseKind,
    Environment,
    PayloadRef,
    PeopleState,
    RunState,
    TaskState,
)


def test_tasks_start_when_all_before_them_are_done(world: World) -> None:
    run = world.ready(task(0), task(1), task(2, 0, 1))
    assert [t.state for t in run.tasks.values()] == [TaskState.ACTIVE, TaskState.ACTIVE, TaskState.BLOCKED]
    world.report(world.attempt(run, 0), AttemptState.SUCCEEDED, result=b"0")
    assert run.tasks[2].state is TaskState.BLOCKED
    world.report(world.attempt(run, 1), AttemptState.SUCCEEDED, result=b"1")
    (frame,) = world.desired()
    (order,) = frame.attempts
    assert [task_id for task_id, _ in order.inputs] == [0, 1]
    world.report(world.attempt(run, 2), AttemptState.SUCCEEDED, result=b"2")
    assert run.state is RunState.SUCCEEDED and run.run_id not in world.state.runs


@pytest.mark.clause("B110")
def test_a_failure_skips_what_depends_on_it_and_nothing_else(world: World) -> None:
    run = world.ready(task(0), task(1, 0), task(2, 1), task(3))
    world.report(world.attempt(run, 0), AttemptState.FAILED, kind=CauseKind.EXCEPTION)
    assert [task_state(t) for t in run.tasks.values()] == [
        PeopleState.FAILED,
        PeopleState.DID_NOT_RUN,
        PeopleState.DID_NOT_RUN,
        PeopleState.STARTING,
    ]
    world.report(world.attempt(run, 3), AttemptState.SUCCEEDED)
    assert run_state(run) is PeopleState.FAILED
    assert run.cause is not None and "task 0" in run.cause.message


@pytest.mark.clause("B110", "B234")
def test_a_kill_for_memory_ends_task_and_run_out_of_memory(world: World) -> None:
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.OUT_OF_MEMORY, kind=CauseKind.OUT_OF_MEMORY)
    assert run.tasks[0].state is TaskState.OUT_OF_MEMORY
    assert run_state(run) is PeopleState.OUT_OF_MEMORY


@pytest.mark.clause("B111")
def test_independent_tasks_run_at_the_same_time(world: World) -> None:
    run = world.ready(task(0), task(1), task(2))
    assert {t.state for t in run.tasks.values()} == {TaskState.ACTIVE}


@pytest.mark.clause("B124")
def test_a_run_starts_with_its_first_task_whatever_is_reported_first(world: World) -> None:
    run = world.ready(task(0), task(1), fail_after=10 * SECOND)
    first, second = world.attempt(run, 0), world.attempt(run, 1)
    world.pass_time(2)
    early = world.now
    world.pass_time(1)
    world.report(second, AttemptState.RUNNING, started=True)
    assert run.start_time == world.now.wall
    late, world.now = world.now, early
    world.report(first, AttemptState.RUNNING, started=True)
    world.now = late
    assert run.start_time == early.wall == first.start_time < second.start_time
    assert run.start_time >= run.start_provisioning_time >= run.submit_time
    world.pass_time(11)
    assert run.state is RunState.TIMING_OUT


@pytest.mark.clause("B124")
def test_stop_ends_all_runs_and_sticks(world: World) -> None:
    run = world.ready(task(0), task(1, 0))
    other = world.start()
    reply = world.do(StopJob("bob", "flow"))
    assert reply.run_ids == (run.run_id, other.run_id)  # type: ignore[union-attr]
    (frame,) = world.desired()
    assert all(order.stop for order in frame.attempts) and len(frame.attempts) == 2
    assert run.tasks[1].state is TaskState.CANCELLED
    assert task_state(run.tasks[1]) is PeopleState.DID_NOT_RUN
    world.report(world.attempt(run), AttemptState.CANCELLED)
    assert run_state(run) is PeopleState.STOPPED
    assert run.cause is not None and "bob" in run.cause.message
    world.report(world.attempt(other), AttemptState.FAILED, kind=CauseKind.NODE_FAULT)
    assert other.state is RunState.CANCELLED


def test_an_outcome_before_the_stop_stays(world: World) -> None:
    run = world.ready(task(0), task(1))
    world.report(world.attempt(run, 0), AttemptState.SUCCEEDED, result=b"x")
    attempt = world.attempt(run, 1)
    world.do(CancelRun("bob", run.run_id))
    world.report(attempt, AttemptState.SUCCEEDED, result=b"y")
    assert [t.state for t in run.tasks.values()] == [TaskState.SUCCEEDED, TaskState.SUCCEEDED]
    assert run.state is RunState.CANCELLED


def test_cancelling_on_a_lonely_node_withdraws_what_may_not_have_arrived(world: World) -> None:
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.cut()
    world.do(CancelRun("bob", run.run_id))
    assert attempt.state is AttemptState.WITHDRAWN and run.state is RunState.CANCELLED
    agent = world.state.agents["agt_1"]
    assert agent.memory_reserved == attempt.memory_bytes, "it may run there until the agent says otherwise"
    world.join()
    assert agent.memory_reserved == 0


@pytest.mark.clause("B108")
def test_fail_after_counts_from_the_start_and_kills(world: World) -> None:
    run = world.ready(task(0), task(1, 0), fail_after=10 * SECOND)
    attempt = world.attempt(run)
    world.pass_time(11)
    world.beat()
    assert run.state is RunState.QUEUED, "waiting does not count"
    world.report(attempt, AttemptState.RUNNING)
    world.pass_time(9)
    world.beat()
    assert run.state is RunState.RUNNING
    world.pass_time(1)
    assert run.state is RunState.TIMING_OUT and attempt.stop_wanted
    world.report(attempt, AttemptState.CANCELLED)
    assert run_state(run) is PeopleState.FAILED_AFTER
    assert task_state(run.tasks[0]) is PeopleState.FAILED_AFTER
    assert task_state(run.tasks[1]) is PeopleState.DID_NOT_RUN


@pytest.mark.clause("B109")
def test_expire_after_counts_from_the_end_of_a_completed_run(world: World) -> None:
    run = world.ready(task(0), expire_after=60 * SECOND)
    world.report(world.attempt(run), AttemptState.SUCCEEDED, result=b"r")
    world.pass_time(59)
    assert not any(batch.expired_runs for batch in world.batches)
    world.pass_time(1)
    assert world.batches[-1].expired_runs == [run.run_id]
    assert not world.state.expiries


@pytest.mark.parametrize("kind", [CauseKind.NODE_FAULT, CauseKind.LOST_BY_RUNTIME])
def test_failures_of_the_platform_are_tried_again_three_times(world: World, kind: CauseKind) -> None:
    run = world.ready(task(0))
    for number in range(4):
        attempt = world.attempt(run)
        assert attempt.fence == number + 1
        world.report(attempt, AttemptState.FAILED, kind=kind)
        if run.tasks[0].state is TaskState.BACKOFF:
            world.pass_time(2**number - 0.5)
            assert run.tasks[0].state is TaskState.BACKOFF
            world.pass_time(0.5)
            world.beat()
    assert run.tasks[0].state is TaskState.FAILED and run.state is RunState.FAILED
    assert run.tasks[0].cause is not None and run.tasks[0].cause.kind is kind


def test_failures_of_the_user_are_not_tried_again(world: World) -> None:
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.FAILED, kind=CauseKind.EXIT_CODE)
    assert run.tasks[0].attempts == 1 and run.state is RunState.FAILED


def test_success_without_its_result_is_a_failure_of_the_platform(world: World) -> None:
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.SUCCEEDED, present=False)
    assert run.tasks[0].state is TaskState.BACKOFF and run.tasks[0].result is None


@pytest.mark.parametrize("how", ["fence", "agent", "terminal"])
def test_a_stale_report_is_acknowledged_and_inert(world: World, how: str) -> None:
    world.join("agt_2", credit=0)
    world.join()
    world.save(task(0), task(1, 0))
    world.build()
    run = world.start()
    attempt = world.attempt(run)
    if how == "fence":
        world.report(attempt, AttemptState.SUCCEEDED, fence=attempt.fence + 1)
    elif how == "agent":
        world.report(attempt, AttemptState.SUCCEEDED, agent_id="agt_2")
    else:
        world.report(attempt, AttemptState.FAILED, kind=CauseKind.EXCEPTION)
        before = run.tasks[0].state
        world.report(attempt, AttemptState.SUCCEEDED)
        assert run.tasks[0].state is before is TaskState.FAILED
        return
    assert run.tasks[0].state is TaskState.ACTIVE and attempt.state is AttemptState.ASSIGNED
    sender = "agt_2" if how == "agent" else "agt_1"
    assert world.state.agents[sender].acked_seq == world.seqs[sender]


def test_a_report_twice_counts_once(world: World) -> None:
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING)
    world.seqs["agt_1"] -= 1
    world.report(attempt, AttemptState.FAILED, kind=CauseKind.EXCEPTION)
    assert attempt.state is AttemptState.RUNNING, "the number was used; it is the same report again"


def prior_of(run_id: int, states: dict[int, TaskState], **changes: object) -> PriorRun:
    fields: dict[str, object] = {
        "run_id": run_id, "job_id": "job_test_1", "job_name": "flow", "environment": 1,
        "state": RunState.FAILED, "original_run_id": -1,
        "tasks": {
            i: PriorTask(
                i, f"task {i}", tuple(range(i)) if i else (), state,
                PayloadRef("e" * 64, 1, True) if state is TaskState.SUCCEEDED else None, "1",
            )
            for i, state in states.items()
        },
    }  # fmt: skip
    return PriorRun(**(fields | changes))  # type: ignore[arg-type]


def failed_run(world: World) -> int:
    run = world.ready(task(0), task(1, 0))
    world.report(world.attempt(run, 0), AttemptState.SUCCEEDED, result=b"1")
    world.report(world.attempt(run, 1), AttemptState.FAILED, kind=CauseKind.EXCEPTION)
    with pytest.raises(NeedsPrior):
        world.do(Rerun("alice", run.run_id))
    world.state.priors[run.run_id] = prior_of(run.run_id, {0: TaskState.SUCCEEDED, 1: TaskState.FAILED})
    return run.run_id


@pytest.mark.clause("B126", "B127", "B129", "B131", "B151")
def test_a_partial_rerun_takes_over_what_completed(world: World) -> None:
    first = failed_run(world)
    reply = world.do(Rerun("alice", first))
    run = world.state.runs[reply.run_id]  # type: ignore[union-attr]
    assert run.tasks[0].state is TaskState.CACHED and run.tasks[0].result is not None
    assert task_state(run.tasks[0]) is PeopleState.DID_NOT_RUN and run.tasks[0].attempts == 0
    assert run.tasks[1].state is TaskState.ACTIVE
    assert (run.original_run_id, run.partial_rerun) == (first, True)
    again = prior_of(run.run_id, {0: TaskState.CACHED, 1: TaskState.FAILED}, original_run_id=first)
    world.report(world.attempt(run, 1), AttemptState.FAILED, kind=CauseKind.EXCEPTION)
    world.state.priors[run.run_id] = again
    third = world.do(Rerun("alice", run.run_id))
    assert world.state.runs[third.run_id].original_run_id == first  # type: ignore[union-attr]


def test_a_run_with_a_rerun_under_way_is_not_retired(world: World) -> None:
    first = failed_run(world)
    other = world.start()
    for task_id in (0, 1):
        world.report(world.attempt(other, task_id), AttemptState.SUCCEEDED)
    for attempt in list(world.state.attempts.values()):
        world.report(attempt, attempt.state, present=False)
    rerun = world.do(Rerun("alice", first)).run_id  # type: ignore[union-attr]
    reply = world.do(Retire((first, other.run_id, rerun)))
    assert reply.run_ids == (other.run_id,)  # type: ignore[union-attr]


@pytest.mark.clause("B128", "B129")
def test_a_full_rerun_runs_everything(world: World) -> None:
    first = failed_run(world)
    reply = world.do(Rerun("alice", first, full=True))
    run = world.state.runs[reply.run_id]  # type: ignore[union-attr]
    assert [t.state for t in run.tasks.values()] == [TaskState.ACTIVE, TaskState.BLOCKED]
    assert (run.original_run_id, run.partial_rerun) == (first, False)


@pytest.mark.clause("B132")
@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"state": None}, NotFound, "run_not_found"),
        ({"state": RunState.EXPIRED}, FailedPrecondition, "results_expired"),
        ({"tasks": {}}, FailedPrecondition, "tasks_do_not_fit"),
    ],
)
def test_reruns_that_cannot_be(
    world: World, change: dict[str, object], error: type[NotFound], reason: str
) -> None:
    first = failed_run(world)
    world.state.priors[first] = prior_of(first, {0: TaskState.SUCCEEDED}, **change)
    with pytest.raises(error) as caught:
        world.do(Rerun("alice", first))
    assert caught.value.reason == reason


@pytest.mark.clause("B132")
def test_a_rerun_of_an_active_run_or_of_another_job_is_refused(world: World) -> None:
    first = failed_run(world)
    with pytest.raises(NotFound, match="one of 'flow'"):
        world.do(Rerun("alice", first, name="other"))
    run = world.start()
    with pytest.raises(FailedPrecondition, match="active"):
        world.do(Rerun("alice", run.run_id))


def test_a_large_task_is_not_starved_by_small_ones() -> None:
    world = World(CoreSettings(placement_age=30 * SECOND, lease_ttl=10**6 * SECOND))
    world.join(memory=4 * GIB, cpu=100)
    world.save(task(0, memory=GIB), task(1, memory=GIB), task(2, memory=GIB), name="small")
    world.build()
    world.save(task(0, memory=4 * GIB), name="large")
    small = world.start(name="small")
    large = world.start(name="large")
    running = [small]
    for _ in range(8):
        running.append(world.start(name="small"))
        for run in running:
            for item in run.tasks.values():
                if item.state is TaskState.ACTIVE:
                    world.report(world.state.attempts[item.attempt_id], AttemptState.SUCCEEDED)
                    break
        world.pass_time(10)
        if large.tasks[0].state is TaskState.ACTIVE:
            return
    pytest.fail("the large task never got its node")


def test_memory_is_hard_and_waiting_says_why(world: World) -> None:
    from opentailr_controlplane.core.waiting import task_reasons

    world.join(memory=GIB)
    world.save(task(0, memory=2 * GIB), task(1, memory=GIB), task(2, memory=GIB), task(3, 1))
    world.build()
    reply = world.do(StartVersion("alice", "flow"))
    run = world.state.runs[reply.run_id]  # type: ignore[union-attr]
    assert "2g" in reply.notices[0] and "1g" in reply.notices[0]  # type: ignore[union-attr]
    assert [t.state.name for t in run.tasks.values()] == ["READY", "ACTIVE", "READY", "BLOCKED"]
    assert "largest node offers 1g" in task_reasons(world.state, run, run.tasks[0])[0]
    assert "busy" in task_reasons(world.state, run, run.tasks[2])[0]
    assert "'task 1'" in task_reasons(world.state, run, run.tasks[3])[0]


def test_a_drained_node_gets_nothing_and_is_drained_when_empty(world: World) -> None:
    run = world.ready(task(0), task(1, 0))
    world.do(SetNodeSchedulable("admin", "node agt_1", False))
    world.report(world.attempt(run), AttemptState.SUCCEEDED)
    assert run.tasks[1].state is TaskState.READY
    assert world.state.agents["agt_1"].state.name == "DRAINED"
    world.do(SetNodeSchedulable("admin", "agt_1", True))
    assert run.tasks[1].state is TaskState.ACTIVE


def test_credit_bounds_what_is_sent(world: World) -> None:
    world.join(credit=2)
    world.save(task(0), task(1), task(2))
    world.build()
    run = world.start()
    assert sum(t.state is TaskState.ACTIVE for t in run.tasks.values()) == 2
    assert run.environment is Environment.DEV


def test_a_large_fan_is_placed_in_rounds_of_bounded_length() -> None:
    from opentailr_controlplane.core.placement import ROUND_LIMIT

    world = World()
    world.join(memory=1 << 50, cpu=10**6, slots=10**6, credit=10**6)
    world.save(*(task(i) for i in range(ROUND_LIMIT + 10)))
    world.build()
    run = world.start()
    assert sum(t.state is TaskState.ACTIVE for t in run.tasks.values()) == ROUND_LIMIT
    assert world.state.placing
    world.pass_time(0)
    assert all(t.state is TaskState.ACTIVE for t in run.tasks.values()) and not world.state.placing


def test_what_waits_is_worked_out_for_those_who_are_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watched run of thousands asks at each change: equal tasks share one answer."""
    world.join(slots=1, credit=1)
    small = [task(i, memory=GIB // 8) for i in range(40)]
    run = world.ready(*small, task(40, memory=GIB // 4), task(41, memory=64 * GIB), task(42, 0))
    asked: list[int] = []
    genuine = waiting.task_reasons

    def counting(state: State, of_run: Run, of_task: Task) -> tuple[str, ...]:
        asked.append(of_task.task_id)
        return genuine(state, of_run, of_task)

    monkeypatch.setattr(waiting, "task_reasons", counting)
    idle = [t.task_id for t in run.tasks.values() if t.state is TaskState.READY and t.task_id < 40]
    reasons = waiting.reasons_of(world.state, run, [*idle[:20], 40, 41, 42, 99])
    assert set(reasons) == {*idle[:20], 40, 41, 42}
    assert len(asked) == 4
    assert "busy" in reasons[40][0] and "Asks for 64g" in reasons[41][0]
    assert reasons == {task_id: genuine(world.state, run, run.tasks[task_id]) for task_id in reasons}
