"""Logs between a node and a control plane that is slow, full or away."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest
from agent_fakes import TOKEN, FakeRuntime, FakeServer, until

from datatailr.v1 import log_pb2
from opentailr_agent import supervisor as supervisor_module
from opentailr_agent.agent import Agent
from opentailr_agent.config import Settings
from opentailr_agent.datadir import DataDir
from opentailr_agent.logs import budget as budget_module
from opentailr_agent.logs import shipper as shipper_module
from opentailr_agent.logs.budget import Look, SpoolBudget
from opentailr_agent.logs.shipper import LogShipper
from opentailr_agent.logs.spool import CHUNK, Spool
from opentailr_controlplane.logstore import Appended, Chunk
from opentailr_controlplane.services import logs as service_module

_LOST = re.compile(rb"\n\[(\d+) bytes lost: [^\]]*\]\n")
LIMIT = 4 << 20


@contextlib.asynccontextmanager
async def shipping(
    channel: grpc.aio.Channel, *, limit: int = LIMIT, done: list[str] | None = None
) -> AsyncIterator[LogShipper]:
    told = [] if done is None else done
    budget = SpoolBudget(limit=limit, free=lambda folder: 1 << 40)
    shipper = LogShipper(channel, (), told.append, agent_id="agt_1", first_pause=0.01, budget=budget)
    task = asyncio.create_task(shipper.run())

    try:
        yield shipper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        shipper.close()


def write(path: Path, first: int, lines: int) -> None:
    path.parent.mkdir(exist_ok=True)

    with path.open("ab") as file:
        file.write(b"".join(b"%015d\n" % number for number in range(first, first + lines)))


def check(stored: bytes, lines: int) -> int:
    """The stored log is what was written, apart from markers that count exactly; returns what they count."""
    place = lost = 0

    for part in re.split(rb"(\n\[\d+ bytes lost: [^\]]*\]\n)", stored):
        found = _LOST.fullmatch(part)

        if found:
            place += int(found[1])
            lost += int(found[1])
            continue

        begin = place // 16
        whole = b"".join(b"%015d\n" % number for number in range(begin, (place + len(part)) // 16 + 1))
        assert part == whole[place - begin * 16 :][: len(part)]
        place += len(part)

    assert place == lines * 16
    return lost


async def test_a_task_that_removes_its_own_folder_harms_nobody(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of attempts are the users': the bound is kept by what the agent holds open."""
    looks = 0
    look = SpoolBudget.enforce

    def counted(budget: SpoolBudget, spools: Iterable[Spool]) -> Look:
        nonlocal looks
        found = look(budget, spools)
        looks += 1
        return found

    monkeypatch.setattr(SpoolBudget, "enforce", counted)
    monkeypatch.setattr(budget_module, "_LONGEST", 0.01)
    done: list[str] = []
    shipper = LogShipper(channel, (), done.append, agent_id="agt_1", first_pause=0.01, budget=SpoolBudget())
    task = asyncio.create_task(shipper.run())

    try:
        write(tmp_path / "att_1" / "stdout", 0, 10)
        shipper.follow("att_1", tmp_path / "att_1")
        await until(lambda: len(server.logs.text("att_1")) == 160)
        shutil.rmtree(tmp_path / "att_1")
        seen = looks
        await until(lambda: looks > seen + 3)
        write(tmp_path / "att_2" / "stdout", 0, 20)
        shipper.follow("att_2", tmp_path / "att_2")
        shipper.finish("att_2")
        await until(lambda: "att_2" in done)
        assert len(server.logs.text("att_2")) == 320 and not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        shipper.close()


async def test_a_bound_that_cannot_be_kept_now_is_looked_at_again(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def refuse(budget: SpoolBudget, spools: Iterable[Spool]) -> Look:
        nonlocal tried
        tried += 1
        raise OSError("the disk is odd")

    monkeypatch.setattr(SpoolBudget, "enforce", refuse)
    monkeypatch.setattr(shipper_module, "_LOOK_AGAIN", 0.01)

    async with shipping(channel) as shipper:
        write(tmp_path / "att_1" / "stdout", 0, 10)
        shipper.follow("att_1", tmp_path / "att_1")
        await until(lambda: tried > 2 and len(server.logs.text("att_1")) == 160)


async def test_a_task_that_writes_without_end_stays_within_the_bound(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    """The control plane is away while the task writes five times the bound; then it comes back."""
    path, done = tmp_path / "att_1" / "stdout", []
    quiet = tmp_path / "att_2" / "stdout"

    async with shipping(channel, done=done) as shipper:
        write(path, 0, 1000)
        write(quiet, 0, 2000)

        for log_id in ("att_1", "att_2"):
            shipper.follow(log_id, tmp_path / log_id)

        await until(lambda: len(server.logs.text("att_1")) == 16_000)
        await server.stop()
        lines = 1000

        for _ in range(20):
            write(path, lines, 1 << 16)
            lines += 1 << 16
            await until(lambda: path.stat().st_blocks * 512 <= LIMIT)

        assert shipper.lost_bytes > 3 * LIMIT
        await server.start()
        write(path, lines, 10)
        lines += 10

        for log_id in ("att_1", "att_2"):
            shipper.finish(log_id)

        await until(lambda: sorted(done) == ["att_1", "att_2"], within=30)
        stored = server.logs.text("att_1")
        assert check(stored, lines) == shipper.lost_bytes
        assert stored.endswith(b"%015d\n" % (lines - 1)), "the newest lines are there"
        assert check(server.logs.text("att_2"), 2000) == 0, "only the fullest log loses something"


async def test_a_full_control_plane_gets_every_byte_later(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    full = True
    genuine = server.logs._append

    class Full(Exception):
        pass

    def append(key: object, chunk: object) -> object:
        if full:
            raise Full
        return genuine(key, chunk)

    served = server.logs.AppendLogs

    async def serve(requests: object, context: grpc.aio.ServicerContext) -> AsyncIterator[object]:
        try:
            async for answer in served(requests, context):
                yield answer
        except Full:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the disk has no room")

    await server.stop()
    monkeypatch.setattr(server.logs, "_append", append)
    monkeypatch.setattr(server.logs, "AppendLogs", serve)
    await server.start()

    async with shipping(channel, done=done) as shipper:
        write(tmp_path / "att_1" / "stdout", 0, 5000)
        shipper.follow("att_1", tmp_path / "att_1")
        shipper.finish("att_1")
        await until(lambda: shipper.trouble)
        assert shipper.trouble == "the control plane stores no logs: the disk has no room"
        full = False
        await until(lambda: done == ["att_1"], within=20)
        assert check(server.logs.text("att_1"), 5000) == 0
        assert not shipper.trouble


async def test_a_log_that_has_reached_its_bound_takes_no_more_disk(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    server.logs.refuse.add("att_1")
    done: list[str] = []
    path = tmp_path / "att_1" / "stdout"

    async with shipping(channel, done=done) as shipper:
        write(path, 0, 1000)
        shipper.follow("att_1", tmp_path / "att_1")

        for number in range(4):
            write(path, 1000 * number, 100_000)
            await until(lambda: path.stat().st_blocks * 512 <= 2 * 4096)

        assert not done, "its process may go on writing"
        shipper.finish("att_1")
        await until(lambda: done == ["att_1"])


async def test_all_logs_together_stay_within_their_window(
    server: FakeServer, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_module, "_TOTAL_WINDOW", 1 << 20)
    server.logs.gate.clear()
    done: list[str] = []
    names = [f"att_{number}" for number in range(6)]

    async with shipping(channel, limit=1 << 30, done=done) as shipper:
        for name in names:
            write(tmp_path / name / "stdout", 0, 1 << 16)
            shipper.follow(name, tmp_path / name)
            shipper.finish(name)

        await until(lambda: sum(map(len, server.logs.data.values())) > 0)
        server.logs.gate.set()
        await until(lambda: sorted(done) == names, within=30)
        assert server.logs.most_unanswered <= (1 << 20) + CHUNK


async def test_logs_that_nobody_takes_stop_the_intake(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "LOG_BACKLOG", 3)
    server.logs.gate.clear()
    settings = Settings(
        data_dir=tmp_path / "data",
        address=server.address,
        token=TOKEN,
        ready_file=None,
        name="bench",
        memory_bytes=8 << 30,
        cpu=8.0,
        slots=2,
        min_free_disk=0,
    )
    runtime = FakeRuntime()
    runtime.reopen()
    data = DataDir(settings.data_dir)
    agent = Agent(settings, data, runtime=runtime)
    task = asyncio.create_task(agent.run())

    def pressure() -> str:
        heartbeats = server.control.link.frames("heartbeat") if server.control.links else []
        return heartbeats[-1].pressure if heartbeats else "none came"

    try:
        await until(lambda: pressure() == "")
        shipper = agent._supervisor.shipper

        for number in range(6):
            write(tmp_path / f"att_{number}" / "stdout", 0, 10)
            shipper.follow(f"att_{number}", tmp_path / f"att_{number}")
            shipper.finish(f"att_{number}")

        await until(lambda: pressure().startswith("logs: 6 wait to be stored, at most 5 may"))
        server.logs.gate.set()
        await until(lambda: pressure() == "")
    finally:
        agent.stop()
        await asyncio.wait_for(task, 10)
        data.close()


async def test_a_slow_log_store_slows_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the disk in the control plane's memory is bounded, whatever the sender does."""
    monkeypatch.setattr(service_module, "_GATHERED_CHUNKS", 4)
    release = asyncio.Event()
    taken = 0

    class Slow:
        async def append_many(self, chunks: Sequence[Chunk]) -> list[Appended]:
            await release.wait()
            return [Appended(chunk.offset + len(chunk.data)) for chunk in chunks]

        async def sync(self) -> None:
            return None

        async def durable(self, log_id: str, stream: object) -> int:
            return 0

    async def requests() -> AsyncIterator[log_pb2.AppendLogsRequest]:
        nonlocal taken

        for number in range(100):
            taken += 1
            yield log_pb2.AppendLogsRequest(
                log_id="att_1", stream=log_pb2.LOG_STREAM_STDOUT, offset=number, data=b"x"
            )

    async def owns(log_id: str) -> bool:
        return True

    inbox = service_module._Inbox(Slow(), owns)  # type: ignore[arg-type]
    reader = asyncio.create_task(inbox.read(requests()))
    await until(lambda: taken >= 4)

    for _ in range(100):
        await asyncio.sleep(0)

    # Those on their way to the disk, and as many again that have gathered meanwhile.
    assert taken <= 2 * 4 + 1
    release.set()
    await asyncio.wait_for(reader, 10)
    assert taken == 100
