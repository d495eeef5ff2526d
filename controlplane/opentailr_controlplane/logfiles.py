"""What the log store does to its files; everything here may block and is called in a thread."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from .files import sync_directory

_TAIL_BLOCK = 1 << 20
"""Bytes read at once when lines are counted from the end."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a log reaches."""

    size: int
    ended: bool


@dataclass(slots=True)
class Log:
    """One stream of one log, as the store holds it in memory."""

    path: str
    size: int
    durable: int
    ended: bool
    limited: bool = False
    file: int = -1
    dirty: bool = False
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

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


def sync_all(logs: list[Log]) -> None:
    directories = set()
    for log in logs:
        file = log.file
        opened = -1
        try:
            if file < 0:
                file = opened = os.open(log.path, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(file)
        finally:
            if opened >= 0:
                os.close(opened)
        if log.durable == 0:
            directories.add(os.path.dirname(log.path))
    for directory in directories:
        sync_directory(Path(directory))


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
