"""Objects and logs over the wire: cuts, offsets, followers."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from controlplane_harness import Client, FakeRunning, refused
from controlplane_rows import attempt_row, run_row, task_row

from datatailr.v1 import log_pb2, object_pb2
from opentailr_controlplane.core.rows import JobRow
from opentailr_controlplane.core.values import AttemptState, CauseKind, PeopleState, RunState, TaskState
from opentailr_controlplane.ports import Resync, RunChange
from opentailr_controlplane.server import ControlPlane
from opentailr_controlplane.services import logfollow
from opentailr_controlplane.store import schema

CHUNK = 256 * 1024


def pieces(data: bytes, begin: int = 0, end: int | None = None) -> list[object_pb2.WriteObjectRequest]:
    """The data as messages; the first one names digest and size."""
    end = len(data) if end is None else end
    sent = [object_pb2.WriteObjectRequest(digest=hashlib.sha256(data).hexdigest(), size=len(data))]
    return sent + [
        object_pb2.WriteObjectRequest(offset=offset, data=data[offset : min(end, offset + CHUNK)])
        for offset in range(begin, end, CHUNK)
    ]


async def write(
    client: Client, messages: list[object_pb2.WriteObjectRequest]
) -> object_pb2.WriteObjectResponse:
    last = None
    async for answer in client.stream(client.objects.WriteObject, iter(messages)):
        last = answer
    assert last is not None
    return last


async def resume(client: Client, data: bytes) -> tuple[int, object_pb2.WriteObjectResponse] | None:
    """Asks what the server has and sends the rest; None, and nothing sent, when it has nothing."""
    heard = asyncio.get_running_loop().create_future()

    async def messages() -> AsyncIterator[object_pb2.WriteObjectRequest]:
        yield pieces(data)[0]
        for message in pieces(data, await heard)[1:]:
            yield message

    call = client.stream(client.objects.WriteObject, messages())
    offset = (await call.read()).durable_offset
    if not offset:
        call.cancel()
        return None
    heard.set_result(offset)
    last = None
    while (answer := await call.read()) is not grpc.aio.EOF:
        last = answer
    assert last is not None
    return offset, last


async def read(client: Client, digest: str, offset: int = 0) -> bytes:
    answers = [
        answer
        async for answer in client.stream(
            client.objects.ReadObject, object_pb2.ReadObjectRequest(digest=digest, offset=offset)
        )
    ]
    assert answers[0].size > 0 or not any(answer.data for answer in answers)
    return b"".join(answer.data for answer in answers)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 20 * 1024 * 1024 + 3])
async def test_object_round_trip(user: Client, size: int) -> None:
    data = random.Random(1).randbytes(size)
    digest = hashlib.sha256(data).hexdigest()
    missing = object_pb2.FindMissingObjectsRequest(digests=[digest])
    assert list((await user.call(user.objects.FindMissingObjects, missing)).digests) == [digest]
    answer = await write(user, pieces(data))
    assert (answer.complete, answer.durable_offset) == (True, size)
    assert await read(user, digest) == data
    assert await read(user, digest, size // 2) == data[size // 2 :]
    assert not (await user.call(user.objects.FindMissingObjects, missing)).digests
    again = await write(user, pieces(data)[:1])
    assert (again.complete, again.durable_offset) == (True, size)


async def test_write_goes_on_after_a_cut(user: Client, faked: ControlPlane) -> None:
    data = random.Random(2).randbytes(2_000_000)
    taken = asyncio.Event()

    async def stall() -> AsyncIterator[object_pb2.WriteObjectRequest]:
        for message in pieces(data, 0, 1_000_000):
            yield message
        taken.set()
        await asyncio.Event().wait()

    call = user.stream(user.objects.WriteObject, stall())
    assert (await call.read()).durable_offset == 0
    await taken.wait()
    part = next((faked.settings.data_dir / "objects" / "partial").glob("*.part"))
    async with asyncio.timeout(10):
        while part.stat().st_size < 1_000_000:
            await asyncio.sleep(0.01)
    call.cancel()

    async with asyncio.timeout(10):
        # The part is free as soon as the server has noticed the end of the first call.
        while (resumed := await resume(user, data)) is None:
            pass
    offset, answer = resumed
    assert offset == 1_000_000
    assert (answer.complete, answer.durable_offset) == (True, len(data))
    assert await read(user, hashlib.sha256(data).hexdigest()) == data


async def test_object_refusals(user: Client, faked: ControlPlane) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    wrong = [
        object_pb2.WriteObjectRequest(digest=digest, size=5),
        object_pb2.WriteObjectRequest(offset=0, data=b"wrong"),
    ]
    assert (
        await refused(user.stream(user.objects.WriteObject, iter(wrong)))
    ).detail.reason == "digest_mismatch"
    gap = [
        object_pb2.WriteObjectRequest(digest=digest, size=5),
        object_pb2.WriteObjectRequest(offset=3, data=b"ht"),
    ]
    assert (await refused(user.stream(user.objects.WriteObject, iter(gap)))).detail.reason == "wrong_offset"
    short = [object_pb2.WriteObjectRequest(digest=digest, size=5, data=b"rig")]
    assert (await refused(user.stream(user.objects.WriteObject, iter(short)))).detail.reason == "too_short"
    for messages, field in (
        ([object_pb2.WriteObjectRequest(digest="x", size=5)], "digest"),
        ([object_pb2.WriteObjectRequest(digest=digest, size=-1)], "size"),
        ([], "digest"),
    ):
        refusal = await refused(user.stream(user.objects.WriteObject, iter(messages)))
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    refusal = await refused(
        user.stream(
            user.objects.ReadObject, object_pb2.ReadObjectRequest(digest=hashlib.sha256(b"?").hexdigest())
        )
    )
    assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.NOT_FOUND, "object_not_found")
    many = object_pb2.FindMissingObjectsRequest(digests=[digest] * 10_001)
    assert (await refused(user.call(user.objects.FindMissingObjects, many))).detail.field == "digests"
    leftovers = [path.name for path in (faked.settings.data_dir / "objects" / "partial").iterdir()]
    assert leftovers == [f"{digest}.part"], "what was sent before a clean cut is kept, the rest is not"


# ---------------------------------------------------------------------------------- logs


@pytest.fixture
async def sender(faked: ControlPlane) -> AsyncIterator[Client]:
    token = (faked.settings.data_dir / "agent.token").read_text().strip()
    async with Client(faked.agent_address, token, extra=(("opentailr-agent", "agt_1"),)) as made:
        yield made


class Appender:
    """An open AppendLogs call."""

    def __init__(self, client: Client) -> None:
        self.call = client.stream(client.logs.AppendLogs, None)

    async def send(
        self, log_id: str, offset: int, data: bytes, *, end: bool = False, stream: int = 1
    ) -> log_pb2.AppendLogsResponse:
        await self.call.write(
            log_pb2.AppendLogsRequest(log_id=log_id, stream=stream, offset=offset, data=data, end=end)
        )
        answer = await asyncio.wait_for(self.call.read(), 10)
        assert isinstance(answer, log_pb2.AppendLogsResponse)
        return answer


def task_log(**options: object) -> log_pb2.ReadLogRequest:
    return log_pb2.ReadLogRequest(task=log_pb2.TaskLog(run_id=1, task_id=0), **options)  # type: ignore[arg-type]


async def text_of(client: Client, request: log_pb2.ReadLogRequest) -> tuple[bytes, bool]:
    data, end = b"", False
    async for answer in client.stream(client.logs.ReadLog, request):
        assert not answer.data or answer.offset >= 0
        data += answer.data
        end = answer.end
    return data, end


async def remaining(call: Any) -> list[Any]:
    answers = []
    async with asyncio.timeout(10):
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    return answers


@pytest.mark.clause("B155", "B158")
async def test_append_and_read(user: Client, sender: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(attempt_id="att_1", fence=1))
    await running.put(schema.attempts, attempt_row("att_1"))
    running.engine.owned.add(("agt_1", "att_1"))
    appender = Appender(sender)
    answer = await appender.send("att_1", 0, b"one\ntwo\n")
    assert (answer.durable_offset, answer.expected, answer.refused) == (8, False, False)
    assert await text_of(user, task_log()) == (b"one\ntwo\n", False)
    again = await appender.send("att_1", 0, b"one\ntwo\n")
    assert (again.durable_offset, again.expected) == (8, False)
    gap = await appender.send("att_1", 100, b"x")
    assert (gap.durable_offset, gap.expected) == (8, True)
    assert (await appender.send("att_1", 0, b"\xff\xfe", stream=2)).durable_offset == 2
    assert (await appender.send("att_1", 8, b"three\n", end=True)).durable_offset == 14
    assert await text_of(user, task_log()) == (b"one\ntwo\nthree\n", True)
    assert await text_of(user, task_log(offset=4)) == (b"two\nthree\n", True)
    assert await text_of(user, task_log(tail_lines=1)) == (b"three\n", True)
    assert await text_of(user, task_log(stream=log_pb2.LOG_STREAM_STDERR)) == (b"\xff\xfe", False)
    stranger = await appender.send("att_2", 0, b"x")
    assert (stranger.refused, stranger.durable_offset) == (True, 0)
    appender.call.cancel()


async def test_append_refuses_what_it_cannot_understand(sender: Client) -> None:
    for message, field in (
        (log_pb2.AppendLogsRequest(log_id="att_1", offset=0, data=b"x"), "stream"),
        (log_pb2.AppendLogsRequest(log_id="att_1", stream=1, offset=-1), "offset"),
        (log_pb2.AppendLogsRequest(log_id="att_1", stream=1, data=bytes(CHUNK + 1)), "data"),
    ):
        refusal = await refused(sender.stream(sender.logs.AppendLogs, iter([message])))
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_burst_of_short_logs_is_answered_log_by_log(
    sender: Client, faked: ControlPlane, running: FakeRunning
) -> None:
    names = [f"att_{number}" for number in range(1, 301)]
    running.engine.owned.update(("agt_1", name) for name in names if name != "att_7")
    requests = [
        log_pb2.AppendLogsRequest(log_id=name, stream=stream, data=name.encode(), end=True)  # type: ignore[arg-type]
        for name in names
        for stream in (1, 2)
    ]
    answers = await remaining(sender.stream(sender.logs.AppendLogs, iter(requests)))
    assert {(answer.log_id, answer.stream) for answer in answers} == {
        (name, stream) for name in names for stream in (1, 2)
    }
    for answer in answers:
        stranger = answer.log_id == "att_7"
        assert (answer.refused, answer.expected) == (stranger, False)
        assert answer.durable_offset == (0 if stranger else len(answer.log_id))
    written = {path.name: path.read_text() for path in (faked.settings.data_dir / "logs").rglob("att_*")}
    expected = [name for name in names if name != "att_7"]
    assert written == {f"{name}.{suffix}": name for name in expected for suffix in ("out", "err")}


async def test_a_full_disk_ends_the_stream_and_a_new_one_goes_on(
    sender: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.engine.owned.add(("agt_1", "att_1"))

    def full(file: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("opentailr_controlplane.logfiles.os.pwrite", full)
    appender = Appender(sender)
    await appender.call.write(log_pb2.AppendLogsRequest(log_id="att_1", stream=1, data=b"text"))
    refusal = await refused(appender.call)
    assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "disk_full")
    monkeypatch.undo()
    appender = Appender(sender)
    assert (await appender.send("att_1", 0, b"text", end=True)).durable_offset == 4
    appender.call.cancel()


@pytest.mark.clause("B158")
async def test_follow_from_before_the_first_attempt_to_the_end(
    user: Client, sender: Client, running: FakeRunning
) -> None:
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row())
    call = user.stream(user.logs.ReadLog, task_log(follow=True))
    assert await call.read() == log_pb2.ReadLogResponse()
    row = task_row(attempt_id="att_1", fence=1, state=int(TaskState.ACTIVE))
    await running.put(schema.run_tasks, row)
    await running.put(schema.attempts, attempt_row("att_1"))
    running.engine.owned.add(("agt_1", "att_1"))
    running.engine.tell(RunChange(1, None, (row,)))
    appender = Appender(sender)
    await appender.send("att_1", 0, b"early ")
    received = b""
    async with asyncio.timeout(10):
        while received != b"early ":
            received += (await call.read()).data
    await appender.send("att_1", 6, b"late", end=True)
    rest = await remaining(call)
    assert b"".join(answer.data for answer in rest) == b"late"
    assert [answer.end for answer in rest][-1] is True
    assert rest[-1].offset == 10
    appender.call.cancel()


async def test_follow_ends_when_the_writer_is_gone_for_good(
    user: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfollow.follow_log, "__kwdefaults__", {"quiet": 0.05})
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(attempt_id="att_1", fence=1))
    await running.put(schema.attempts, attempt_row("att_1"))
    call = user.stream(user.logs.ReadLog, task_log(follow=True))
    assert (await call.read()).end is False
    await running.put(schema.attempts, attempt_row("att_1", state=int(AttemptState.LOST)))
    assert (await remaining(call))[-1].end is True


@pytest.mark.clause("B155")
async def test_a_finished_tasks_log_is_read_to_its_end_though_that_comes_later(
    user: Client, sender: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentailr_controlplane.services.logs._SETTLE", 30.0)
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(attempt_id="att_1", fence=1))
    await running.put(schema.attempts, attempt_row("att_1", state=int(AttemptState.SUCCEEDED)))
    running.engine.owned.add(("agt_1", "att_1"))
    appender = Appender(sender)
    await appender.send("att_1", 0, b"early ")
    reading = asyncio.create_task(text_of(user, task_log()))
    missing = object_pb2.FindMissingObjectsRequest()
    for _ in range(5):  # the read has long begun when these are answered
        await user.call(user.objects.FindMissingObjects, missing)
    assert not reading.done()
    await appender.send("att_1", 6, b"late", end=True)
    assert await reading == (b"early late", True)
    appender.call.cancel()


@pytest.mark.clause("B155")
async def test_a_finished_tasks_log_without_an_end_is_read_all_the_same(
    user: Client, sender: Client, running: FakeRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentailr_controlplane.services.logs._SETTLE", 0.05)
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row(attempt_id="att_1", fence=1))
    await running.put(schema.attempts, attempt_row("att_1", state=int(AttemptState.LOST)))
    running.engine.owned.add(("agt_1", "att_1"))
    appender = Appender(sender)
    await appender.send("att_1", 0, b"all there is")
    assert (await text_of(user, task_log()))[0] == b"all there is"
    appender.call.cancel()


async def test_logs_of_tasks_that_never_ran_are_empty_and_complete(
    user: Client, running: FakeRunning
) -> None:
    await running.put(schema.runs, run_row())
    skipped = task_row(state=int(TaskState.SKIPPED), people_state=int(PeopleState.DID_NOT_RUN))
    await running.put(schema.run_tasks, skipped)
    assert await text_of(user, task_log(follow=True)) == (b"", True)


async def test_log_refusals(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row())
    await running.put(schema.run_tasks, task_row())
    for request, code, field in (
        (log_pb2.ReadLogRequest(run_id=9), grpc.StatusCode.NOT_FOUND, "run_id"),
        (log_pb2.ReadLogRequest(image_key="0"), grpc.StatusCode.NOT_FOUND, "image_key"),
        (
            log_pb2.ReadLogRequest(task=log_pb2.TaskLog(run_id=1, task_id=5)),
            grpc.StatusCode.NOT_FOUND,
            "task_id",
        ),
        (
            log_pb2.ReadLogRequest(task=log_pb2.TaskLog(run_id=1, attempt=3)),
            grpc.StatusCode.NOT_FOUND,
            "task.attempt",
        ),
        (log_pb2.ReadLogRequest(), grpc.StatusCode.INVALID_ARGUMENT, "target"),
        (log_pb2.ReadLogRequest(run_id=1, stream=7), grpc.StatusCode.INVALID_ARGUMENT, "stream"),  # type: ignore[arg-type]
        (log_pb2.ReadLogRequest(run_id=1, offset=-1), grpc.StatusCode.INVALID_ARGUMENT, "offset"),
        (
            log_pb2.ReadLogRequest(run_id=1, tail_lines=1_000_001),
            grpc.StatusCode.INVALID_ARGUMENT,
            "tail_lines",
        ),
    ):
        refusal = await refused(user.stream(user.logs.ReadLog, request))
        assert (refusal.code, refusal.detail.field) == (code, field), request


@pytest.mark.clause("B156")
async def test_the_runs_own_log_tells_what_was_committed(user: Client, running: FakeRunning) -> None:
    await running.put(schema.jobs, JobRow("job_1", "my-job", "My Job", 1, 1, "{}", 2, 0, 1))
    run = run_row()
    await running.put(schema.runs, run)
    await running.put(schema.run_tasks, task_row())
    call = user.stream(user.logs.ReadLog, log_pb2.ReadLogRequest(run_id=1, follow=True))
    running.engine.tell(RunChange(1, run, (), all_tasks=True))
    assert (await asyncio.wait_for(call.read(), 10)).data.decode() == (
        "2023-11-14 22:13:20.000Z run 1 of my-job version 1 (1 tasks) started by root, runs as root\n"
    )
    begun = 1_700_000_001_000_000
    active = task_row(
        state=int(TaskState.ACTIVE), people_state=int(PeopleState.RUNNING), node="worker", start_time=begun
    )
    running.engine.tell(RunChange(1, None, (active,)))
    running.engine.tell(RunChange(1, None, (active,)))
    assert (
        await asyncio.wait_for(call.read(), 10)
    ).data == b"2023-11-14 22:13:21.000Z task 0 running on worker\n"
    ended = run_row(
        state=int(RunState.FAILED),
        people_state=int(PeopleState.FAILED),
        end_time=begun + 1_000_000,
        cause_kind=int(CauseKind.EXCEPTION),
        cause_message="task 0 failed",
        tasks_failed=1,
    )
    failed = task_row(
        state=int(TaskState.FAILED),
        people_state=int(PeopleState.FAILED),
        end_time=begun + 900_000,
        cause_message="ValueError: no\nmore",
    )
    await running.put(schema.runs, ended)
    await running.put(schema.run_tasks, failed)
    # A reader that was too slow reads the present: nothing is told twice, nothing is left out.
    running.engine.tell(Resync())
    text = b"".join(answer.data for answer in await remaining(call)).decode()
    assert text.splitlines() == [
        "2023-11-14 22:13:21.900Z task 0 failed: ValueError: no",
        "2023-11-14 22:13:22.000Z run 1 failed (exception): task 0 failed (1 failed)",
    ]
