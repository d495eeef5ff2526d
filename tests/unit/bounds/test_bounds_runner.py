"""The keeper's log and the result of a task on a disk without room."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datatailr.runner import pickles, wire
from datatailr.runner.loop import guarded
from datatailr.runner.outlog import OutcomeLog
from opentailr_agent.ports import EndState
from opentailr_agent.runtimes.keeper_files import Leavings

FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Takes bytes until its room is used up; the last write may be taken in part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.room = 1 << 40
        self._number = number
        self._write: Callable[[int, Any], int] = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: Any) -> int:
        taken = min(self.room, len(data))
        self.room -= taken

        if not taken:
            raise OSError(self._number, os.strerror(self._number))

        return self._write(descriptor, memoryview(data)[:taken])


def outcome(name: str) -> wire.Message:
    return {
        "id": name,
        "state": "succeeded",
        "exit_code": 0,
        "signal": None,
        "started_at": 1.0,
        "ended_at": 2.0,
        "result": "gAVOLg==",
        "result_file": None,
        "size": 4,
        "preview": "",
        "failure": None,
        "peak": 0,
    }


@pytest.mark.parametrize("number", FULL)
@pytest.mark.parametrize("room", [0, 1, 10, 100, 200])
def test_an_outcome_waits_for_room_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, room: int
) -> None:
    log = OutcomeLog(str(tmp_path / "outcomes.log"))
    log.accepted("att_1", "m1")
    log.accepted("att_2", "m2")
    disk = Disk(monkeypatch, number)
    disk.room = room
    log.outcome(outcome("att_1"))
    log.ended("att_1", None)
    log.ended("att_2", outcome("att_2"))
    assert log.behind
    left = Leavings.read(tmp_path)
    assert left.accepted == {"att_1": "m1", "att_2": "m2"}
    assert left.outcomes.keys() <= {"att_1"}
    assert (tmp_path / "outcomes.log").read_bytes().endswith(b"\n")

    with pytest.raises(OSError, match=os.strerror(number)):
        log.accepted("att_3", "m3")

    disk.room = 1 << 20
    assert log.catch_up()
    log.accepted("att_3", "m3")
    log.close()
    left = Leavings.read(tmp_path)
    assert left.accepted.keys() == {"att_1", "att_2", "att_3"}
    assert left.outcomes.keys() == left.ended == {"att_1", "att_2"}


def test_what_is_acknowledged_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = OutcomeLog(str(tmp_path / "outcomes.log"))
    log.accepted("att_1", "m1")
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.room = 0
    log.ended("att_1", outcome("att_1"))
    log.acknowledged("att_1", all_done=True)
    assert not log.behind
    log.close()
    assert (tmp_path / "outcomes.log").read_bytes() == b""


def test_a_record_cut_at_any_byte_costs_no_other(tmp_path: Path) -> None:
    log = OutcomeLog(str(tmp_path / "outcomes.log"))

    for number in range(3):
        log.accepted(f"att_{number}", f"m{number}")
        log.ended(f"att_{number}", outcome(f"att_{number}"))

    log.close()
    whole = (tmp_path / "outcomes.log").read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1

    for length in range(last, len(whole) - 1):
        (tmp_path / "outcomes.log").write_bytes(whole[:length])
        left = Leavings.read(tmp_path)
        assert left.accepted.keys() == {"att_0", "att_1", "att_2"}
        assert left.outcomes.keys() == left.ended == {"att_0", "att_1"}
        assert left.unswept() == {"m2"}, "what is not known to be gone is looked for"

    (tmp_path / "outcomes.log").write_bytes(whole)
    assert all(one.state is EndState.SUCCEEDED for one in Leavings.read(tmp_path).outcomes.values())
    assert len(json.loads(whole[last:])["outcome"]) == 12


def test_a_keeper_survives_the_full_disk_of_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    def fail() -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("sys.stderr", Full())
    guarded(fail)


@pytest.mark.parametrize("site", ["write", "fdatasync", "fsync"])
@pytest.mark.parametrize("number", FULL)
def test_a_result_waits_for_room(tmp_path: Path, site: str, number: int) -> None:
    path = tmp_path / "result.pkl"
    value = b"x" * 300_000
    asked: list[int] = []

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    patch = pytest.MonkeyPatch()

    def wait(size: int) -> bool:
        assert not path.exists(), "what was begun takes no room meanwhile"
        asked.append(size)

        if len(asked) == 2:
            patch.undo()

        return True

    if site == "write":
        patch.setattr(pickles, "open", lambda *_: FullWriter(path, number), raising=False)
    else:
        patch.setattr(os, site, refuse)

    try:
        data, size = pickles.write_result(value, str(path), task="t", wait=wait)
    finally:
        patch.undo()

    assert data is None
    assert size == path.stat().st_size
    assert pickle.loads(path.read_bytes()) == value
    assert len(asked) == 2


class FullWriter:
    """A file whose disk has no room, and which says so once more when it is closed."""

    def __init__(self, path: Path, number: int) -> None:
        path.touch()
        self.raw = path.open("rb")
        self._number = number

    def write(self, data: bytes) -> int:
        raise OSError(self._number, os.strerror(self._number))

    close = flush = lambda self: self.write(b"")


def test_a_result_that_finds_no_room_fails_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pickles, "open", lambda *_: FullWriter(tmp_path / "result.pkl", errno.ENOSPC), raising=False
    )

    with pytest.raises(pickles.ResultError, match=r"task 'sum'.*disk of the node is full.*free space"):
        pickles.write_result(b"x" * 100_000, str(tmp_path / "result.pkl"), task="task 'sum'")

    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_disk_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pickles, "open", lambda *_: FullWriter(tmp_path / "result.pkl", errno.EIO), raising=False
    )

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        pickles.write_result(b"x" * 100_000, str(tmp_path / "result.pkl"), task="t", wait=lambda size: True)

    assert list(tmp_path.iterdir()) == []
