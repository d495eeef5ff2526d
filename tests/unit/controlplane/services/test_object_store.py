"""The object store: names are hashes, cuts lose nothing, nothing half-written is ever read."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from opentailr_controlplane.core.errors import InvalidArgument, NotFound, ResourceExhausted
from opentailr_controlplane.errors import Aborted, DataLoss
from opentailr_controlplane.objects import CHUNK, FileObjectStore


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileObjectStore]:
    made = FileObjectStore(tmp_path / "objects", min_free_bytes=0)
    yield made
    made.close()


async def read_all(store: FileObjectStore, digest: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest, offset, length=length)])


def files_below(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * 1024 * 1024 + 7])
async def test_what_was_put_is_read(store: FileObjectStore, size: int) -> None:
    data = some_bytes(size)
    digest = await store.put_bytes(data)
    assert digest == digest_of(data)
    assert await store.has(digest)
    assert await store.size(digest) == size
    chunks = [chunk async for chunk in store.read(digest)]
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    assert store.used_bytes == size


async def test_putting_twice_keeps_one(store: FileObjectStore, tmp_path: Path) -> None:
    assert await store.put_bytes(b"same") == await store.put_bytes(b"same")
    assert files_below(tmp_path) == [digest_of(b"same")]
    assert store.used_bytes == 4


async def test_ranges(store: FileObjectStore) -> None:
    data = some_bytes(700_000)
    digest = await store.put_bytes(data)
    assert await read_all(store, digest, 300_000) == data[300_000:]
    assert await read_all(store, digest, 5, 10) == data[5:15]
    assert await read_all(store, digest, len(data)) == b""
    with pytest.raises(InvalidArgument, match=r"700001.*700000 bytes"):
        await read_all(store, digest, 700_001)
    with pytest.raises(InvalidArgument):
        await read_all(store, digest, -1)


async def test_missing_names_each_absent_object_once(store: FileObjectStore) -> None:
    there = await store.put_bytes(b"there")
    absent = digest_of(b"absent")
    assert await store.missing([absent, there, absent]) == [absent]
    with pytest.raises(InvalidArgument) as failure:
        await store.missing(["../../etc/passwd"])
    assert failure.value.field == "digests"


async def test_absent_object_is_not_found(store: FileObjectStore) -> None:
    for call in (store.size(digest_of(b"x")), read_all(store, digest_of(b"x"))):
        with pytest.raises(NotFound, match="is not there"):
            await call


async def test_cut_upload_goes_on_at_its_offset(store: FileObjectStore, tmp_path: Path) -> None:
    data = some_bytes(1_000_000)
    digest = digest_of(data)
    async with store.writer(digest, len(data)) as writer:
        await writer.write(data[:400_000])
    assert not await store.has(digest)

    store.close()
    again = FileObjectStore(tmp_path / "objects", min_free_bytes=0)
    try:
        async with again.writer(digest, len(data)) as writer:
            assert (writer.offset, writer.durable) == (400_000, 400_000)
            await writer.write(data[400_000:])
            await writer.commit()
        assert await read_all(again, digest) == data
        assert files_below(tmp_path) == [digest]
    finally:
        again.close()


async def test_short_upload_is_refused_and_kept(store: FileObjectStore) -> None:
    data = some_bytes(1000)
    with pytest.raises(InvalidArgument, match="1000 bytes, but 10 came"):
        async with store.writer(digest_of(data), 1000) as writer:
            await writer.write(data[:10])
            await writer.commit()
    async with store.writer(digest_of(data), 1000) as writer:
        assert writer.offset == 10


async def test_wrong_content_leaves_nothing(store: FileObjectStore, tmp_path: Path) -> None:
    digest = digest_of(b"right")
    with pytest.raises(InvalidArgument, match="does not hash"):
        async with store.writer(digest, 5) as writer:
            await writer.write(b"wrong")
            await writer.commit()
    assert not await store.has(digest)
    assert files_below(tmp_path) == []


async def test_more_than_announced_leaves_nothing(store: FileObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="announced with 3"):
        async with store.writer(digest_of(b"abcd"), 3) as writer:
            await writer.write(b"ab")
            await writer.write(b"cd")
    assert files_below(tmp_path) == []


async def test_damaged_part_is_not_blamed_on_the_sender(store: FileObjectStore, tmp_path: Path) -> None:
    data = some_bytes(1000)
    digest = digest_of(data)
    (tmp_path / "objects" / "partial" / f"{digest}.part").write_bytes(bytes(500))
    with pytest.raises(Aborted):
        async with store.writer(digest, 1000) as writer:
            await writer.write(data[500:])
            await writer.commit()
    async with store.writer(digest, 1000) as writer:
        assert writer.offset == 0
        await writer.write(data)
        await writer.commit()
    assert await read_all(store, digest) == data


async def test_two_uploads_of_one_object_at_once(store: FileObjectStore, tmp_path: Path) -> None:
    data = some_bytes(3_000_000)
    digest = digest_of(data)

    async def upload(step: int) -> None:
        async with store.writer(digest, len(data)) as writer:
            while writer.offset < len(data):
                await writer.write(data[writer.offset : writer.offset + step])
            await writer.commit()

    await asyncio.gather(upload(100_000), upload(70_001), upload(333_333))
    assert await read_all(store, digest) == data
    assert files_below(tmp_path) == [digest]
    assert store.used_bytes == len(data)


async def test_full_disk_is_said_and_leaves_nothing(
    store: FileObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_write = os.write
    data = some_bytes(1000)

    def full(file: int, view: bytes) -> int:
        if len(view) < 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_write(file, view[:500])

    monkeypatch.setattr("opentailr_controlplane.objects.os.write", full)
    with pytest.raises(ResourceExhausted, match="no room") as failure:
        await store.put_bytes(data)
    assert failure.value.reason == "disk_full"
    monkeypatch.undo()
    assert files_below(tmp_path) == []
    await store.put_bytes(data)


async def test_quota_refuses_before_a_byte_is_taken(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects", max_bytes=1000, min_free_bytes=0)
    await store.put_bytes(some_bytes(600))
    with pytest.raises(ResourceExhausted, match="600 of 1000 bytes; 401 more") as failure:
        await store.put_bytes(some_bytes(401))
    assert failure.value.reason == "object_quota"
    await store.put_bytes(some_bytes(400))
    store.close()
    reopened = FileObjectStore(tmp_path / "objects", max_bytes=1000)
    assert reopened.used_bytes == 1000
    reopened.close()


async def test_free_space_is_left_for_the_database(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects", min_free_bytes=1 << 60)
    with pytest.raises(ResourceExhausted, match="no room"):
        await store.put_bytes(b"x")
    store.close()


async def test_changed_content_is_never_given_out(store: FileObjectStore) -> None:
    data = some_bytes(600_000)
    digest = await store.put_bytes(data)
    path = store.path(digest)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    received = b""
    with pytest.raises(DataLoss):
        async for chunk in store.read(digest):
            received += chunk
    assert len(received) < len(data)
    assert not await store.has(digest)
    await store.put_bytes(data)
    assert await read_all(store, digest) == data


async def test_link_takes_a_file_over(store: FileObjectStore, tmp_path: Path) -> None:
    data = some_bytes(5000)
    source = tmp_path / "result"
    source.write_bytes(data)
    digest = await store.link_from(source)
    assert digest == digest_of(data)
    assert store.path(digest).stat().st_ino == source.stat().st_ino
    assert source.stat().st_mode & 0o222 == 0
    assert await read_all(store, digest) == data
    source.unlink()
    assert await store.has(digest)
    with pytest.raises(FileNotFoundError):
        await store.link_from(tmp_path / "nothing")


async def test_old_leftovers_go_and_fresh_ones_stay(tmp_path: Path) -> None:
    partial = tmp_path / "objects" / "partial"
    partial.mkdir(parents=True)
    old, fresh = partial / f"{'a' * 64}.part", partial / f"{'b' * 64}.part"
    old.write_bytes(b"1")
    fresh.write_bytes(b"2")
    (partial / "link-1.tmp").write_bytes(b"3")
    os.utime(old, (1000, 1000))
    store = FileObjectStore(tmp_path / "objects", clock=lambda: fresh.stat().st_mtime + 3600)
    store.close()
    assert files_below(partial) == [fresh.name]
