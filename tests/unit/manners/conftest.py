"""Fixtures: the client's fake server, `dt` in this process, and nothing of whoever runs the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "client"))

from fake_server import TOKEN, FakeState, fake_server

Dt = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration, no colours asked for or forbidden; `dt -vv` leaves nothing behind."""
    for name in ("DATATAILR_ADDRESS", "DATATAILR_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setenv("DATATAILR_TRACE", "0")
    monkeypatch.setenv("DATATAILR_PROGRESS", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeState]:
    """A server that SDK and `dt` are configured for."""
    with fake_server() as (address, state):
        monkeypatch.setenv("DATATAILR_ADDRESS", address)
        monkeypatch.setenv("DATATAILR_TOKEN", TOKEN)
        yield state


@pytest.fixture
def dt(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Dt:
    """Run `dt`: exit code, the bytes of stdout, the text of stderr."""
    from datatailr.cli.dt import main

    def run(*arguments: str) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["dt", *arguments])

        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        else:
            code = 0

        sys.stdout.flush()
        sys.stderr.flush()
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err.decode("utf-8", "replace")

    return run
