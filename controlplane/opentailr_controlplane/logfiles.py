"""What the log store does to its files; everything here may block and is called in a thread."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .core.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from .files import sync_directory

_LOG_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}")

_TAIL_BLOCK = 1 << 20
"""Bytes read at once when lines are counted from the end."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a log reaches."""

    size: int
    ended: bool
    removed: bool = field(default=False, compare=False)
    """There is no such log, or no more; one that is only shorter than it was could not be synced."""


@dataclass(slots=True)
class Log:
    """One stream of one log, as the store holds it in memory."""

    path: str
    size: int
    durable: int
    ended: bool
    floor: int = 0
    """What the file had when it was found: an earlier process may have called it durable."""
    limited: bool = False
    file: int = -1
    dirty: bool = False
    removed: bool = False
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    def extent(self) -> Extent:
        removed = self.removed or (not self.size and not os.path.exists(self.path))
        return Extent(self.size, self.ended, removed)

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that go to the end of a log whose lock is held."""

    log: Log
    data: bytes
    end: bool
    limited: bool


def check_room(root: Path, writes: Iterable[Write], least: int) -> None:
    """Raises ResourceExhausted when writes would leave less than `least` bytes free on the disk.

    One look at the disk, made in the loop: far cheaper than the way to a thread and back.
    """
    size, log_id = 0, ""
    for write in writes:
        size += len(write.data)
        log_id = log_id or Path(write.log.path).stem
    disk = os.statvfs(root)
    if size and size > disk.f_bavail * disk.f_frsize - least:
        raise disk_full(log_id)


def inspect(path: str) -> Extent:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return Extent(0, False)
    return Extent(found.st_size, not found.st_mode & stat.S_IWUSR)


def append_all(writes: list[Write]) -> list[int | OSError]:
    """The open file of each log after its write, or why there was none."""
    results: list[int | OSError] = []
    for write in writes:
        log = write.log
        try:
            results.append(_append(log.path, log.file, log.size, write.data, write.end))
        except OSError as error:
            results.append(error)
    return results


def _append(path: str, file: int, start: int, data: bytes, end: bool) -> int:
    """Writes at `start`, opening the file if `file` is negative; returns the open file."""
    opened = file if file >= 0 else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    view, position = memoryview(data), start
    try:
        while view:
            written = os.pwrite(opened, view, position)
            view, position = view[written:], position + written
        if end:
            os.fchmod(opened, 0o400)
    except OSError:
        os.ftruncate(opened, start)
        if file < 0:
            os.close(opened)
        raise
    return opened


def sync_all(logs: list[Log]) -> dict[int, OSError]:
    """Forces logs to the disk; answers with the errors, by the place of the log in the list."""
    failed: dict[int, OSError] = {}
    directories: dict[str, list[int]] = {}
    for place, log in enumerate(logs):
        try:
            _sync(log)
        except OSError as error:
            failed[place] = error
        if log.durable == 0:
            directories.setdefault(os.path.dirname(log.path), []).append(place)
    for directory, places in directories.items():
        try:
            sync_directory(Path(directory))
        except OSError as error:  # noqa: PERF203 - each directory for itself
            failed.update(dict.fromkeys(places, error))
    return failed


def _sync(log: Log) -> None:
    file = log.file
    opened = -1
    try:
        if file < 0:
            file = opened = os.open(log.path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(file)
    finally:
        if opened >= 0:
            os.close(opened)


def roll_back(path: str, size: int) -> None:
    """Cuts a log back to what is certain to be on disk, and lets it be written again."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(file, 0o600)
    finally:
        os.close(file)
    os.truncate(path, size)


def read_range(path: str, offset: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, length, offset)
    finally:
        os.close(file)


def find_tail(path: str, size: int, lines: int) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = size
        # The newline that ends the last line begins no further one.
        left = lines + (os.pread(file, 1, size - 1) == b"\n")
        while end > 0:
            begin = max(0, end - _TAIL_BLOCK)
            block = os.pread(file, end - begin, begin)
            found = block.count(b"\n")
            if found >= left:
                position = len(block)
                for _ in range(left):
                    position = block.rindex(b"\n", 0, position)
                return begin + position + 1
            left -= found
            end = begin
        return 0
    finally:
        os.close(file)


def disk_full(log_id: str) -> ResourceExhausted:
    """Why a log does not grow now."""
    return ResourceExhausted(
        "disk_full",
        f"the disk of the log store has no room for log {log_id}",
        hint="free space on the control plane's disk; agents keep their output until then",
    )


def check_id(log_id: str) -> None:
    """Raises InvalidArgument for what is no log id: it is also the name of a file."""
    if not _LOG_ID.fullmatch(log_id):
        raise InvalidArgument(
            "bad_log_id",
            f"log_id is {log_id[:80]!r}",
            field="log_id",
            hint="give the id of an attempt",
        )


def log_expired(log_id: str) -> FailedPrecondition:
    """Why a log cannot be read (on) that retention has removed."""
    return FailedPrecondition(
        "log_expired",
        f"the log {log_id} has been removed",
        field="target",
        hint="logs are kept for a time by environment; see --retain-logs of the control plane",
    )
