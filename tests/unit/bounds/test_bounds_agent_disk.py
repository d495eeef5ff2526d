"""A node whose disk is full: what was begun waits, what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from opentailr_agent import objects as objects_module
from opentailr_agent.bundles import BundleStore
from opentailr_agent.core import effects as do
from opentailr_agent.core.model import AttemptReport, AttemptState, NodeState, Phase, StoredResult
from opentailr_agent.core.outbox import Entry
from opentailr_agent.journal import Journal
from opentailr_agent.objects import ObjectCache
from opentailr_agent.room import FULL_DISK, Room, lacks_room


class Time:
    """A clock that waiting moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def no_room(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", sorted(FULL_DISK))
async def test_work_waits_for_room_and_is_done_then(number: int) -> None:
    time, given_back = Time(), []
    room = Room(lambda: given_back.append(1), clock=time, sleep=time.sleep)
    tries: list[str] = []

    async def work() -> str:
        tries.append(room.trouble)

        if len(tries) < 5:
            raise no_room(number)

        return "done"

    assert not room.trouble
    assert await room.wait_for("the result of att_1", work, patience=60) == "done"
    assert time.pauses == [1, 2, 4, 8]
    assert len(given_back) == 4
    assert tries[1] == "disk: full when the result of att_1 was written; free space on the node"
    assert room.trouble, "for a while nothing new is taken"
    time.now += 20
    assert not room.trouble


async def test_patience_ends_and_other_errors_are_not_waited_for() -> None:
    time = Time()
    room = Room(lambda: None, clock=time, sleep=time.sleep)

    async def full() -> None:
        raise no_room()

    async def wrong() -> None:
        raise OSError(errno.EIO, "the disk fails")

    with pytest.raises(OSError, match="No space left"):
        await room.wait_for("x", full, patience=30)

    assert 30 <= sum(time.pauses) < 60

    with pytest.raises(OSError, match="the disk fails"):
        await room.wait_for("x", wrong, patience=30)


async def test_work_that_waits_can_be_cancelled() -> None:
    room = Room(lambda: None)

    async def full() -> None:
        raise no_room()

    task = asyncio.create_task(room.wait_for("x", full, patience=600))
    await asyncio.sleep(0)
    assert room.trouble
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_full_disk_is_known_by_what_programs_say_of_it() -> None:
    told = RuntimeError("uv failed:\n  Caused by: failed to write: No space left on device (os error 28)")
    assert lacks_room(told)
    wrapped = RuntimeError("it could not be built")
    wrapped.__cause__ = no_room(errno.EDQUOT)
    assert lacks_room(wrapped)
    assert not lacks_room(RuntimeError("no such package"))


class Content:
    """Stands for the way to the control plane."""

    def __init__(self) -> None:
        self.failures: list[OSError] = []

    async def read(self, digest: str, target: Path) -> int:
        target.write_bytes(b"content")

        if self.failures:
            raise self.failures.pop()

        return 7


@pytest.mark.parametrize("site", ["read", "rename", "chmod"])
async def test_an_object_that_found_no_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    content = Content()
    cache = ObjectCache(tmp_path / "objects", content)
    digest = "a" * 64

    def refuse(*_: object) -> None:
        raise no_room()

    with monkeypatch.context() as patch:
        if site == "read":
            content.failures.append(no_room())
        elif site == "rename":
            patch.setattr(Path, "rename", refuse)
        else:
            patch.setattr(objects_module.os, "chmod", refuse)

        with pytest.raises(OSError, match="No space left"):
            await cache.get(digest, owner="att_1")

    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert (await cache.get(digest, owner="att_1")).read_bytes() == b"content"


async def test_caches_give_back_what_nobody_uses(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", Content())
    kept, free = "a" * 64, "b" * 64
    path = await cache.get(kept, owner="att_1")
    await cache.get(free, owner="att_2")
    cache.release("att_2")
    cache.give_back()
    assert path.exists()
    assert cache.total_bytes == 7
    assert not (tmp_path / "objects" / "bb" / free).exists()


async def test_a_bundle_that_found_no_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ObjectCache(tmp_path / "objects", Content())
    store = BundleStore(tmp_path / "bundles", cache)

    def refuse(archive: Path, target: Path, directory: str) -> int:
        target.mkdir(parents=True)
        (target / "half").write_bytes(b"half")
        raise no_room()

    monkeypatch.setattr("opentailr_agent.bundles.unpack", refuse)

    with pytest.raises(OSError, match="No space left"):
        await store.get("c" * 64, "package", owner="att_1")

    assert [path.name for path in (tmp_path / "bundles").rglob("*")] == ["incoming"]


# The journal.


def report(number: int) -> do.SaveReport:
    told = AttemptReport(f"att_{number}", 1, AttemptState.SUCCEEDED, 5, result=StoredResult(1, b"r" * 900))
    return do.SaveReport(Entry(number, told))


def opened(path: Path) -> Journal:
    return Journal(path, machine_boot="boot", new_id=lambda: "jrn_1")


def told(journal: Journal) -> list[int]:
    state = NodeState(slots=1)
    journal.load(state)
    return [entry.seq for entry in state.outbox.entries]


def test_a_journal_without_room_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")
    journal.commit([report(1)])
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal.commit([report(number) for number in range(2, 50)])

    assert told(journal) == [1]
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.commit([report(2)])
    journal.close()
    journal = opened(tmp_path / "journal.db")
    assert told(journal) == [1, 2]
    journal.close()


def test_a_journal_cut_anywhere_in_its_last_commit_keeps_all_before(tmp_path: Path) -> None:
    """The machine stopped while the last commit was written."""
    path = tmp_path / "journal.db"
    journal = opened(path)
    journal._db.execute("PRAGMA wal_autocheckpoint = 0")
    journal.commit([do.SaveAttempt("att_1", 1, Phase.RUNNING), report(1)])
    journal.commit([report(2)])
    wal = tmp_path / "journal.db-wal"
    before = wal.stat().st_size
    journal.commit([report(3)])
    content = {name: (tmp_path / name).read_bytes() for name in ("journal.db", "journal.db-wal")}
    journal.close()
    size = len(content["journal.db-wal"])
    cut = tmp_path / "cut"
    # Each byte at the borders of the commit, and a sample within its pages.
    places = {*range(before, before + 64), *range(size - 64, size), *range(before, size, 97)}

    for length in sorted(places):
        cut.mkdir()
        (cut / "journal.db").write_bytes(content["journal.db"])
        (cut / "journal.db-wal").write_bytes(content["journal.db-wal"][:length])
        again = opened(cut / "journal.db")
        assert told(again) == [1, 2], f"{length} of {size} bytes"
        assert again.opened.replaced is None
        again.close()
        shutil.rmtree(cut)


def test_a_journal_that_cannot_be_read_is_put_aside_and_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    opened(path).close()
    path.write_bytes(path.read_bytes()[:1000])
    journal = opened(path)
    assert journal.opened.replaced is not None
    assert journal.opened.replaced.exists()
    assert told(journal) == []
    journal.close()
