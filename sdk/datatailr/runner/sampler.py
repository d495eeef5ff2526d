"""Watches the memory of all attempts of a keeper, for a small share of one core."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping

from . import procs
from .attempt import Attempt
from .loop import Loop, Timer
from .memory import NEAR
from .pool import Pool
from .strays import Strays

LOOK_SHARE = 20
"""The cheap looks rest this many times as long as they worked."""
WEIGH_SHARE = 20
"""So does the exact measure of attempts that are near their limit."""
URGENT_SHARE = 3
"""And so where an attempt seems to be beyond its limit."""
LONGEST = 0.25
"""Seconds between two looks at most: what a task can take meanwhile the machine must bear."""
YOUNG = 0.04
"""Seconds before an attempt is looked at for the first time."""


class Sampler:
    """Ends attempts beyond their limit (B65a).

    The cheap looks come every `seconds`, whatever the exact measure costs: a task that takes
    gigabytes in one go is found by them, and one dear attempt does not hide the others.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        attempts: Mapping[str, Attempt],
        strays: Strays,
        pool: Pool,
        kill: Callable[[Attempt], None],
        seconds: float,
    ) -> None:
        self._loop = loop
        self._attempts = attempts
        self._strays = strays
        self._pool = pool
        self._kill = kill
        self._seconds = seconds
        self._timer: Timer | None = None
        self._weigh_after = 0.0
        self._urgent_after = 0.0

    def schedule(self) -> None:
        """Looks again soon; goes on by itself while there is something to look at."""
        if self._timer is None:
            self._timer = self._loop.later(self._seconds, self._sample)

    def _sample(self) -> None:
        self._timer = None
        # Time of our own only: waiting for the processor is no work.
        begun = time.thread_time()
        running = [a for a in self._attempts.values() if a.started_at and not a.exited]
        dear = self._look(running)
        importing = self._look_at_imports()
        pause = max(self._seconds, LOOK_SHARE * (time.thread_time() - begun))
        self._weigh(dear)
        if running or importing:
            self._timer = self._loop.later(min(pause, LONGEST), self._sample)

    def _look(self, running: list[Attempt]) -> dict[Attempt, list[int]]:
        """Takes the cheap numbers; the attempts that need the exact one, with all processes below."""
        now = time.monotonic()
        orphans = self._strays.by_attempt() if running else {}
        dear: dict[Attempt, list[int]] = {}
        for attempt in running:
            if now - attempt.seen_at < YOUNG:
                continue
            below = procs.descendants([attempt.pid, *orphans.get(attempt.id, ())])[1:]
            gauge = attempt.gauge
            gauge.look(attempt.pid, below)
            if attempt.limit and gauge.grown > attempt.limit:
                self._judge(attempt, gauge.grown)
            elif attempt.limit and gauge.bound >= attempt.limit * NEAR:
                dear[attempt] = below
            else:
                attempt.peak = max(attempt.peak, gauge.likely)
        return dear

    def _weigh(self, dear: dict[Attempt, list[int]]) -> None:
        """Measures those that seem beyond their limit, and in turn one of those that are only near."""
        now = time.monotonic()
        chosen: list[Attempt] = []
        if now >= self._urgent_after:
            chosen = [attempt for attempt in dear if attempt.gauge.likely > attempt.limit]
        if not chosen and dear and now >= self._weigh_after:
            chosen = [min(dear, key=lambda attempt: attempt.gauge.weighed_at)]
        if not chosen:
            return
        begun = time.thread_time()
        for attempt in chosen:
            self._judge(attempt, attempt.gauge.weigh(attempt.pid, dear[attempt], now))
        cost = time.thread_time() - begun
        now = time.monotonic()
        self._urgent_after = now + URGENT_SHARE * cost
        self._weigh_after = now + WEIGH_SHARE * cost

    def _judge(self, attempt: Attempt, used: int) -> None:
        attempt.peak = max(attempt.peak, used)
        if used > attempt.limit and attempt.report is None:
            attempt.out_of_memory = True
            self._kill(attempt)

    def _look_at_imports(self) -> bool:
        """Gives up an import that grew beyond the limit of all who wait for it; True if one goes on.

        Each of them then imports for itself, where its own limit counts.
        """
        importing = self._pool.importing()
        for prepared in importing:
            limits = [attempt.limit for attempt in prepared.waiting]
            if limits and all(limits) and procs.anonymous_bytes(prepared.pid) > max(limits):
                procs.send(prepared.pid, signal.SIGKILL)
        return bool(importing)
