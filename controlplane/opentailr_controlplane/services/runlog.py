"""The run's own log: what the platform did with it, in lines for people (clause B156).

Made from committed changes alone and apart from the engine: a slow disk here delays
these lines and nothing else. What a stop of the process cuts off is not made up for;
the log is a story for people, the truth is in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import structlog

from ..core.rows import RunRow, TaskRow
from ..core.settings import CoreSettings
from ..core.values import CauseKind, PeopleState, RunState, TaskState
from ..logstore import FileLogStore
from ..ports import Change, Engine, Resync, RunChange
from ..store.reads import Reads
from .follow import Subscription

_GATHER = 0.05
"""Seconds for which changes are gathered into one write for each run."""

_LAST_LOOK = 0.01
"""Seconds for what still waits when the writing is ended."""

_BACKLOG = 4096
_PAGE = 2000

_STOP_TOLD = -1
"""Stands for the state of a run whose log has the line about its stop."""

_TOLD = frozenset(
    {
        PeopleState.RUNNING,
        PeopleState.COMPLETED,
        PeopleState.FAILED,
        PeopleState.FAILED_AFTER,
        PeopleState.OUT_OF_MEMORY,
        PeopleState.STOPPED,
        PeopleState.DID_NOT_RUN,
    }
)
"""States of a task that get a line."""

_log = structlog.get_logger("opentailr.runlog")


def run_log_id(run_id: int) -> str:
    """Id of the run's own log."""
    return f"run_{run_id}"


class RunLogWriter:
    """Writes the runs' own logs from `start` to `close`."""

    def __init__(
        self,
        engine: Engine,
        reads: Reads,
        logs: FileLogStore,
        *,
        clock: Callable[[], float] = time.time,
        settings: CoreSettings | None = None,
    ) -> None:
        self._limit = (settings or CoreSettings()).infra_budget
        self._engine = engine
        self._reads = reads
        self._logs = logs
        self._clock = clock
        self._known: dict[int, dict[int, tuple[int, int]]] = {}
        """Last state and number of failed tries told, by run and task, of runs that are active."""
        self._told_runs: dict[int, int] = {}
        self._rows: dict[int, RunRow] = {}
        """Last committed summary of runs that are active: each of its changes is told, so a change of
        tasks alone needs no look at the store."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes note of the runs that are active and begins."""
        subscription = Subscription(self._engine.subscribe(maxsize=_BACKLOG))
        for run in await self._reads.active_runs():
            self._told_runs[run.run_id] = _STOP_TOLD if run.cancel_requested else run.people_state
            self._rows[run.run_id] = run
            self._known[run.run_id] = {
                task.task_id: (task.people_state, _failed_tries(task))
                for task in await self._tasks(run.run_id)
            }
            await self._write(run, ["the control plane was started again; the run goes on"], end=False)
        self._task = asyncio.create_task(self._run(subscription))

    async def close(self) -> None:
        """Ends; what is gathered is written first."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, subscription: Subscription) -> None:
        gathered: list[Change] = []
        async with subscription as changes:
            try:
                while True:
                    change = await changes.next()
                    if change is not None:
                        gathered.append(change)
                    deadline = asyncio.get_running_loop().time() + _GATHER
                    while (left := deadline - asyncio.get_running_loop().time()) > 0:
                        more = await changes.next(left)
                        if more is not None:
                            gathered.append(more)
                    batch, gathered = gathered, []
                    await self._tell(batch)
            except (EOFError, asyncio.CancelledError):
                # What was committed before the stop is told still.
                with contextlib.suppress(EOFError):
                    while (change := await changes.next(_LAST_LOOK)) is not None:
                        gathered.append(change)
                await self._tell(gathered)

    async def _tell(self, batch: Sequence[Change]) -> None:
        runs: dict[int, RunRow] = {}
        tasks: dict[int, list[TaskRow]] = {}
        whole: dict[int, None] = {}
        for change in batch:
            if isinstance(change, Resync):
                whole.update(dict.fromkeys(self._known))
            elif isinstance(change, RunChange):
                if change.run is not None:
                    runs[change.run_id] = change.run
                if change.all_tasks:
                    whole[change.run_id] = None
                tasks.setdefault(change.run_id, []).extend(change.tasks)
        for run_id in dict.fromkeys([*runs, *tasks, *whole]):
            await self._try_tell(run_id, runs.get(run_id), tasks.get(run_id, []), run_id in whole)

    async def _try_tell(self, run_id: int, run: RunRow | None, tasks: list[TaskRow], whole: bool) -> None:
        try:
            await self._tell_run(run_id, run, tasks, whole)
        except Exception as error:
            # Whatever fails here (a full disk, a defect) must not end the writing for good.
            _log.warning("could not write the log of a run", run=run_id, exc_info=error)

    async def _tell_run(self, run_id: int, run: RunRow | None, tasks: list[TaskRow], whole: bool) -> None:
        run = run or self._rows.get(run_id)
        if run is None or whole:
            run = await self._reads.run(run_id)
        if run is None:
            return
        if RunState(run.state) is RunState.EXPIRED:
            # Its log ended with the run. That its results left is no part of that story.
            return
        if whole:
            tasks = await self._tasks(run_id)
        known = self._known.setdefault(run_id, {})
        before = self._told_runs.get(run_id)
        state, terminal = PeopleState(run.people_state), RunState(run.state).terminal
        lines: list[str] = []
        if before is None:
            lines.append(
                f"{_stamp(run.submit_time)} run {run_id} of {run.job_name} version {run.version} "
                f"({run.tasks_total} tasks) started by {run.started_by}, runs as {run.run_as}"
            )
        if run.cancel_requested and before != _STOP_TOLD:
            who = f": {run.cause_message}" if run.cause_kind == CauseKind.STOPPED else ""
            ends = [task.end_time for task in tasks if task.end_time]
            at = min([int(self._clock() * 1e6), *ends])
            lines.append(f"{_stamp(at)} the run was asked to stop{who}")
        lines.extend(await self._task_lines(run, tasks, known))
        if terminal:
            lines.append(
                f"{_stamp(run.end_time)} run {run_id} {state.name.lower()}"
                f"{_because(run.cause_kind, run.cause_message)} ({_counts(run)})"
            )
            self._known.pop(run_id, None)
            self._told_runs.pop(run_id, None)
            self._rows.pop(run_id, None)
        else:
            self._told_runs[run_id] = _STOP_TOLD if run.cancel_requested else run.people_state
            self._rows[run_id] = run
        if lines:
            await self._write(run, lines, end=terminal, stamped=True)

    async def _task_lines(
        self, run: RunRow, tasks: list[TaskRow], known: dict[int, tuple[int, int]]
    ) -> list[str]:
        """A line for each task that moved on, and for each try that the platform itself failed."""
        news: list[tuple[TaskRow, bool, bool]] = []
        for task in tasks:
            state, tries = known.get(task.task_id, (0, 0))
            failed = _failed_tries(task)
            moved = state != task.people_state and PeopleState(task.people_state) in _TOLD
            if moved or failed > tries:
                news.append((task, failed > tries, moved))
            known[task.task_id] = (task.people_state, max(failed, tries))
        if not news:
            return []
        graph = await self._reads.graph(run.definition_id)
        # What has no time of its own followed from what has, and so stands before the end of the run.
        present = (
            max((task.end_time for task in tasks), default=0) or run.end_time or int(self._clock() * 1e6)
        )
        lines: list[tuple[int, str]] = []
        for task, retried, moved in news:
            definition = graph.get(task.task_id)
            name = definition.name if definition is not None else str(task.task_id)
            if retried:
                begun = task.people_state != PeopleState.PENDING and task.start_provisioning_time
                lines.append((begun or present, _retry_line(name, task, self._limit)))
            if moved:
                running = task.people_state == PeopleState.RUNNING
                at = (task.start_time if running else task.end_time) or present
                lines.append((at, _task_line(name, task)))
        lines.sort(key=lambda line: line[0])
        return [f"{_stamp(at)} {text}" for at, text in lines]

    async def _tasks(self, run_id: int) -> list[TaskRow]:
        found: list[TaskRow] = []
        while page := await self._reads.tasks(run_id, after=found[-1].task_id if found else -1, limit=_PAGE):
            found.extend(page)
        return found

    async def _write(self, run: RunRow, lines: Sequence[str], *, end: bool, stamped: bool = False) -> None:
        now = "" if stamped else f"{_stamp(int(self._clock() * 1e6))} "
        text = "".join(f"{now}{line}\n" for line in lines)
        await self._logs.append_own(run_log_id(run.run_id), text.encode("utf-8", "backslashreplace"), end=end)


def _failed_tries(task: TaskRow) -> int:
    """How many attempts of a task that goes on the platform failed; 0 once it has ended."""
    if not task.cause_kind or TaskState(task.state).terminal:
        return 0
    return task.attempts - (task.state == TaskState.ACTIVE)


def _retry_line(name: str, task: TaskRow, limit: int) -> str:
    kind = CauseKind(task.cause_kind)
    why = task.cause_message.partition("\n")[0][:500].rstrip(".")
    charged = kind is not CauseKind.NODE_DRAINED
    which = f" {task.infra_failures + 1} of {limit + 1}" if charged else ""
    return f"task {name}: {why} ({kind.name.lower()}), trying again{which}"


def _task_line(name: str, task: TaskRow) -> str:
    state = PeopleState(task.people_state)
    text = f"task {name} {state.name.lower().replace('_', ' ')}"
    if state is not PeopleState.DID_NOT_RUN and task.node:
        text += f" on {task.node}"
    if TaskState(task.state).terminal:
        text += f", attempt {task.attempts}" if task.attempts > 1 else ""
        text += _because(task.cause_kind, task.cause_message)
    return text


def _because(kind: int, message: str) -> str:
    named = f" ({CauseKind(kind).name.lower()})" if kind else ""
    return f"{named}: {message.partition(chr(10))[0][:500]}" if message else named


def _stamp(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{rest // 1000:03}Z"


def _counts(run: RunRow) -> str:
    parts = [(run.tasks_completed, "completed"), (run.tasks_failed, "failed"), (run.tasks_other, "not run")]
    return ", ".join(f"{number} {word}" for number, word in parts if number) or "no tasks"
