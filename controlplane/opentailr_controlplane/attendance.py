"""Notices that the control plane itself was away: a stopped process, a paused machine, a disk that hung.

What agents sent meanwhile waits unread, and every lease looks as if it had ended. So an absence counts like
a restart: no lease ends before the agents could be heard again (invariant 18).
"""

from __future__ import annotations

import asyncio
from typing import Final

from .core.values import SECOND, Instant
from .engine_views import EngineStats
from .ports import Clock

AWAY: Final = 5 * SECOND
"""Shorter pauses cost no lease: three heartbeats may get lost."""


class Attendance:
    """Watches the event loop and the rounds of the engine.

    Args:
        clock: The engine's clock.
        stats: Gets the delays of the loop.
    """

    def __init__(self, clock: Clock, stats: EngineStats) -> None:
        self._clock = clock
        self._stats = stats
        self._seen = clock.now().mono
        self._begun = self._seen
        self._late = False

    def begin(self, now: Instant) -> bool:
        """A round begins: True if the control plane was away since the last one."""
        late = self._late or now.mono - self._seen > AWAY
        self._late = False
        self._begun = now.mono
        self._seen = max(self._seen, now.mono) if late else self._seen
        return late

    def end(self) -> None:
        """The round is over; what came in during a long one has not been looked at."""
        if self._clock.now().mono - self._begun > AWAY:
            self._late = True

    async def watch(self) -> None:
        """Measures once a second how late the loop is, until cancelled."""
        while True:
            begun = self._clock.now().mono
            self._late = self._late or begun - self._seen > AWAY
            self._seen = begun
            await asyncio.sleep(1)
            delay = max((self._clock.now().mono - begun) / SECOND - 1, 0.0)
            self._stats.loop_delay_seconds = delay
            self._stats.loop_delay_seconds_max = max(self._stats.loop_delay_seconds_max, delay)
