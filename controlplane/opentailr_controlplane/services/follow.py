"""Following committed changes without polling, and without leaving subscriptions behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..ports import Change

T = TypeVar("T")


class Subscription:
    """The changes of one subject, to be used with `async with`.

    It begins with construction, so that what is read afterwards and what comes here
    leave no gap between them.
    """

    def __init__(self, changes: AsyncIterator[Change]) -> None:
        self._changes = changes
        self._next: asyncio.Future[Change] | None = None

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending, self._next = self._next, None
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
            if not pending.cancelled():
                pending.exception()
        close: Callable[[], Any] | None = getattr(self._changes, "aclose", None)
        if close is not None:
            await close()

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change, or None after `timeout` seconds without one. EOFError when the engine closed."""
        if self._next is None:
            self._next = asyncio.ensure_future(_first(self._changes))
        done, _ = await asyncio.wait({self._next}, timeout=timeout)
        if not done:
            return None
        ready, self._next = self._next, None
        return ready.result()


async def _first(changes: AsyncIterator[Change]) -> Change:
    try:
        return await anext(changes)
    except StopAsyncIteration:
        raise EOFError from None


class Merge(Generic[T]):
    """The items of several producers in one bounded queue; a slow reader slows the producers."""

    def __init__(self, *, maxsize: int = 4) -> None:
        self._queue: asyncio.Queue[T | BaseException | None] = asyncio.Queue(maxsize)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, items: AsyncIterator[T]) -> None:
        """Starts a producer."""
        self._tasks.add(asyncio.create_task(self._pump(items)))

    async def __aenter__(self) -> Merge[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def items(self) -> AsyncIterator[T]:
        """Everything, until all producers have ended; their first error is raised here."""
        left = len(self._tasks)
        while left:
            item = await self._queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    async def _pump(self, items: AsyncIterator[T]) -> None:
        try:
            async for item in items:
                await self._queue.put(item)
            await self._queue.put(None)
        except Exception as error:
            await self._queue.put(error)
