"""Logs from spool files to the control plane, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import grpc.aio
import pytest
from agent_fakes import FakeServer, until

from datatailr.v1.log_pb2 import LOG_STREAM_STDERR
from opentailr_agent.logs import spool as spool_module
from opentailr_agent.logs.shipper import LogShipper


class Ship:
    def __init__(self, channel: grpc.aio.Channel, path: Path) -> None:
        self.done: list[str] = []
        self.path = path
        self.shipper = LogShipper(channel, (), self.done.append, agent_id="agt_1", first_pause=0.01)
        self.task = asyncio.create_task(self.shipper.run())

    def folder(self, log_id: str = "att_1") -> Path:
        made = self.path / log_id
        made.mkdir(exist_ok=True)
        return made

    def write(self, data: bytes, log_id: str = "att_1", name: str = "stdout") -> None:
        with (self.folder(log_id) / name).open("ab") as file:
            file.write(data)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.shipper.close()


@pytest.fixture
async def ship(channel: grpc.aio.Channel, tmp_path: Path) -> AsyncIterator[Ship]:
    made = Ship(channel, tmp_path)
    yield made
    await made.close()


@pytest.mark.clause("B158")
async def test_output_is_shipped_while_it_is_written(server: FakeServer, ship: Ship) -> None:
    ship.shipper.follow("att_1", ship.folder())
    expected = b""

    for number in range(5):
        line = f"line {number}\n".encode()
        ship.write(line)
        expected += line
        await until(lambda so_far=expected: server.logs.text("att_1") == so_far, within=0.9)

    ship.write(b"\xff\xfe no text", name="stderr")
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.complete("att_1")
    assert server.logs.text("att_1", LOG_STREAM_STDERR) == b"\xff\xfe no text"


async def test_logs_are_sent_in_the_name_of_the_agent(server: FakeServer, ship: Ship) -> None:
    ship.write(b"words")
    ship.shipper.follow("att_1", ship.folder())
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.senders == {"agt_1"}


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "socket"])
async def test_what_user_code_put_in_place_of_its_log_harms_nobody(
    server: FakeServer, ship: Ship, kind: str
) -> None:
    secret = ship.path / "secret"
    secret.write_text("not for the log")
    path = ship.folder() / "stdout"

    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            descriptor = os.open(path.parent, os.O_PATH)
            listener.bind(f"/proc/self/fd/{descriptor}/stdout")
            os.close(descriptor)

        ship.write(b"sound", "att_2")

        for log_id in ("att_1", "att_2"):
            ship.shipper.follow(log_id, ship.folder(log_id))
            ship.shipper.finish(log_id)

        await until(lambda: sorted(ship.done) == ["att_1", "att_2"])

    assert server.logs.text("att_1") == b""
    assert server.logs.complete("att_1")
    assert server.logs.text("att_2") == b"sound"


async def test_a_log_that_cannot_be_read_for_a_while_is_shipped_later(
    server: FakeServer, ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = os.pread
    failures = [OSError(errno.EIO, "the disk fails")]

    def pread(descriptor: int, most: int, offset: int) -> bytes:
        if failures:
            raise failures.pop()

        return sound(descriptor, most, offset)

    monkeypatch.setattr(spool_module, "os", SimpleNamespace(**{**vars(os), "pread": pread}))
    ship.write(b"words")
    ship.shipper.follow("att_1", ship.folder())
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.text("att_1") == b"words"
    assert not failures


async def test_a_log_without_files_ends_empty(server: FakeServer, ship: Ship) -> None:
    ship.shipper.follow("att_1", ship.path / "never-made")
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.complete("att_1")
    assert server.logs.text("att_1") == b""


@pytest.mark.parametrize("chunks", [[1], [2, 1, 3], [1, 1, 1, 1, 1, 1]])
async def test_cuts_lose_and_repeat_nothing(server: FakeServer, ship: Ship, chunks: list[int]) -> None:
    server.logs.cut_after = chunks
    data = bytes(range(256)) * 8192
    ship.write(data)
    ship.shipper.follow("att_1", ship.folder())
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"], within=20)
    assert server.logs.text("att_1") == data
    assert not server.logs.cut_after


async def test_a_server_that_lacks_bytes_gets_them_again(server: FakeServer, ship: Ship) -> None:
    ship.write(b"0123456789")
    ship.shipper.follow("att_1", ship.folder())
    await until(lambda: server.logs.text("att_1") == b"0123456789")
    del server.logs.data["att_1", 1][4:]
    ship.write(b"abc")
    await until(lambda: server.logs.text("att_1") == b"0123456789abc")


async def test_a_restarted_agent_asks_first_what_is_there(server: FakeServer, ship: Ship) -> None:
    server.logs.data["att_1", 1] = bytearray(b"before ")
    ship.write(b"before after")
    ship.shipper.follow("att_1", ship.folder(), known=False)
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.text("att_1") == b"before after"


async def test_a_refused_log_is_given_up_and_others_go_on(server: FakeServer, ship: Ship) -> None:
    server.logs.refuse.add("att_1")

    for log_id in ("att_1", "att_2"):
        ship.write(b"words", log_id)
        ship.shipper.follow(log_id, ship.folder(log_id))
        ship.shipper.finish(log_id)

    await until(lambda: sorted(ship.done) == ["att_1", "att_2"])
    assert server.logs.text("att_2") == b"words"


async def test_a_server_that_lags_bounds_what_is_under_way(server: FakeServer, ship: Ship) -> None:
    server.logs.gate.clear()
    ship.write(b"x" * (8 << 20))
    ship.shipper.follow("att_1", ship.folder())
    await until(lambda: server.logs.unanswered > 0)
    # A small log is not stuck behind the large one.
    ship.write(b"small", "att_2")
    ship.shipper.follow("att_2", ship.folder("att_2"))
    server.logs.gate.set()
    ship.shipper.finish("att_1")
    ship.shipper.finish("att_2")
    await until(lambda: sorted(ship.done) == ["att_1", "att_2"], within=20)
    assert len(server.logs.text("att_1")) == 8 << 20
    assert server.logs.most_unanswered <= 2 << 20


async def test_durable_bytes_are_given_back_to_the_disk(server: FakeServer, ship: Ship) -> None:
    ship.write(b"x" * (40 << 20))
    ship.shipper.follow("att_1", ship.folder())
    path = ship.folder() / "stdout"
    before = path.stat().st_blocks
    await until(lambda: len(server.logs.text("att_1")) == 40 << 20, within=20)
    await until(lambda: path.stat().st_blocks < before // 2)
    ship.write(b"end")
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"])
    assert server.logs.text("att_1") == b"x" * (40 << 20) + b"end"


async def test_a_discarded_log_is_forgotten(server: FakeServer, ship: Ship) -> None:
    ship.shipper.follow("att_1", ship.folder())
    ship.shipper.discard("att_1")
    ship.write(b"x")
    ship.write(b"y", "att_2")
    ship.shipper.follow("att_2", ship.folder("att_2"))
    await until(lambda: server.logs.text("att_2") == b"y")
    assert server.logs.text("att_1") == b""
    assert ship.done == []


async def test_a_server_that_comes_back_gets_the_rest(server: FakeServer, ship: Ship) -> None:
    ship.write(b"one")
    ship.shipper.follow("att_1", ship.folder())
    await until(lambda: server.logs.text("att_1") == b"one")
    await server.stop()
    ship.write(b"two")
    await server.start()
    ship.shipper.finish("att_1")
    await until(lambda: ship.done == ["att_1"], within=20)
    assert server.logs.text("att_1") == b"onetwo"
