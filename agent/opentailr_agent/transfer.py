"""Moves objects to and from the control plane, as often as it takes.

A transfer that is cut goes on where it was. Errors are divided by what to do next: a cut or a
server that is away is tried again until the caller gives up (is cancelled); what will not change
by waiting is raised.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog

from datatailr.v1 import object_pb2 as pb
from datatailr.v1.object_pb2_grpc import ObjectServiceStub
from opentailr_agent.backoff import Backoff

if TYPE_CHECKING:
    from datatailr.v1.object_pb2_grpc import ObjectServiceAsyncStub

CHUNK: Final = 256 * 1024
"""Bytes per message, the largest that the wire allows."""
PATIENCE: Final = 5
"""Repetitions of a read that the server refuses for want of some resource; a write waits without end
for a store that is full, since giving up would lose a result that a task has worked for."""
_FINAL: Final = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)


class ObjectError(RuntimeError):
    """An object cannot be had or stored, and waiting would not help."""


class ObjectMissingError(ObjectError):
    """The control plane does not have the object."""


class ObjectTransfer:
    """Reads and writes objects by digest over a channel of the agent.

    Args:
        channel: Connected to the control plane; not closed here.
        metadata: Authentication of every call.
        first_pause: Seconds before the first repetition; doubled up to 8.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Sequence[tuple[str, str]],
        *,
        first_pause: float = 0.1,
    ) -> None:
        self._stub: ObjectServiceAsyncStub = ObjectServiceStub(channel)  # type: ignore[assignment]
        self._metadata = tuple(metadata)
        self._first_pause = first_pause
        self._refused: dict[str, str] = {}
        """Writes that wait for a store that is full, and what it said."""
        self._log = structlog.get_logger("transfer")

    async def missing(self, digests: Iterable[str]) -> set[str]:
        """Which of these the control plane lacks."""
        request = pb.FindMissingObjectsRequest(digests=list(digests))

        async for attempt in self._attempts("find missing objects"):
            with attempt:
                answer = await self._stub.FindMissingObjects(request, metadata=self._metadata, timeout=30)
                return set(answer.digests)

        raise AssertionError("unreachable")

    async def read(self, digest: str, target: Path) -> int:
        """Fetches an object into a new file and proves that it is the right one.

        After an error the file holds something else; the caller removes it.

        Returns:
            Its size in bytes.

        Raises:
            ObjectMissingError: The control plane does not have it.
            ObjectError: It refuses, or what it sends does not hash to the digest.
        """
        hasher = hashlib.sha256()
        offset = 0
        retries = self._attempts(f"read object {digest}")

        with target.open("wb") as file:
            async for attempt in retries:
                with attempt:
                    request = pb.ReadObjectRequest(digest=digest, offset=offset)

                    async for part in self._stub.ReadObject(request, metadata=self._metadata):
                        hasher.update(part.data)
                        file.write(part.data)
                        offset += len(part.data)

                        if part.data:
                            attempt.progress()

                    break

        if hasher.hexdigest() != digest:
            raise ObjectError(f"object {digest} came with other content: {offset} bytes")

        return offset

    async def write(self, digest: str, source: Path, size: int) -> None:
        """Stores a file under its digest unless the control plane has it already.

        Returns only when the content is verified and durable there.

        Raises:
            ObjectError: The control plane refuses it for good.
        """
        if digest not in await self.missing([digest]):
            return

        what = f"write object {digest}"

        try:
            async for attempt in self._attempts(what, patience=None):
                with attempt:
                    await self._write_once(digest, source, size, attempt)
                    return
        finally:
            self._refused.pop(what, None)

    async def _write_once(self, digest: str, source: Path, size: int, attempt: _Attempt) -> None:
        call = self._stub.WriteObject(metadata=self._metadata)
        sender: asyncio.Task[None] | None = None

        try:
            await call.write(pb.WriteObjectRequest(digest=digest, size=size))
            complete = False

            while not complete:
                answer = await call.read()

                if not isinstance(answer, pb.WriteObjectResponse):
                    break

                complete = answer.complete
                attempt.progress()

                if sender is None and not complete:
                    sender = asyncio.create_task(_send(call, source, answer.durable_offset))

            if not complete:
                code, details = await call.code(), await call.details()

                if code is grpc.StatusCode.OK:
                    code, details = (
                        grpc.StatusCode.UNAVAILABLE,
                        "the stream ended too early",
                    )

                raise _Cut(code, str(details))
        finally:
            call.cancel()

            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    @property
    def trouble(self) -> str:
        """Why results wait now, in words for people; empty while none does."""
        return next(iter(self._refused.values()), "")

    async def _attempts(self, what: str, *, patience: int | None = PATIENCE) -> AsyncIterator[_Attempt]:
        pauses = Backoff(first=self._first_pause, longest=8.0)
        full = 0

        while True:
            attempt = _Attempt()
            yield attempt
            error = attempt.error

            if error is None:
                return

            if error.status is grpc.StatusCode.NOT_FOUND:
                raise ObjectMissingError(f"{what}: the control plane does not have it")

            if error.status is grpc.StatusCode.RESOURCE_EXHAUSTED:
                full += 1

                if patience is None and what not in self._refused:
                    self._log.warning("the store of the control plane is full; waiting", what=what)
                    self._refused[what] = f"the store of the control plane is full: {error.words}"

            if error.status in _FINAL or (patience is not None and full > patience):
                raise ObjectError(f"{what}: {error.words or error.status.name}")

            if attempt.progressed:
                pauses.reset()

            await asyncio.sleep(pauses.next())


class _Cut(Exception):
    def __init__(self, status: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class _Attempt:
    """One try; keeps the error of the transport instead of raising it."""

    def __init__(self) -> None:
        self.error: _Cut | None = None
        self.progressed = False

    def progress(self) -> None:
        """Something came through: the next pause is short again."""
        self.progressed = True

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, grpc.aio.AioRpcError):
            self.error = _Cut(error.code(), error.details() or "")
            return True

        if isinstance(error, _Cut):
            self.error = error
            return True

        if isinstance(error, asyncio.InvalidStateError):
            # The stream ended under a write; its status is not told to the writer.
            self.error = _Cut(grpc.StatusCode.UNAVAILABLE, "the stream was cut")
            return True

        return False


async def _send(
    call: grpc.aio.StreamStreamCall[pb.WriteObjectRequest, pb.WriteObjectResponse], source: Path, offset: int
) -> None:
    with source.open("rb") as file:
        file.seek(offset)

        while data := file.read(CHUNK):
            await call.write(pb.WriteObjectRequest(offset=offset, data=data))
            offset += len(data)

    await call.done_writing()


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file; runs in a thread for files of any size.

    The file is made read-only first and its data forced to disk, so that what is reported under
    this digest survives a crash of the machine.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    # Not held by a pipe, not led elsewhere by a link: the folder is the user's too.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "this is no file", os.fspath(path))

        os.fchmod(descriptor, 0o444)
        hasher = hashlib.sha256()
        size = 0

        while data := os.read(descriptor, 1 << 20):
            hasher.update(data)
            size += len(data)

        os.fdatasync(descriptor)
        return hasher.hexdigest(), size
    finally:
        os.close(descriptor)
