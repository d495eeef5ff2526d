"""Small file work that several stores share: names that survive a crash, private files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of an OSError that mean: no room, try again when there is."""


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fan_out(root: Path) -> None:
    """Makes the directories `00` to `ff` below `root`, durably."""
    root.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in os.scandir(root)}
    wanted = {f"{number:02x}" for number in range(256)} - present
    for name in sorted(wanted):
        (root / name).mkdir(exist_ok=True)
    if wanted:
        sync_directory(root)


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replaces a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(handle, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
