"""The keeper's event loop: descriptors, timers and nothing else."""

from __future__ import annotations

import heapq
import itertools
import selectors
import sys
import time
import traceback
from collections.abc import Callable

MAX_WAIT = 3600.0


class Timer:
    """A callback that runs once, unless it is cancelled before."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Calls back when descriptors are ready or times have come, in one thread.

    A callback that fails is written to the error stream and changes nothing for
    the others: a keeper that dies takes its attempts' outcomes with it.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.after_pass: list[Callable[[], object]] = []
        """Called after each pass, to send what has gathered."""

    def watch(self, descriptor: int, callback: Callable[[], object], *, writing: bool = False) -> None:
        """Calls back while the descriptor is readable, with `writing` also while it is writable."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        try:
            self._selector.modify(descriptor, events, callback)
        except KeyError:
            self._selector.register(descriptor, events, callback)

    def forget(self, descriptor: int) -> None:
        """Stops watching; must come before the descriptor is closed."""
        try:
            self._selector.unregister(descriptor)
        except KeyError:
            return

    def later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def run_once(self) -> None:
        """Waits for something to happen and does what it asks for."""
        wait = MAX_WAIT
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        if self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - time.monotonic()))
        for key, _ in self._selector.select(wait):
            # An earlier callback of this pass may have closed the descriptor.
            if self._selector.get_map().get(key.fd) is not None:
                guarded(key.data)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                guarded(timer.callback)
        for callback in self.after_pass:
            guarded(callback)

    def close(self) -> None:
        self._selector.close()


def guarded(callback: Callable[[], object]) -> None:
    """Runs a callback; its failure is written down and ends there."""
    try:
        callback()
    except Exception:
        try:
            traceback.print_exc(file=sys.stderr)
        except OSError:
            # The disk of the log is full: the words are lost, the keeper is not.
            return
