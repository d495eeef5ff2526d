"""Sessions, leases, reconciliation, desired sets."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cp_world import World, task

import opentailr_controlplane.core as core
from opentailr_controlplane.core.commands import AgentBye, AgentCredit, AgentHeartbeat, InventoryEntry, Tick
from opentailr_controlplane.core.effects import Acknowledge, Dismiss, VerdictKind, Welcome
from opentailr_controlplane.core.errors import IllegalTransition
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.transitions import MACHINES, check
from opentailr_controlplane.core.values import (
    SECOND,
    AgentState,
    AttemptState,
    CauseKind,
    ImageState,
    Instant,
    TaskState,
)

IMPATIENT = CoreSettings(lone_patience=0)
"""What only this node could run is lost with its lease, too."""


def test_the_core_imports_nothing_that_waits_or_looks_outside() -> None:
    banned = {
        "asyncio",
        "grpc",
        "time",
        "random",
        "os",
        "socket",
        "threading",
        "uuid",
        "secrets",
        "datatailr",
    }
    folder = Path(core.__file__).parent
    files = sorted(folder.glob("*.py"))
    assert len(files) > 15
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path.name} reaches out of the core"
                names = [node.module or ""] if node.level == 0 else []
            assert not {name.split(".")[0] for name in names} & banned, f"{path.name} imports {names}"


def test_steps_that_are_not_in_the_tables_raise(world: World) -> None:
    for name, table in MACHINES.items():
        states = {state for edge in table for state in edge}
        for source in states:
            for target in states:
                if (source, target) not in table:
                    with pytest.raises(IllegalTransition):
                        check(world.state, name, source, target, owner="core", subject="x")
                else:
                    with pytest.raises(IllegalTransition):
                        check(world.state, name, source, target, owner="stranger", subject="x")


def test_the_handshake_goes_hello_welcome_full_set_ready(world: World) -> None:
    world.save(task(0))
    world.hello()
    agent = world.state.agents["agt_1"]
    kinds = [type(effect).__name__ for effect in world.effects]
    assert kinds == ["Welcome", "Directive", "Desired"] and world.desired()[0].full
    world.do(AgentCredit("agt_1", agent.epoch, 10, 1))
    assert agent.state is AgentState.SYNCING and not agent.builds, "nothing new before the set is applied"
    world.apply()
    assert agent.state is AgentState.READY and agent.builds


def test_epochs_rise_and_frames_of_an_older_one_change_nothing(world: World) -> None:
    run = world.ready(task(0))
    first = world.state.agents["agt_1"].epoch
    attempt = world.attempt(run)
    world.join(inventory=(InventoryEntry(attempt.attempt_id, 1, AttemptState.RUNNING),))
    agent = world.state.agents["agt_1"]
    assert agent.epoch == first + 1
    limit = agent.attempt_limit
    world.do(AgentCredit("agt_1", first, 10**6, 10**6))
    world.do(AgentBye("agt_1", first, False))
    world.do(AgentHeartbeat("agt_1", first, 9, world.now.mono, "full"))
    assert (agent.attempt_limit, agent.state, agent.pressure) == (limit, AgentState.READY, "")


def test_a_second_session_sends_the_first_away(world: World) -> None:
    world.join()
    world.hello()
    (away,) = [effect for effect in world.effects if isinstance(effect, Dismiss)]
    assert away.superseded and away.epoch == world.state.agents["agt_1"].epoch - 1


def test_verdicts_keep_stop_and_forget(world: World) -> None:
    run = world.ready(task(0), task(1))
    kept, lost = world.attempt(run, 0), world.attempt(run, 1)
    world.report(kept, AttemptState.RUNNING)
    world.report(lost, AttemptState.RUNNING)
    world.cut()
    world.hello(
        inventory=(
            InventoryEntry(kept.attempt_id, 1, AttemptState.RUNNING),
            InventoryEntry("att_unknown", 1, AttemptState.RUNNING),
            InventoryEntry("att_ended", 1, AttemptState.FAILED),
        )
    )
    (welcome,) = [effect for effect in world.effects if isinstance(effect, Welcome)]
    assert dict(welcome.verdicts) == {
        kept.attempt_id: VerdictKind.KEEP,
        "att_unknown": VerdictKind.STOP,
        "att_ended": VerdictKind.FORGET,
    }
    assert lost.state is AttemptState.LOST and run.tasks[1].infra_failures == 1
    assert lost.cause is not None and lost.cause.kind is CauseKind.LOST_BY_RUNTIME
    assert world.desired()[0].attempts[0].attempt_id == kept.attempt_id


def test_an_assignment_that_never_arrived_is_sent_again_and_takes_credit(world: World) -> None:
    run = world.ready(task(0), task(1, 0))
    attempt = world.attempt(run)
    world.cut()
    world.hello()
    assert [order.attempt_id for order in world.desired()[0].attempts] == [attempt.attempt_id]
    assert attempt.state is AttemptState.ASSIGNED and world.state.agents["agt_1"].attempts_sent == 1


def test_a_new_journal_loses_what_may_have_run(world: World) -> None:
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.cut()
    world.join(journal="journal-2")
    assert attempt.state is AttemptState.LOST and attempt.cause is not None
    assert attempt.cause.kind is CauseKind.NODE_RESTARTED
    assert world.attempt(run).fence == 2 and world.state.agents["agt_1"].acked_seq == 0


def test_nothing_is_lost_before_lease_and_grace() -> None:
    world = World(IMPATIENT)
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING)
    world.pass_time(14)
    world.beat()
    world.pass_time(14.9)
    assert world.state.agents["agt_1"].state is AgentState.READY
    world.pass_time(0.1)
    assert world.state.agents["agt_1"].state is AgentState.SUSPECT
    assert any(isinstance(effect, Dismiss) for effect in world.effects)
    world.pass_time(5)
    assert attempt.state is AttemptState.RUNNING
    world.pass_time(0.021)
    assert attempt.state is AttemptState.LOST and world.state.agents["agt_1"].state is AgentState.DOWN
    assert run.tasks[0].state is TaskState.READY


def test_a_pause_of_the_control_plane_itself_loses_nothing() -> None:
    world = World(IMPATIENT)
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING)
    delta = 60 * SECOND
    world.now = Instant(world.now.wall + delta, world.now.mono + delta)
    world.do(Tick(late=True))
    assert world.state.agents["agt_1"].state is AgentState.READY
    world.cut()
    world.pass_time(29.9)
    assert attempt.state is AttemptState.RUNNING
    world.pass_time(0.2)
    assert attempt.state is AttemptState.LOST, "the pardon is for once"


def test_a_closed_stream_is_suspect_at_once_and_may_come_back(world: World) -> None:
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING)
    world.cut()
    assert world.state.agents["agt_1"].state is AgentState.SUSPECT
    world.pass_time(19)
    world.join(inventory=(InventoryEntry(attempt.attempt_id, 1, AttemptState.RUNNING),))
    world.pass_time(14)
    assert attempt.state is AttemptState.RUNNING and run.tasks[0].fence == 1


def test_room_of_a_lost_attempt_is_held_until_it_is_gone() -> None:
    world = World(IMPATIENT)
    run = world.ready(task(0))
    lost = world.attempt(run)
    world.report(lost, AttemptState.RUNNING)
    world.cut()
    world.pass_time(21)
    assert lost.state is AttemptState.LOST
    agent = world.state.agents["agt_1"]
    world.join(inventory=(InventoryEntry(lost.attempt_id, 1, AttemptState.RUNNING),))
    assert agent.memory_reserved == 2 * lost.memory_bytes, "the lost one and its successor"
    world.report(lost, AttemptState.SUCCEEDED)
    assert agent.memory_reserved == lost.memory_bytes
    assert run.tasks[0].state is TaskState.ACTIVE, "a late success changes nothing"


def test_a_bye_without_attempts_loses_them_at_once(world: World) -> None:
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, False))
    assert attempt.state is AttemptState.LOST and attempt.cause is not None
    assert attempt.cause.kind is CauseKind.NODE_DRAINED
    assert world.state.agents["agt_1"].state is AgentState.DOWN


def test_a_bye_with_attempts_leaves_them(world: World) -> None:
    run = world.ready(task(0))
    world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, True))
    assert world.attempt(run).state is AttemptState.ASSIGNED


def test_an_agent_that_ends_gets_no_attempt_back(world: World) -> None:
    """The platform's own failure is tried again elsewhere or later, not on the agent that is leaving."""
    run = world.ready(task(0))
    first = world.attempt(run)
    world.report(first, AttemptState.FAILED, kind=CauseKind.NODE_DRAINED)
    assert run.tasks[0].state is TaskState.READY and run.tasks[0].infra_failures == 0
    world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, False))
    assert run.tasks[0].state is TaskState.READY and run.tasks[0].infra_failures == 0
    world.join()
    second = world.attempt(run)
    assert run.tasks[0].state is TaskState.ACTIVE and second.fence > first.fence


def test_a_build_on_a_lost_node_goes_to_another(world: World) -> None:
    world.join()
    world.save(task(0))
    world.build(ImageState.BUILDING)
    world.join("agt_2")
    world.cut()
    world.pass_time(10)
    world.beat("agt_2")
    world.pass_time(11)
    (build,) = world.state.builds.values()
    assert build.agent_id == "agt_2"
    world.build()
    assert world.start().tasks[0].state is TaskState.ACTIVE


def test_pressure_stops_new_work(world: World) -> None:
    run = world.ready(task(0), task(1, 0))
    world.beat(pressure="disk is full")
    world.report(world.attempt(run), AttemptState.SUCCEEDED)
    assert run.tasks[1].state is TaskState.READY
    world.beat()
    assert run.tasks[1].state is TaskState.ACTIVE


def test_deltas_follow_on_their_base_and_a_full_set_comes_when_asked_for(world: World) -> None:
    from opentailr_controlplane.core.commands import AgentApplied

    run = world.ready(task(0), task(1, 0))
    before = world.state.agents["agt_1"].revision
    world.report(world.attempt(run), AttemptState.SUCCEEDED)
    (delta,) = world.desired()
    assert (delta.base, delta.revision, delta.full) == (before, before + 1, False)
    assert len(delta.attempts) == 1 and len(delta.removed) == 1
    world.do(AgentApplied("agt_1", world.state.agents["agt_1"].epoch, before, need_full=True))
    (full,) = world.desired()
    assert full.full and len(full.attempts) == 1


def test_acknowledgements_cover_the_batch(world: World) -> None:
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.RUNNING)
    (acknowledge,) = [effect for effect in world.effects if isinstance(effect, Acknowledge)]
    assert acknowledge.report_seq == world.seqs["agt_1"]


def test_attempts_go_where_the_image_is_and_spread(world: World) -> None:
    world.join("agt_1")
    world.save(*(task(i) for i in range(4)))
    world.build()
    world.join("agt_2")
    key = next(iter(world.state.images))
    world.join("agt_3", images=(key,))
    run = world.start()
    nodes = [world.attempt(run, i).agent_id for i in range(4)]
    assert sorted(nodes) == ["agt_1", "agt_1", "agt_3", "agt_3"]
