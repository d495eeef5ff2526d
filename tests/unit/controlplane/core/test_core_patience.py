"""A node that is not heard from: what others can take is lost after the lease, the rest waits for it."""

from __future__ import annotations

import pytest
from cp_world import GIB, World, task

from opentailr_controlplane.core.commands import AgentBye, CancelRun, InventoryEntry, SetNodeSchedulable, Tick
from opentailr_controlplane.core.model import Attempt, Run
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AgentState,
    AttemptState,
    BuildState,
    CauseKind,
    ImageState,
    Instant,
    RunState,
    TaskState,
)

OVER = 20.03
"""Seconds after which lease and grace are over."""


@pytest.fixture
def run(world: World) -> Run:
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.RUNNING)
    return run


def inventory(attempt: Attempt) -> tuple[InventoryEntry, ...]:
    return (InventoryEntry(attempt.attempt_id, attempt.fence, AttemptState.RUNNING),)


def state_of(world: World, agent_id: str = "agt_1") -> AgentState:
    return world.state.agents[agent_id].state


def test_the_only_node_keeps_its_attempts_beyond_the_lease(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.cut()
    world.pass_time(300)
    assert (attempt.state, state_of(world)) == (AttemptState.RUNNING, AgentState.SUSPECT)
    world.join(inventory=inventory(attempt))
    assert attempt.state is AttemptState.RUNNING and run.tasks[0].fence == 1
    world.report(attempt, AttemptState.SUCCEEDED)
    assert run.state is RunState.SUCCEEDED


def test_patience_has_an_end(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.cut()
    world.pass_time(599.9)
    assert attempt.state is AttemptState.RUNNING
    world.pass_time(0.1)
    assert attempt.state is AttemptState.LOST and state_of(world) is AgentState.DOWN
    assert attempt.cause is not None
    assert attempt.cause.message == "Lost node node agt_1 (no heartbeat for 600 s)."
    assert run.tasks[0].state is TaskState.READY and run.tasks[0].infra_failures == 1


def test_another_node_gets_the_task_as_soon_as_the_grace_is_over(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.join("agt_2")
    world.cut()
    world.pass_time(14)
    world.beat("agt_2")
    world.pass_time(5.9)
    assert attempt.state is AttemptState.RUNNING, "not before lease and grace (invariant 18)"
    world.pass_time(0.13)
    assert attempt.state is AttemptState.LOST and state_of(world) is AgentState.DOWN
    assert world.attempt(run).agent_id == "agt_2"


@pytest.mark.parametrize("obstacle", ["small", "drained", "pressed", "away"])
def test_a_node_that_cannot_take_it_does_not_count(world: World, run: Run, obstacle: str) -> None:
    attempt = world.attempt(run)
    world.join("agt_2", memory=GIB // 16 if obstacle == "small" else GIB)
    if obstacle == "drained":
        world.do(SetNodeSchedulable("alice", "agt_2", False))
    elif obstacle == "away":
        world.cut("agt_2")
    world.cut()
    for _ in range(6):
        world.pass_time(5)
        if obstacle != "away":
            world.beat("agt_2", "disk: full" if obstacle == "pressed" else "")
    assert attempt.state is AttemptState.RUNNING
    if obstacle == "small":
        world.join("agt_3")
    elif obstacle == "drained":
        world.do(SetNodeSchedulable("alice", "agt_2", True))
    elif obstacle == "pressed":
        world.beat("agt_2")
    else:
        world.join("agt_2")
    assert attempt.state is AttemptState.LOST, "a node that can take it came (back)"
    assert world.attempt(run).agent_id != "agt_1"


def test_what_is_too_large_for_the_others_stays_while_the_rest_moves(world: World) -> None:
    run = world.ready(task(0), task(1, memory=4 * GIB))
    small, large = world.attempt(run, 0), world.attempt(run, 1)
    world.join("agt_2", memory=GIB)
    world.cut()
    world.pass_time(10)
    world.beat("agt_2")
    world.pass_time(OVER - 10)
    assert (small.state, large.state) == (AttemptState.LOST, AttemptState.ASSIGNED)
    assert state_of(world) is AgentState.SUSPECT
    world.join(
        inventory=(
            InventoryEntry(small.attempt_id, 1, AttemptState.RUNNING),
            InventoryEntry(large.attempt_id, 1, AttemptState.RUNNING),
        )
    )
    world.report(large, AttemptState.SUCCEEDED)
    world.report(small, AttemptState.SUCCEEDED)
    assert run.tasks[1].state is TaskState.SUCCEEDED
    assert run.tasks[0].state is TaskState.ACTIVE, "a late success changes nothing (invariant 4)"


def test_a_stop_does_not_wait_for_a_node_that_is_overdue(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.cut()
    world.pass_time(60)
    world.do(CancelRun("alice", run.run_id))
    world.do(Tick())
    assert attempt.state is AttemptState.LOST and run.state is RunState.CANCELLED


def test_a_stop_waits_for_lease_and_grace(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.cut()
    world.do(CancelRun("alice", run.run_id))
    world.pass_time(OVER - 0.1)
    assert attempt.state is AttemptState.RUNNING and run.state is RunState.CANCELLING
    world.pass_time(0.1)
    assert run.state is RunState.CANCELLED


def test_a_stop_whose_keeper_died_is_no_reason_to_try_again(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.do(CancelRun("alice", run.run_id))
    world.report(attempt, AttemptState.FAILED, kind=CauseKind.LOST_BY_RUNTIME)
    assert run.state is RunState.CANCELLED and run.tasks[0].state is TaskState.CANCELLED
    assert run.tasks[0].fence == 1


def test_a_pause_of_the_control_plane_does_not_use_up_the_patience(world: World, run: Run) -> None:
    attempt = world.attempt(run)
    world.cut()
    delta = 3600 * SECOND
    world.now = Instant(world.now.wall + delta, world.now.mono + delta)
    world.do(Tick(late=True))
    world.pass_time(29.9)
    assert attempt.state is AttemptState.RUNNING
    world.pass_time(0.2)
    assert attempt.state is AttemptState.LOST


def test_a_build_waits_for_a_node_that_could_make_it(world: World) -> None:
    world.join(pre=True)
    world.save(task(0), pre="apt-get install x")
    world.build(ImageState.BUILDING)
    (build,) = world.state.builds.values()
    world.join("agt_2")
    world.cut()
    for _ in range(6):
        world.pass_time(5)
        world.beat("agt_2")
    assert build.state is BuildState.BUILDING, "the other node allows no script before the build"
    world.join("agt_3", pre=True)
    assert build.state is BuildState.LOST
    (again,) = world.state.builds.values()
    assert again.agent_id == "agt_3"


def test_reminders_do_not_pile_up(world: World) -> None:
    world.join()
    for _ in range(50):
        world.cut()
        world.pass_time(0.5)
        world.join()
    for _ in range(60):
        world.beat()
        world.pass_time(5)
    assert sum(kind == "lease" for _, kind, _ in world.state.mono_timers) <= 2


def test_planned_drains_are_charged_to_nobody(world: World, run: Run) -> None:
    for number in range(10):
        attempt = world.attempt(run)
        if number % 2:
            world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, False))
            assert attempt.state is AttemptState.LOST
        else:
            world.report(attempt, AttemptState.FAILED, kind=CauseKind.NODE_DRAINED)
        world.join()
    assert (run.tasks[0].fence, run.tasks[0].infra_failures) == (11, 0)
    for _ in range(3):
        world.report(world.attempt(run), AttemptState.FAILED, kind=CauseKind.LOST_BY_RUNTIME)
        world.pass_time(10)
        world.beat()
    assert run.state is RunState.RUNNING, "drains took nothing of the budget for failures"
    world.report(world.attempt(run), AttemptState.FAILED, kind=CauseKind.LOST_BY_RUNTIME)
    assert run.state is RunState.FAILED


def test_even_drains_are_bounded() -> None:
    world = World(CoreSettings(drain_budget=2))
    run = world.ready(task(0))
    for _ in range(6):
        assert run.state in (RunState.QUEUED, RunState.RUNNING)
        world.report(world.attempt(run), AttemptState.FAILED, kind=CauseKind.NODE_DRAINED)
        if run.state.terminal:
            break
        world.join()
    assert run.state is RunState.FAILED and run.tasks[0].attempts == 2 + 4


def test_a_drained_build_is_charged_to_nobody(world: World) -> None:
    world.join()
    world.save(task(0))
    for _ in range(6):
        world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, False))
        world.join()
    world.build()
    assert world.start().tasks[0].state is TaskState.ACTIVE
