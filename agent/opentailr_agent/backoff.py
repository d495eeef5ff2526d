"""Pauses between repetitions."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Doubling pauses with full jitter: each is random between 0 and the present ceiling.

    Args:
        first: Seconds, ceiling of the first pause.
        longest: Seconds, no ceiling is larger.
        draw: Source of numbers between 0 and 1.
    """

    def __init__(
        self, *, first: float = 0.1, longest: float = 8.0, draw: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._draw = draw
        self._ceiling = first

    def next(self) -> float:
        """Seconds to wait now; the ceiling of the next pause is twice as high."""
        ceiling = self._ceiling
        self._ceiling = min(self._longest, ceiling * 2)
        return ceiling * self._draw()

    def reset(self) -> None:
        """Things went well: begin with the first pause again."""
        self._ceiling = self._first
