"""Removes objects and log files that nothing refers to: mark in the tables, sweep the directories.

Both go one small directory at a time (there are 256 of each), each with references read just before, so no
list of everything is ever made. What is young stays whatever the tables say: somebody may have written it, or
asked for it, and not told yet what for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar

from .logstore import FileLogStore
from .objects import FileObjectStore
from .retention_policy import DAY, Policy
from .store import retention as store
from .sweeping import Swept

T = TypeVar("T")

SHARDS: Final = tuple(f"{number:02x}" for number in range(256))

LOG_GRACE: Final = float(DAY)
"""Seconds for which a log file of unknown origin stays after it was last written."""


class Reader(Protocol):
    """Runs a function on a connection of its own to the committed tables."""

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of `work(connection, *arguments)`."""


class Collector:
    """One directory of objects and one of logs at each step, around and around.

    Args:
        read: Access to the tables.
        objects: Swept by reference.
        logs: Swept of what the removal of runs may have left behind.
        policy: Ages.
        guard: Entered for each directory; raises when nothing may be removed now.
        pause: Awaited between two directories.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        read: Reader,
        objects: FileObjectStore,
        logs: FileLogStore,
        policy: Policy,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        pause: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._objects = objects
        self._logs = logs
        self._policy = policy
        self._guard = guard
        self._pause = pause
        self._clock = clock

    async def sweep_objects(self) -> Swept:
        """Looks at every object once; returns what was removed."""
        files = size = 0
        # Read once: who refers to another bundle from now on has asked for it, and so keeps it young.
        bundles = await self._read(store.bundles)
        for shard in SHARDS:
            before = self._clock() - self._policy.object_grace
            with self._guard():
                keep = bundles | await self._read(store.results_and_arguments, shard)
                swept = await self._objects.sweep(shard, keep, before=before)
            files, size = files + swept.files, size + swept.size
            await self._pause()
        now = self._clock()
        await self._objects.sweep_leftovers(
            uploads_before=now - self._policy.object_grace, damaged_before=now - self._policy.damaged_age
        )
        return Swept(files, size)

    async def sweep_logs(self) -> int:
        """Looks at every log file once; returns how many logs were removed."""
        count = 0
        for shard in SHARDS:
            with self._guard():
                found = await self._logs.stale(shard, before=self._clock() - LOG_GRACE)
                known = await self._read(store.known_logs, found) if found else set()
                unknown = [log_id for log_id in found if log_id not in known]
                await self._logs.remove(unknown)
            count += len(unknown)
            await self._pause()
        return count
