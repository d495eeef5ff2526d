"""Objects up and down: what travels, resuming, verification, memory."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest
from fake_server import FakeState, Fault

from datatailr.client.connection import Connection
from datatailr.client.transfers import (
    CHUNK,
    INLINE_LIMIT,
    MEMORY_LIMIT,
    BytesReader,
    Upload,
    download,
    payload_of,
    upload_all,
    upload_of,
)
from datatailr.errors import InvalidRequestError, NotFoundError, PlatformError
from datatailr.v1 import common_pb2

LARGE = bytes(range(256)) * 4096  # 1 MiB


def test_small_payloads_travel_inline() -> None:
    uploads: list[Upload] = []
    payload = payload_of(b"x" * INLINE_LIMIT, uploads)
    assert payload == common_pb2.Payload(inline=b"x" * INLINE_LIMIT, size=INLINE_LIMIT)
    assert uploads == []


def test_larger_payloads_travel_by_digest() -> None:
    uploads: list[Upload] = []
    content = b"x" * (INLINE_LIMIT + 1)
    payload = payload_of(content, uploads)
    assert payload.digest == hashlib.sha256(content).hexdigest()
    assert payload.size == len(content)
    assert [upload.digest for upload in uploads] == [payload.digest]


def test_what_is_there_is_not_sent_again(connection: Connection, state: FakeState) -> None:
    assert upload_all(connection, [upload_of(LARGE), upload_of(LARGE), upload_of(b"")]) == len(LARGE)
    assert state.objects[hashlib.sha256(LARGE).hexdigest()] == LARGE
    assert state.objects[hashlib.sha256(b"").hexdigest()] == b""
    assert len(state.called("WriteObject")) == 2
    assert upload_all(connection, [upload_of(LARGE)]) == 0
    assert len(state.called("WriteObject")) == 2


def test_an_upload_goes_on_where_it_was_cut(connection: Connection, state: FakeState) -> None:
    state.fail("WriteObject", Fault("bytes", at=CHUNK), Fault("before"), Fault("bytes", at=3 * CHUNK))
    reported: list[tuple[int, int]] = []
    upload_all(connection, [upload_of(LARGE)], progress=lambda done, total: reported.append((done, total)))
    assert state.objects[hashlib.sha256(LARGE).hexdigest()] == LARGE
    assert state.write_offsets[0] == 0
    assert len(state.write_offsets) == 3
    assert state.write_offsets[1] >= CHUNK and state.write_offsets[2] >= 3 * CHUNK
    assert reported[-1] == (len(LARGE), len(LARGE))
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})


def test_a_content_that_is_not_what_was_promised_is_refused(connection: Connection, state: FakeState) -> None:
    wrong = Upload(hashlib.sha256(b"other").hexdigest(), 3, lambda: io.BytesIO(b"abc"))

    with pytest.raises(InvalidRequestError, match="does not hash"):
        upload_all(connection, [wrong])

    assert state.objects == {}


def test_a_source_that_is_too_short_is_refused(connection: Connection) -> None:
    short = Upload("0" * 64, 10, lambda: io.BytesIO(b"abc"))

    with pytest.raises(InvalidRequestError):
        upload_all(connection, [short])


def test_a_download_goes_on_where_it_was_cut(connection: Connection, state: FakeState) -> None:
    digest = hashlib.sha256(LARGE).hexdigest()
    state.objects[digest] = LARGE
    state.fail("ReadObject", Fault("bytes", at=1), Fault("before"), Fault("bytes", at=500_000))

    with download(connection, digest) as stream:
        assert stream.read() == LARGE

    assert len(state.called("ReadObject")) == 4


def test_a_damaged_download_is_refused(connection: Connection, state: FakeState) -> None:
    digest = hashlib.sha256(LARGE).hexdigest()
    state.objects[digest] = LARGE[:-1] + b"!"

    with pytest.raises(PlatformError, match=f"{digest} arrived damaged"):
        download(connection, digest)


def test_an_unknown_object_is_named(connection: Connection) -> None:
    with pytest.raises(NotFoundError, match="no longer has the object 00"):
        download(connection, "0" * 64)


def test_a_large_download_leaves_memory(connection: Connection, state: FakeState) -> None:
    content = bytes(MEMORY_LIMIT + CHUNK)
    digest = hashlib.sha256(content).hexdigest()
    state.objects[digest] = content

    with download(connection, digest) as stream:
        assert stream._rolled  # type: ignore[attr-defined]
        assert hashlib.sha256(stream.read()).hexdigest() == digest


def test_bytes_are_read_in_pieces_without_a_copy_of_the_whole() -> None:
    content = bytes(8 << 20)
    tracemalloc.start()

    try:
        reader = BytesReader(content)
        reader.seek(CHUNK)
        total = CHUNK

        while piece := reader.read(CHUNK):
            total += len(piece)

        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        reader.close()

    assert total == len(content)
    assert peak < 4 * CHUNK
