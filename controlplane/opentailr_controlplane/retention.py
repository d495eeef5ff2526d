"""Retention: finished runs, their logs and results, nodes and builds leave in small steps, for good.

Decisions that something running could contradict go through the engine (`commands.Retire`); what is left of a
removed run is then deleted here, in transactions of some milliseconds with pauses between them. Whatever is
killed when: the tables say what is left to do, and the next pass does it. docs/design/retention.md says what
is kept and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from .collector import Collector
from .core.commands import Command, Reply, Retire, RetireReply
from .core.errors import CoreError
from .core.values import SECOND, Environment
from .logstore import FileLogStore
from .objects import FileObjectStore
from .ports import Maintained
from .retention_policy import Policy
from .services.runlog import run_log_id
from .store import retention as store
from .store.errors import StoreError

T = TypeVar("T")

FIRST_AFTER: Final = 600.0
"""Seconds after the start before the first pass: nodes that were away come back and tell what they have."""

EVERY: Final = 600.0
"""Seconds between two passes."""

SWEEP_EVERY: Final = 6 * 3600.0
"""Seconds between two looks at all objects and all log files."""

READERS_NEED: Final = 60.0
"""Seconds from the disappearance of a run to the deletion of its parts: a call that has read the row of the
run finds everything that belongs to it, and the next call finds no run."""

BATCH: Final = 50
"""Runs taken out, or cleared, together."""

INSTANT_AGE: Final = 86_400
"""Seconds since it was made after which an instant version without a run is one that will have none."""

SHARE: Final = 3.0
"""Pauses are this many times as long as the work before them, so that the engine has the disk to itself most
of the time."""

_SHORTEST_PAUSE: Final = 0.002

HOLD_FILE: Final = "backup.lock"
"""In the data directory: nothing is removed while somebody holds a shared lock on it."""

_log = structlog.get_logger("opentailr.retention")


class Executes(Protocol):
    """What retention needs of the engine."""

    async def execute(self, command: Command) -> Reply:
        """Carries out a command."""


class Held(Exception):
    """A backup is being made; what it will copy must stay."""


class Retention:
    """Passes from `start` to `close`; `run_once` and `sweep` do one at once.

    Args:
        policy: What is kept for how long.
        engine: Judges what may go.
        maintained: The store; deletes.
        database: The file, for reading.
        objects: Swept by reference.
        logs: Lose what the policy says.
        hold: File on which a backup holds a lock.
        clock: Seconds since the epoch.
        sleep: Pauses; tests give one that does not wait.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        engine: Executes,
        maintained: Maintained,
        database: Path,
        objects: FileObjectStore,
        logs: FileLogStore,
        hold: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._maintained = maintained
        self._database = database
        self._logs = logs
        self._hold = hold
        self._clock = clock
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._reader: sqlite3.Connection | None = None
        self._vanished: dict[int, float] = {}
        """Runs taken out by this process, and the monotonic time of that."""
        self._task: asyncio.Task[None] | None = None
        self._spent = 0.0
        self._collector = Collector(
            self._read,
            objects,
            logs,
            policy,
            guard=self._holding_off_backups,
            pause=self._pause,
            clock=clock,
        )
        self.removed: dict[str, float] = dict.fromkeys(
            (
                "runs",
                "instants",
                "logs",
                "builds",
                "nodes",
                "images",
                "objects",
                "object_bytes",
                "stray_logs",
            ),
            0.0,
        )
        """What has gone since the start, by kind."""
        self.last_pass = 0.0
        """When the last whole pass ended, in seconds since the epoch; 0 before the first."""

    def start(self) -> None:
        """Begins to work in the background."""
        self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        """Ends; what was begun goes on after the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_reader)
        self._thread.shutdown()

    def metrics(self) -> dict[str, float]:
        """Numbers for monitoring, by name."""
        return {
            **{f"removed_{kind}": count for kind, count in self.removed.items()},
            "last_pass_seconds": self.last_pass,
        }

    async def run_once(self) -> None:
        """One pass over runs, logs, builds, nodes and images.

        Raises:
            Held: a backup is being made.
            CoreError, StoreError: the engine or the store refuses changes now.
        """
        await self._clear_removed()
        await self._remove_instants()
        for environment, keep in self._policy.environments.items():
            if keep.run_age:
                await self._remove_old(environment, keep.run_age)
            if keep.log_age:
                await self._remove_logs(environment, keep.log_age)
        await self._remove_surplus()
        await self._clear_removed()
        await self._retire_rest()
        self.last_pass = self._clock()

    async def sweep(self) -> None:
        """Removes objects that nothing refers to, and log files of unknown origin.

        Raises:
            Held: a backup is being made.
        """
        swept = await self._collector.sweep_objects()
        self.removed["objects"] += swept.files
        self.removed["object_bytes"] += swept.size
        self.removed["stray_logs"] += await self._collector.sweep_logs()

    # ------------------------------------------------------------------ the parts of a pass

    async def _remove_old(self, environment: Environment, age: int) -> None:
        before = self._micros(age)
        while found := await self._read(store.old_runs, int(environment), before, BATCH):
            if not await self._retire(found):
                return

    async def _remove_surplus(self) -> None:
        limits = {keep.run_count for keep in self._policy.environments.values() if keep.run_count}
        if not limits:
            return
        for job_id, environment in await self._read(store.crowded_jobs, min(limits)):
            keep = self._policy.environments[Environment(environment)].run_count
            while keep and (found := await self._read(store.surplus_runs, job_id, keep, BATCH)):
                if not await self._retire(found):
                    break

    async def _retire(self, run_ids: list[int]) -> bool:
        """Takes runs out of sight; False when the engine still needs all of them."""
        with self._holding_off_backups():
            reply = await self._engine.execute(Retire(tuple(run_ids)))
        assert isinstance(reply, RetireReply)
        self._vanished.update(dict.fromkeys(reply.run_ids, time.monotonic()))
        self.removed["runs"] += len(reply.run_ids)
        await self._pause()
        return bool(reply.run_ids)

    async def _clear_removed(self) -> None:
        """Deletes what is left of runs that nobody can be reading any more."""
        due = time.monotonic() - READERS_NEED
        waiting = [
            run_id for run_id in await self._read(store.removals) if self._vanished.get(run_id, due) <= due
        ]
        for begin in range(0, len(waiting), BATCH):
            await self._clear(waiting[begin : begin + BATCH])

    async def _clear(self, run_ids: list[int]) -> None:
        with self._holding_off_backups():
            while attempts := await self._read(store.attempts_of, run_ids):
                # Files first: the rows are what the next pass finds them by.
                await self._logs.remove(attempts)
                await self._write(store.drop_attempts, attempts)
            await self._logs.remove([run_log_id(run_id) for run_id in run_ids])
            while await self._write(store.drop_tasks, run_ids):
                pass
            await self._write(store.drop_runs, run_ids)
        for run_id in run_ids:
            self._vanished.pop(run_id, None)

    async def _remove_instants(self) -> None:
        """Instant versions leave when the last of their runs has, with what they consist of."""
        if await self._read(store.removals):
            # Somebody may still read a run that has just been taken out, and by it the definition.
            return
        before = self._micros(INSTANT_AGE)
        while found := await self._read(store.lonely_instants, before, BATCH):
            with self._holding_off_backups():
                reply = await self._engine.execute(Retire(instants=tuple(found)))
            assert isinstance(reply, RetireReply)
            self.removed["instants"] += len(reply.instants)
            await self._pause()
            if not reply.instants:
                break
        while definitions := await self._read(store.lonely_definitions, BATCH):
            with self._holding_off_backups():
                for definition_id in definitions:
                    while await self._write(store.drop_definition, definition_id):
                        pass

    async def _remove_logs(self, environment: Environment, age: int) -> None:
        before, seen = self._micros(age), None
        while found := await self._read(store.old_logs, int(environment), before, seen, BATCH):
            seen = found[-1]
            run_ids = [run.run_id for run in found]
            with self._holding_off_backups():
                # Said before it is done: nobody may take a removed log for an empty one.
                await self._write(store.note_logs, run_ids, False)
                after = ""
                while attempts := await self._read(store.attempts_of, run_ids, after):
                    await self._logs.remove(attempts)
                    after = attempts[-1]
                await self._logs.remove([run_log_id(run_id) for run_id in run_ids])
                await self._write(store.note_logs, run_ids, True)
            self.removed["logs"] += len(run_ids)

    async def _retire_rest(self) -> None:
        dev = self._policy.environments[Environment.DEV]
        while dev.log_age and (found := await self._read(store.old_builds, self._micros(dev.log_age), BATCH)):
            with self._holding_off_backups():
                await self._logs.remove(found)
                await self._write(store.drop_builds, found)
            self.removed["builds"] += len(found)
        images_before = self._micros(dev.run_age) if dev.run_age else 0
        with self._holding_off_backups():
            reply = await self._engine.execute(
                Retire(nodes_before=self._micros(self._policy.node_age), images_before=images_before)
            )
        assert isinstance(reply, RetireReply)
        self.removed["nodes"] += len(reply.agent_ids)
        self.removed["images"] += len(reply.image_keys)

    # ------------------------------------------------------------------ means

    async def _run(self) -> None:
        await asyncio.sleep(FIRST_AFTER)
        swept = -SWEEP_EVERY
        while True:
            try:
                await self.run_once()
                if time.monotonic() - swept >= SWEEP_EVERY:
                    await self.sweep()
                    swept = time.monotonic()
            except Held:
                _log.info("a backup is being made; nothing is removed until it is done")
            except (CoreError, StoreError, OSError, sqlite3.Error) as error:
                _log.warning("removing what is old was broken off; it goes on later", error=str(error))
            except Exception as error:
                _log.error("removing what is old failed", exc_info=error)
            await asyncio.sleep(EVERY)

    def _micros(self, age: int) -> int:
        """The wall time `age` seconds ago, in microseconds; at least 1."""
        return max(1, int((self._clock() - age) * SECOND))

    async def _read(self, work: Callable[..., T], *arguments: object) -> T:
        def run() -> T:
            if self._reader is None:
                self._reader = sqlite3.connect(
                    f"file:{self._database}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
                )
                self._reader.execute("PRAGMA busy_timeout = 5000").close()
            return work(self._reader, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _write(self, work: Callable[..., T], *arguments: Any) -> T:
        begun = time.monotonic()
        result = await self._maintained.maintain(lambda connection: work(connection, *arguments))
        self._spent = time.monotonic() - begun
        await self._pause()
        return result

    async def _pause(self) -> None:
        spent, self._spent = self._spent, 0.0
        await self._sleep(max(_SHORTEST_PAUSE, SHARE * spent))

    @contextlib.contextmanager
    def _holding_off_backups(self) -> Iterator[None]:
        handle = os.open(self._hold, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Held from None
            yield
        finally:
            os.close(handle)
