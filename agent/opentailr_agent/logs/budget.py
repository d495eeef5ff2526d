"""Keeps the logs of a node within their share of its disk.

A task writes its output straight into files, so nothing can hold it up, and nothing must: while the
control plane is away or slow, the files grow. When they reach the bound, first what is durable is given
back to the disk, then the oldest unsent bytes of the log that takes most, again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from opentailr_agent.logs.spool import Spool

SPOOL_LIMIT: Final = 2 << 30
"""Bytes that all logs of the node may take."""
DISK_SHARE: Final = 0.5
"""Part of the disk's free space, counted without the logs, that they may take at most."""
_AIM: Final = 0.875
"""Part of the bound that is left after something was dropped, so that it is not done for every line."""
_FASTEST: Final = 1 << 30
"""Bytes a second that tasks are expected to write at most; tells when to look again."""
_SHORTEST: Final = 0.05
_LONGEST: Final = 1.0
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at all logs found and did."""

    held: int
    """Bytes that the logs take now."""
    limit: int
    dropped: int
    """Bytes that were lost just now."""
    pause: float
    """Seconds after which to look again."""


class SpoolBudget:
    """The bound of all logs together.

    Args:
        limit: Bytes that they may take.
        share: Part of the free disk that they may take.
        free: Free bytes of the disk that a log is on; tests give others.
    """

    def __init__(
        self,
        *,
        limit: int = SPOOL_LIMIT,
        share: float = DISK_SHARE,
        free: Callable[[Spool], int] = Spool.free_disk,
    ) -> None:
        self._limit = limit
        self._share = share
        self._free = free

    def enforce(self, spools: Iterable[Spool]) -> Look:
        """Looks at all logs and gives back what is beyond the bound."""
        files = self._files(spools)

        if not files:
            return Look(0, self._limit, 0, _LONGEST)

        held = {key: logs[0].held_bytes() for key, logs in files.items()}
        total = sum(held.values())
        # Their own bytes are the disk's too once they are gone.
        free = self._free(next(iter(files.values()))[0])
        limit = min(self._limit, int(self._share * (free + total)))
        dropped = 0

        for key, logs in files.items():
            if any(log.refused for log in logs):
                held[key] -= _drop(logs, held[key])[0]

        if sum(held.values()) > limit:
            for key, logs in files.items():
                _free_durable(logs)
                held[key] = logs[0].held_bytes()

        tried: set[tuple[int, int]] = set()
        aim = int(limit * _AIM)

        while sum(held.values()) > limit or (dropped and sum(held.values()) > aim):
            left = held.keys() - tried

            if not left:
                break

            key = max(left, key=held.__getitem__)
            others = max((held[other] for other in left if other != key), default=0)
            # No more than makes it as small as the next one: all shrink together.
            wanted = min(sum(held.values()) - aim, max(held[key] - others, held[key] // 8))
            freed, lost = _drop(files[key], wanted)
            dropped += lost
            held[key] -= freed

            if not freed:
                tried.add(key)

        total = sum(held.values())
        pause = min(_LONGEST, max(_SHORTEST, (limit - total) / _FASTEST))
        return Look(total, limit, dropped, pause)

    def _files(self, spools: Iterable[Spool]) -> dict[tuple[int, int], list[Spool]]:
        """Logs by the file that they are in."""
        files: dict[tuple[int, int], list[Spool]] = {}

        for spool in spools:
            try:
                key = spool.identity()
            except OSError:
                # It cannot be opened now; who ships it tells that.
                continue

            if key is not None:
                files.setdefault(key, []).append(spool)

        return files


def _free_durable(logs: list[Spool]) -> None:
    parts = [log.durable_part() for log in logs]
    end = min(part[1] for part in parts)

    if end > min(part[0] for part in parts):
        for log in logs:
            log.free(end)


def _drop(logs: list[Spool], wanted: int) -> tuple[int, int]:
    """Drops about `wanted` bytes of one file: bytes that came free, and bytes that somebody lacks now."""
    parts = [log.droppable() for log in logs]
    start, last = max(part[0] for part in parts), min(part[1] for part in parts)
    end = min(last, start + max(wanted, 1 << 16) // 4096 * 4096)

    if start >= end:
        return 0, 0

    before = logs[0].held_bytes()

    try:
        logs[0].drop(start, end)
    except OSError:
        # A file system without holes: nothing can be taken from a file that is being written.
        return 0, 0

    for log in logs[1:]:
        log.dropped(start, end)

    lost = 0 if all(log.refused for log in logs) else end - start
    return max(0, before - logs[0].held_bytes()), lost
