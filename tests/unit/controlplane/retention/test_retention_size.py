"""The database stays at what the rules let live at one time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cp_engine import FakeAgent
from cp_world import World, task
from retention_world import Place, one_pass

from opentailr_controlplane.core.commands import AgentBye
from opentailr_controlplane.store import retention as queries
from opentailr_controlplane.store import schema
from opentailr_controlplane.store.sqlite import SqliteStore

RUNS = 20_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def fill(place: Place) -> int:
    """Adds finished runs of two tasks with results, attempts and outcomes; returns the size of the file."""
    first = place.engine._state.next_run
    place.engine._state.next_run += RUNS
    old = int((time.time() - 40 * 86_400) * 1e6)

    def insert(connection: object) -> None:
        for table, keys in (
            ("runs", "run_id"),
            ("run_tasks", "run_id"),
            ("attempts", "run_id"),
            ("outcomes", "run_id"),
        ):
            columns = ", ".join(column.name for column in schema.metadata.tables[table].c)
            values = {
                "run_id": "n.value",
                "attempt_id": f"'att_test_' || n.value || '_' || template.task_id || '_{table}'",
                "end_time": str(old) if table == "runs" else "template.end_time",
                "result_digest": "hex(randomblob(32))",
                "preview": "hex(randomblob(60))",
            }
            chosen = ", ".join(
                values.get(name.strip(), f"template.{name.strip()}") for name in columns.split(",")
            )
            connection.execute(  # type: ignore[attr-defined]
                "WITH RECURSIVE n(value) AS "
                "(SELECT ?1 UNION ALL SELECT value + 1 FROM n WHERE value < ?1 + ?2 - 1) "
                f"INSERT INTO {table} ({columns}) SELECT {chosen} FROM n, {table} AS template "
                f"WHERE template.{keys} = (SELECT min(run_id) FROM runs)",
                (first, RUNS),
            )
        connection.execute(  # type: ignore[attr-defined]
            "INSERT INTO payloads (digest, size, data) SELECT result_digest, 200, randomblob(200) "
            "FROM run_tasks WHERE run_id >= ? ON CONFLICT DO NOTHING",
            (first,),
        )

    await place.store.maintain(insert)
    return size(place.folder)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("state.db*"))


async def test_twenty_thousand_runs_made_and_removed_again_and_again(place: Place) -> None:
    await place.save()
    await place.run()
    sizes = []
    for number in range(3):
        sizes.append(await fill(place))
        # These agents send no heartbeats, and a pass may last longer than a lease.
        await place.agent.leave()
        await place.engine.post(AgentBye(place.agent.agent_id, place.agent.epoch, False))
        place.agent = FakeAgent(place.engine, f"agt_of_round_{number}")
        await place.agent.connect()
        newest = await place.run()
        begun = time.monotonic()
        retention = await one_pass(place)
        print(
            f"{RUNS} runs removed in {time.monotonic() - begun:.1f} s; the file has {sizes[-1] / 1e6:.1f} MB"
        )
        assert retention.removed["runs"] >= RUNS
        assert place.runs()[-1] == newest and len(place.runs()) <= 4
        for table in ("run_tasks", "attempts", "outcomes", "payloads", "removals"):
            assert place.rows(f"SELECT count(*) FROM {table}")[0][0] < 20, table
    assert sizes[2] < 1.2 * sizes[0], [f"{number / 1e6:.1f} MB" for number in sizes]


async def test_candidates_are_found_by_indexes(tmp_path: Path) -> None:
    """No look for what is old walks through all runs."""
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    world = World()
    world.state.dirty.counters = True
    world.ready(task(0))
    for batch in world.batches:
        await store.commit(batch)
    plans = []

    def explain(connection: object) -> None:
        class Explaining:
            def execute(self, sql: str, values: tuple[object, ...] = ()) -> object:
                plans.append([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)])  # type: ignore[attr-defined]
                return connection.execute(sql, values)  # type: ignore[attr-defined]

        explaining = Explaining()
        queries.old_runs(explaining, 1, 10, 5)  # type: ignore[arg-type]
        queries.old_logs(explaining, 1, 10, None, 5)  # type: ignore[arg-type]
        queries.surplus_runs(explaining, "job", 0, 5)  # type: ignore[arg-type]
        queries.attempts_of(explaining, [1, 2])  # type: ignore[arg-type]
        queries.results_and_arguments(explaining, "ab")  # type: ignore[arg-type]

    await store.maintain(explain)
    await store.close()
    scans = [step for plan in plans for step in plan if step.startswith("SCAN")]
    assert scans == [], plans
