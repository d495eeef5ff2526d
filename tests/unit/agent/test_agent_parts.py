"""Small parts of the agent: settings, data directory, pauses, spools, single flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from opentailr_agent import inventory
from opentailr_agent.backoff import Backoff
from opentailr_agent.builder.venv import find_uv
from opentailr_agent.config import ConfigError, load, machine_memory, parse_size
from opentailr_agent.datadir import DataDir, DataDirBusyError, DataDirError, DataDirNewerError
from opentailr_agent.flights import Flights
from opentailr_agent.logs.spool import CHUNK, WINDOW, Spool
from opentailr_agent.session import Lease


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text("secret-token\n")
    token = str(tmp_path / "token")
    return ["--data-dir", str(tmp_path / "data"), "--address", "127.0.0.1:7071", "--token-file", token]


@pytest.mark.clause("B65a")
def test_defaults(flags: list[str]) -> None:
    settings = load(flags)
    assert settings.memory_bytes == int(machine_memory() * 0.9)
    assert settings.slots == 64
    assert settings.soft_memory_limit == 1 << 30
    assert settings.object_cache_bytes == 10 << 30
    assert settings.token == "secret-token"
    assert "secret-token" not in repr(settings)
    assert load([*flags, "--cpu-factor", "2"]).cpu * 4 == settings.cpu
    assert load([*flags, "--cpu", "3", "--memory", "1.5g"]).cpu == 3


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--address", "nowhere"], "--address 'nowhere' is not HOST:PORT"),
        (["--address", "127.0.0.1:99999"], "not HOST:PORT"),
        (["--address", "10.1.2.3:7071"], "no TLS"),
        (["--memory", "much"], "--memory 'much' is no size"),
        (["--memory", "0"], "is no size"),
        (["--slots", "0"], "--slots 0"),
        (["--cpu", "-1"], "--cpu -1.0"),
        (["--cpu-factor", "0"], "--cpu-factor 0.0"),
        (["--runtime", "magic"], "--runtime 'magic'"),
        (["--token-file", "/does/not/exist"], "--token-file /does/not/exist"),
    ],
)
def test_wrong_flags_name_themselves(flags: list[str], extra: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load([*flags, *extra])


@pytest.mark.parametrize("token", ["", "two words", "line\nline", "töken"])
def test_a_token_that_cannot_travel_is_refused(flags: list[str], tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)

    with pytest.raises(ConfigError) as caught:
        load(flags)

    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("512m", 512 << 20), ("1.5G", 3 << 29), ("2gib", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, flag="--memory") == size


def test_a_data_directory_serves_one_process(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")

    with pytest.raises(DataDirBusyError, match=r"in use by another agent \(pid \d+\)"):
        DataDir(tmp_path / "data")

    first.close()
    DataDir(tmp_path / "data").close()


@pytest.mark.parametrize(("text", "error"), [("2", DataDirNewerError), ("words", DataDirError)])
def test_a_data_directory_of_others_is_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / "VERSION").write_text(text)

    for _ in range(2):
        with pytest.raises(error):
            DataDir(tmp_path)


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataDirError, match="cannot be used"):
        DataDir(tmp_path / "file")


def test_the_id_of_an_agent_is_permanent(tmp_path: Path) -> None:
    assert inventory.agent_id(tmp_path) == inventory.agent_id(tmp_path)


def test_pauses_double_with_full_jitter_up_to_a_bound() -> None:
    pauses = Backoff(first=0.1, longest=0.5, draw=lambda: 1.0)
    assert [pauses.next() for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    pauses.reset()
    assert pauses.next() == pytest.approx(0.1)
    assert Backoff(draw=lambda: 0.0).next() == 0.0


def test_a_lease_counts_from_the_sending_and_never_shrinks() -> None:
    lease = Lease(15.0, 0.0)
    lease.renew(100.0, 15.0)
    assert lease.until == 115.0
    lease.renew(90.0, 15.0)
    assert lease.until == 115.0


def spool(tmp_path: Path, data: bytes, *, known: bool = True) -> Spool:
    (tmp_path / "log").write_bytes(data)
    return Spool("att_1", 1, tmp_path / "log", known=known)


def test_a_spool_keeps_its_window(tmp_path: Path) -> None:
    log = spool(tmp_path, b"x" * (2 * WINDOW))
    sent = 0

    while (message := log.next(0.0)) is not None:
        assert message[0] == sent
        assert len(message[1]) <= CHUNK
        sent += len(message[1])

    assert sent == WINDOW
    log.answered(CHUNK, expected=False)
    assert log.next(0.0) is not None
    log.close()


def test_only_the_first_of_several_refusals_counts(tmp_path: Path) -> None:
    log = spool(tmp_path, b"x" * (3 * CHUNK))

    for _ in range(3):
        log.next(0.0)

    log.answered(100, expected=True)
    message = log.next(0.0)
    assert message is not None
    assert message[0] == 100
    log.answered(100, expected=True)
    log.answered(100, expected=True)
    after = log.next(0.0)
    assert after is not None
    assert after[0] == 100 + CHUNK, "the repeats of the old refusal did not rewind again"
    log.close()


def test_the_end_mark_waits_for_what_is_under_way(tmp_path: Path) -> None:
    log = spool(tmp_path, b"x" * CHUNK)
    assert log.next(0.0) == (0, b"x" * CHUNK, False)
    log.finished = True
    assert log.next(0.0) is None
    log.answered(CHUNK, expected=False)
    assert not log.done
    assert log.next(0.0) == (CHUNK, b"", True)
    log.answered(CHUNK, expected=False)
    assert log.done
    log.close()


def test_an_end_mark_that_was_cut_is_sent_again(tmp_path: Path) -> None:
    log = spool(tmp_path, b"x")
    log.finished = True
    assert log.next(0.0) == (0, b"x", True)
    log.cut()
    assert log.next(0.0) == (0, b"x", True)
    log.close()


async def test_the_last_waiter_takes_the_work_along() -> None:
    flights: Flights[int] = Flights()
    begun = asyncio.Event()
    cancelled = asyncio.Event()

    async def work() -> int:
        begun.set()

        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    first = asyncio.create_task(flights.join("key", work))
    second = asyncio.create_task(flights.join("key", work))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert flights.running("key")
    assert not cancelled.is_set()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert cancelled.is_set()
    assert not flights.running("key")


async def test_a_failure_reaches_every_waiter_and_is_not_kept() -> None:
    flights: Flights[int] = Flights()

    async def fails() -> int:
        raise ValueError("no")

    async def works() -> int:
        return 7

    results = await asyncio.gather(*(flights.join("k", fails) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3
    assert await flights.join("k", works) == 7


def test_a_missing_uv_is_told_like_any_other_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="pip install uv"):
        find_uv()
    program = tmp_path / "uv"
    program.touch(mode=0o700)
    assert find_uv() == program
