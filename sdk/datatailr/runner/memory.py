"""How much memory an attempt has of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from . import procs

NEAR = 0.8
"""Share of the limit from which the exact, dearer measure is taken now and then."""


@dataclass
class Gauge:
    """Follows the private memory of one attempt's processes, in bytes (B65a).

    Two numbers can be had for next to nothing: a bound that is never too small, which counts what
    the processes share with a template or with each other once for each of them, and what the
    main process has grown by since it was forked, which is never too large. Only between the two
    the kernel's own account must be read, which takes 0.1 ms for each MiB.
    """

    baseline: int
    """What the main process shared with its template when it was forked."""
    grown: int = 0
    bound: int = 0
    weighed_at: float = 0.0
    """When the kernel's account was read last, monotonic seconds."""
    _weighed: int = 0
    _bound_then: int = -1

    def look(self, main: int, others: Collection[int]) -> None:
        """Takes the two cheap numbers."""
        if self._bound_then < 0:
            self._bound_then = self.baseline
        anonymous = procs.anonymous_bytes(main)
        self.grown = max(0, anonymous - self.baseline)
        self.bound = anonymous + sum(procs.anonymous_bytes(pid) for pid in others)
        # What was given back may have been shared: what comes in its place counts from there.
        self._bound_then = min(self._bound_then, self.bound)

    @property
    def likely(self) -> int:
        """What was weighed last, and everything since then as if it were private."""
        return max(self.grown, self._weighed + max(0, self.bound - max(0, self._bound_then)))

    def weigh(self, main: int, others: Collection[int], now: float) -> int:
        """Reads the kernel's account. What the main process shares with its own forks counts once."""
        exact = max(procs.private_bytes(main), self.grown)
        self._weighed = exact + sum(procs.private_bytes(pid) for pid in others)
        self._bound_then = self.bound
        self.weighed_at = now
        return self._weighed
