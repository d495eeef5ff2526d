"""What the collection of objects and logs does to files; everything here may block and is called in a thread.

The time at which a file was last written says when it was last needed by somebody who may not have told yet:
who asks whether an object is there moves it on, so that what was found does not go before it is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final, NamedTuple

RENEW_AFTER: Final = 3600.0
"""Seconds after which asking for an object marks it anew; well below any grace, and rarely a write."""


_LOG_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}")


class Swept(NamedTuple):
    """What a sweep removed."""

    files: int
    size: int
    """Bytes."""


def renew(path: Path, leases: threading.Lock) -> bool:
    """Whether the file is there; if it is, it counts as needed from now on."""
    try:
        if time.time() - path.stat().st_mtime < RENEW_AFTER:
            return True
        with leases:
            os.utime(path)
    except FileNotFoundError:
        return False
    return True


def sweep(directory: Path, keep: AbstractSet[str], before: float, leases: threading.Lock) -> Swept:
    """Removes the files that are not in `keep` and were not needed since `before`."""
    files = size = 0
    for entry in list(os.scandir(directory)):
        if entry.name in keep or entry.stat().st_mtime >= before:
            continue
        # Judged once more where nobody can renew it meanwhile.
        with leases:
            found = os.stat(entry.path)
            if found.st_mtime >= before:
                continue
            os.unlink(entry.path)
        files += 1
        size += found.st_size
    return Swept(files, size)


def remove_old(directory: Path, before: float, spared: Collection[str]) -> int:
    """Removes the files of a directory, which may be missing, that were last written before a time."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return 0
    count = 0
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.name not in spared and entry.stat().st_mtime < before:
                os.unlink(entry.path)
                count += 1
    return count


def remove_files(paths: Iterable[str]) -> int:
    """Removes files, as far as they are there; returns their bytes."""
    size = 0
    for path in paths:
        try:
            length = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            continue
        size += length
    return size


def stale_logs(directory: str, before: float) -> list[str]:
    """Ids of the logs in a directory of which no stream was written since `before`."""
    latest: dict[str, float] = {}
    for entry in os.scandir(directory):
        log_id, _, stream = entry.name.rpartition(".")
        if stream in ("out", "err"):
            latest[log_id] = max(latest.get(log_id, 0.0), entry.stat().st_mtime)
    old = (log_id for log_id, written in latest.items() if written < before)
    return sorted(log_id for log_id in old if _LOG_ID.fullmatch(log_id))
