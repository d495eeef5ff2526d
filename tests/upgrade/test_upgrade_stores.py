"""The present code opens what earlier releases wrote, whatever it is killed in the middle of."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from upgrade_stores import RELEASES, STORES, unpack

from opentailr_agent.core.model import NodeState, Phase
from opentailr_agent.journal import Journal
from opentailr_controlplane.core import fleet
from opentailr_controlplane.core.invariants import validate
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import Instant
from opentailr_controlplane.store import loader, schema
from opentailr_controlplane.store.migrate import HEAD, migrate

pytestmark = pytest.mark.parametrize("release", RELEASES)


def content(database: Path) -> dict[str, dict[str, list[object]]]:
    """All values by table and column."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables: dict[str, dict[str, list[object]]] = {}
        for (name,) in connection.execute(query).fetchall():
            cursor = connection.execute(f"SELECT * FROM {name} ORDER BY 1")
            columns = [item[0] for item in cursor.description]
            rows = cursor.fetchall()
            tables[name] = {column: [row[at] for row in rows] for at, column in enumerate(columns)}
    return tables


def test_a_store_is_small(release: str) -> None:
    path = STORES[RELEASES.index(release)]
    assert path.stat().st_size < 200_000


def test_migrating_keeps_every_value(release: str, tmp_path: Path) -> None:
    store = unpack(release, tmp_path)
    before = content(store.database)
    migrate(store.database)
    after = content(store.database)
    assert after.pop("alembic_version") == {"version_num": [HEAD]}
    del before["alembic_version"]
    for table, columns in before.items():
        for column, values in columns.items():
            assert after[table][column] == values, f"{table}.{column}"
    assert set(after) == {table.name for table in schema.metadata.sorted_tables}


def test_the_state_is_loaded_with_its_active_run(release: str, tmp_path: Path) -> None:
    store = unpack(release, tmp_path)
    migrate(store.database)
    with closing(sqlite3.connect(store.database)) as connection:
        state = loader.load(connection, CoreSettings(), Instant(time.time_ns() // 1000, 1))
        assert state is not None
        fleet.recover(state, Instant(time.time_ns() // 1000, 1))
        validate(state)
        runs = {
            int(run_id): run for job in store.facts["jobs"].values() for run_id, run in job["runs"].items()
        }
        assert (
            set(state.runs) == {number for number, run in runs.items() if run["state"] == "running"} != set()
        )
        for run_id in set(runs) - set(state.runs):
            prior = loader.read_prior(connection, run_id)
            assert prior.state is not None and prior.state.terminal
    jobs = {job.name: job for job in state.jobs.values()}
    assert set(jobs) == set(store.facts["jobs"])
    for name, facts in store.facts["jobs"].items():
        latest = jobs[name].latest()
        assert latest is not None and latest.version == facts["version"]


KILLED = """
import os, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from alembic import command, config, script  # before the fork: imported once
from opentailr_controlplane.store.migrate import HEAD, migrate
import shutil, sqlite3

source = Path(sys.argv[1])
tables = lambda path: sqlite3.connect(path).execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
before = tables(source)
for step in range(1, 200):
    copy = source.with_name(f"copy-{step}.db")
    shutil.copy(source, copy)
    child = os.fork()
    if child == 0:
        left = step
        def count(*_):
            global left
            left -= 1
            if not left:
                os._exit(9)
        event.listen(Engine, "before_cursor_execute", count)
        migrate(copy)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    assert code == 9, code
    found = tables(copy)
    assert found == before, f"killed at step {step}: the schema has changed"
    migrate(copy)
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
    connection.close()
    copy.unlink()
print(step)
"""


@pytest.mark.slow
def test_a_migration_that_is_killed_anywhere_is_done_again(release: str, tmp_path: Path) -> None:
    store = unpack(release, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.database)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8, "there are steps in between"


@pytest.mark.slow
def test_a_new_database_that_was_killed_in_the_making_is_made_again(release: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(empty)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


@pytest.mark.parametrize("same_boot", [True, False])
def test_the_agent_opens_its_old_journal(release: str, tmp_path: Path, same_boot: bool) -> None:
    store = unpack(release, tmp_path)
    with closing(sqlite3.connect(store.journal)) as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta"))
    boot = meta["machine_boot"] if same_boot else "another boot"
    journal = Journal(store.journal, machine_boot=boot, new_id=lambda: "jrn_new")
    assert journal.opened.rebooted is not same_boot and journal.opened.replaced is None
    assert journal.opened.journal_id == (meta["journal_id"] if same_boot else "jrn_new")
    state = NodeState(slots=4)
    journal.load(state)
    journal.close()
    (record,) = state.attempts.values()
    assert record.phase in (Phase.STARTING, Phase.RUNNING) and record.fence == 1
