"""Fixtures of the client's tests: a fake server, and a connection to it that does not wait long."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fake_server import QUICK, TOKEN, FakeState, fake_server

from datatailr.client.connection import Connection


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    """No test reads the configuration of whoever runs it, or talks on stderr."""
    for name in ("DATATAILR_ADDRESS", "DATATAILR_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DATATAILR_PROGRESS", "0")


@pytest.fixture
def server() -> Iterator[tuple[str, FakeState]]:
    with fake_server() as served:
        yield served


@pytest.fixture
def address(server: tuple[str, FakeState]) -> str:
    return server[0]


@pytest.fixture
def state(server: tuple[str, FakeState]) -> FakeState:
    return server[1]


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    connection = Connection(address, TOKEN, retry=QUICK, patience=5.0)
    yield connection
    connection.close()
