"""Committed changes for whoever follows a run, an image or everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeVar

from .core.batch import WriteBatch
from .core.rows import TaskRow
from .ports import Change, ImageChange, Resync, RunChange

K = TypeVar("K")

_MANY_TASKS = 500
"""Beyond this many changed tasks of one run in one commit, followers read the store instead."""


class Subscription(AsyncIterator[Change]):
    """One follower with a bounded queue; a slow one loses changes and hears `Resync` in their place."""

    def __init__(self, hub: Hub, run_id: int | None, image_key: str | None, maxsize: int) -> None:
        self._hub = hub
        self.run_id = run_id
        self.image_key = image_key
        self._maxsize = maxsize
        self._queue: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, change: Change) -> None:
        """Adds a change, or puts a resync marker in place of all that waits."""
        if len(self._queue) >= self._maxsize:
            self._queue.clear()
            self._queue.append(Resync())
        else:
            self._queue.append(change)
        self._wake.set()

    def close(self) -> None:
        """Ends the iteration; what waits is dropped."""
        self._closed = True
        self._queue.clear()
        self._wake.set()
        self._hub.forget(self)

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    async def __anext__(self) -> Change:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class Hub:
    """All followers, found by what they follow."""

    def __init__(self) -> None:
        self._all: dict[Subscription, None] = {}
        self._runs: dict[int, dict[Subscription, None]] = {}
        self._images: dict[str, dict[Subscription, None]] = {}

    def __len__(self) -> int:
        return len(self._all) + sum(map(len, self._runs.values())) + sum(map(len, self._images.values()))

    def subscribe(self, run_id: int | None, image_key: str | None, maxsize: int) -> Subscription:
        """Begins to follow at once."""
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, not {maxsize}")
        subscription = Subscription(self, run_id, image_key, maxsize)
        if run_id is not None:
            self._runs.setdefault(run_id, {})[subscription] = None
        elif image_key is not None:
            self._images.setdefault(image_key, {})[subscription] = None
        else:
            self._all[subscription] = None
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Stops following; harmless when repeated."""
        self._all.pop(subscription, None)
        if subscription.run_id is not None:
            _leave(self._runs, subscription.run_id, subscription)
        if subscription.image_key is not None:
            _leave(self._images, subscription.image_key, subscription)

    def close(self) -> None:
        """Ends all."""
        groups = [self._all, *self._runs.values(), *self._images.values()]
        for subscription in [item for group in groups for item in group]:
            subscription.close()

    def resync(self) -> None:
        """Everybody reads again: the state was taken back to the last commit."""
        for group in (self._all, *self._runs.values(), *self._images.values()):
            for subscription in group:
                subscription.put(Resync())

    def publish(self, batch: WriteBatch) -> None:
        """Tells what a commit changed."""
        if not (self._all or self._runs or self._images):
            return
        if self._all or self._runs:
            self._publish_runs(batch)
        if self._all or self._images:
            for row in batch.images:
                change = ImageChange(row.image_key, row)
                for subscription in (*self._all, *self._images.get(row.image_key, ())):
                    subscription.put(change)

    def _publish_runs(self, batch: WriteBatch) -> None:
        runs = {row.run_id: row for row in batch.runs}
        tasks: dict[int, list[TaskRow]] = {}
        for row in batch.tasks:
            tasks.setdefault(row.run_id, []).append(row)
        for run_id in dict.fromkeys((*runs, *tasks, *batch.expired_runs)):
            followers = (*self._all, *self._runs.get(run_id, ()))
            if not followers:
                continue
            changed = tasks.get(run_id, [])
            many = run_id in batch.new_runs or len(changed) > _MANY_TASKS or run_id in batch.expired_runs
            change = RunChange(run_id, runs.get(run_id), () if many else tuple(changed), many)
            for subscription in followers:
                subscription.put(change)


def _leave(index: dict[K, dict[Subscription, None]], key: K, subscription: Subscription) -> None:
    followers = index.get(key)
    if followers is not None:
        followers.pop(subscription, None)
        if not followers:
            del index[key]
