"""Fixtures for the agent's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest
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
