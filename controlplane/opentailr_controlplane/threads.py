"""Work in threads that a cancelled caller does not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(executor: Executor, call: Callable[[Unpack[Ts]], T], *arguments: Unpack[Ts]) -> T:
    """What `call(*arguments)` returns or raises, carried out by a thread of the executor.

    A cancelled caller hears of it only when the call is over, and a call that waits for a thread is still
    carried out. Else a file could be closed under the thread that writes to it, whose descriptor may be
    another file's by then; or not be closed at all, because the closing was still waiting.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, call, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            # Nobody awaits it any more; looked at, it is not reported as forgotten.
            future.exception()
        raise
