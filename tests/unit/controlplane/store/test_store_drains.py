"""The deadline of a drain and the place of a lone node survive a restart of the control plane."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cp_world import World, task

from opentailr_controlplane.core import fleet
from opentailr_controlplane.core.commands import SetNodeSchedulable, Tick
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.values import SECOND, AgentState, AttemptState
from opentailr_controlplane.store import loader
from opentailr_controlplane.store.migrate import migrate
from opentailr_controlplane.store.sqlite import connect
from opentailr_controlplane.store.writer import write


def restarted(world: World, connection: sqlite3.Connection) -> World:
    """Another control plane over what the first one committed."""
    world.state.dirty.counters = True
    world.do(Tick())
    for batch in world.batches:
        write(connection, batch)
    world.batches.clear()
    loaded = loader.load(connection, world.state.settings, world.now)
    assert loaded is not None
    other = World(world.state.settings)
    fleet.recover(loaded, world.now)
    assert durable_view(loaded) == durable_view(world.state)
    other.state, other.now, other.seqs = loaded, world.now, world.seqs
    return other


def test_a_deadline_survives_a_restart(tmp_path: Path) -> None:
    migrate(tmp_path / "state.db")
    connection = connect(tmp_path / "state.db")
    world = World()
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.RUNNING)
    world.do(SetNodeSchedulable("alice", "agt_1", False, "", 60 * SECOND))
    world.pass_time(20)
    world = restarted(world, connection)
    attempt = next(iter(world.state.attempts.values()))
    world.pass_time(39.9)
    assert not attempt.stop_wanted
    world.pass_time(0.1)
    assert attempt.stop_wanted and world.state.agents["agt_1"].drain_by == 0
    world = restarted(world, connection)
    assert next(iter(world.state.attempts.values())).stop_wanted, "and what was told then, too"
    connection.close()


def test_a_lone_node_is_waited_for_over_a_restart(tmp_path: Path) -> None:
    migrate(tmp_path / "state.db")
    connection = connect(tmp_path / "state.db")
    world = World()
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.RUNNING)
    world.cut()
    world.pass_time(300)
    world = restarted(world, connection)
    attempt = next(iter(world.state.attempts.values()))
    world.pass_time(60)
    assert (attempt.state, world.state.agents["agt_1"].state) == (AttemptState.RUNNING, AgentState.SUSPECT)
    world.join("agt_2")
    assert attempt.state is AttemptState.LOST, (
        "the grace after the start is over, and another node can take it"
    )
    connection.close()
