"""A log that is dropped from, cut, restarted: what is stored is what was written, but for markers."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from opentailr_agent.logs import spool as spool_module
from opentailr_agent.logs.budget import SpoolBudget
from opentailr_agent.logs.gaps import Gap, Gaps, marker
from opentailr_agent.logs.spool import CHUNK, WINDOW, Spool

_LOST = re.compile(rb"\n\[(\d+) bytes lost: [^\]]*\]\n")
_BLOCK = 4096


def numbered(first: int, count: int) -> bytes:
    """Bytes of which each 8 say their own place; they contain no bracket."""
    start = first - first % 8
    text = b"".join(b"%07x " % (place // 8) for place in range(start, first + count, 8))
    return text[first - start :][:count]


def check(stored: bytes, written: int, *, whole: bool) -> int:
    """Walks a stored log: its bytes are those written, markers count exactly; returns the lost bytes."""
    place = lost = position = 0

    while position < len(stored):
        found = _LOST.search(stored, position)
        end = found.start() if found else len(stored)
        assert stored[position:end] == numbered(place, end - position)
        place += end - position

        if found is None:
            break

        place += int(found[1])
        lost += int(found[1])
        position = found.end()

    assert place <= written

    if whole:
        assert place == written

    return lost


class Server:
    """The control plane's side of one log."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False

    def append(self, offset: int, data: bytes, last: bool) -> tuple[int, bool]:
        expected = offset > len(self.data) or offset < len(self.data) < offset + len(data)

        if not expected and offset == len(self.data):
            self.data += data

        # A repeat that reaches the end brings the mark too, as at the control plane.
        self.ended = self.ended or (last and offset + len(data) == len(self.data))

        return len(self.data), expected


def ship(spool: Spool, server: Server) -> None:
    """Sends and answers until nothing is left to send."""
    while (message := spool.next(0.0)) is not None:
        durable, expected = server.append(*message)
        spool.answered(durable, expected=expected)


def write(path: Path, count: int) -> None:
    size = path.stat().st_size if path.exists() else 0

    with path.open("ab") as file:
        file.write(numbered(size, count))


def drop(spool: Spool, count: int) -> int:
    start, end = spool.droppable()
    end = min(end, start + count // _BLOCK * _BLOCK)

    if start < end:
        spool.drop(start, end)

    return max(0, end - start)


def test_dropped_bytes_are_replaced_by_their_number(tmp_path: Path) -> None:
    path, server = tmp_path / "stdout", Server()
    spool = Spool("att_1", 1, path)
    write(path, 10_000)
    ship(spool, server)
    write(path, 90_000)
    dropped = drop(spool, 65_536)
    spool.finish()
    ship(spool, server)
    spool.close()
    assert dropped == 65_536
    assert server.ended
    assert check(bytes(server.data), 100_000, whole=True) == dropped
    assert marker(dropped).encode() in server.data


def test_what_may_have_arrived_is_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    spool = Spool("att_1", 1, path)
    write(path, 4 << 20)
    sent = 0

    while (message := spool.next(0.0)) is not None:
        sent = message[0] + len(message[1])

    assert sent == WINDOW
    assert spool.droppable()[0] >= sent
    spool.close()


def test_bytes_that_arrived_unanswered_are_kept_where_they_are(tmp_path: Path) -> None:
    """The answer was lost with the connection; then what follows, and even they, are dropped here."""
    path, server = tmp_path / "stdout", Server()
    spool = Spool("att_1", 1, path)
    write(path, 50_000)
    message = spool.next(0.0)
    assert message is not None
    server.append(*message)
    spool.cut()
    write(path, 50_000)
    assert drop(spool, 80_000) > 0
    spool.finish()
    ship(spool, server)
    spool.close()
    lost = check(bytes(server.data), 100_000, whole=True)
    # The first 50,000 had arrived: only of the others some are lost.
    assert 0 < lost <= 50_000


@pytest.mark.parametrize("before", [0, 3_000, 60_000])
def test_a_restarted_agent_knows_what_was_dropped(tmp_path: Path, before: int) -> None:
    path, server = tmp_path / "stdout", Server()
    first = Spool("att_1", 1, path)
    write(path, before)
    ship(first, server)
    write(path, 200_000)
    dropped = drop(first, 40_000)
    ship(first, server)
    write(path, 100_000)
    dropped += drop(first, 20_000)
    first.close()
    second = Spool("att_1", 1, path, known=False)
    write(path, 100_000)
    dropped += drop(second, 50_000)
    second.finish()
    ship(second, server)
    second.close()
    assert check(bytes(server.data), before + 400_000, whole=True) == dropped
    assert not second.remark


def test_a_told_place_stays_where_it_was(tmp_path: Path) -> None:
    """The agent dies between the note beside the log and the sending of the marker, or after it."""
    for arrived in (False, True):
        path, server = tmp_path / f"stdout-{arrived}", Server()
        first = Spool("att_1", 1, path)
        write(path, 100_000)
        dropped = drop(first, 40_960)
        message = first.next(0.0)
        assert message is not None
        assert message[1] == marker(dropped).encode()

        if arrived:
            server.append(*message)

        first.close()
        second = Spool("att_1", 1, path, known=False)
        more = drop(second, 8_192)
        second.finish()
        ship(second, server)
        second.close()
        assert check(bytes(server.data), 100_000, whole=True) == dropped + more


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_marker_is_not_sent_before_its_place_is_kept(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, server = tmp_path / "stdout", Server()
    spool = Spool("att_1", 1, path)
    write(path, 100_000)
    drop(spool, 40_960)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("opentailr_agent.logs.gaps.os.fdatasync", refuse)

        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            spool.next(0.0)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["stdout"]
    spool.finish()
    ship(spool, server)
    spool.close()
    assert check(bytes(server.data), 100_000, whole=True) == 40_960


def test_every_cut_of_the_note_beside_a_log_is_noticed(tmp_path: Path) -> None:
    """A torn note never puts other bytes into the log; the agent says that it could not use it."""
    path = tmp_path / "stdout.gaps"
    gaps = Gaps()

    for number in range(3):
        gaps.add(number * 100_000, number * 100_000 + 40_960)
        last = gaps.last
        assert last is not None
        gaps.tell(last, path)

    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not Gaps().load(path), f"{length} bytes"

    path.write_bytes(whole)
    again = Gaps()
    assert again.load(path)
    assert [again.position(place) for place in range(0, 300_000, 999)] == [
        gaps.position(place) for place in range(0, 300_000, 999)
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"base": [0, 0]}',
        b'{"base": [5, 0], "gaps": []}',
        b'{"base": [0, 0], "gaps": [[9, 5, "x"]]}',
        b'{"base": [0, 0], "gaps": [[5, 9, ""]]}',
        b'{"base": [-1, 0], "gaps": []}',
        b"\xff\xfe",
    ],
)
def test_a_note_that_user_code_forged_harms_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stdout.gaps").write_bytes(content)
    server, spool = Server(), Spool("att_1", 1, tmp_path / "stdout", known=False)
    write(tmp_path / "stdout", 10_000)
    spool.finish()
    ship(spool, server)
    spool.close()
    assert "stdout.gaps" in spool.remark
    assert check(bytes(server.data), 10_000, whole=True) == 0


def test_a_control_plane_that_lost_what_was_given_back_gets_a_marker(tmp_path: Path) -> None:
    """It was restored from a backup: the node has those bytes no more, and says so."""
    path, server = tmp_path / "stdout", Server()
    spool = Spool("att_1", 1, path)
    write(path, 20 << 20)
    ship(spool, server)
    spool.cut()
    del server.data[1 << 20 :]
    write(path, 1_000)
    spool.finish()
    ship(spool, server)
    spool.close()
    assert check(bytes(server.data), (20 << 20) + 1_000, whole=True) == 15 << 20


def test_a_refused_log_takes_no_disk(tmp_path: Path) -> None:
    """The control plane has enough of it; its process goes on writing."""
    path = tmp_path / "stdout"
    spool, budget = Spool("att_1", 1, path), SpoolBudget()
    write(path, 1 << 20)
    spool.refuse()
    assert not spool.done
    budget.enforce([spool])
    assert spool.held_bytes() <= _BLOCK
    write(path, 3 << 20)
    budget.enforce([spool])
    assert spool.held_bytes() <= _BLOCK
    assert spool.next(0.0) is None
    spool.finish()
    assert spool.done
    spool.close()


def test_the_fullest_log_loses_its_oldest_bytes(tmp_path: Path) -> None:
    spools = {}

    for name, size in (("small", 100_000), ("middle", 200_000), ("large", 2_000_000)):
        write(tmp_path / name, size)
        spools[name] = Spool(name, 1, tmp_path / name)

    budget = SpoolBudget(limit=1_000_000, free=lambda folder: 1 << 40)
    look = budget.enforce(spools.values())
    assert look.held <= look.limit == 1_000_000
    assert look.dropped > 0
    losses = {}

    for name, spool in spools.items():
        server = Server()
        spool.finish()
        ship(spool, server)
        spool.close()
        losses[name] = check(bytes(server.data), (tmp_path / name).stat().st_size, whole=True)
        assert not server.data.endswith(b"]\n"), "the newest bytes are kept"

    assert losses["small"] == losses["middle"] == 0
    assert losses["large"] == look.dropped


def test_durable_bytes_go_before_unsent_ones(tmp_path: Path) -> None:
    server, spool = Server(), Spool("att_1", 1, tmp_path / "stdout")
    write(tmp_path / "stdout", 3_000_000)
    ship(spool, server)
    look = SpoolBudget(limit=1_000_000, free=lambda folder: 1 << 40).enforce([spool])
    spool.close()
    assert look.dropped == 0
    assert look.held <= _BLOCK


def test_logs_take_their_share_of_a_small_disk_only(tmp_path: Path) -> None:
    spool = Spool("att_1", 1, tmp_path / "stdout")
    write(tmp_path / "stdout", 3_000_000)
    look = SpoolBudget(share=0.5, free=lambda folder: 1_000_000).enforce([spool])
    spool.close()
    assert look.limit < 2_100_000
    assert look.held <= look.limit


def test_builds_that_share_a_file_lose_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "first", 3_000_000)
    (tmp_path / "second").hardlink_to(tmp_path / "first")
    spools = [Spool(name, 1, tmp_path / name, frees=False) for name in ("first", "second")]
    ahead = Server()

    for _ in range(3):
        message = spools[0].next(0.0)
        assert message is not None
        durable, expected = ahead.append(*message)
        spools[0].answered(durable, expected=expected)

    look = SpoolBudget(limit=1_000_000, free=lambda folder: 1 << 40).enforce(spools)
    assert look.held <= look.limit

    for spool, server in zip(spools, (ahead, Server()), strict=True):
        spool.finish()
        ship(spool, server)
        spool.close()
        check(bytes(server.data), 3_000_000, whole=True)


def test_a_restarted_agent_reads_the_first_answer_with_its_gaps_in_mind(tmp_path: Path) -> None:
    """Bytes that arrived before they were dropped are not told as lost, nor is the rest left out."""
    path, server = tmp_path / "stdout", Server()
    spool = Spool("att_1", 1, path)
    write(path, 100_000)
    message = spool.next(0.0)
    assert message is not None
    server.append(*message)
    spool.cut()
    write(path, 100_000)
    drop(spool, 120_000)
    spool.close()
    again = Spool("att_1", 1, path, known=False)
    again.finish()
    ship(again, server)
    again.close()
    assert server.ended
    assert 0 < check(bytes(server.data), 200_000, whole=True) < 100_000


def test_a_file_system_without_holes_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes")

    monkeypatch.setattr(spool_module, "_punch_hole", refuse)
    server, spool = Server(), Spool("att_1", 1, tmp_path / "stdout")
    write(tmp_path / "stdout", 3_000_000)
    assert SpoolBudget(limit=1_000_000).enforce([spool]).dropped == 0
    spool.finish()
    ship(spool, server)
    spool.close()
    assert check(bytes(server.data), 3_000_000, whole=True) == 0


class SpoolMachine(RuleBasedStateMachine):
    """Everything that can happen to one log, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.flight: list[tuple[int, bytes, bool]] = []
        self.answers: list[tuple[int, bool]] = []
        self.dropped = 0
        self.written = 0
        self.clean: Callable[[], None] = lambda: None

    @initialize()
    def begin(self) -> None:
        self.path = Path(_scratch(), "stdout")
        self.path.unlink(missing_ok=True)
        self.path.with_name("stdout.gaps").unlink(missing_ok=True)
        self.path.touch()
        self.spool = Spool("att_1", 1, self.path)

    @rule(count=st.sampled_from([1, 100, 4_096, 30_000, 200_000, CHUNK * 3]))
    def write(self, count: int) -> None:
        write(self.path, count)
        self.written += count

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        for _ in range(count):
            message = self.spool.next(0.0)

            if message is not None:
                self.flight.append(message)

    @precondition(lambda self: self.flight)
    @rule()
    def arrive(self) -> None:
        self.answers.append(self.server.append(*self.flight.pop(0)))

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        durable, expected = self.answers.pop(0)
        self.spool.answered(durable, expected=expected)

    @rule(arriving=st.integers(0, 3), restart=st.booleans())
    def cut(self, arriving: int, restart: bool) -> None:
        for message in self.flight[:arriving]:
            self.server.append(*message)

        self.flight.clear()
        self.answers.clear()
        self.spool.cut()

        if restart:
            self.spool.close()
            self.spool = Spool("att_1", 1, self.path, known=False)

    @rule(count=st.sampled_from([4_096, 40_960, 400_000]))
    def drop(self, count: int) -> None:
        self.dropped += drop(self.spool, count)

    @rule()
    def free(self) -> None:
        start, end = self.spool.durable_part()

        if start < end:
            self.spool.free(end)

    @invariant()
    def stored_is_a_prefix(self) -> None:
        assert check(bytes(self.server.data), self.written, whole=False) <= self.dropped

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return

        self.cut(0, False)
        self.spool.finish()
        ship(self.spool, self.server)
        self.spool.close()
        assert self.server.ended
        assert check(bytes(self.server.data), self.written, whole=True) <= self.dropped


_folders: list[str] = []


def _scratch() -> str:
    return _folders[0]


@pytest.mark.filterwarnings("ignore:.*function-scoped.*")
def test_whatever_happens_the_stored_log_is_what_was_written_but_for_markers(tmp_path: Path) -> None:
    _folders[:] = [str(tmp_path)]

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        SpoolMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


def test_offsets_of_file_and_log_are_each_others_inverse() -> None:
    gaps = Gaps()
    gaps.add(8_192, 40_960)
    gaps.add(40_960, 45_056)
    assert gaps.last == Gap(8_192, 45_056)
    text = len(marker(45_056 - 8_192))
    assert gaps.stored(8_191) == 8_191
    assert gaps.stored(20_000) == 8_192
    assert gaps.stored(45_056) == 8_192 + text
    assert gaps.position(8_192 + text + 7) == 45_063
    assert gaps.position(8_192 + 3) == 45_056
