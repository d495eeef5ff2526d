"""The log store: bytes by offsets, durable offsets, tails, followers, ends and bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opentailr_controlplane.core.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from opentailr_controlplane.logfiles import Extent
from opentailr_controlplane.logstore import Appended, Chunk, FileLogStore, Stream
from opentailr_controlplane.services.logfollow import follow_log

OUT, ERR = Stream.STDOUT, Stream.STDERR


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[FileLogStore]:
    made = FileLogStore(tmp_path / "logs")
    yield made
    await made.close()


async def everything(logs: FileLogStore, log_id: str, stream: Stream = OUT, offset: int = 0) -> bytes:
    parts = []
    while part := await logs.read(log_id, stream, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


@pytest.mark.clause("B158")
async def test_streams_are_apart_and_readable_at_once(logs: FileLogStore) -> None:
    await logs.append("att_1", OUT, offset=0, data=b"out")
    await logs.append("att_1", ERR, offset=0, data=b"err\xff\xfe")
    assert await everything(logs, "att_1", OUT) == b"out"
    assert await everything(logs, "att_1", ERR) == b"err\xff\xfe"
    assert await everything(logs, "att_2", OUT) == b""
    assert await logs.extent("att_2", OUT) == Extent(0, False)


async def test_offset_rules(logs: FileLogStore) -> None:
    assert await logs.append("a", OUT, offset=0, data=b"12345") == Appended(5)
    assert await logs.append("a", OUT, offset=0, data=b"12345") == Appended(5)
    assert await logs.append("a", OUT, offset=2, data=b"345") == Appended(5)
    assert await logs.append("a", OUT, offset=7, data=b"x") == Appended(5, expected=True)
    assert await logs.append("a", OUT, offset=3, data=b"4567") == Appended(5, expected=True)
    assert await logs.append("a", OUT, offset=5, data=b"67", end=True) == Appended(7)
    assert await logs.append("a", OUT, offset=5, data=b"67", end=True) == Appended(7)
    assert await logs.append("a", OUT, offset=7, data=b"8") == Appended(7, refused=True)
    assert await everything(logs, "a") == b"1234567"
    assert await logs.extent("a", OUT) == Extent(7, True)


async def test_end_may_come_with_a_repeat_or_alone(logs: FileLogStore) -> None:
    await logs.append("a", OUT, offset=0, data=b"123")
    assert await logs.append("a", OUT, offset=0, data=b"123", end=True) == Appended(3)
    assert await logs.extent("a", OUT) == Extent(3, True)
    assert await everything(logs, "a") == b"123"
    await logs.append("b", OUT, offset=0, data=b"", end=True)
    assert await logs.extent("b", OUT) == Extent(0, True)


async def test_durable_offset_follows_the_sync(logs: FileLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await logs.append("a", OUT, offset=0, data=b"123")
    assert await logs.durable("a", OUT) == 0
    await logs.sync()
    assert await logs.durable("a", OUT) == 3

    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("opentailr_controlplane.logfiles.os.fsync", broken)
    await logs.append("a", OUT, offset=3, data=b"45")
    with pytest.raises(OSError, match="Input/output"):
        await logs.sync()
    assert await logs.durable("a", OUT) == 3
    monkeypatch.undo()
    # A failed sync leaves no certainty: its bytes are taken back and have to come again.
    assert (await logs.append("a", OUT, offset=5, data=b"6")).expected
    await logs.append("a", OUT, offset=3, data=b"45")
    await logs.sync()
    assert await logs.durable("a", OUT) == 5


async def test_a_longer_chunk_after_a_kill_learns_where_to_go_on(logs: FileLogStore, tmp_path: Path) -> None:
    """What a killed process wrote without a sync is kept, and the sender is told its true, durable end."""
    await logs.append("a", OUT, offset=0, data=b"12345")
    again = FileLogStore(tmp_path / "logs")
    try:
        assert await again.durable("a", OUT) == 0
        assert await again.append("a", OUT, offset=0, data=b"1234567") == Appended(5, expected=True)
        await again.sync()
        assert await again.durable("a", OUT) == 5
        assert await again.append("a", OUT, offset=5, data=b"67", end=True) == Appended(7)
    finally:
        await again.close()


async def test_one_sync_serves_all_that_gathered(logs: FileLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    true_fsync = os.fsync
    monkeypatch.setattr(
        "opentailr_controlplane.logfiles.os.fsync", lambda file: (synced.append(file), true_fsync(file))[1]
    )
    for number in range(50):
        await logs.append("a", OUT, offset=number, data=b"x")
    await asyncio.gather(*(logs.sync() for _ in range(20)))
    assert len(synced) <= 2


@pytest.mark.clause("B157")
async def test_logs_survive_a_restart(logs: FileLogStore, tmp_path: Path) -> None:
    await logs.append("a", OUT, offset=0, data=b"one\n")
    await logs.append("b", OUT, offset=0, data=b"two\n", end=True)
    await logs.close()
    again = FileLogStore(tmp_path / "logs")
    assert await again.extent("a", OUT) == Extent(4, False)
    assert await again.extent("b", OUT) == Extent(4, True)
    assert await again.durable("a", OUT) == 0
    assert await again.append("a", OUT, offset=0, data=b"one\n") == Appended(4)
    await again.sync()
    assert await again.durable("a", OUT) == 4
    assert await again.append("a", OUT, offset=4, data=b"more\n") == Appended(9)
    assert await everything(again, "a") == b"one\nmore\n"
    await again.close()


@pytest.mark.clause("B155")
@pytest.mark.parametrize(
    ("text", "lines", "tail"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"\n", 1, b"\n"),
        (b"only", 1, b"only"),
        (b"a\nb", 0, b""),
        (b"\xff\n\xfe\n", 1, b"\xfe\n"),
    ],
)
async def test_tail(logs: FileLogStore, text: bytes, lines: int, tail: bytes) -> None:
    await logs.append("a", OUT, offset=0, data=text)
    assert await everything(logs, "a", OUT, await logs.tail_offset("a", OUT, lines)) == tail


async def test_tail_across_blocks_agrees_with_splitting(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentailr_controlplane.logfiles._TAIL_BLOCK", 7)
    random_ = random.Random(3)
    for number in range(40):
        text = b"".join(random_.choice([b"\n", b"a", b"bcd"]) for _ in range(random_.randrange(60)))
        await logs.append(f"a{number}", OUT, offset=0, data=text)
        for lines in range(1, 12):
            offset = await logs.tail_offset(f"a{number}", OUT, lines)
            assert text[offset:] == b"".join(text.splitlines(keepends=True)[-lines:]), (text, lines)


def bytes_read() -> int:
    """Bytes that this process has read by system calls so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


async def test_tail_of_a_big_log_reads_its_end_only(logs: FileLogStore) -> None:
    line = b"x" * 99 + b"\n"
    await logs.append("big", OUT, offset=0, data=line)
    path = next(path for path in Path(logs._root).rglob("big.out"))
    with path.open("r+b") as file:
        file.truncate(200_000_000)
        file.seek(200_000_000 - 100 * 5000 - 1)
        file.write(b"\n" + line * 5000)
    await logs.close()
    again = FileLogStore(Path(logs._root))
    before = bytes_read()
    offset = await again.tail_offset("big", OUT, 5000)
    assert offset == 200_000_000 - 100 * 5000
    assert bytes_read() - before < 10_000_000, "5,000 lines from the end must not need the whole file"
    await again.close()


async def test_follower_is_woken_by_bytes_and_by_the_end(logs: FileLogStore) -> None:
    waiting = asyncio.create_task(logs.wait("a", OUT, 0))
    await asyncio.sleep(0)
    await logs.append("a", OUT, offset=0, data=b"12")
    assert await asyncio.wait_for(waiting, 5) == Extent(2, False)
    waiting = asyncio.create_task(logs.wait("a", OUT, 2))
    await asyncio.sleep(0)
    assert not waiting.done()
    await logs.mark_ended("a", OUT)
    assert await asyncio.wait_for(waiting, 5) == Extent(2, True)


async def test_given_up_followers_leave_nothing(logs: FileLogStore) -> None:
    waiting = [asyncio.create_task(logs.wait("a", OUT, 0)) for _ in range(5)]
    await asyncio.sleep(0.02)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    log = logs._logs[("a", OUT)]
    assert (log.users, log.waiters) == (0, set())


async def test_bound_cuts_says_so_and_ends(tmp_path: Path) -> None:
    logs = FileLogStore(tmp_path / "logs", max_bytes=10)
    assert (await logs.append("a", OUT, offset=0, data=b"12345")).refused is False
    waiting = asyncio.create_task(logs.wait("a", OUT, 5))
    assert (await logs.append("a", OUT, offset=5, data=b"67890AB")).refused is True
    assert (await logs.append("a", OUT, offset=12, data=b"C")).refused is True
    text = await everything(logs, "a")
    assert text.startswith(b"1234567890\n[the log ends here: it reached the limit of 10 bytes]")
    assert (await asyncio.wait_for(waiting, 5)).ended
    await logs.close()
    again = FileLogStore(tmp_path / "logs", max_bytes=10)
    assert (await again.append("a", OUT, offset=12, data=b"C")).refused is True
    assert await everything(again, "a") == text
    await again.close()


async def test_full_disk_takes_nothing_of_the_chunk(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logs.append("a", OUT, offset=0, data=b"123")
    true_pwrite = os.pwrite

    def full(file: int, data: bytes, offset: int) -> int:
        if offset > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_pwrite(file, data[:1], offset)

    monkeypatch.setattr("opentailr_controlplane.logfiles.os.pwrite", full)
    with pytest.raises(ResourceExhausted, match="no room"):
        await logs.append("a", OUT, offset=3, data=b"456")
    monkeypatch.undo()
    assert await everything(logs, "a") == b"123"
    assert await logs.append("a", OUT, offset=3, data=b"456") == Appended(6)


async def test_many_logs_keep_few_files_open(logs: FileLogStore) -> None:
    for number in range(300):
        await logs.append(f"att_{number}", OUT, offset=0, data=b"x")
        if number % 50 == 0:
            await logs.sync()
    await logs.sync()
    await logs.append("att_0", OUT, offset=1, data=b"y")
    assert len(logs._open) <= 130
    assert await everything(logs, "att_0") == b"xy"


async def test_names_cannot_leave_the_directory(logs: FileLogStore) -> None:
    for name in ("../x", "", "a/b", "a" * 200, ".hidden"):
        with pytest.raises(InvalidArgument):
            await logs.append(name, OUT, offset=0, data=b"x")


async def test_own_log_goes_on_where_it_is(logs: FileLogStore) -> None:
    await logs.append_own("run_1", b"one\n")
    await logs.append_own("run_1", b"two\n", end=True)
    await logs.append_own("run_1", b"late\n")
    assert await everything(logs, "run_1") == b"one\ntwo\n"
    assert (await logs.extent("run_1", OUT)).ended


async def test_a_group_is_taken_in_order_and_each_log_answers_for_itself(logs: FileLogStore) -> None:
    await logs.append("full", OUT, offset=0, data=b"x", end=True)
    answers = await logs.append_many(
        [
            Chunk("a", OUT, 0, b"one "),
            Chunk("b", OUT, 0, b"b", end=True),
            Chunk("a", Stream.STDERR, 0, b"err"),
            Chunk("a", OUT, 4, b"two", end=True),
            Chunk("b", OUT, 0, b"b", end=True),
            Chunk("c", OUT, 5, b"gap"),
            Chunk("full", OUT, 1, b"late"),
        ]
    )
    assert answers == [
        Appended(4),
        Appended(1),
        Appended(3),
        Appended(7),
        Appended(1),
        Appended(0, expected=True),
        Appended(1, refused=True),
    ]
    assert await everything(logs, "a") == b"one two"
    assert await everything(logs, "a", Stream.STDERR) == b"err"
    assert await logs.extent("a", OUT) == Extent(7, True)
    assert await logs.durable("a", OUT) == 0
    await logs.sync()
    assert await logs.durable("a", OUT) == 7


async def test_a_group_goes_to_the_threads_once(logs: FileLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    true_submit = logs._threads.submit
    monkeypatch.setattr(
        logs._threads, "submit", lambda call, *rest: (calls.append(call), true_submit(call, *rest))[1]
    )
    await logs.append_many([Chunk(f"att_{number}", OUT, 0, b"x", end=True) for number in range(100)])
    assert len(calls) == 1


async def test_groups_that_meet_do_not_wait_for_each_other_for_ever(logs: FileLogStore) -> None:
    names = [f"att_{number}" for number in range(20)]
    for offset in range(10):
        forward = [Chunk(name, OUT, offset, b"x") for name in names]
        async with asyncio.timeout(10):
            answers = await asyncio.gather(logs.append_many(forward), logs.append_many(forward[::-1]))
        assert all(answer == Appended(offset + 1) for group in answers for answer in group)


async def test_a_log_without_room_leaves_the_others_theirs(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_pwrite = os.pwrite

    def full(file: int, data: bytes, offset: int) -> int:
        if bytes(data) == b"no":
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_pwrite(file, data, offset)

    monkeypatch.setattr("opentailr_controlplane.logfiles.os.pwrite", full)
    with pytest.raises(ResourceExhausted, match="no room for log b"):
        await logs.append_many(
            [Chunk("a", OUT, 0, b"1"), Chunk("b", OUT, 0, b"no"), Chunk("c", OUT, 0, b"3")]
        )
    monkeypatch.undo()
    await logs.sync()
    assert [await logs.durable(name, OUT) for name in "abc"] == [1, 0, 1]
    assert await logs.append("b", OUT, offset=0, data=b"no") == Appended(2)


async def test_a_bad_name_in_a_group_takes_nothing(logs: FileLogStore) -> None:
    with pytest.raises(InvalidArgument):
        await logs.append_many([Chunk("a", OUT, 0, b"1"), Chunk("../x", OUT, 0, b"2")])
    assert await logs.extent("a", OUT) == Extent(0, False)


async def test_a_flood_of_short_logs_keeps_few_files_open(logs: FileLogStore) -> None:
    most = 0
    for first in range(0, 2000, 200):
        await logs.append_many([Chunk(f"att_{first + n}", OUT, 0, b"x", end=True) for n in range(200)])
        most = max(most, len(logs._open))
    assert most <= 512 + 200
    await logs.sync()
    assert len(logs._open) == 0


def fail_syncs(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    true_fsync, left = os.fsync, [times]

    def broken(file: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.EIO, "Input/output error")
        true_fsync(file)

    monkeypatch.setattr("opentailr_controlplane.logfiles.os.fsync", broken)


async def test_a_removal_whose_sync_fails_does_not_stop_all_syncs(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logs.append("att_1", OUT, offset=0, data=b"1")
    fail_syncs(monkeypatch, 1)
    async with asyncio.timeout(5):
        assert await logs.remove(["att_1"]) == 1
        await logs.append("att_2", OUT, offset=0, data=b"2")
        await logs.sync()
    assert await logs.durable("att_2", OUT) == 1


async def test_a_follower_outlives_a_failed_sync_and_hears_of_a_removal(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def over() -> bool:
        return False

    await logs.append("a", OUT, offset=0, data=b"12345")
    chunks = follow_log(logs, "a", OUT, 0, over=over)
    assert await anext(chunks) == (0, b"12345")
    fail_syncs(monkeypatch, 1)
    with pytest.raises(OSError, match="Input/output"):
        await logs.sync()
    assert await logs.extent("a", OUT) == Extent(0, False)
    async with asyncio.timeout(5):
        following = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        await logs.append("a", OUT, offset=0, data=b"1234567")
        assert await following == (5, b"67")
        await logs.remove(["a"])
        with pytest.raises(FailedPrecondition, match="has been removed"):
            await anext(chunks)
