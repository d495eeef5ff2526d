"""How much memory an attempt has of its own."""

from __future__ import annotations

from collections.abc import Collection

from . import procs

NEAR = 0.8
"""Share of the limit from which the exact, dearer measure is taken."""


def measure(main: int, others: Collection[int], *, baseline: int, limit: int) -> int:
    """Private memory of an attempt's processes, in bytes (B65a).

    `baseline` is what the main process shared with its template when it was
    forked. A cheap bound that is never too small answers while it is far from
    `limit` (0: no limit); then the kernel's exact account is read. Memory that the main
    process shares with its own forks counts once.
    """
    anonymous = procs.anonymous_bytes(main)
    grown = max(0, anonymous - baseline)
    below = sum(procs.anonymous_bytes(pid) for pid in others)
    if not limit or anonymous + below < limit * NEAR:
        return grown + below
    exact = max(procs.private_bytes(main), grown)
    return exact + sum(procs.private_bytes(pid) for pid in others)
