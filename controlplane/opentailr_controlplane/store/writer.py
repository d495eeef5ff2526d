"""One transaction for one batch, in plain SQL made from the tables once.

Runs in the store's own thread with a synchronous connection: 0.2 to 0.3 ms a commit, where the async layer
needs more than 1 ms.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Table

from ..core.batch import WriteBatch
from ..core.definition import CheckedDefinition
from ..core.values import AttemptState, Payload, PeopleState, RunState, TaskState
from . import codec, retention, schema


def upsert_sql(table: Table, *, keep: bool = False, fixed: Collection[str] = ()) -> str:
    """INSERT that replaces the other columns of an existing row, or with `keep` leaves it alone.

    Args:
        table: The table.
        keep: Leave an existing row as it is.
        fixed: Columns that never change. Not to name them spares the rewriting of their indexes.
    """
    columns = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key.columns]
    rest = [name for name in columns if name not in keys and name not in fixed]
    action = "NOTHING" if keep or not rest else "UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in rest)
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(keys)}) DO {action}"
    )


_COUNTERS = upsert_sql(schema.counters)
_DEFINITIONS = upsert_sql(schema.definitions)
_DEFINITION_TASKS = upsert_sql(schema.definition_tasks)
_PAYLOADS = upsert_sql(schema.payloads, keep=True)
_JOBS = upsert_sql(schema.jobs)
_VERSIONS = upsert_sql(schema.versions)
_IMAGES = upsert_sql(schema.images)
_BUILDS = upsert_sql(schema.builds)
_AGENTS = upsert_sql(schema.agents)
_RUNS = upsert_sql(
    schema.runs,
    fixed=(
        *("job_id", "version", "definition_id", "job_name", "display_name", "environment", "type", "run_as"),
        *("started_by", "run_date", "original_run_id", "partial_rerun", "submit_time", "scheduled_time"),
    ),
)
_TASKS = upsert_sql(schema.run_tasks)
_ATTEMPTS = upsert_sql(schema.attempts)
_OUTCOMES = upsert_sql(schema.outcomes)
_REMEMBERED = upsert_sql(schema.idempotency)
_LATE = (
    # Only of an attempt of this node that was given up, and only the first: what came in time is the truth.
    "INSERT INTO late_outcomes (attempt_id, state, heard_time, start_time, end_time, cause_kind, "
    "cause_message, cause_detail) SELECT attempt_id, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM attempts "
    "WHERE attempt_id = ?1 AND fence = ?2 AND agent_id = ?3 "
    f"AND state IN ({int(AttemptState.LOST)}, {int(AttemptState.WITHDRAWN)}) "
    "ON CONFLICT (attempt_id) DO NOTHING"
)
_FORGET = "DELETE FROM idempotency WHERE actor = ? AND key = ?"


def _new_run_sql() -> str:
    columns = [column.name for column in schema.run_tasks.columns]
    first = {
        "run_id": "?",
        "task_id": "task_id",
        "state": str(int(TaskState.BLOCKED)),
        "people_state": str(int(PeopleState.PENDING)),
        "attempt_id": "''",
        "cause_message": "''",
        "cause_detail": "''",
        "node": "''",
        "result_digest": "NULL",
    }
    values = ", ".join(first.get(name, "0") for name in columns)
    return (
        f"INSERT INTO run_tasks ({', '.join(columns)}) "
        f"SELECT {values} FROM definition_tasks WHERE definition_id = ?"
    )


_NEW_RUN = _new_run_sql()

_EXPIRE = (
    # Results that nothing else names; a rerun that took one over keeps it.
    "DELETE FROM payloads WHERE digest IN (SELECT result_digest FROM run_tasks WHERE run_id = :run) "
    "AND NOT EXISTS (SELECT 1 FROM run_tasks AS other WHERE other.result_digest = payloads.digest "
    "AND other.run_id <> :run) "
    "AND NOT EXISTS (SELECT 1 FROM definition_tasks AS task WHERE task.arguments_digest = payloads.digest)",
    "UPDATE run_tasks SET result_digest = NULL, result_size = 0, result_inline = 0 WHERE run_id = :run",
    "DELETE FROM outcomes WHERE run_id = :run",
    f"UPDATE runs SET state = {int(RunState.EXPIRED)}, people_state = {int(PeopleState.EXPIRED)} "
    "WHERE run_id = :run",
)


def write(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    """Writes a batch whole or not at all."""
    with transaction(connection):
        _write(connection, batch)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What is written inside is kept whole or, when something is raised, not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    if batch.counters is not None:
        connection.execute(_COUNTERS, batch.counters)
    for definition_id, checked in batch.definitions.items():
        _write_definition(connection, definition_id, checked)
    if batch.payloads:
        connection.executemany(
            _PAYLOADS, ((digest, len(data), data) for digest, data in batch.payloads.items())
        )
    _many(connection, _IMAGES, batch.images)
    _many(connection, _BUILDS, batch.builds)
    _many(connection, _JOBS, batch.jobs)
    _many(connection, _VERSIONS, batch.versions)
    _many(connection, _AGENTS, batch.agents)
    _many(connection, _RUNS, batch.runs)
    for run_id, definition_id in batch.new_runs.items():
        connection.execute(_NEW_RUN, (run_id, definition_id))
    _many(connection, _TASKS, batch.tasks)
    _many(connection, _ATTEMPTS, batch.attempts)
    _many(connection, _LATE, batch.late)
    _many(connection, _OUTCOMES, batch.outcomes)
    _many(connection, _REMEMBERED, batch.remembered)
    _many(connection, _FORGET, batch.forgotten)
    retention.remove(connection, batch.retired)
    for run_id in batch.expired_runs:
        for statement in _EXPIRE:
            connection.execute(statement, {"run": run_id})


def _many(connection: sqlite3.Connection, statement: str, rows: Sequence[Iterable[Any]]) -> None:
    if len(rows) == 1:
        connection.execute(statement, tuple(rows[0]))
    elif rows:
        connection.executemany(statement, rows)  # type: ignore[arg-type]


def _write_definition(connection: sqlite3.Connection, definition_id: int, checked: CheckedDefinition) -> None:
    definition = checked.definition
    header = codec.encode_header(definition)
    connection.execute(_DEFINITIONS, (definition_id, checked.image_key, len(definition.tasks), header))
    if not definition.tasks:
        return
    connection.executemany(
        _DEFINITION_TASKS, (codec.task_definition_row(definition_id, task) for task in checked.tasks.values())
    )
    connection.executemany(
        _PAYLOADS,
        (
            (task.arguments.digest, task.arguments.size, task.arguments.data)
            for task in definition.tasks
            if isinstance(task.arguments, Payload) and task.arguments.data is not None
        ),
    )
