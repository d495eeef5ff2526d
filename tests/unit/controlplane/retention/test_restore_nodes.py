"""Nodes that remember more, or less, than a restored state: what goes on, what is tried again, what ends."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from cp_engine import FakeAgent, FixedIds, RealClock, until
from retention_world import Place

from opentailr_controlplane.backup import make_backup
from opentailr_controlplane.core.commands import AgentHello, AttemptReport, InventoryEntry, StartVersion
from opentailr_controlplane.core.effects import AttemptOrder, Effect, VerdictKind, Welcome
from opentailr_controlplane.core.values import AttemptState, Payload
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.restore import restore_backup
from opentailr_controlplane.security.tokens import read_or_make_secret
from opentailr_controlplane.store.sqlite import SqliteStore


@pytest.fixture
async def before(place: Place) -> Place:
    """A platform with one active run, whose first task runs on `agt_1`."""
    (place.folder / "VERSION").write_text("1\n")
    read_or_make_secret(place.folder / "run.key")
    await place.save()
    place.agent.outcome = lambda order: None
    await place.engine.execute(StartVersion("alice", "flow"))
    await until(lambda: bool(place.agent.running))
    return place


@pytest.fixture
async def restored(before: Place, tmp_path: Path) -> AsyncIterator[Engine]:
    """The engine of the same platform, restored from a backup elsewhere."""
    backup, there = (tmp_path.with_name(f"{tmp_path.name}-{name}") for name in ("backup", "there"))
    make_backup(before.folder, backup)
    restore_backup(backup, there)
    store = SqliteStore(there / "state.db")
    await store.open()
    engine = Engine(store, clock=RealClock(), ids=FixedIds())
    await engine.start()
    yield engine
    await engine.close()
    await store.close()
    with closing(sqlite3.connect(there / "state.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class Sink:
    def __init__(self) -> None:
        self.effects: list[Effect] = []

    def deliver(self, effect: Effect) -> None:
        self.effects.append(effect)

    def close(self, reason: str) -> None:
        """The engine ends."""


async def greet(engine: Engine, *inventory: InventoryEntry) -> tuple[int, dict[str, VerdictKind]]:
    """The node of before comes back with its journal; its new epoch and the verdicts."""
    sink = Sink()
    hello = AgentHello("agt_1", "agt_1", "boot", "journal", 8 << 30, 16, 64, inventory=inventory)
    epoch = await engine.hello(hello, sink)
    welcome = next(effect for effect in sink.effects if isinstance(effect, Welcome))
    assert welcome.acked_seq == 0
    return epoch, dict(welcome.verdicts)


async def test_an_attempt_that_still_runs_goes_on_and_its_result_counts(
    before: Place, restored: Engine
) -> None:
    (order,) = before.agent.running.values()
    entry = InventoryEntry(order.attempt_id, order.fence, AttemptState.RUNNING)
    epoch, verdicts = await greet(restored, entry)
    assert verdicts == {order.attempt_id: VerdictKind.KEEP}
    assert epoch > before.agent.epoch + 60_000, "no session's number comes again"
    from opentailr_controlplane.core.commands import AgentReport

    report = AttemptReport(
        901, order.attempt_id, order.fence, AttemptState.SUCCEEDED, result=Payload("d" * 64, 3, b"abc")
    )
    await restored.post(AgentReport("agt_1", epoch, (report,)))
    run = restored._state.runs[order.run_id]
    await until(lambda: run.tasks[0].result is not None)
    assert restored._state.agents["agt_1"].acked_seq == 901


async def test_an_attempt_that_ended_and_was_forgotten_meanwhile_is_tried_again(
    before: Place, restored: Engine
) -> None:
    (order,) = before.agent.running.values()
    _, verdicts = await greet(restored)
    assert verdicts == {}
    agent = FakeAgent(restored, "agt_2", outcome=lambda order: None)
    await agent.connect()
    await until(lambda: bool(agent.running))
    (again,) = agent.running.values()
    assert (again.run_id, again.task_id, again.fence) == (order.run_id, order.task_id, order.fence + 1)
    assert again.attempt_id.startswith("att_test-") and order.attempt_id.startswith("att_test_")
    await agent.leave()


async def test_what_was_begun_after_the_backup_is_ended_and_forgotten(
    before: Place, restored: Engine
) -> None:
    (order,) = before.agent.running.values()
    running = InventoryEntry("att_test_77_0_1", 1, AttemptState.RUNNING)
    ended = InventoryEntry("att_test_78_0_1", 1, AttemptState.SUCCEEDED)
    # The same task, tried again after the backup: known by its fence alone, and not by its name.
    later = InventoryEntry(f"att_test_{order.run_id}_0_2", 2, AttemptState.RUNNING)
    _, verdicts = await greet(restored, running, ended, later)
    assert verdicts == {
        running.attempt_id: VerdictKind.STOP,
        ended.attempt_id: VerdictKind.FORGET,
        later.attempt_id: VerdictKind.STOP,
    }


async def test_new_runs_have_new_numbers_and_new_attempts_new_names(before: Place, restored: Engine) -> None:
    old = {order.attempt_id for order in before.agent.running.values()}
    agent = FakeAgent(restored, "agt_2", outcome=lambda order: None)
    await agent.connect()
    reply = await restored.execute(StartVersion("alice", "flow"))
    assert reply.run_id == 2000  # type: ignore[union-attr]

    def mine() -> list[AttemptOrder]:
        return [order for order in agent.running.values() if order.run_id == 2000]

    await until(lambda: bool(mine()))
    assert not old & {order.attempt_id for order in mine()}
    await agent.leave()
