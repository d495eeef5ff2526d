"""What is done when the node's disk is full: wait, say so, go on when there is room.

Work that meets a full disk is neither failed nor dropped: it is tried again with growing pauses, the
caches give back what nobody uses, and the node takes nothing new meanwhile. Only when that has lasted
longer than the patience of the work does its error go on, so that the task can be tried elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

T = TypeVar("T")

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of an OSError that mean: no room now."""
_WORDS: Final = ("no space left on device", "disk quota exceeded", "os error 28", "os error 122")
"""What programs say that meet them."""
ATTEMPT_PATIENCE: Final = 60.0
"""Seconds that the files of an attempt wait for room; then another node may have it."""
BUILD_PATIENCE: Final = 600.0
"""Seconds that a build waits; its failure would be everybody's."""
_FIRST: Final = 1.0
_LONGEST: Final = 8.0
"""Seconds between two tries, doubled."""
_AFTER: Final = 15.0
"""Seconds for which the node takes nothing new after the disk refused something for the last time."""


def lacks_room(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk is full."""
    seen: BaseException | None = error

    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL_DISK:
            return True

        text = str(seen).lower()

        if any(words in text for words in _WORDS):
            return True

        seen = seen.__cause__ or seen.__context__

    return False


class Room:
    """Repeats work while the disk is full.

    Args:
        give_back: Frees what caches hold for nobody.
        clock: Monotonic seconds; the loop's own unless given.
        sleep: Waits; tests give others.
    """

    def __init__(
        self,
        give_back: Callable[[], None],
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._give_back = give_back
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._refused = -math.inf
        self._what = ""
        self._waiting = 0
        self._log = structlog.get_logger("room")

    @property
    def trouble(self) -> str:
        """Why the node should take nothing new, or nothing: the disk refused something lately."""
        if not self._waiting and self._clock() - self._refused >= _AFTER:
            return ""

        return f"disk: full when {self._what} was written; free space on the node"

    def refused(self, what: str) -> None:
        """Notes that the disk had no room for something."""
        self._refused = self._clock()
        self._what = what

    async def wait_for(self, what: str, work: Callable[[], Awaitable[T]], *, patience: float) -> T:
        """Does the work, again and again while the disk is full.

        Args:
            what: Names it for people.
            work: Begins anew each time and leaves nothing behind when it fails.
            patience: Seconds after which the error is raised all the same.
        """
        pause, since = _FIRST, self._clock()

        while True:
            try:
                return await work()
            except Exception as error:
                if not lacks_room(error):
                    raise

                self.refused(what)

                if self._clock() - since >= patience:
                    raise

                if pause == _FIRST:
                    self._log.warning("disk full; waiting for room", what=what, error=str(error)[-300:])

            self._give_back()
            self._waiting += 1

            try:
                await self._sleep(pause)
            finally:
                self._waiting -= 1

            pause = min(_LONGEST, pause * 2)
