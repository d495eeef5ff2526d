"""Reading a log to its end while it is still being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from ..logfiles import Extent, log_expired
from ..logstore import FileLogStore, Stream

QUIET = 10.0
"""Seconds without a byte after which the log of something that is over counts as complete though no end
came: the node that had the rest is gone."""


async def follow_log(
    logs: FileLogStore,
    log_id: str,
    stream: Stream,
    offset: int,
    *,
    over: Callable[[], Awaitable[bool]],
    quiet: float = QUIET,
) -> AsyncIterator[tuple[int, bytes]]:
    """Chunks (offset, bytes) from `offset` until the log has ended.

    Args:
        logs: Where the log is.
        log_id: Its id.
        stream: Which output.
        offset: Where to begin.
        over: Whether what writes the log has ended for good; asked only after a quiet time.
        quiet: Seconds of silence after which `over` is asked. An empty chunk is then given out, so
            that a reader who has gone is noticed.
    """
    while True:
        while data := await logs.read(log_id, stream, offset):
            yield offset, data
            offset += len(data)
        here = await logs.extent(log_id, stream)
        # One that is only shorter could not be synced; its sender brings the rest again.
        if here.removed and here.size < offset:
            raise log_expired(log_id)
        extent = await _wait(logs, log_id, stream, offset, quiet)
        if extent is None:
            if await over() and (await logs.extent(log_id, stream)).size <= offset:
                return
            yield offset, b""
        elif extent.removed and offset:
            raise log_expired(log_id)
        elif extent.size <= offset:
            return


async def _wait(logs: FileLogStore, log_id: str, stream: Stream, offset: int, quiet: float) -> Extent | None:
    try:
        async with asyncio.timeout(quiet):
            return await logs.wait(log_id, stream, offset)
    except TimeoutError:
        return None
