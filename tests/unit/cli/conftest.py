"""Fixtures of the programs' tests: the client's fake server, and a way to run `dt` against it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "client"))

from fake_server import TOKEN, FakeState, fake_server


@dataclass(frozen=True)
class Done:
    """What a program printed and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests shows; times are in UTC."""
    for name in ("DATATAILR_ADDRESS", "DATATAILR_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeState]:
    """A server that `dt` is configured for."""
    with fake_server() as (address, state):
        monkeypatch.setenv("DATATAILR_ADDRESS", address)
        monkeypatch.setenv("DATATAILR_TOKEN", TOKEN)
        yield state


@pytest.fixture
def dt(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Run `dt` in this process."""
    from datatailr.cli.dt import main

    return _runner("dt", main, monkeypatch, capfdbinary)


@pytest.fixture
def datatailr(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    """Run `datatailr` in this process, without a terminal and without the variables of a user."""
    from datatailr.cli.platform import main

    for name in ("DATATAILR_BASE_URL", "DATATAILR_USER_NAME", "DATATAILR_USER_PASSWORD", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return _runner("datatailr", main, monkeypatch, capfdbinary)


def _runner(
    program: str,
    main: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Callable[..., Done]:
    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", [program, *arguments])

        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        else:
            code = 0

        sys.stdout.flush()
        sys.stderr.flush()
        captured = capfdbinary.readouterr()
        return Done(code, captured.out.decode("utf-8", "replace"), captured.err.decode("utf-8", "replace"))

    return run
