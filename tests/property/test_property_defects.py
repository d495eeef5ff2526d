"""What random histories once found, each as a short story of its own."""

from __future__ import annotations

from opentailr_agent.core import effects as do
from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    SaveVersion,
    StartVersion,
    Tick,
)
from opentailr_controlplane.core.invariants import validate
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import SECOND, AttemptState, Cause, CauseKind, ImageState, TaskState

from .cluster import Cluster
from .explore import after
from .fair import MEMORY
from .joint import Joint
from .workloads import definition


def _join(cluster: Cluster, *, memory: int = MEMORY, slots: int = 4) -> int:
    epoch = cluster.do(AgentHello("agt_1", "node", "boot", "j1", memory, 8.0, slots))
    assert isinstance(epoch, int)
    cluster.do(AgentApplied("agt_1", epoch, cluster.state.agents["agt_1"].full_revision))
    cluster.do(AgentCredit("agt_1", epoch, slots, 2))
    return epoch


def _running(cluster: Cluster) -> None:
    """One run whose only attempt was just given to the only agent."""
    epoch = _join(cluster)
    cluster.do(SaveVersion("alice", definition()))
    (build,) = cluster.state.builds.values()
    ready = BuildReport(1, build.build_id, build.image_key, ImageState.READY)
    cluster.do(AgentReport("agt_1", epoch, (ready,)))
    cluster.do(StartVersion("alice", "flow"))


def test_a_clock_set_back_prolongs_no_pause() -> None:
    for restart in (False, True):
        cluster = Cluster(CoreSettings())
        _running(cluster)
        (attempt,) = cluster.state.attempts.values()
        cause = Cause(CauseKind.NODE_FAULT, "the disk")
        report = AttemptReport(2, attempt.attempt_id, 1, AttemptState.FAILED, cause=cause)
        cluster.do(AgentReport("agt_1", cluster.state.agents["agt_1"].epoch, (report,)))
        assert cluster.state.runs[1].tasks[0].state is TaskState.BACKOFF
        cluster.set_clock(wall=-3600 * SECOND)
        if restart:
            cluster.restart()
        longest = cluster.settings.infra_backoff << cluster.settings.infra_budget
        cluster.set_clock(wall=longest, mono=longest)
        cluster.do(Tick())
        assert cluster.state.runs[1].tasks[0].state is not TaskState.BACKOFF
        cluster.close()


def test_what_an_agent_brought_along_counts_after_a_restart_too() -> None:
    cluster = Cluster(CoreSettings())
    _running(cluster)
    cluster.do(AgentHello("agt_1", "node", "boot", "j1", 1, 8.0, 0))
    cluster.restart()
    validate(cluster.state)
    assert cluster.state.agents["agt_1"].memory_reserved > 1
    cluster.close()


def _assigned(*, slots: int = 1) -> Joint:
    world = after(Joint(nodes=1, slots=slots), lambda joint: bool(joint.state.open_agents))
    world.begin(((),))
    return after(world, lambda joint: bool(joint.state.attempts))


def _deliver(world: Joint) -> None:
    """Everything that is under way arrives; nobody works meanwhile."""
    quiet = ("dial", "up", "close", "down")
    while steps := [action for action in world.actions() if action[0] in quiet]:
        world.act(steps[0])


def test_an_attempt_that_the_node_could_not_start_ends_though_starting_was_told() -> None:
    for cancel in (False, True):
        world = _assigned()
        (attempt,) = world.state.attempts.values()
        after(world, lambda joint: any(isinstance(item, do.Start) for item in joint.nodes[0].work))
        world.act(("flush", 0))
        _deliver(world)
        assert attempt.state is AttemptState.STARTING
        if cancel:
            world.act(("cancel", 1))
            _deliver(world)
            world.act(("flush", 0))
            _deliver(world)
            assert attempt.state is AttemptState.STOPPING
        world.act(("refuse", 0))
        _deliver(world)
        assert attempt.state is AttemptState.REJECTED
        world.settle()


def test_a_stop_sent_again_takes_no_credit() -> None:
    """An agent with one slot that never heard of a stopped attempt still gets the next one."""
    world = _assigned()
    world.act(("cancel", 1))
    world.act(("cut", 0))
    after(world, lambda joint: joint.nodes[0].core.synced and not joint.links[-1].up)
    agent = world.state.agents["agt_0"]
    assert (agent.attempts_sent, world.nodes[0].core.received_attempts) == (0, 0)
    world.begin(((),))
    world.settle()


def test_builds_that_went_on_over_a_cut_count_on_both_sides() -> None:
    world = after(Joint(nodes=1, slots=1), lambda joint: bool(joint.state.open_agents))
    world.begin(((),))
    after(world, lambda joint: any(isinstance(item, do.Build) for item in joint.nodes[0].work))
    world.act(("cut", 0))
    _deliver(world)
    agent, node = world.state.agents["agt_0"], world.nodes[0].core
    assert agent.builds_sent == node.received_builds == 1
    world.begin(((),), requirements="numpy")
    world.settle()


def test_an_answer_forgotten_and_given_anew_in_one_round_is_kept() -> None:
    cluster = Cluster(CoreSettings())
    _running(cluster)
    command = StartVersion("alice", "flow", idempotency_key="k", request_digest="d")
    first = cluster.do(command)
    cluster.set_clock(wall=cluster.settings.idempotency_life, mono=SECOND)
    cluster.step(Tick())
    second = cluster.do(command)
    assert second != first
    cluster.restart()
    assert cluster.do(command) == second
    cluster.close()
