"""Objects that a control plane does not hand out."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest
from agent_fakes import FakeServer

from datatailr.v1 import object_pb2
from opentailr_agent.transfer import PATIENCE, ObjectError, ObjectTransfer


async def test_a_read_that_is_refused_again_and_again_is_told(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def refuse(request: object_pb2.ReadObjectRequest, context: grpc.aio.ServicerContext) -> None:
        nonlocal asked
        asked += 1
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much at once")
        yield object_pb2.ReadObjectResponse()

    await server.stop()
    monkeypatch.setattr(server.objects, "ReadObject", refuse)
    await server.start()
    transfer = ObjectTransfer(channel, (), first_pause=0.001)

    with pytest.raises(ObjectError, match="too much at once"):
        await transfer.read("a" * 64, tmp_path / "x")

    assert asked == PATIENCE + 1
