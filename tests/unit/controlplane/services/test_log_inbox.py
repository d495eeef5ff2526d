"""Answers to a stream of log chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from datatailr.v1 import log_pb2
from opentailr_controlplane.logstore import FileLogStore
from opentailr_controlplane.services.logs import _Inbox


async def _owned(log_id: str) -> bool:
    return True


def _chunk(offset: int, data: bytes, *, end: bool = False) -> log_pb2.AppendLogsRequest:
    return log_pb2.AppendLogsRequest(
        log_id="att_1", stream=log_pb2.LOG_STREAM_STDOUT, offset=offset, data=data, end=end
    )


async def test_an_offset_is_told_once_so_that_the_end_is_not_taken_for_stored(tmp_path: Path) -> None:
    """The end mark brings no bytes: a second answer for the bytes before it would be taken for its own."""
    logs = FileLogStore(tmp_path)
    sent: asyncio.Queue[log_pb2.AppendLogsRequest | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[log_pb2.AppendLogsRequest]:
        while (request := await sent.get()) is not None:
            yield request

    inbox = _Inbox(logs, _owned)
    reading = asyncio.create_task(inbox.read(requests()))
    sent.put_nowait(_chunk(0, b"one"))
    assert await inbox.filled()
    # The sync gathers for a moment: it reaches over what comes meanwhile.
    settling = asyncio.create_task(inbox.settle())
    await asyncio.sleep(0)
    sent.put_nowait(_chunk(3, b"two"))
    offsets = [answer.durable_offset for answer in await settling]
    while not offsets or offsets[-1] < 6:
        assert await inbox.filled()
        offsets += [answer.durable_offset for answer in await inbox.settle()]
    sent.put_nowait(_chunk(6, b"", end=True))
    sent.put_nowait(None)
    told = 0
    while await inbox.filled():
        told += len(await inbox.settle())
    await reading
    assert offsets.count(6) == 1
    assert told == 1, "the end is answered, and nothing else"
    await logs.close()
