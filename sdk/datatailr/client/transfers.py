"""Content-addressed bytes, up and down.

Uploads ask first what the server lacks, then send each missing object in chunks and go on where a
cut left off. Downloads check the SHA-256 of what arrived. Neither holds a large object in memory
beside what the caller holds.
"""

from __future__ import annotations

import hashlib
import queue
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Final

import grpc

from datatailr.client.connection import Connection, is_cut
from datatailr.errors import NotFoundError, PlatformError
from datatailr.v1 import common_pb2, object_pb2

CHUNK: Final = 256 * 1024
"""Most bytes in one message of a transfer; the limit of ObjectService."""

INLINE_LIMIT: Final = 64 * 1024
"""Payloads up to this many bytes travel inside the message that names them."""

MEMORY_LIMIT: Final = 32 * 1024 * 1024
"""A download above this many bytes goes to a temporary file."""

_DIGESTS_A_CALL: Final = 10_000


@dataclass(frozen=True)
class Upload:
    """One object that a server may lack.

    Attributes:
        digest: SHA-256 of the content, 64 lower-case hexadecimal digits.
        size: Length in bytes.
        open: Makes a new seekable stream over the content; called only if it must be sent.
    """

    digest: str
    size: int
    open: Callable[[], BinaryIO]


class BytesReader:
    """A read-only seekable stream over bytes that copies no more than what is read at once."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._content = memoryview(content).cast("B")
        self._position = 0

    def seek(self, position: int) -> int:
        """Go to an absolute position."""
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """At most `size` bytes from the position on."""
        piece = bytes(self._content[self._position : self._position + size])
        self._position += len(piece)
        return piece

    def close(self) -> None:
        """Give up the reference to the content."""
        self._content = memoryview(b"")


def payload_of(content: bytes, uploads: list[Upload]) -> common_pb2.Payload:
    """Name `content` in a message: inline when it is small, else by digest, adding to `uploads`."""
    if len(content) <= INLINE_LIMIT:
        return common_pb2.Payload(inline=content, size=len(content))

    upload = upload_of(content)
    uploads.append(upload)
    return common_pb2.Payload(digest=upload.digest, size=upload.size)


def upload_of(content: bytes) -> Upload:
    """An upload of bytes that are in memory; they are not copied."""

    def open_content() -> BinaryIO:
        return BytesReader(content)  # type: ignore[return-value]  # the part of it that a transfer uses

    return Upload(hashlib.sha256(content).hexdigest(), len(content), open_content)


def upload_all(
    connection: Connection,
    uploads: Iterable[Upload],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Send the objects that the server lacks; returns how many bytes that were.

    Args:
        connection: The server.
        uploads: May name one digest several times; it is sent once.
        progress: Called with (bytes that are durable, bytes to send in all) as it goes on.

    Raises:
        PlatformError: A transfer failed and could not be resumed.
    """
    by_digest = {upload.digest: upload for upload in uploads}
    missing = _find_missing(connection, list(by_digest))
    total = sum(by_digest[digest].size for digest in missing)
    done = 0

    for digest in missing:
        upload = by_digest[digest]
        report = None if progress is None else _offset_by(progress, done, total)
        _write(connection, upload, report)
        done += upload.size

    return total


def download(connection: Connection, digest: str) -> IO[bytes]:
    """Fetch one object into memory or, when it is large, a temporary file; positioned at 0.

    The caller closes the stream, which removes the file.

    Raises:
        NotFoundError: The server does not have it.
        PlatformError: The content does not hash to `digest`, or the transfer failed.
    """
    target: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_LIMIT)  # noqa: SIM115  # handed out
    hasher = hashlib.sha256()
    received = 0

    def request() -> object_pb2.ReadObjectRequest:
        return object_pb2.ReadObjectRequest(digest=digest, offset=received)

    try:
        for answer in connection.follow(lambda stubs: stubs.objects.ReadObject, request):
            hasher.update(answer.data)
            target.write(answer.data)
            received += len(answer.data)

        if hasher.hexdigest() != digest:
            raise PlatformError(
                f"the object {digest} arrived damaged: its {received} bytes hash to {hasher.hexdigest()}\n"
                "hint: try again; if it stays so, the server's object store is damaged"
            )
    except NotFoundError:
        target.close()
        raise NotFoundError(f"the server at {connection.address} no longer has the object {digest}") from None
    except BaseException:
        target.close()
        raise

    target.seek(0)
    return target


def _find_missing(connection: Connection, digests: list[str]) -> list[str]:
    missing: list[str] = []

    for start in range(0, len(digests), _DIGESTS_A_CALL):
        request = object_pb2.FindMissingObjectsRequest(digests=digests[start : start + _DIGESTS_A_CALL])
        missing += connection.call(lambda stubs: stubs.objects.FindMissingObjects, request).digests

    return missing


def _offset_by(progress: Callable[[int, int], None], done: int, total: int) -> Callable[[int], None]:
    return lambda durable: progress(done + durable, total)


def _write(connection: Connection, upload: Upload, report: Callable[[int], None] | None) -> None:
    """Send one object, opening the stream again after cuts."""
    backoff = connection.backoff()
    durable = -1

    while True:
        # The sender waits for the server's first answer: it may have a part of the content.
        begin: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        method = connection.stubs.objects.WriteObject
        answers = method(_requests(upload, begin), metadata=connection.metadata)
        started = False

        try:
            for answer in answers:
                if not started:
                    begin.put(answer.durable_offset)
                    started = True

                if answer.durable_offset > durable:
                    durable = answer.durable_offset
                    backoff.reset()

                    if report is not None:
                        report(durable)

                if answer.complete:
                    return
        except grpc.RpcError as error:
            failure = error
        else:
            raise PlatformError(
                f"the server at {connection.address} ended the upload of {upload.digest} "
                f"at byte {max(durable, 0)} of {upload.size} without completing it"
            )
        finally:
            # Ends the sender's thread also when it still waits for a first answer.
            begin.put(None)
            answers.cancel()

        if not (is_cut(failure) and backoff.wait()):
            raise connection.explain(failure)


def _requests(
    upload: Upload, begin: queue.SimpleQueue[int | None]
) -> Iterator[object_pb2.WriteObjectRequest]:
    yield object_pb2.WriteObjectRequest(digest=upload.digest, size=upload.size)
    offset = begin.get()

    if offset is None or offset >= upload.size:
        return

    source = upload.open()

    try:
        source.seek(offset)

        while offset < upload.size:
            data = source.read(CHUNK)

            if not data:
                return

            yield object_pb2.WriteObjectRequest(offset=offset, data=data)
            offset += len(data)
    finally:
        source.close()
