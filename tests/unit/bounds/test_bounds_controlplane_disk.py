"""A control plane whose disk is full: bulk stops first, nothing is half written, all goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opentailr_controlplane.core.batch import collect
from opentailr_controlplane.core.errors import InvalidArgument, ResourceExhausted
from opentailr_controlplane.core.model import State
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.files import FULL_DISK
from opentailr_controlplane.logstore import FileLogStore, Stream
from opentailr_controlplane.objects import FileObjectStore
from opentailr_controlplane.store.errors import StoreFull
from opentailr_controlplane.store.sqlite import SqliteStore

OUT = Stream.STDOUT
_NUMBERS = sorted(FULL_DISK)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[FileLogStore]:
    made = FileLogStore(tmp_path / "logs")
    yield made
    await made.close()


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[FileObjectStore]:
    made = FileObjectStore(tmp_path / "objects")
    yield made
    made.close()


async def text(logs: FileLogStore, log_id: str) -> bytes:
    return await logs.read(log_id, OUT, 0)


async def test_logs_leave_the_disk_to_the_database(tmp_path: Path) -> None:
    logs = FileLogStore(tmp_path / "logs", min_free_bytes=1 << 60)

    with pytest.raises(ResourceExhausted) as caught:
        await logs.append("a", OUT, offset=0, data=b"x")

    assert caught.value.reason == "disk_full"
    assert "free space" in caught.value.hint
    assert await text(logs, "a") == b""
    # An end needs no room, and says that nothing more will come.
    await logs.append("a", OUT, offset=0, data=b"", end=True)
    assert (await logs.extent("a", OUT)).ended
    await logs.close()


@pytest.mark.parametrize("number", _NUMBERS)
@pytest.mark.parametrize("site", ["open", "pwrite", "fchmod"])
async def test_a_log_that_found_no_room_is_as_before(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch, site: str, number: int
) -> None:
    genuine = getattr(os, site)

    def refuse(*arguments: object, **more: object) -> object:
        if site == "open" and not str(arguments[0]).endswith(".out"):
            return genuine(*arguments, **more)
        raise OSError(number, os.strerror(number))

    await logs.append("b", OUT, offset=0, data=b"before")

    with monkeypatch.context() as patch:
        patch.setattr(f"opentailr_controlplane.logfiles.os.{site}", refuse)

        with pytest.raises(ResourceExhausted):
            await logs.append("a", OUT, offset=0, data=b"12345", end=True)

    assert await text(logs, "a") == b""
    assert not (await logs.extent("a", OUT)).ended
    assert (await logs.append("a", OUT, offset=0, data=b"12345", end=True)).offset == 5
    await logs.sync()
    assert await text(logs, "a") == b"12345"
    assert await text(logs, "b") == b"before"


@pytest.mark.parametrize("number", _NUMBERS)
async def test_what_could_not_be_synced_is_taken_back(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """After a failed sync the system forgets which bytes it did not write: the next sync would lie."""
    await logs.append("a", OUT, offset=0, data=b"safe")
    await logs.sync()

    def refuse(file: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("opentailr_controlplane.logfiles.os.fsync", refuse)
        await logs.append("a", OUT, offset=4, data=b" and not", end=True)

        with pytest.raises(ResourceExhausted):
            await logs.sync()

    assert await logs.durable("a", OUT) == 4
    assert await text(logs, "a") == b"safe"
    assert not (await logs.extent("a", OUT)).ended
    again = await logs.append("a", OUT, offset=4, data=b" and sound", end=True)
    assert again.offset == 14
    await logs.sync()
    assert await logs.durable("a", OUT) == 14
    assert await text(logs, "a") == b"safe and sound"


async def test_a_reader_who_saw_more_than_was_kept_gets_the_rest(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logs.append("a", OUT, offset=0, data=b"12345")
    waiting = asyncio.create_task(logs.wait("a", OUT, 5))
    await asyncio.sleep(0)

    def refuse(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("opentailr_controlplane.logfiles.os.fsync", refuse)

        with pytest.raises(ResourceExhausted):
            await logs.sync()

    await logs.append("a", OUT, offset=0, data=b"1234567")
    assert (await asyncio.wait_for(waiting, 5)).size == 7


@pytest.mark.parametrize("length", range(6))
async def test_a_log_cut_at_any_byte_goes_on_where_it_is(tmp_path: Path, length: int) -> None:
    """The machine stopped before the last chunk was synced; only what is there counts."""
    first = FileLogStore(tmp_path / "logs")
    await first.append("a", OUT, offset=0, data=b"0123")
    await first.append("a", OUT, offset=4, data=b"45678")
    path = Path(first._log("a", OUT).path)
    await first.close()
    os.truncate(path, 4 + length)
    second = FileLogStore(tmp_path / "logs")
    assert (await second.append("a", OUT, offset=9, data=b"9")).expected == (length < 5)
    answer = await second.append("a", OUT, offset=4 + length, data=b"45678"[length:], end=True)
    assert answer.offset == 9 if length < 5 else 10
    await second.sync()
    assert (await text(second, "a"))[:9] == b"012345678"
    await second.close()


@pytest.mark.parametrize("number", _NUMBERS)
@pytest.mark.parametrize("site", ["open", "write", "fdatasync", "rename"])
async def test_an_object_that_found_no_room_leaves_nothing(
    objects: FileObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, number: int
) -> None:
    data = b"x" * 100_000

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(f"opentailr_controlplane.objects.os.{site}", refuse)

        with pytest.raises(ResourceExhausted) as caught:
            await objects.put_bytes(data)

    assert caught.value.reason == "disk_full"
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    assert objects.used_bytes == 0
    assert await objects.put_bytes(data) == digest_of(data)
    assert await objects.get_bytes(digest_of(data), limit=1 << 20) == data


async def test_uploads_under_way_do_not_promise_the_same_room_twice(tmp_path: Path) -> None:
    room = 1 << 20
    objects = FileObjectStore(tmp_path / "objects", max_bytes=room, min_free_bytes=0)
    first, second = b"a" * (room * 3 // 4), b"b" * (room // 2)

    async with objects.writer(digest_of(first), len(first)) as writer:
        await writer.write(first[:1000])

        with pytest.raises(ResourceExhausted) as caught:
            async with objects.writer(digest_of(second), len(second)):
                raise AssertionError("it has no room")

        assert caught.value.reason == "object_quota"
        await writer.write(first[1000:])
        await writer.commit()

    assert objects._promised == 0
    assert objects.used_bytes == len(first)
    objects.close()


async def test_an_upload_that_ends_early_gives_its_room_back(tmp_path: Path) -> None:
    objects = FileObjectStore(tmp_path / "objects", max_bytes=1 << 20, min_free_bytes=0)

    async with objects.writer(digest_of(b"a" * (1 << 20)), 1 << 20) as writer:
        await writer.write(b"a" * 10)

    assert objects._promised == 0
    await objects.put_bytes(b"b" * 500_000)
    objects.close()


async def test_an_object_larger_than_the_whole_store_is_refused_for_good(tmp_path: Path) -> None:
    objects = FileObjectStore(tmp_path / "objects", max_bytes=1000, min_free_bytes=0)

    with pytest.raises(InvalidArgument) as caught:
        await objects.put_bytes(b"x" * 1001)

    assert caught.value.reason == "object_too_large"
    assert "--max-object-bytes" in caught.value.hint
    objects.close()


async def test_objects_leave_the_disk_to_the_database(tmp_path: Path) -> None:
    objects = FileObjectStore(tmp_path / "objects", min_free_bytes=free_bytes(tmp_path) + (1 << 40))

    with pytest.raises(ResourceExhausted) as caught:
        await objects.put_bytes(b"x")

    assert caught.value.reason == "disk_full"
    objects.close()


async def test_a_database_without_room_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    assert store._writer is not None

    def batch(name: str) -> State:
        state = State(CoreSettings(), name)
        state.dirty.counters = True
        return state

    first = collect(batch("kept"))
    assert first is not None
    await store.commit(first)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    second = collect(batch("lost"))
    assert second is not None
    second.payloads["0" * 64] = b"x" * 1_000_000

    with pytest.raises(StoreFull, match="cannot grow"):
        await store.commit(second)

    assert store._writer.execute("SELECT count(*) FROM payloads").fetchone() == (0,)
    assert store._writer.execute("SELECT installation FROM counters").fetchone() == ("kept",)
    # What is small still has its place among the pages that are there.
    await store.commit(first)
    store._writer.execute("PRAGMA max_page_count = 1000000").fetchone()
    await store.commit(second)
    assert store._writer.execute("SELECT count(*) FROM payloads").fetchone() == (1,)
    await store.close()


async def test_the_log_of_the_database_stays_within_its_bound(tmp_path: Path) -> None:
    """Commits without end beside readers: the write-ahead log is used anew, it does not grow."""
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    wal = tmp_path / "state.db-wal"
    largest = 0

    for number in range(600):
        state = State(CoreSettings(), "x")
        state.dirty.counters = True
        batch = collect(state)
        assert batch is not None
        batch.payloads[f"{number:064x}"] = bytes(30_000)
        await store.commit(batch)
        await store.read_payloads([f"{number:064x}"])
        largest = max(largest, wal.stat().st_size)

    await store.close()
    assert largest < 8 << 20, "18 MB were committed"
