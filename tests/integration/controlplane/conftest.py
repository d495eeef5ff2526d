"""A control plane in this process, on free ports, with the true engine unless a test gives another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from controlplane_agent import FakeAgent
from controlplane_harness import Client, FakeEngine, FakeRunning

from opentailr_controlplane.config import Settings
from opentailr_controlplane.engine_setup import open_engine
from opentailr_controlplane.server import ControlPlane

Starter = Callable[..., Awaitable[ControlPlane]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Starter]:
    """Starts control planes, by default in `tmp_path / "data"`, and closes what is left of them."""
    running: list[ControlPlane] = []

    async def begin(**changes: object) -> ControlPlane:
        options = {"data_dir": tmp_path / "data", "grpc_port": 0, "agent_port": 0, "http_port": 0}
        factory = changes.pop("engine_factory", open_engine)
        plane = ControlPlane(Settings(**{**options, **changes}), engine_factory=factory)
        await plane.start()
        running.append(plane)
        return plane

    yield begin
    for plane in running:
        await plane.close()


@pytest.fixture
async def plane(start: Starter) -> ControlPlane:
    """One control plane."""
    return await start()


@pytest.fixture
def running() -> FakeRunning:
    """A fake engine, not started yet."""
    return FakeRunning(FakeEngine())


@pytest.fixture
async def faked(start: Starter, running: FakeRunning) -> ControlPlane:
    """A control plane with the fake engine."""
    return await start(engine_factory=running.open)


@pytest.fixture
async def user(faked: ControlPlane) -> AsyncIterator[Client]:
    """A client of the control plane with the fake engine."""
    async with Client(faked.grpc_address, faked.admin_token) as made:
        yield made


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    """A client of the control plane with the administrator's token."""
    async with Client(plane.grpc_address, plane.admin_token) as made:
        yield made


@pytest.fixture
async def agent(plane: ControlPlane) -> AsyncIterator[FakeAgent]:
    """An agent of the control plane that runs nothing and reports what a test wants."""
    async with FakeAgent(plane) as made:
        yield made
