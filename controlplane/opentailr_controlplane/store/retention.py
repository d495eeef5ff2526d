"""What retention reads and deletes in the tables; and, for each table, the rule by which it stays bounded.

A run leaves in two steps. The first is part of one of the engine's transactions: the row of `runs` goes and
a row of `removals` takes its place, so from then on nobody finds the run. The second is done in small
transactions of its own: logs, attempts, tasks, results, and last the row of `removals`. Whatever is killed
in between, that row says what is left to do.

All functions are synchronous and take a connection; those that write are to be called in a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Table

from ..core.model import Retired
from ..core.values import BuildState, RunState
from . import schema

RULES: Final = {
    "counters": "one row",
    "jobs": "kept always: a job's name, list of permissions and count of versions outlive its runs",
    "versions": "kept always, to be started, promoted, restored; instant ones as long as a run of theirs",
    "definitions": "as long as a version names it",
    "definition_tasks": "with its definition",
    "runs": "by age and by count per job, by environment; see the keeper's exceptions",
    "removals": "until the rest of the run it names is gone",
    "removed_logs": "with its run",
    "images": "as long as a version uses it; others by the age for runs of dev",
    "builds": "the latest of an image with the image; others by the age for logs of dev",
    "agents": "until not heard from for the age for nodes, unless a person keeps it from new work",
    "payloads": "as long as a task's result or arguments name it",
    "idempotency": "a day, and 100,000 in all",
}
"""Rules by table. A table that names a run or an attempt needs none of its own: it goes with that."""

CHUNK: Final = 500
"""Tasks or attempts deleted in one transaction: some milliseconds, which a commit of the engine may wait."""

_FINISHED: Final = int(RunState.SUCCEEDED)
_BUILT: Final = int(BuildState.READY)

_RUN_TABLES: Final = tuple(
    table
    for table in schema.metadata.sorted_tables
    if "run_id" in table.c and table.name not in ("runs", "removals", "attempts")
)
_ATTEMPT_TABLES: Final = tuple(
    table for table in schema.metadata.sorted_tables if "attempt_id" in table.c and "run_id" not in table.c
)

_REMOVABLE: Final = (
    # Never the newest run of a job, the first of a chain of reruns that still has others, or one of which
    # processes may be left on a node.
    "EXISTS (SELECT 1 FROM runs AS newer WHERE newer.job_id = run.job_id AND newer.run_id > run.run_id) "
    "AND NOT EXISTS (SELECT 1 FROM runs AS later WHERE later.original_run_id = run.run_id "
    "AND later.original_run_id > 0) "
    "AND NOT EXISTS (SELECT 1 FROM attempts AS left_over WHERE left_over.run_id = run.run_id "
    "AND left_over.gone IS 0)"
)


class RunLogs(NamedTuple):
    """A finished run whose logs are old enough to go."""

    run_id: int
    end_time: int


def rule_of(table: Table) -> str:
    """The rule of a table; empty when it has none, which no table may have."""
    if table.name in RULES:
        return RULES[table.name]
    if "run_id" in table.c:
        return "with its run"
    return "with its attempt" if "attempt_id" in table.c else ""


# --------------------------------------------------------------------------- the first step


def remove(connection: sqlite3.Connection, retired: Retired) -> None:
    """Takes runs, nodes and images out of sight, as part of the engine's transaction."""
    for run_id in retired.runs:
        connection.execute(
            "INSERT INTO removals (run_id) SELECT run_id FROM runs WHERE run_id = ? ON CONFLICT DO NOTHING",
            (run_id,),
        )
        connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
    for agent_id in retired.agents:
        connection.execute("DELETE FROM agents WHERE agent_id = ?", (agent_id,))
    for key in retired.images:
        connection.execute("DELETE FROM images WHERE image_key = ?", (key,))
    for job_id, version in retired.versions:
        connection.execute("DELETE FROM versions WHERE job_id = ? AND version = ?", (job_id, version))


# --------------------------------------------------------------------------- what is due


def old_runs(connection: sqlite3.Connection, environment: int, before: int, limit: int) -> list[int]:
    """Finished runs of an environment that ended before a time, the longest ended first."""
    rows = connection.execute(
        f"SELECT run_id FROM runs AS run WHERE environment = ? AND end_time > 0 AND end_time < ? "
        f"AND state >= {_FINISHED} AND {_REMOVABLE} ORDER BY end_time LIMIT ?",
        (environment, before, limit),
    )
    return [row[0] for row in rows]


def crowded_jobs(connection: sqlite3.Connection, least: int) -> list[tuple[str, int]]:
    """Jobs with more than `least` runs, with their environments."""
    rows = connection.execute(
        "SELECT crowd.job_id, jobs.environment FROM "
        "(SELECT job_id FROM runs GROUP BY job_id HAVING count(*) > ?) AS crowd JOIN jobs USING (job_id)",
        (least,),
    )
    return [(row[0], row[1]) for row in rows]


def surplus_runs(connection: sqlite3.Connection, job_id: str, keep: int, limit: int) -> list[int]:
    """Finished runs of a job beyond its `keep` newest, the oldest first."""
    rows = connection.execute(
        "SELECT run_id FROM runs WHERE job_id = ? ORDER BY run_id DESC LIMIT 1 OFFSET ?", (job_id, keep)
    ).fetchone()
    if rows is None:
        return []
    found = connection.execute(
        f"SELECT run_id FROM runs AS run WHERE job_id = ? AND run_id <= ? AND state >= {_FINISHED} "
        f"AND {_REMOVABLE} ORDER BY run_id LIMIT ?",
        (job_id, rows[0], limit),
    )
    return [row[0] for row in found]


def old_logs(
    connection: sqlite3.Connection, environment: int, before: int, after: RunLogs | None, limit: int
) -> list[RunLogs]:
    """Finished runs that ended before a time and still have logs, by their ends, behind `after`."""
    seen = after or RunLogs(0, 0)
    rows = connection.execute(
        f"SELECT run_id, end_time FROM runs WHERE environment = ? AND end_time > 0 AND end_time < ? "
        f"AND state >= {_FINISHED} AND (end_time > ? OR end_time = ? AND run_id > ?) "
        "AND NOT EXISTS (SELECT 1 FROM removed_logs AS gone "
        "WHERE gone.run_id = runs.run_id AND gone.complete) "
        "ORDER BY end_time, run_id LIMIT ?",
        (environment, before, seen.end_time, seen.end_time, seen.run_id, limit),
    )
    return [RunLogs(*row) for row in rows]


def old_builds(connection: sqlite3.Connection, before: int, limit: int) -> list[str]:
    """Ended builds that no image names any more and that ended before a time."""
    rows = connection.execute(
        f"SELECT build_id FROM builds WHERE state >= {_BUILT} AND end_time < ? "
        "AND NOT EXISTS (SELECT 1 FROM images WHERE images.build_id = builds.build_id) LIMIT ?",
        (before, limit),
    )
    return [row[0] for row in rows]


def lonely_instants(connection: sqlite3.Connection, before: int, limit: int) -> list[tuple[str, int]]:
    """Instant versions made before a time of which no run is left, as (job id, number)."""
    rows = connection.execute(
        "SELECT job_id, version FROM versions WHERE instant AND create_time < ? "
        "AND definition_id NOT IN (SELECT definition_id FROM runs) LIMIT ?",
        (before, limit),
    )
    return [(row[0], row[1]) for row in rows]


def lonely_definitions(connection: sqlite3.Connection, limit: int) -> list[int]:
    """Definitions whose version is gone."""
    rows = connection.execute(
        "SELECT definition_id FROM definitions EXCEPT SELECT definition_id FROM versions LIMIT ?", (limit,)
    )
    return [row[0] for row in rows]


def removals(connection: sqlite3.Connection) -> list[int]:
    """Runs of which something may be left."""
    return [row[0] for row in connection.execute("SELECT run_id FROM removals ORDER BY run_id")]


def attempts_of(connection: sqlite3.Connection, run_ids: Sequence[int], after: str = "") -> list[str]:
    """Attempts of runs by id, at most `CHUNK`, those behind `after`."""
    rows = connection.execute(
        f"SELECT attempt_id FROM attempts WHERE run_id IN ({_marks(run_ids)}) AND attempt_id > ? "
        "ORDER BY attempt_id LIMIT ?",
        (*run_ids, after, CHUNK),
    )
    return [row[0] for row in rows]


# --------------------------------------------------------------------------- the second step


def drop_attempts(connection: sqlite3.Connection, attempt_ids: Sequence[str]) -> None:
    """Deletes attempts and what belongs to them; their logs are gone already."""
    for table in (*_ATTEMPT_TABLES, schema.attempts):
        connection.execute(
            f"DELETE FROM {table.name} WHERE attempt_id IN ({_marks(attempt_ids)})", attempt_ids
        )


def drop_tasks(connection: sqlite3.Connection, run_ids: Sequence[int]) -> bool:
    """Deletes some tasks of removed runs with what belongs to them; False once there are none left."""
    tasks = connection.execute(
        f"SELECT run_id, task_id, result_digest FROM run_tasks WHERE run_id IN ({_marks(run_ids)}) LIMIT ?",
        (*run_ids, CHUNK),
    ).fetchall()
    for table in _RUN_TABLES:
        if "task_id" in table.c:
            connection.executemany(
                f"DELETE FROM {table.name} WHERE run_id = ? AND task_id = ?",
                [(run_id, task_id) for run_id, task_id, _ in tasks],
            )
    drop_payloads(connection, {digest for _, _, digest in tasks if digest is not None})
    return bool(tasks)


def drop_payloads(connection: sqlite3.Connection, digests: Iterable[str]) -> None:
    """Deletes those of the payloads that no result and no argument names."""
    connection.executemany(
        "DELETE FROM payloads WHERE digest = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM run_tasks WHERE result_digest = ?1) "
        "AND NOT EXISTS (SELECT 1 FROM definition_tasks WHERE arguments_digest = ?1)",
        [(digest,) for digest in digests],
    )


def drop_runs(connection: sqlite3.Connection, run_ids: Sequence[int]) -> None:
    """The last step: what is left of removed runs, and the note that they were being removed."""
    for name in (*(table.name for table in _RUN_TABLES), "removals"):
        connection.execute(f"DELETE FROM {name} WHERE run_id IN ({_marks(run_ids)})", run_ids)


def note_logs(connection: sqlite3.Connection, run_ids: Iterable[int], complete: bool) -> None:
    """Remembers runs that are kept without their logs; `complete` when all files are gone."""
    connection.executemany(
        "INSERT INTO removed_logs (run_id, complete) SELECT run_id, ?2 FROM runs WHERE run_id = ?1 "
        "ON CONFLICT (run_id) DO UPDATE SET complete = excluded.complete",
        [(run_id, complete) for run_id in run_ids],
    )


def drop_definition(connection: sqlite3.Connection, definition_id: int) -> bool:
    """Deletes a part of a definition without a version, its head last; False once nothing is left."""
    tasks = connection.execute(
        "SELECT task_id, arguments_digest FROM definition_tasks WHERE definition_id = ? LIMIT ?",
        (definition_id, CHUNK),
    ).fetchall()
    connection.executemany(
        "DELETE FROM definition_tasks WHERE definition_id = ? AND task_id = ?",
        [(definition_id, task_id) for task_id, _ in tasks],
    )
    drop_payloads(connection, {digest for _, digest in tasks if digest is not None})
    if not tasks:
        connection.execute("DELETE FROM definitions WHERE definition_id = ?", (definition_id,))
    return bool(tasks)


def drop_builds(connection: sqlite3.Connection, build_ids: Sequence[str]) -> None:
    """Deletes builds; their logs are gone already."""
    connection.executemany("DELETE FROM builds WHERE build_id = ?", [(build_id,) for build_id in build_ids])


# --------------------------------------------------------------------------- what is referred to


def bundles(connection: sqlite3.Connection) -> set[str]:
    """Digests of the bundles of all definitions and images."""
    rows = connection.execute(
        "SELECT DISTINCT json_extract(header, '$.bundle.digest') FROM definitions "
        "UNION SELECT json_extract(bundle, '$.digest') FROM images WHERE bundle <> ''"
    )
    return {row[0] for row in rows if row[0]}


def results_and_arguments(connection: sqlite3.Connection, prefix: str) -> set[str]:
    """Digests that begin with `prefix` and that a task names as its result or arguments."""
    bounds = (prefix, f"{prefix}g")  # above every digest with the prefix: their digits end with f
    rows = connection.execute(
        "SELECT result_digest FROM run_tasks WHERE result_digest >= ?1 AND result_digest < ?2 "
        "UNION SELECT arguments_digest FROM definition_tasks "
        "WHERE arguments_digest >= ?1 AND arguments_digest < ?2",
        bounds,
    )
    return {row[0] for row in rows}


def known_logs(connection: sqlite3.Connection, log_ids: Iterable[str]) -> set[str]:
    """Those of the log ids whose attempt, build or run (`run_N`) exists, or is being removed in order."""
    known = set()
    for log_id in log_ids:
        number = log_id.removeprefix("run_")
        if number != log_id and number.isdigit():
            statement = "SELECT 1 FROM runs WHERE run_id = ?1 UNION SELECT 1 FROM removals WHERE run_id = ?1"
            found = connection.execute(statement, (int(number),)).fetchone()
        else:
            statement = (
                "SELECT 1 FROM attempts WHERE attempt_id = ?1 UNION SELECT 1 FROM builds WHERE build_id = ?1"
            )
            found = connection.execute(statement, (log_id,)).fetchone()
        if found is not None:
            known.add(log_id)
    return known


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
