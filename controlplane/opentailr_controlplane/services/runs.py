"""RunService: executions of versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from datatailr.filters import RUNS
from datatailr.v1 import run_pb2, run_pb2_grpc

from ..core import commands
from ..core.errors import InvalidArgument
from ..core.rows import RunRow, TaskRow
from ..core.settings import CoreSettings
from ..core.values import (
    DONE,
    GIVEN_UP,
    Environment,
    PayloadRef,
    PeopleState,
    RunState,
    TaskDefinition,
    TaskState,
)
from ..errors import Aborted
from ..ports import Engine, Resync, RunChange
from ..security.access import Permission, allowed
from ..security.authentication import current_user
from ..store.listings import RunQuery
from ..store.reads import Reads
from . import run_wire, wire
from .follow import Subscription
from .interceptor import Context
from .lookup import Lookup, request_digest, task_not_found
from .pages import filter_in, fit, make_token, next_page, page_in, read_token, sort_in

_WATCH_PAGE = 500
"""Tasks in one message of a watched run: some 150 KB at most."""

_WATCH_SILENCE = 15.0
"""Seconds after which something is sent although nothing changed."""

_FIRST_LOOK = 1.0
"""Seconds of silence after which it is looked whether reasons to wait have changed; the pauses double."""

_LOOKED_AT = 200
"""Most waiting tasks of a watched run whose reasons are kept up to date."""

_TASK_IDS = 500
"""Most tasks that one call asks the attempts of."""


class RunService(run_pb2_grpc.RunServiceServicer):
    """Thin: reads come from the store, commands go to the engine."""

    def __init__(
        self, engine: Engine, reads: Reads, lookup: Lookup, *, settings: CoreSettings | None = None
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._lookup = lookup
        self._settings = settings or CoreSettings()

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:
        """One run, without its tasks."""
        row = await self._lookup.run(request.run_id, Permission.READ)
        return run_pb2.GetRunResponse(run=self._run_out(row))

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        """Runs, newest first unless sorted (clauses B143, B145, B241, B268, B276 to B282)."""
        environment = wire.optional_environment_in(request.environment)
        query = RunQuery(
            job_ids=self._job_ids(request.name, environment),
            # A job lives in one environment. Not to ask for it again lets the index on jobs serve.
            environment=0 if request.name else int(environment or 0),
            start_time_from=request.start_time_from,
            start_time_to=request.start_time_to,
            filter=filter_in(request, RUNS),
            sort=sort_in(request, RUNS),
        )
        size = wire.page_size_in(request.page_size, default=100, limit=1000)
        rows = await self._reads.runs(query, page_in(request, "runs", query.terms, size + 1))
        page = fit([self._run_out(row) for row, _ in rows[:size]])
        more = len(page) < len(rows)
        return run_pb2.ListRunsResponse(
            runs=page,
            next_page_token=next_page(request, "runs", rows[len(page) - 1][1]) if more else "",
        )

    async def ListRunTasks(
        self, request: run_pb2.ListRunTasksRequest, context: Context
    ) -> run_pb2.ListRunTasksResponse:
        """The tasks of a run, by id (clauses B149 to B151)."""
        run = await self._lookup.run(request.run_id, Permission.READ)
        size = wire.page_size_in(request.page_size, default=1000, limit=5000)
        cursor = read_token(request.page_token, "run_tasks", int)
        rows = await self._reads.tasks(run.run_id, after=int(cursor[0]) if cursor else -1, limit=size + 1)
        page = fit(await self._tasks_out(run, rows[:size]))
        return run_pb2.ListRunTasksResponse(
            tasks=page,
            next_page_token=make_token("run_tasks", page[-1].task_id) if len(page) < len(rows) else "",
        )

    async def ListAttempts(
        self, request: run_pb2.ListAttemptsRequest, context: Context
    ) -> run_pb2.ListAttemptsResponse:
        """All tries of the tasks of a run, what came too late included."""
        run = await self._lookup.run(request.run_id, Permission.READ)
        size = wire.page_size_in(request.page_size, default=1000, limit=5000)
        if len(request.task_ids) > _TASK_IDS:
            raise InvalidArgument(
                "too_many_tasks",
                f"task_ids has {len(request.task_ids)} entries",
                field="task_ids",
                hint=f"name at most {_TASK_IDS} tasks, or none for all",
            )
        cursor = read_token(request.page_token, "attempts", int, int)
        rows = await self._reads.run_attempts(
            run.run_id,
            task_ids=request.task_ids,
            after=(int(cursor[0]), int(cursor[1])) if cursor else (-1, 0),
            limit=size + 1,
        )
        late = await self._reads.late_outcomes([row.attempt_id for row in rows if row.state in GIVEN_UP])
        ended = [row.task_id for row in rows if row.cause_kind]
        outcomes = await self._reads.outcomes(run.run_id, ended) if ended else {}
        last = {row.task_id: row.attempt_id for row in rows}
        names = {node.agent_id: node.name for node in self._engine.nodes()}

        def translate() -> list[run_pb2.Attempt]:
            return [
                run_wire.attempt_out(
                    row,
                    late.get(row.attempt_id),
                    node=names.get(row.agent_id, row.agent_id),
                    # Only the attempt that decided has its traceback kept, with the task's outcome.
                    traceback=outcomes[row.task_id].traceback
                    if row.task_id in outcomes and last[row.task_id] == row.attempt_id
                    else "",
                )
                for row in rows[:size]
            ]

        page = fit(translate() if len(rows) <= _WATCH_PAGE else await asyncio.to_thread(translate))
        return run_pb2.ListAttemptsResponse(
            attempts=page,
            next_page_token=make_token("attempts", page[-1].task_id, page[-1].fence)
            if len(page) < len(rows)
            else "",
        )

    async def GetTaskResult(
        self, request: run_pb2.GetTaskResultRequest, context: Context
    ) -> run_pb2.GetTaskResultResponse:
        """The stored result of a task (clauses B131, B159, B160)."""
        run = await self._lookup.run(request.run_id, Permission.READ)
        row = await self._task(run, request.task_id)
        if row.result_digest is None or row.state not in DONE or run.state == RunState.EXPIRED:
            return run_pb2.GetTaskResultResponse()
        reference = PayloadRef(row.result_digest, row.result_size, row.result_inline)
        data = await self._reads.payload(reference.digest) if reference.inline else None
        if reference.inline and data is None:
            # It expired between the two reads.
            return run_pb2.GetTaskResultResponse()
        return run_pb2.GetTaskResultResponse(result=wire.payload_out(reference, data))

    async def CancelRun(
        self, request: run_pb2.CancelRunRequest, context: Context
    ) -> run_pb2.CancelRunResponse:
        """Ends one run (clause B124)."""
        run = await self._lookup.run(request.run_id, Permission.OPERATE)
        await self._engine.execute(commands.CancelRun(current_user().name, run.run_id))
        return run_pb2.CancelRunResponse()

    async def RerunRun(self, request: run_pb2.RerunRunRequest, context: Context) -> run_pb2.RerunRunResponse:
        """Starts a new run after a finished one (clauses B126 to B132)."""
        run = await self._lookup.run(request.run_id, Permission.OPERATE)
        name, environment = request.name, wire.optional_environment_in(request.environment)
        if name:
            place = environment or Environment(run.environment)
            job = self._lookup.find(name, place)
            name = job.name if job is not None else name
        reply = await self._engine.execute(
            commands.Rerun(
                actor=current_user().name,
                run_id=run.run_id,
                version=request.version,
                full=request.full,
                name=name,
                environment=environment,
                idempotency_key=request.idempotency_key,
                request_digest=request_digest(request),
            )
        )
        assert isinstance(reply, commands.RerunReply)
        return run_pb2.RerunRunResponse(run_id=reply.run_id, version=reply.version)

    async def WatchRun(
        self, request: run_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        """Everything as it stands, then each committed change, until the run has ended.

        The subscription begins before the present is read, so nothing falls between. A reader that is
        too slow for the changes gets the present again instead of what was dropped. While nothing
        changes, tasks whose reasons to wait did are told again.
        """
        run = await self._lookup.run(request.run_id, Permission.READ)
        look = _Look()
        async with Subscription(self._engine.subscribe(run_id=run.run_id)) as changes:
            resync = True
            while True:
                if resync:
                    run = await self._lookup.run(run.run_id, Permission.READ)
                    look.told = self._reasons_now(run)
                    async for message in self._present(run):
                        yield message
                    resync = False
                if RunState(run.state).terminal:
                    return
                try:
                    change = await changes.next(look.pause)
                except EOFError:
                    raise Aborted("closing", "the server stops", hint="call again once it is back") from None
                if change is None:
                    news = await self._reasons(run, look)
                    if news is not None:
                        yield news
                    continue
                look.pause = _FIRST_LOOK
                if isinstance(change, Resync) or (isinstance(change, RunChange) and change.all_tasks):
                    resync = True
                elif isinstance(change, RunChange):
                    run = change.run or run
                    shown = self._run_out(run) if change.run is not None else None
                    for begin in range(0, max(1, len(change.tasks)), _WATCH_PAGE):
                        tasks = await self._tasks_out(run, change.tasks[begin : begin + _WATCH_PAGE])
                        for part in _parts(tasks):
                            yield run_pb2.WatchRunResponse(run=shown, tasks=part, synced=True)

    async def _reasons(self, run: RunRow, look: _Look) -> run_pb2.WatchRunResponse | None:
        """The run and those waiting tasks whose reasons changed; None when nobody needs to hear of it yet."""
        look.silence += look.pause
        look.pause = min(2 * look.pause, _WATCH_SILENCE)
        reasons = self._reasons_now(run)
        changed = [
            task_id for task_id in reasons if task_id >= 0 and reasons[task_id] != look.told.get(task_id)
        ]
        if reasons == look.told and look.silence < _WATCH_SILENCE:
            return None
        look.told, look.silence = reasons, 0.0
        rows = await self._reads.some_tasks(run.run_id, changed) if changed else []
        return run_pb2.WatchRunResponse(
            run=self._run_out(run), tasks=fit(await self._tasks_out(run, rows)), synced=True
        )

    def _reasons_now(self, run: RunRow) -> Mapping[int, Sequence[str]]:
        """Why the run (-1) and the first of its tasks wait that nothing but the platform keeps."""
        idle = self._engine.waiting_tasks(run.run_id, limit=_LOOKED_AT)
        return self._engine.waiting_for(run.run_id, idle)

    async def _present(self, run: RunRow) -> AsyncIterator[run_pb2.WatchRunResponse]:
        after, first = -1, True
        while True:
            rows = await self._reads.tasks(run.run_id, after=after, limit=_WATCH_PAGE)
            last = len(rows) < _WATCH_PAGE
            parts = _parts(await self._tasks_out(run, rows))
            for number, part in enumerate(parts, 1):
                yield run_pb2.WatchRunResponse(
                    run=self._run_out(run) if first else None,
                    tasks=part,
                    synced=last and number == len(parts),
                )
                first = False
            if last:
                return
            after = rows[-1].task_id

    async def _task(self, run: RunRow, task_id: int) -> TaskRow:
        row = await self._reads.task(run.run_id, task_id)
        if row is None:
            raise task_not_found(run.run_id, task_id)
        return row

    async def _tasks_out(self, run: RunRow, rows: Sequence[TaskRow]) -> list[run_pb2.RunTask]:
        if not rows:
            return []
        graph = await self._graph(run)
        outcomes = await self._reads.outcomes(
            run.run_id, [row.task_id for row in rows if TaskState(row.state).terminal]
        )
        waiting: Mapping[int, Sequence[str]] = {}
        # That a task became ready is not written by itself, so its row cannot tell.
        idle = [row.task_id for row in rows if row.people_state == PeopleState.PENDING]
        if idle:
            waiting = self._engine.waiting_for(run.run_id, idle)

        def translate() -> list[run_pb2.RunTask]:
            return [
                run_wire.run_task_out(
                    row,
                    run,
                    graph.get(row.task_id),
                    outcomes.get(row.task_id),
                    waiting.get(row.task_id, ()),
                    platform_failure_limit=self._settings.infra_budget,
                )
                for row in rows
            ]

        # A page of thousands takes long to translate: not in the loop.
        return translate() if len(rows) <= _WATCH_PAGE else await asyncio.to_thread(translate)

    async def _graph(self, run: RunRow) -> Mapping[int, TaskDefinition]:
        return await self._reads.graph(run.definition_id)

    def _run_out(self, row: RunRow) -> run_pb2.Run:
        waiting: Sequence[str] = ()
        if not RunState(row.state).terminal:
            waiting = self._engine.waiting_for(row.run_id).get(-1, ())
        return run_wire.run_out(row, waiting)

    def _job_ids(self, name: str, environment: Environment | None) -> list[str] | None:
        """The jobs whose runs are listed; None for all."""
        if not name:
            return self._lookup.scope()
        places = [environment] if environment else list(Environment)
        found = [job for place in places if (job := self._lookup.find(name, place))]
        if not found:
            raise self._lookup.unknown(name, environment or Environment.DEV)
        user = current_user()
        for job in found:
            if not allowed(user, job.acl, Permission.READ):
                self._lookup.job(job.name, job.environment, Permission.READ)
        return [job.job_id for job in found]


@dataclass(slots=True)
class _Look:
    """What a watcher was told of reasons to wait, and when it is looked again."""

    pause: float = field(default_factory=lambda: _FIRST_LOOK)
    silence: float = 0.0
    told: Mapping[int, Sequence[str]] = field(default_factory=dict)


def _parts(tasks: list[run_pb2.RunTask]) -> list[list[run_pb2.RunTask]]:
    """The tasks in as few messages as their size allows; at least one, which may be empty."""
    parts = [fit(tasks)]
    while sum(map(len, parts)) < len(tasks):
        parts.append(fit(tasks[sum(map(len, parts)) :]))
    return parts
