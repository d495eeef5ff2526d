"""What the services read: committed rows, by key or in pages, without going through the engine.

Reads see the last commit and never wait for the writer (WAL). Each is one short
statement, so that no reader keeps the log of the database from being checkpointed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import Select, Table, event, func, select, tuple_
from sqlalchemy.engine import URL

from ..core.rows import AttemptRow, BuildRow, ImageRow, OutcomeRow, RunRow, TaskRow
from ..core.values import JobDefinition, RunState, TaskDefinition
from . import codec
from .filtering import FOLD
from .listings import JobQuery, Page, RunQuery
from .schema import (
    attempts,
    builds,
    definition_tasks,
    definitions,
    images,
    late_outcomes,
    outcomes,
    payloads,
    removed_logs,
    run_tasks,
    runs,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_CONNECTIONS = 4
"""Readers at once; each has a thread of its own."""

_DEFINITIONS_KEPT = 512
"""Headers of definitions kept in memory; they never change."""

_GRAPHS_KEPT = 8
"""Lists of task definitions kept in memory, for those who follow runs."""

_VARIABLES = 500
"""Keys in one statement."""

Row = TypeVar("Row", bound=tuple[Any, ...])


class StoredCounts(NamedTuple):
    """Numbers for the status page."""

    runs: int
    attempts: int


class StoredLate(NamedTuple):
    """What a node told of an attempt after it had been given up: table `late_outcomes`."""

    attempt_id: str
    state: int
    heard_time: int
    start_time: int
    end_time: int
    cause_kind: int
    cause_message: str
    cause_detail: str


class Reads:
    """Read access to the database file that the writer made; close it before the writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: AsyncEngine | None = None
        self._definitions: OrderedDict[int, JobDefinition] = OrderedDict()
        self._graphs: OrderedDict[int, dict[int, TaskDefinition]] = OrderedDict()

    async def close(self) -> None:
        """Closes all connections."""
        if self._made is not None:
            await self._made.dispose()

    @property
    def _engine(self) -> AsyncEngine:
        if self._made is None:
            # Imported here: it takes as long as half of a start, and nothing is read before agents are back.
            from sqlalchemy.ext.asyncio import create_async_engine

            url = URL.create(
                "sqlite+aiosqlite", database=f"file:{self._path}", query={"mode": "ro", "uri": "true"}
            )
            self._made = create_async_engine(url, pool_size=_CONNECTIONS, max_overflow=0)
            event.listen(self._made.sync_engine, "connect", _prepare)
        return self._made

    async def run(self, run_id: int) -> RunRow | None:
        """One run, or None."""
        found = await self._all(_rows(runs, RunRow).where(runs.c.run_id == run_id))
        return RunRow(*found[0]) if found else None

    async def runs(self, query: RunQuery, page: Page) -> list[tuple[RunRow, tuple[Any, ...]]]:
        """A page of runs, each with the values that the order is made of; the next page begins after them."""
        width = len(RunRow._fields)
        found = await self._all(query.statement(page))
        return [(RunRow(*row[:width]), tuple(row[width:])) for row in found]

    async def jobs(self, query: JobQuery, page: Page) -> list[tuple[str, int, tuple[Any, ...]]]:
        """A page of jobs as id, number of the version shown, and the values that the order is made of."""
        found = await self._all(query.statement(page))
        return [(row[0], row[1], tuple(row[2:])) for row in found]

    async def active_runs(self) -> list[RunRow]:
        """All runs that have not ended, the oldest first."""
        statement = _rows(runs, RunRow).where(runs.c.state < int(RunState.SUCCEEDED)).order_by(runs.c.run_id)
        return [RunRow(*row) for row in await self._all(statement)]

    async def tasks(self, run_id: int, *, after: int = -1, limit: int) -> list[TaskRow]:
        """Tasks of a run by ascending id, those above `after`."""
        statement = (
            _rows(run_tasks, TaskRow)
            .where(run_tasks.c.run_id == run_id, run_tasks.c.task_id > after)
            .order_by(run_tasks.c.task_id)
            .limit(limit)
        )
        return [TaskRow(*row) for row in await self._all(statement)]

    async def task(self, run_id: int, task_id: int) -> TaskRow | None:
        """One task of a run, or None."""
        found = await self.tasks(run_id, after=task_id - 1, limit=1)
        return found[0] if found and found[0].task_id == task_id else None

    async def some_tasks(self, run_id: int, task_ids: Sequence[int]) -> list[TaskRow]:
        """These tasks of a run by ascending id, those that exist; at most some hundred."""
        statement = (
            _rows(run_tasks, TaskRow)
            .where(run_tasks.c.run_id == run_id, run_tasks.c.task_id.in_(list(task_ids)))
            .order_by(run_tasks.c.task_id)
        )
        return [TaskRow(*row) for row in await self._all(statement)]

    async def outcomes(self, run_id: int, task_ids: Sequence[int]) -> dict[int, OutcomeRow]:
        """The long parts of outcomes, for those of the tasks that have one."""
        found: dict[int, OutcomeRow] = {}
        for begin in range(0, len(task_ids), _VARIABLES):
            part = list(task_ids[begin : begin + _VARIABLES])
            statement = _rows(outcomes, OutcomeRow).where(
                outcomes.c.run_id == run_id, outcomes.c.task_id.in_(part)
            )
            found.update(
                (row.task_id, row) for row in (OutcomeRow(*raw) for raw in await self._all(statement))
            )
        return found

    async def attempts(self, run_id: int, task_id: int) -> list[AttemptRow]:
        """All attempts of a task, the first one first."""
        statement = (
            _rows(attempts, AttemptRow)
            .where(attempts.c.run_id == run_id, attempts.c.task_id == task_id)
            .order_by(attempts.c.fence)
        )
        return [AttemptRow(*row) for row in await self._all(statement)]

    async def run_attempts(
        self,
        run_id: int,
        *,
        task_ids: Sequence[int] = (),
        after: tuple[int, int] = (-1, 0),
        limit: int,
    ) -> list[AttemptRow]:
        """Attempts of a run by task and fence, those above `after`; of these tasks alone if any are given."""
        statement = (
            _rows(attempts, AttemptRow)
            .where(
                attempts.c.run_id == run_id,
                tuple_(attempts.c.task_id, attempts.c.fence) > tuple_(*after),
            )
            .order_by(attempts.c.task_id, attempts.c.fence)
            .limit(limit)
        )
        if task_ids:
            statement = statement.where(attempts.c.task_id.in_(list(task_ids)))
        return [AttemptRow(*row) for row in await self._all(statement)]

    async def late_outcomes(self, ids: Sequence[str]) -> dict[str, StoredLate]:
        """What came too late of these attempts, by attempt id."""
        found: dict[str, StoredLate] = {}
        for begin in range(0, len(ids), _VARIABLES):
            statement = _rows(late_outcomes, StoredLate).where(
                late_outcomes.c.attempt_id.in_(list(ids[begin : begin + _VARIABLES]))
            )
            found.update((row[0], StoredLate(*row)) for row in await self._all(statement))
        return found

    async def attempt(self, attempt_id: str) -> AttemptRow | None:
        """One attempt, or None."""
        found = await self._all(_rows(attempts, AttemptRow).where(attempts.c.attempt_id == attempt_id))
        return AttemptRow(*found[0]) if found else None

    async def log_exists(self, log_id: str) -> bool:
        """True when the id is that of an attempt or a build."""
        if await self._all(select(attempts.c.attempt_id).where(attempts.c.attempt_id == log_id)):
            return True
        return bool(await self._all(select(builds.c.build_id).where(builds.c.build_id == log_id)))

    async def logs_removed(self, run_id: int) -> bool:
        """True when the run is kept without its logs."""
        return bool(await self._all(select(removed_logs.c.run_id).where(removed_logs.c.run_id == run_id)))

    async def images(self, keys: Collection[str]) -> dict[str, ImageRow]:
        """Images by key, those that exist."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for begin in range(0, len(wanted), _VARIABLES):
            statement = _rows(images, ImageRow).where(
                images.c.image_key.in_(wanted[begin : begin + _VARIABLES])
            )
            found.update({row[0]: ImageRow(*row) for row in await self._all(statement)})
        return found

    async def builds(self, ids: Sequence[str]) -> list[BuildRow]:
        """Builds by id, those that exist."""
        statement = _rows(builds, BuildRow).where(builds.c.build_id.in_(list(ids)))
        return [BuildRow(*row) for row in await self._all(statement)]

    async def payload(self, digest: str) -> bytes | None:
        """An inline payload, or None."""
        found = await self._all(select(payloads.c.data).where(payloads.c.digest == digest))
        return bytes(found[0][0]) if found else None

    async def definitions(self, ids: Collection[int]) -> dict[int, JobDefinition]:
        """Definitions without their tasks, by number."""
        found = {number: self._definitions[number] for number in ids if number in self._definitions}
        wanted = [number for number in dict.fromkeys(ids) if number not in found]
        for begin in range(0, len(wanted), _VARIABLES):
            statement = select(definitions.c.definition_id, definitions.c.header).where(
                definitions.c.definition_id.in_(wanted[begin : begin + _VARIABLES])
            )
            for number, header in await self._all(statement):
                found[number] = self._definitions[number] = codec.decode_header(header)
        while len(self._definitions) > _DEFINITIONS_KEPT:
            self._definitions.popitem(last=False)
        return found

    async def definition_tasks(
        self, definition_id: int, *, after: int = -1, limit: int
    ) -> list[TaskDefinition]:
        """Tasks of a definition by ascending id, those above `after`."""
        statement = (
            select(*definition_tasks.c)
            .where(definition_tasks.c.definition_id == definition_id, definition_tasks.c.task_id > after)
            .order_by(definition_tasks.c.task_id)
            .limit(limit)
        )
        return [codec.decode_task_definition(tuple(row)) for row in await self._all(statement)]

    async def graph(self, definition_id: int) -> dict[int, TaskDefinition]:
        """All tasks of a definition by id. Kept for a while; read, never change."""
        graph = self._graphs.get(definition_id)
        if graph is None:
            graph, after, page = {}, -1, 2000
            while found := await self.definition_tasks(definition_id, after=after, limit=page):
                graph.update((task.task_id, task) for task in found)
                after = found[-1].task_id
            self._graphs[definition_id] = graph
            while len(self._graphs) > _GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        else:
            self._graphs.move_to_end(definition_id)
        return graph

    async def run_counts(self) -> dict[int, int]:
        """How many runs are in each state that people see."""
        statement = select(runs.c.people_state, func.count()).group_by(runs.c.people_state)
        return {row[0]: row[1] for row in await self._all(statement)}

    async def _all(self, statement: Select[Any]) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            rows: Sequence[Any] = (await connection.execute(statement)).all()
            return rows


def _rows(table: Table, kind: type[Row]) -> Select[Any]:
    """Selects the columns in the order of the fields of the row."""
    fields: tuple[str, ...] = getattr(kind, "_fields")  # noqa: B009 - a NamedTuple's, unknown to the bound
    return select(*(table.c[name] for name in fields))


def _prepare(connection: Any, _record: Any) -> None:
    connection.create_function(FOLD, 1, str.casefold, deterministic=True)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = 1")
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.close()
