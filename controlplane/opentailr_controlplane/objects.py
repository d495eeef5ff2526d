"""Content-addressed objects on files: bundles, arguments, results.

An object's name is the SHA-256 of its bytes, so writing twice is harmless and a
read gives these bytes or an error. Layout below the root:

    ab/ab12…ef            a complete object, read-only
    partial/ab12…ef.part  an upload that was cut; goes on where its file ends
    partial/….tmp         private files of one upload; removed at the next start

An object appears under its name only by a rename, after its content was hashed
and synced; so nothing half-written can ever be read, whatever is killed when.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar, TypeVarTuple, Unpack

from .core.errors import InvalidArgument, NotFound, ResourceExhausted
from .errors import Aborted, DataLoss
from .files import FULL_DISK, fan_out, sync_directory
from .objectfiles import BATCH, link, read_block, write_all
from .sweeping import Swept, remove_old, renew, sweep
from .threads import in_thread

CHUNK = 256 * 1024
"""Bytes of one message; the limit of the wire."""

_SYNC_EVERY = 16 * 1024 * 1024
"""Bytes between two syncs of an upload: what a cut of the machine can cost."""

_PARTIAL_AGE = 24 * 3600.0
"""Seconds after which an upload that nobody went on with is removed."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def check_digest(digest: str, field: str = "digest") -> str:
    """Returns the digest, or raises InvalidArgument naming `field` if it is none."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(
            "bad_digest",
            f"{field} is {digest[:80]!r}, not the SHA-256 of an object",
            field=field,
            hint="give 64 lower-case hexadecimal digits",
        )
    return digest


class FileObjectStore:
    """Objects in a directory; all file work happens in its own threads.

    Args:
        root: The directory; made if it is missing. One store owns it alone.
        max_bytes: Most bytes of all complete objects together; 0 means no limit but the disk.
        min_free_bytes: Writes are refused when they would leave less than this free on the
            disk, so that the database beside the objects can go on.
        clock: Seconds since the epoch, for the age of uploads that were cut.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int = 0,
        min_free_bytes: int = 128 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._partial = root / "partial"
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="objects")
        self._claimed: set[str] = set()
        self._leases = threading.Lock()
        self._numbers = itertools.count(1)
        self._used = 0
        self._promised = 0
        """Bytes that uploads under way have announced and not sent yet: their room is taken."""
        self._prepare(clock())

    @property
    def used_bytes(self) -> int:
        """Bytes of all complete objects."""
        return self._used

    def close(self) -> None:
        """Ends the threads; uploads that are under way keep what is on disk."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def path(self, digest: str) -> Path:
        """Where the object is, or would be."""
        return self._root / digest[:2] / digest

    async def has(self, digest: str) -> bool:
        """True when the object is there, complete; it then stays for `collector.GRACE` at least."""
        return await self._run(self._renew, self.path(check_digest(digest)))

    async def size(self, digest: str) -> int:
        """Length in bytes; NotFound when it is not there."""
        path = self.path(check_digest(digest))
        try:
            return (await self._run(path.stat)).st_size
        except FileNotFoundError:
            raise _not_found(digest) from None

    async def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of the digests that are not there, each once, in the order given; others stay as in `has`."""
        wanted = list(dict.fromkeys(check_digest(digest, "digests") for digest in digests))
        return await self._run(lambda: [digest for digest in wanted if not self._renew(self.path(digest))])

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes durably and returns their digest."""
        digest = await self._run(lambda: hashlib.sha256(data).hexdigest())
        async with self.writer(digest, len(data)) as writer:
            if not writer.complete:
                await writer.write(data[writer.offset :])
                await writer.commit()
        return digest

    async def get_bytes(self, digest: str, *, limit: int) -> bytes:
        """The whole object, verified; ResourceExhausted when it is longer than `limit` bytes."""
        size = await self.size(digest)
        if size > limit:
            raise ResourceExhausted(
                "object_too_large", f"object {digest} has {size} bytes, more than the {limit} allowed here"
            )
        return b"".join([chunk async for chunk in self.read(digest)])

    async def link_from(self, path: Path) -> str:
        """Takes a file of this host over by a hard link, or by a copy across file systems.

        The file becomes read-only and must not be written to any more; a change while it is
        hashed is seen and refused as Aborted. Returns the digest.
        """
        size = (await self._run(path.stat)).st_size
        await self._make_room(size)
        private = self._private("link")
        try:
            digest = await self._run(link, path, private)
            await self._run(self._install, private, digest)
        finally:
            await self._run(private.unlink, True)
        return digest

    async def sweep(self, shard: str, keep: AbstractSet[str], *, before: float) -> Swept:
        """Removes the objects whose digest begins with `shard` (two digits) that nobody refers to.

        Those in `keep` stay, and those written or asked for since `before`, in seconds since the epoch.
        Who reads a removed object at the moment reads it to its end.
        """
        swept = await self._run(sweep, self._root / shard, keep, before, self._leases)
        self._used -= swept.size
        return swept

    async def sweep_leftovers(self, *, uploads_before: float, damaged_before: float) -> int:
        """Removes uploads that nobody went on with, and objects put aside as damaged; how many files."""
        claimed = {f"{digest}.part" for digest in self._claimed}
        return await self._run(remove_old, self._partial, uploads_before, claimed) + await self._run(
            remove_old, self._root / "damaged", damaged_before, frozenset()
        )

    def writer(self, digest: str, size: int) -> ObjectWriter:
        """An upload, to be used with `async with`; see ObjectWriter."""
        if size < 0:
            raise InvalidArgument("bad_size", f"size is {size}", field="size", hint="give a length in bytes")
        return ObjectWriter(self, check_digest(digest), size)

    async def read(self, digest: str, offset: int = 0, *, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `offset`, in chunks of at most 256 KiB.

        A read of the whole object is verified on the way: if the disk has changed the content, the
        last chunk is withheld, the file is put aside and DataLoss is raised.
        """
        path = self.path(check_digest(digest))
        if offset < 0:
            raise InvalidArgument("bad_offset", f"offset is {offset}", field="offset", hint="count from 0")
        try:
            file = await self._run(open, path, "rb")
        except FileNotFoundError:
            raise _not_found(digest) from None
        try:
            size = os.fstat(file.fileno()).st_size
            if offset > size:
                raise InvalidArgument(
                    "bad_offset",
                    f"offset is {offset}, but object {digest} has {size} bytes",
                    field="offset",
                    hint="read from an offset within the object",
                )
            end = size if length is None else min(size, offset + length)
            hasher = hashlib.sha256() if offset == 0 and end == size else None
            position = offset
            while position < end:
                start, want = position, min(BATCH, end - position)
                block = await self._run(read_block, file.fileno(), start, want, hasher)
                position += len(block)
                if not block or (position == end and hasher is not None and hasher.hexdigest() != digest):
                    await self._run(self._put_aside, path, size)
                    raise DataLoss(
                        "object_damaged",
                        f"object {digest} does not have its content any more",
                        hint="send it again; the damaged file was put aside for inspection",
                    )
                for begin in range(0, len(block), CHUNK):
                    yield block[begin : begin + CHUNK]
        finally:
            file.close()

    async def _run(self, call: Callable[[Unpack[Ts]], T], *arguments: Unpack[Ts]) -> T:
        return await in_thread(self._threads, call, *arguments)

    def _prepare(self, now: float) -> None:
        fan_out(self._root)
        self._partial.mkdir(exist_ok=True)
        for entry in os.scandir(self._partial):
            if entry.name.endswith(".tmp") or now - entry.stat().st_mtime > _PARTIAL_AGE:
                os.unlink(entry.path)
        for number in range(256):
            with os.scandir(self._root / f"{number:02x}") as entries:
                self._used += sum(entry.stat().st_size for entry in entries)

    def _renew(self, path: Path) -> bool:
        return renew(path, self._leases)

    def _private(self, kind: str) -> Path:
        return self._partial / f"{kind}-{next(self._numbers)}.tmp"

    async def _make_room(self, size: int) -> None:
        free = (await self._run(shutil.disk_usage, self._root)).free
        if self._max_bytes and size > self._max_bytes:
            # Waiting would not help: this is no full store, it is too large for an empty one.
            raise InvalidArgument(
                "object_too_large",
                f"the object has {size} bytes, more than the {self._max_bytes} of the whole object store",
                field="size",
                hint="return less, or raise --max-object-bytes of the control plane",
            )
        if self._max_bytes and self._used + self._promised + size > self._max_bytes:
            raise ResourceExhausted(
                "object_quota",
                f"the object store holds {self._used} of {self._max_bytes} bytes; {size} more do not fit",
                field="size",
                hint="let old results expire (expire_after) or raise the limit of the control plane",
            )
        if size > free - self._promised - self._min_free_bytes:
            raise _disk_full(size)

    def _install(self, source: Path, digest: str) -> None:
        target = self.path(digest)
        if self._renew(target):
            source.unlink()
            return
        size = source.stat().st_size
        source.chmod(0o400)
        os.rename(source, target)
        sync_directory(target.parent)
        self._used += size

    def _put_aside(self, path: Path, size: int) -> None:
        damaged = self._root / "damaged"
        damaged.mkdir(exist_ok=True)
        os.replace(path, damaged / path.name)
        self._used -= size


class ObjectWriter:
    """One upload of one object.

    Inside `async with`, `offset` says where to go on (what an earlier, cut upload left counts) and
    `complete` whether the object is there already. `write` takes the bytes in order, `commit` verifies
    and publishes. Leaving without `commit` keeps what came so far for the next try, except when the
    content was wrong or the disk is full: then nothing is kept.

    A second upload of the same object beside a living one gets a file of its own and begins at 0.
    """

    def __init__(self, store: FileObjectStore, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self.offset = 0
        """Bytes taken so far."""
        self.durable = 0
        """Bytes that are synced."""
        self.complete = False
        self._store = store
        self._hasher = hashlib.sha256()
        self._shared = False
        self._resumed = False
        self._spoiled = False
        self._path: Path | None = None
        self._file = -1
        self._promise = 0

    async def __aenter__(self) -> ObjectWriter:
        store = self._store
        if await store.has(self.digest):
            actual = await store.size(self.digest)
            if actual != self.size:
                raise InvalidArgument(
                    "bad_size",
                    f"size is {self.size}, but object {self.digest} has {actual} bytes",
                    field="size",
                    hint="name the length of the content that the digest was taken of",
                )
            self.offset = self.durable = self.size
            self.complete = True
            return self
        self._shared = self.digest not in store._claimed
        if self._shared:
            store._claimed.add(self.digest)
            self._path = store._partial / f"{self.digest}.part"
        else:
            self._path = store._private(self.digest)
        try:
            await store._run(self._open)
            await store._make_room(self.size - self.offset)
        except BaseException as error:
            # What a cut upload left goes too: parts that wait for room would take it from each other.
            await self._leave(keep=False)
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise _disk_full(self.size) from None
            raise
        self._promise = self.size - self.offset
        store._promised += self._promise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(keep=not self._spoiled)

    async def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            InvalidArgument: More bytes than the size came.
            ResourceExhausted: The disk is full.
        """
        if self.offset + len(data) > self.size:
            self._spoiled = True
            raise InvalidArgument(
                "too_long",
                f"object {self.digest} was announced with {self.size} bytes, but more came",
                field="data",
                hint="announce the true size in the first message",
            )
        try:
            view = memoryview(data)
            for begin in range(0, len(data), BATCH):
                block = view[begin : begin + BATCH]
                # Hashing in a thread beside the writing one: both leave the interpreter's lock,
                # so that the sum takes hardly longer than the slower of the two.
                await asyncio.gather(
                    self._store._run(write_all, self._file, block),
                    self._store._run(self._hasher.update, block),
                )
                self.offset += len(block)
                self._promise -= len(block)
                self._store._promised -= len(block)
                if self.offset - self.durable >= _SYNC_EVERY:
                    await self.sync()
        except OSError as error:
            if error.errno in FULL_DISK:
                self._spoiled = True
                raise _disk_full(self.size) from None
            raise

    async def sync(self) -> None:
        """Makes everything taken so far durable."""
        reached = self.offset
        await self._store._run(os.fdatasync, self._file)
        self.durable = reached

    async def commit(self) -> None:
        """Verifies the content, makes it durable and publishes it under its digest."""
        if self.complete:
            return
        if self.offset != self.size:
            raise InvalidArgument(
                "too_short",
                f"object {self.digest} was announced with {self.size} bytes, but {self.offset} came",
                field="data",
                hint="send the rest; the server keeps what it has",
            )
        if self._hasher.hexdigest() != self.digest:
            self._spoiled = True
            if self._resumed:
                # The first part came from an earlier call and may have been damaged by a crash of
                # the machine; the sender may well be right.
                raise Aborted(
                    "upload_restarted",
                    f"what an earlier upload of object {self.digest} left was damaged and is removed",
                    hint="send the object again from its first byte",
                )
            raise InvalidArgument(
                "digest_mismatch",
                f"the content sent does not hash to {self.digest}",
                field="digest",
                hint="compute the SHA-256 of exactly the bytes that are sent",
            )
        path = self._path
        assert path is not None
        try:
            await self.sync()
            await self._store._run(self._store._install, path, self.digest)
        except OSError as error:
            if error.errno in FULL_DISK:
                self._spoiled = True
                raise _disk_full(self.size) from None
            raise
        self.complete = True

    def _open(self) -> None:
        assert self._path is not None
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        present = os.fstat(self._file).st_size
        if present > self.size:
            os.ftruncate(self._file, 0)
            present = 0
        while self.offset < present:
            self.offset += len(read_block(self._file, self.offset, BATCH, self._hasher))
        os.lseek(self._file, self.offset, os.SEEK_SET)
        if present:
            self._resumed = True
            os.fdatasync(self._file)
            self.durable = self.offset

    def _discard(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _leave(self, *, keep: bool) -> None:
        file, self._file = self._file, -1
        self._store._promised -= self._promise
        self._promise = 0

        def finish() -> None:
            if file >= 0:
                os.close(file)
            if not self.complete and not (keep and self._shared and self.offset):
                self._discard()

        try:
            await self._store._run(finish)
        finally:
            if self._shared:
                self._store._claimed.discard(self.digest)


def _not_found(digest: str) -> NotFound:
    return NotFound(
        "object_not_found",
        f"object {digest} is not there",
        field="digest",
        hint="write it first; results are removed when they expire",
    )


def _disk_full(size: int) -> ResourceExhausted:
    return ResourceExhausted(
        "disk_full",
        f"the disk of the object store has no room for {size} bytes",
        field="size",
        hint="free space on the control plane's disk, then send it again",
    )
