"""Taking a node out of service, with and without a deadline (invariant 20)."""

from __future__ import annotations

import pytest
from cp_world import World, task

from opentailr_controlplane.core.commands import CancelRun, InventoryEntry, SetNodeSchedulable, Tick
from opentailr_controlplane.core.effects import AttemptOrder, Directive
from opentailr_controlplane.core.model import Agent, Run
from opentailr_controlplane.core.values import (
    SECOND,
    AgentState,
    AttemptState,
    CauseKind,
    ImageState,
    Instant,
    RunState,
    TaskState,
)


@pytest.fixture
def run(world: World) -> Run:
    run = world.ready(task(0), task(1))
    for task_id in (0, 1):
        world.report(world.attempt(run, task_id), AttemptState.RUNNING)
    return run


def drain(world: World, within: float = 0, agent_id: str = "agt_1") -> Agent:
    world.do(SetNodeSchedulable("alice", agent_id, False, "", round(within * SECOND)))
    return world.state.agents[agent_id]


def orders(world: World) -> list[AttemptOrder]:
    return [order for desired in world.desired() for order in desired.attempts]


def test_without_a_deadline_everything_may_take_its_time(world: World, run: Run) -> None:
    agent = drain(world)
    world.join("agt_2")
    for _ in range(100):
        world.pass_time(10)
        world.beat()
        world.beat("agt_2")
    assert agent.state is AgentState.DRAINING and len(agent.attempts) == 2
    world.report(world.attempt(run, 0), AttemptState.SUCCEEDED)
    world.report(world.attempt(run, 1), AttemptState.SUCCEEDED)
    assert agent.state is AgentState.DRAINED and run.state is RunState.SUCCEEDED


def test_at_the_deadline_everything_is_told_to_stop_and_goes_elsewhere(world: World, run: Run) -> None:
    first, second = world.attempt(run, 0), world.attempt(run, 1)
    agent = drain(world, 10)
    assert agent.drain_by == world.now.wall + 10 * SECOND
    world.join("agt_2")
    world.pass_time(9.9)
    assert not orders(world) and agent.state is AgentState.DRAINING
    world.pass_time(0.1)
    assert {order.attempt_id for order in orders(world) if order.stop} == {
        first.attempt_id,
        second.attempt_id,
    }
    world.report(first, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    assert run.tasks[0].state is TaskState.ACTIVE and world.attempt(run, 0).agent_id == "agt_2"
    assert first.cause is not None and first.cause.kind is CauseKind.NODE_DRAINED
    assert run.tasks[0].infra_failures == 0
    world.report(second, AttemptState.SUCCEEDED)
    assert run.tasks[1].state is TaskState.SUCCEEDED, "what ended in time counts"
    assert agent.state is AgentState.DRAINED


def test_a_drained_node_gets_nothing_and_may_be_resumed(world: World, run: Run) -> None:
    agent = drain(world, 10)
    world.report(world.attempt(run, 0), AttemptState.SUCCEEDED)
    world.report(world.attempt(run, 1), AttemptState.SUCCEEDED)
    again = world.start()
    assert agent.state is AgentState.DRAINED and again.tasks[0].state is TaskState.READY
    world.do(SetNodeSchedulable("alice", "agt_1", True))
    assert (agent.state, agent.drain_by, agent.reason) == (AgentState.READY, 0, "")
    assert again.tasks[0].state is TaskState.ACTIVE
    world.pass_time(11)
    assert not world.attempt(again, 0).stop_wanted, "the deadline went with the drain"


def test_a_deadline_can_be_moved_and_taken_back(world: World, run: Run) -> None:
    agent = drain(world, 10)
    drain(world, 30)
    world.pass_time(12)
    world.beat()
    assert not world.attempt(run).stop_wanted
    drain(world)
    world.pass_time(12)
    world.beat()
    world.pass_time(12)
    assert agent.drain_by == 0 and not world.attempt(run).stop_wanted
    drain(world, 1)
    world.pass_time(1)
    assert world.attempt(run).stop_wanted


def test_a_clock_that_was_set_back_delays_the_deadline_and_loses_it_not(world: World, run: Run) -> None:
    drain(world, 10)
    world.now = Instant(world.now.wall - 5 * SECOND, world.now.mono)
    world.pass_time(10)
    assert not world.attempt(run).stop_wanted
    world.pass_time(5)
    assert world.attempt(run).stop_wanted


def test_a_build_on_a_node_whose_deadline_passed_goes_elsewhere(world: World) -> None:
    world.join()
    world.save(task(0))
    world.build(ImageState.BUILDING)
    world.join("agt_2")
    drain(world, 5)
    world.pass_time(5)
    (build,) = world.state.builds.values()
    assert build.agent_id == "agt_2" and world.state.images[build.image_key].tries == 0
    assert world.state.agents["agt_1"].state is AgentState.DRAINED


def test_a_run_that_is_stopped_on_a_draining_node_is_stopped(world: World, run: Run) -> None:
    first, second = world.attempt(run, 0), world.attempt(run, 1)
    drain(world, 5)
    world.pass_time(5)
    world.do(CancelRun("alice", run.run_id))
    for attempt in (first, second):
        world.report(attempt, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    assert run.state is RunState.CANCELLED


def test_the_deadline_of_a_node_that_is_away_is_not_waited_beyond_lease_and_grace(
    world: World, run: Run
) -> None:
    attempt = world.attempt(run)
    world.cut()
    drain(world, 60)
    world.pass_time(59)
    assert attempt.state is AttemptState.RUNNING, "a lone node is waited for"
    world.pass_time(1)
    world.do(Tick())
    assert attempt.state is AttemptState.LOST
    world.hello(inventory=(InventoryEntry(attempt.attempt_id, 1, AttemptState.RUNNING),))
    world.apply()
    assert world.state.agents["agt_1"].state is AgentState.DRAINING, "it comes back into its drain"


def test_a_new_reason_for_a_drained_node_is_kept_and_told(world: World, run: Run) -> None:
    agent = drain(world)
    world.do(SetNodeSchedulable("bob", "agt_1", False, "a new disk"))
    assert (agent.reason, agent.state) == ("a new disk", AgentState.DRAINING)
    assert [effect.reason for effect in world.effects if isinstance(effect, Directive)] == ["a new disk"]
    drain(world)
    assert agent.reason == "a new disk", "who names no reason takes none away"
    assert not [effect for effect in world.effects if isinstance(effect, Directive)]
