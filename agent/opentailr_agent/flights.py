"""Single flight: equal work is done once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Shares running work by key. Work that the last waiter has left is cancelled."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}
        self._waiters: dict[str, int] = {}

    def running(self, key: str) -> bool:
        """True while work for this key goes on."""
        return key in self._tasks

    async def join(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Result of the work under this key; begins it if nobody did.

        Raises:
            Exception: What the work raised, for each waiter.
        """
        task = self._tasks.get(key)

        if task is None:
            task = asyncio.create_task(work())
            self._tasks[key] = task
            self._waiters[key] = 0
            task.add_done_callback(lambda done: self._landed(key, done))

        self._waiters[key] += 1

        try:
            return await asyncio.shield(task)
        finally:
            # Another flight may have begun under the key since this one landed.
            if self._tasks.get(key) is task:
                self._waiters[key] -= 1

                if not self._waiters[key]:
                    self._landed(key, task)
                    task.cancel()
                    # What it holds (processes, files) is let go before the key is used again.
                    await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Cancels everything and waits for it."""
        tasks = list(self._tasks.values())

        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            del self._waiters[key]

        if task.done() and not task.cancelled():
            # Each waiter gets the exception; without waiters nobody needs it.
            task.exception()
