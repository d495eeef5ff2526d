"""The causes that the control plane makes or completes, and what it keeps of reports that came too late."""

from __future__ import annotations

from cp_world import GIB, World, task

from opentailr_controlplane.core.commands import AgentBye, CancelRun, InventoryEntry
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    Cause,
    CauseKind,
    ImageState,
    TaskState,
)


def late_rows(world: World) -> list[tuple[str, int, int]]:
    return [(row.attempt_id, row.fence, row.state) for batch in world.batches for row in batch.late]


def test_a_lost_node_is_named_with_the_time_since_which_it_is_silent() -> None:
    world = World()
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.beat()
    heard = world.now.wall
    world.join("agt_2")
    world.cut()
    for _ in range(6):
        world.pass_time(4)
        world.beat("agt_2")
    assert attempt.state is AttemptState.LOST and attempt.cause is not None
    assert (attempt.cause.kind, attempt.cause.node) == (CauseKind.LEASE_LOST, "node agt_1")
    assert heard <= attempt.cause.since <= world.now.wall - 15 * SECOND
    assert attempt.cause.message.startswith("Lost node node agt_1 (no heartbeat for 2")
    item = run.tasks[0]
    assert item.state is TaskState.ACTIVE and item.node == "node agt_2"
    assert item.cause == attempt.cause and item.infra_failures == 1


def test_the_first_task_that_failed_speaks_for_its_run() -> None:
    world = World()
    run = world.ready(task(0), task(1, 0), task(2, 1))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.FAILED, kind=CauseKind.EXIT_CODE)
    assert run.cause == Cause(CauseKind.EXIT_CODE, "Task 'task 0': because", exit_code=3, task="task 0")
    for number in (1, 2):
        cause = run.tasks[number].cause
        assert cause is not None and (cause.kind, cause.task) == (CauseKind.UPSTREAM, "task 0")


def test_a_stop_names_the_person_in_run_task_and_attempt() -> None:
    world = World()
    run = world.ready(task(0), task(1, 0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.do(CancelRun("bob", run.run_id))
    world.report(attempt, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    wanted = Cause(CauseKind.STOPPED, "Stopped by bob.", user="bob")
    assert [run.cause, run.tasks[0].cause, run.tasks[1].cause, attempt.cause] == [wanted] * 4


def test_what_a_timeout_ends_carries_the_limit() -> None:
    world = World()
    run = world.ready(task(0), task(1, 0), fail_after=4 * SECOND)
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.pass_time(5)
    world.report(attempt, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    for cause in (run.cause, run.tasks[0].cause, run.tasks[1].cause, attempt.cause):
        assert cause is not None
        assert (cause.kind, cause.time_limit) == (CauseKind.FAIL_AFTER, 4 * SECOND)


def test_a_memory_limit_is_told_with_what_was_used() -> None:
    world = World()
    run = world.ready(task(0, memory=GIB))
    attempt = world.attempt(run)
    attempt.peak_memory_bytes = 2 * GIB
    world.report(attempt, AttemptState.OUT_OF_MEMORY, kind=CauseKind.OUT_OF_MEMORY)
    cause = run.tasks[0].cause
    assert cause is not None and (cause.memory_limit_bytes, cause.peak_memory_bytes) == (GIB, 2 * GIB)


def test_a_failed_build_is_named_by_its_id() -> None:
    world = World()
    world.join()
    world.save(task(0))
    run = world.start()
    (build,) = world.state.builds.values()
    world.build(ImageState.FAILED, CauseKind.BUILD_FAILED)
    assert run.cause is not None and run.cause == run.tasks[0].cause
    assert (run.cause.kind, run.cause.build_id) == (CauseKind.BUILD_FAILED, build.build_id)


def test_the_last_failure_of_the_platform_says_that_it_was_the_last() -> None:
    world = World(CoreSettings(infra_budget=1))
    run = world.ready(task(0))
    for _ in range(2):
        world.report(world.attempt(run), AttemptState.REJECTED, kind=CauseKind.NODE_FAULT)
        world.pass_time(5)
    cause = run.tasks[0].cause
    assert cause is not None and cause.node == "node agt_1" and cause.kind is CauseKind.NODE_FAULT
    assert cause.message == "because. This was failure 2 of the platform; it is not tried again."


def test_a_late_outcome_is_kept_as_evidence_and_changes_nothing() -> None:
    world = World()
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.join("agt_2")
    world.cut()
    for _ in range(6):
        world.pass_time(4)
        world.beat("agt_2")
    assert attempt.state is AttemptState.LOST
    world.join(inventory=(InventoryEntry(attempt.attempt_id, 1, AttemptState.SUCCEEDED),))
    state_before = run.tasks[0].state
    world.report(attempt, AttemptState.SUCCEEDED, result=b"late")
    assert late_rows(world) == [(attempt.attempt_id, 1, int(AttemptState.SUCCEEDED))]
    assert attempt.state is AttemptState.LOST and run.tasks[0].state is state_before


def test_reports_in_time_and_steps_on_the_way_are_no_evidence() -> None:
    world = World()
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.report(attempt, AttemptState.FAILED, kind=CauseKind.EXCEPTION)
    assert late_rows(world) == []


def test_a_node_that_was_shut_down_is_named() -> None:
    world = World()
    run = world.ready(task(0))
    attempt = world.attempt(run)
    agent = world.state.agents["agt_1"]
    world.do(AgentBye("agt_1", agent.epoch, False))
    assert attempt.cause is not None
    assert (attempt.cause.kind, attempt.cause.node) == (CauseKind.NODE_DRAINED, "node agt_1")
