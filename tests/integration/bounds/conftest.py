"""The tests of bounds use the fakes of the agent's tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "agent"))

from agent_fakes import FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A control plane made of fakes, on a port of its own."""
    fake = FakeServer()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def channel(server: FakeServer) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with grpc.aio.insecure_channel(server.address) as made:
        yield made
