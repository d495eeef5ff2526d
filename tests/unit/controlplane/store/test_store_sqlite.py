"""The store: exact reload, migrations, refusal of newer databases, speed of large saves."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cp_world import START, World, definition, task
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from opentailr_controlplane.core import rows
from opentailr_controlplane.core.batch import WriteBatch, collect
from opentailr_controlplane.core.commands import CancelRun, SaveVersion, StartVersion
from opentailr_controlplane.core.definition import check_definition
from opentailr_controlplane.core.machine import finish, step
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import SECOND, AttemptState, Payload, TaskDefinition
from opentailr_controlplane.store import migrate, schema
from opentailr_controlplane.store.errors import NewerSchema, StoreUnavailable
from opentailr_controlplane.store.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (schema.runs, rows.RunRow),
        (schema.run_tasks, rows.TaskRow),
        (schema.outcomes, rows.OutcomeRow),
        (schema.attempts, rows.AttemptRow),
        (schema.images, rows.ImageRow),
        (schema.builds, rows.BuildRow),
        (schema.agents, rows.AgentRow),
        (schema.jobs, rows.JobRow),
        (schema.versions, rows.VersionRow),
        (schema.idempotency, rows.IdempotencyRow),
        (schema.counters, rows.CountersRow),
    ],
)
def test_rows_are_the_columns_of_their_table(table: object, row: type) -> None:
    assert [column.name for column in table.columns] == list(row._fields)  # type: ignore[attr-defined]


async def test_a_database_is_made_once_and_reopened(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for _ in range(2):
        store = SqliteStore(path)
        await store.open()
        await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (migrate.HEAD,)
    connection.close()


async def test_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD
    migrate.migrate(tmp_path / "state.db")
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}", poolclass=NullPool)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


async def test_a_database_of_the_future_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    migrate.migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    store = SqliteStore(path)
    with pytest.raises(NewerSchema, match="9999"):
        await store.open()
    await store.close()


async def test_a_file_that_is_no_database_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"a text, and not a short one, that somebody put in its place" * 40)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=r"^The database failed: file is not a database$"):
        await store.open()
    await store.close()


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM definitions", "UPDATE runs SET state = 77", "UPDATE definitions SET header = 'x'"],
)
async def test_a_database_that_was_tampered_with_is_refused(tmp_path: Path, change: str) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    world = World()
    world.state.dirty.counters = True
    world.ready(task(0))
    for batch in world.batches:
        await store.commit(batch)
    assert await store.load(CoreSettings(), START) is not None
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnavailable, match="never wrote"):
        await store.load(CoreSettings(), START)
    await store.close()


async def test_a_failed_batch_leaves_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    world = World()
    world.state.dirty.counters = True
    world.save(task(0))
    broken = WriteBatch(**{name: getattr(world.batches[-1], name) for name in WriteBatch.__slots__})
    broken.runs = [(1, 2)]  # type: ignore[list-item]
    with pytest.raises(StoreUnavailable):
        await store.commit(broken)
    assert await store.load(CoreSettings(), START) is None
    await store.close()


@pytest.mark.clause("B109", "B131")
async def test_expiry_removes_results_but_not_those_a_rerun_took_over(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    world = World()
    runs = [world.ready(task(0), task(1), name="flow", expire_after=SECOND)]
    runs.append(world.start())
    first, second = runs
    world.report(world.attempt(first, 0), AttemptState.SUCCEEDED, result=b"shared")
    world.report(world.attempt(first, 1), AttemptState.SUCCEEDED, result=b"own")
    world.report(world.attempt(second, 0), AttemptState.SUCCEEDED, result=b"shared")
    shared, own = first.tasks[0].result, first.tasks[1].result
    assert shared is not None and own is not None
    for batch in world.batches:
        await store.commit(batch)
    assert set(await store.read_payloads([shared.digest, own.digest])) == {shared.digest, own.digest}
    world.pass_time(1)
    await store.commit(world.batches[-1])
    assert await store.read_payloads([shared.digest, own.digest]) == {shared.digest: b"shared"}
    prior = await store.read_prior(first.run_id)
    assert prior.state is not None and prior.state.name == "EXPIRED"
    assert prior.tasks[0].result is None
    await store.close()


async def test_logs_are_owned_by_the_agent_of_the_attempt(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    world = World()
    attempt = world.attempt(world.ready(task(0)))
    for batch in world.batches:
        await store.commit(batch)
    assert await store.log_owner(attempt.attempt_id) == "agt_1"
    assert await store.log_owner("bld_test_1") == "agt_1"
    assert await store.log_owner("att_unknown") is None
    await store.close()


async def test_ten_thousand_tasks_are_saved_started_and_cancelled_whole(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    tasks = [
        TaskDefinition(
            i, f"t{i}", "m:f", task(0).resources, (0,) if i else (), (), Payload("a" * 64, 3, b"abc")
        )
        for i in range(10_000)
    ]
    checked = check_definition(definition(*tasks))
    world = World()
    for command in (
        SaveVersion("alice", checked.definition, checked=checked),
        StartVersion("alice", "flow"),
        CancelRun("alice", 1),
    ):
        step(world.state, command, world.now)
        finish(world.state, world.now)
        batch = collect(world.state)
        assert batch is not None
        await store.commit(batch)
    plan = await store.read_plan(1)
    assert plan is not None and len(plan.tasks) == 10_000 and len(plan.downstream[0]) == 9_999
    await store.close()
