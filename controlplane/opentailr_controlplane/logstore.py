"""What processes wrote, byte for byte: one append-only file per log and stream.

A log is named by the id of its attempt or build, or `run_<id>` for what the
platform did with a run. Bytes are only ever appended at the end; the offset up
to which they are synced is the durable offset and never falls. A log that has
ended is a read-only file: the mark and the last bytes reach the disk with one
sync. Readers learn of new bytes by a notification in the process, not by polling.

A log is bounded (1 GiB by default): what passes the bound is cut there, one
line says so, the log ends, and its writer is told to stop sending it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from .core.errors import ResourceExhausted
from .files import FULL_DISK, fan_out
from .logfiles import (
    Extent,
    Log,
    Write,
    append_all,
    check_id,
    check_room,
    disk_full,
    find_tail,
    inspect,
    log_expired,
    read_range,
    roll_back,
    sync_all,
)
from .sweeping import remove_files, stale_logs
from .threads import in_thread

DEFAULT_MAX_BYTES = 1 << 30
"""Most bytes of one stream of one log."""

DEFAULT_MIN_FREE_BYTES = 128 << 20
"""Free bytes of the disk below which no log grows: what is left is for the database."""

CHUNK = 256 * 1024
"""Most bytes of one read; the limit of the wire."""

_GATHER = 0.02
"""Seconds that a sync waits for more: acknowledgements are not urgent, and one sync then
serves every chunk of many logs that came meanwhile."""

_KEEP_OPEN = 128
"""Files kept open for appending; the least recently used one is closed beyond that."""

_MOST_OPEN = 512
"""Files open, unsynced ones included, beyond which new chunks wait for a sync; many systems allow
1,024 to a process."""

_KEEP_KNOWN = 4096
"""Logs whose length is kept in memory; those with readers or unsynced bytes come on top."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Stream(Enum):
    """Which output of a process."""

    STDOUT = "out"
    STDERR = "err"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes for a log."""

    log_id: str
    stream: Stream
    offset: int
    """Where they begin."""
    data: bytes
    end: bool = False
    """Nothing follows."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Answer to an append."""

    offset: int
    """Length of the log now, which is where the next chunk has to begin."""
    expected: bool = False
    """The chunk did not begin at the end of the log and was not taken."""
    refused: bool = False
    """The log has reached its bound; nothing more is taken."""


class FileLogStore:
    """Logs in a directory; file work happens in its own threads.

    Args:
        root: The directory; made if it is missing. One store owns it alone.
        max_bytes: Bound of one stream of one log.
        min_free_bytes: Appends are refused when they would leave less than this free on the disk, so
            that outcomes of tasks can still be stored when output has filled it.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        min_free_bytes: int = DEFAULT_MIN_FREE_BYTES,
    ) -> None:
        self._root = root
        self._prefix = f"{root}/"
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="logs")
        self._logs: OrderedDict[tuple[str, Stream], Log] = OrderedDict()
        self._open: OrderedDict[tuple[str, Stream], Log] = OrderedDict()
        self._dirty: dict[tuple[str, Stream], Log] = {}
        self._sync_next: asyncio.Future[None] | None = None
        self._sync_task: asyncio.Task[None] | None = None
        self.appended_bytes = 0
        """Bytes taken since the start, for metrics."""
        fan_out(root)

    async def close(self) -> None:
        """Syncs what is not synced yet and closes all files."""
        if self._dirty or self._sync_task is not None:
            await self.sync()
        for log in self._open.values():
            os.close(log.file)
            log.file = -1
        self._open.clear()
        self._threads.shutdown(wait=True)

    async def append(
        self, log_id: str, stream: Stream, *, offset: int, data: bytes, end: bool = False
    ) -> Appended:
        """Takes a chunk if it begins at the end of the log.

        A chunk that lies below the end is a repeat: nothing is written, the answer is the same. One
        that begins beyond it, or reaches from below over the end, is answered with `expected`. The
        bytes are readable at once, and durable after the next `sync`.

        Raises:
            ResourceExhausted: The disk is full; nothing of the chunk was taken.
        """
        return (await self.append_many([Chunk(log_id, stream, offset, data, end)]))[0]

    async def append_many(self, chunks: Sequence[Chunk]) -> list[Appended]:
        """Takes chunks of any logs as `append` takes each of them, in their order; the answers are in it too.

        All that may be written at once costs one way to a thread and back, which is most of the price of
        a short log. Chunks that follow each other in one log are written one after the other.

        Raises:
            ResourceExhausted: The disk is full. Each log has its chunks up to one that found no room.
            OSError: The disk fails.
            InvalidArgument: A log id is none; nothing of any chunk was taken.
        """
        for chunk in chunks:
            check_id(chunk.log_id)
        if len(self._open) > _MOST_OPEN:
            await self.sync()
        done: list[Appended] = []
        group: dict[tuple[str, Stream], Chunk] = {}
        for chunk in chunks:
            key = (chunk.log_id, chunk.stream)
            if key in group:
                done.extend(await self._append_group(group))
                group = {}
            group[key] = chunk
        done.extend(await self._append_group(group))
        return done

    async def _append_group(self, group: dict[tuple[str, Stream], Chunk]) -> list[Appended]:
        """Takes at most one chunk of each log."""
        logs: dict[tuple[str, Stream], Log] = {}
        locked: list[Log] = []
        try:
            for key in group:
                logs[key] = self._log(*key)
            # Always in the same order, or two groups could wait for each other.
            for key in sorted(logs, key=lambda key: (key[0], key[1].value)):
                await logs[key].lock.acquire()
                locked.append(logs[key])
            answers: dict[tuple[str, Stream], Appended] = {}
            writes: dict[tuple[str, Stream], Write] = {}
            for key, chunk in group.items():
                found = self._judge(key, logs[key], chunk)
                if isinstance(found, Appended):
                    answers[key] = found
                else:
                    writes[key] = found
            answers.update(await self._write(writes))
            return [answers[key] for key in group]
        finally:
            for log in locked:
                log.lock.release()
            for log in logs.values():
                log.users -= 1

    def _judge(self, key: tuple[str, Stream], log: Log, chunk: Chunk) -> Appended | Write:
        """What is to be written of a chunk, or the answer if it is nothing."""
        if log.limited or log.removed:
            return Appended(log.size, refused=True)
        beyond = chunk.offset + len(chunk.data)
        ends_here = chunk.end and not log.ended and beyond == log.size
        if log.durable < log.size or (log.ended and not log.size):
            # What an earlier process wrote may not be synced; it is durable after the next sync. So is the
            # end of a log without a byte.
            self._mark_dirty(key, log)
        if beyond <= log.size and not ends_here:
            return Appended(log.size)
        if chunk.offset != log.size and not ends_here:
            return Appended(log.size, expected=True)
        if log.ended:
            return Appended(log.size, refused=True)
        return self._bounded(log, b"" if ends_here else chunk.data, chunk.end)

    async def append_own(self, log_id: str, data: bytes, *, end: bool = False) -> None:
        """Appends to the standard output of a log that the platform itself writes."""
        log = self._log(log_id, Stream.STDOUT)
        try:
            async with log.lock:
                if not (log.ended or log.removed):
                    await self._write({(log_id, Stream.STDOUT): self._bounded(log, data, end)})
        finally:
            log.users -= 1

    async def sync(self) -> None:
        """Returns when all that was appended before the call is on disk.

        Calls that come while a sync is going on share the next one.
        """
        if self._sync_next is None:
            self._sync_next = asyncio.get_running_loop().create_future()
            if self._sync_task is None:
                self._sync_task = asyncio.create_task(self._sync_loop())
        await asyncio.shield(self._sync_next)

    async def durable(self, log_id: str, stream: Stream) -> int:
        """The offset up to which the log is on disk."""
        log = self._log(log_id, stream)
        log.users -= 1
        return log.durable

    async def extent(self, log_id: str, stream: Stream) -> Extent:
        """Length of the log and whether it has ended; a log that has nothing yet has length 0."""
        log = self._log(log_id, stream)
        log.users -= 1
        return log.extent()

    async def read(self, log_id: str, stream: Stream, offset: int, *, limit: int = CHUNK) -> bytes:
        """At most `limit` bytes from `offset`; empty at the end of what is there."""
        log = self._log(log_id, stream)
        try:
            want = min(limit, log.size - offset)
            if want <= 0:
                return b""
            return await self._run(read_range, log.path, offset, want)
        except FileNotFoundError:
            raise log_expired(log_id) from None
        finally:
            log.users -= 1

    async def remove(self, log_ids: Sequence[str]) -> int:
        """Removes logs, both streams of each; returns their bytes. A log that is not there is no error."""
        paths = []
        for key in itertools.product(log_ids, Stream):
            known = self._logs.get(key)
            if known is not None:
                await self._let_go(key, known)
            paths.append(self._path(*key))
        return await self._run(remove_files, paths)

    async def _let_go(self, key: tuple[str, Stream], log: Log) -> None:
        """Ends a log for those who still have it in hand."""
        log.removed = True
        await log.lock.acquire()
        while log.dirty:
            # A sync under way may have the file in hand, and needs the lock if it fails.
            log.lock.release()
            with contextlib.suppress(OSError, ResourceExhausted):
                await self.sync()
            await log.lock.acquire()
        try:
            await self._end_removed(key, log)
        finally:
            log.lock.release()

    async def _end_removed(self, key: tuple[str, Stream], log: Log) -> None:
        if self._open.pop(key, None) is not None:
            await self._run(os.close, log.file)
            log.file = -1
        log.dirty, log.ended, log.size, log.durable = False, True, 0, 0
        self._logs.pop(key, None)
        log.wake()

    async def stale(self, shard: str, *, before: float) -> list[str]:
        """Ids of the logs in one of the directories (two digits) that were last written before a time.

        Args:
            shard: `00` to `ff`.
            before: Seconds since the epoch.
        """
        return await self._run(stale_logs, f"{self._prefix}{shard}", before)

    async def wait(self, log_id: str, stream: Stream, offset: int) -> Extent:
        """Waits until the log reaches beyond `offset` or has ended."""
        log = self._log(log_id, stream)
        try:
            while log.size <= offset and not log.ended:
                waiter = asyncio.get_running_loop().create_future()
                log.waiters.add(waiter)
                try:
                    await waiter
                finally:
                    log.waiters.discard(waiter)
            return log.extent()
        finally:
            log.users -= 1

    async def tail_offset(self, log_id: str, stream: Stream, lines: int) -> int:
        """Offset at which the last `lines` lines begin; read from the end, so its cost is theirs."""
        log = self._log(log_id, stream)
        try:
            size = log.size
            if size == 0 or lines <= 0:
                return size
            return await self._run(find_tail, log.path, size, lines)
        finally:
            log.users -= 1

    async def mark_ended(self, log_id: str, stream: Stream) -> None:
        """Ends a log at what it has, for one whose writer will never come back."""
        log = self._log(log_id, stream)
        try:
            async with log.lock:
                if not log.ended:
                    await self._write({(log_id, stream): self._bounded(log, b"", True)})
        finally:
            log.users -= 1

    def _bounded(self, log: Log, data: bytes, end: bool) -> Write:
        """The write of a chunk, cut at the bound of the log."""
        limited = log.size + len(data) > self._max_bytes
        if limited:
            kept = data[: self._max_bytes - log.size]
            notice = f"\n[the log ends here: it reached the limit of {self._max_bytes} bytes]\n"
            data, end = kept + notice.encode(), True
        return Write(log, data, end, limited)

    async def _write(self, writes: dict[tuple[str, Stream], Write]) -> dict[tuple[str, Stream], Appended]:
        """Writes to logs whose locks are held, all in one way to a thread.

        Raises:
            ResourceExhausted: A log found no room; the others have what is theirs.
        """
        if not writes:
            return {}
        check_room(self._root, writes.values(), self._min_free_bytes)
        # Opening belongs to it: most logs are one short chunk.
        results = await self._run(append_all, list(writes.values()))
        answers: dict[tuple[str, Stream], Appended] = {}
        failed: tuple[str, OSError] | None = None
        for (key, write), result in zip(writes.items(), results, strict=True):
            if isinstance(result, OSError):
                failed = failed or (key[0], result)
                continue
            log = write.log
            log.file = result
            self._keep_open(key, log)
            log.size += len(write.data)
            log.ended = log.ended or write.end
            log.limited = write.limited
            self._mark_dirty(key, log)
            self.appended_bytes += len(write.data)
            log.wake()
            answers[key] = Appended(log.size, refused=write.limited)
        if failed is None:
            return answers
        log_id, error = failed
        if error.errno in FULL_DISK:
            raise disk_full(log_id)
        raise error

    def _log(self, log_id: str, stream: Stream) -> Log:
        """The log, counted as used by one more; the caller takes one off again."""
        key = (log_id, stream)
        log = self._logs.get(key)
        if log is None:
            path = self._path(log_id, stream)
            # One stat in the loop: far cheaper than the way to a thread and back.
            found = inspect(path)
            log = Log(path, size=found.size, durable=0, ended=found.ended, floor=found.size)
            log.limited = log.ended and log.size > self._max_bytes
            self._logs[key] = log
            self._forget_idle()
        self._logs.move_to_end(key)
        log.users += 1
        return log

    def _path(self, log_id: str, stream: Stream) -> str:
        check_id(log_id)
        return self._prefix + log_path(log_id, stream)

    def _forget_idle(self) -> None:
        if len(self._logs) <= _KEEP_KNOWN:
            return
        for key, log in list(self._logs.items())[: len(self._logs) - _KEEP_KNOWN + _KEEP_KNOWN // 8]:
            if log.users == 0 and not log.dirty and log.file < 0:
                del self._logs[key]

    def _mark_dirty(self, key: tuple[str, Stream], log: Log) -> None:
        log.dirty = True
        self._dirty[key] = log

    def _keep_open(self, key: tuple[str, Stream], log: Log) -> None:
        self._open[key] = log
        self._open.move_to_end(key)
        if len(self._open) <= _KEEP_OPEN:
            return
        # Unsynced ones stay open until their sync; a few looks each time are enough to keep up.
        for other_key, other in list(itertools.islice(self._open.items(), 8)):
            if not other.dirty and not other.lock.locked():
                os.close(other.file)
                other.file = -1
                del self._open[other_key]
            else:
                self._open.move_to_end(other_key)

    async def _sync_loop(self) -> None:
        while self._sync_next is not None:
            await asyncio.sleep(_GATHER)
            done, self._sync_next = self._sync_next, None
            dirty, self._dirty = self._dirty, {}
            reached = {key: (log, log.size, log.ended) for key, log in dirty.items()}
            failed = await self._run(sync_all, [log for log, _, _ in reached.values()])
            for place, (key, (log, size, _)) in enumerate(reached.items()):
                if place in failed:
                    await self._roll_back(key, log)
                    continue
                log.durable = max(log.durable, size)
                if key in self._dirty:
                    continue
                log.dirty = False
                if log.ended and log.file >= 0 and not log.lock.locked():
                    os.close(log.file)
                    log.file = -1
                    self._open.pop(key, None)
            if failed:
                place, error = next(iter(failed.items()))
                full = error.errno in FULL_DISK
                done.set_exception(disk_full(list(reached)[place][0]) if full else error)
                done.exception()
            else:
                done.set_result(None)
        self._sync_task = None

    async def _roll_back(self, key: tuple[str, Stream], log: Log) -> None:
        """Takes back what could not be synced: the system keeps no promise about it any more, not even
        when the next sync succeeds. Agents still have it, since it was not acknowledged; lines that
        the platform wrote itself are lost."""
        async with log.lock:
            certain = max(log.durable, min(log.floor, log.size))
            try:
                if not log.removed:
                    with contextlib.suppress(FileNotFoundError):
                        await self._run(roll_back, log.path, certain)
            except OSError:
                # The disk does not even take bytes back; the next sync tries again.
                self._mark_dirty(key, log)
                return
            log.size, log.ended, log.limited, log.dirty = certain, False, False, False
            self._dirty.pop(key, None)

    async def _run(self, call: Callable[[Unpack[Ts]], T], *arguments: Unpack[Ts]) -> T:
        return await in_thread(self._threads, call, *arguments)


def log_path(log_id: str, stream: Stream) -> str:
    """Where a log lies below the directory of all logs."""
    shard = hashlib.blake2b(log_id.encode(), digest_size=1).hexdigest()
    return f"{shard}/{log_id}.{stream.value}"
