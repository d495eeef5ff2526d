"""AgentService.Connect over a real connection, with an agent that speaks it by hand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import grpc
import pytest
from cp_engine import FailingStore, RealClock, until
from cp_world import START, definition, task

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import agent_pb2_grpc, common_pb2
from opentailr_controlplane.core.commands import CancelRun, SaveVersion, StartReply, StartVersion
from opentailr_controlplane.core.definition import check_definition
from opentailr_controlplane.core.effects import (
    Acknowledge,
    AttemptOrder,
    Desired,
    Dismiss,
    LeaseGrant,
    Welcome,
)
from opentailr_controlplane.core.values import Environment, Payload, RunState
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.services.agent_session import AgentSessions, Outbox, SessionSettings
from opentailr_controlplane.services.agent_wire import environment


class Objects:
    """An object store in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    async def has(self, digest: str) -> bool:
        return digest in self.data

    async def put_bytes(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.data[digest] = data
        return digest


class Tokens:
    def issue(self, run_id: int, user: str) -> str:
        return f"token-{run_id}-{user}"


@pytest.fixture
async def objects() -> Objects:
    return Objects()


@pytest.fixture
async def address(engine: Engine, objects: Objects) -> AsyncIterator[str]:
    server = grpc.aio.server()
    service = AgentSessions(
        engine,
        clock=RealClock(),
        objects=objects,
        tokens=Tokens(),
        settings=SessionSettings("127.0.0.1:7070"),
    )
    agent_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    service.dismiss_all("The test ends.")
    await server.stop(1)


class Peer:
    """One stream, frame by frame."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.call = agent_pb2_grpc.AgentServiceStub(self.channel).Connect()
        self.seq = 0
        self.kept: list[pb.ConnectResponse] = []

    async def send(self, **frame: object) -> None:
        await self.call.write(pb.ConnectRequest(**frame))  # type: ignore[arg-type]

    async def receive(self, kind: str) -> pb.ConnectResponse:
        """The next frame of a kind; those of other kinds are kept for later."""
        for frame in self.kept:
            if frame.WhichOneof("frame") == kind:
                self.kept.remove(frame)
                return frame
        while True:
            frame = await asyncio.wait_for(self.call.read(), 10)
            assert frame is not grpc.aio.EOF, f"the stream ended before a {kind}"
            if frame.WhichOneof("frame") == kind:
                return frame
            self.kept.append(frame)

    async def hello(self, **changes: object) -> pb.Welcome:
        fields: dict[str, object] = {
            "protocol_min": 1, "protocol_max": 1, "agent_id": "agt_1", "name": "node", "boot_id": "b",
            "journal_id": "j", "runtime": "process",
            "capacity": pb.Capacity(memory_bytes=8 << 30, cpu=8, slots=8),
        }  # fmt: skip
        await self.send(hello=pb.Hello(**(fields | changes)))  # type: ignore[arg-type]
        return (await self.receive("welcome")).welcome

    async def ready(self, **changes: object) -> pb.Assignments:
        await self.hello(**changes)
        full = (await self.receive("assignments")).assignments
        await self.send(applied=pb.Applied(revision=full.revision))
        await self.send(credit=pb.Credit(attempt_limit=10, build_limit=2))
        return full

    async def assignment(self, wanted: Callable[[pb.Assignments], bool]) -> pb.Assignments:
        while True:
            assignments = (await self.receive("assignments")).assignments
            if wanted(assignments):
                return assignments

    async def build(self) -> None:
        assignments = await self.assignment(lambda frame: bool(frame.builds))
        (build,) = assignments.builds
        self.seq += 1
        report = pb.BuildReport(build_id=build.build_id, image_key=build.image_key, state=3)
        await self.send(report=pb.Report(entries=[pb.ReportEntry(report_seq=self.seq, build=report)]))

    async def attempt(self) -> pb.AttemptAssignment:
        assignments = await self.assignment(lambda frame: bool(frame.attempts))
        return assignments.attempts[0]

    async def report(self, assignment: pb.AttemptAssignment, state: int, **fields: object) -> int:
        self.seq += 1
        entry = pb.AttemptReport(
            attempt_id=assignment.attempt_id,
            fence=assignment.fence,
            state=state,
            **fields,  # type: ignore[arg-type]
        )
        await self.send(report=pb.Report(entries=[pb.ReportEntry(report_seq=self.seq, attempt=entry)]))
        while True:
            acknowledged = (await self.receive("report_ack")).report_ack.report_seq
            if acknowledged >= self.seq:
                return acknowledged

    async def close(self) -> None:
        self.call.cancel()
        await self.channel.close()


@pytest.fixture
async def peer(address: str) -> AsyncIterator[Peer]:
    peer = Peer(address)
    yield peer
    await peer.close()


def payload(data: bytes) -> Payload:
    return Payload(hashlib.sha256(data).hexdigest(), len(data), data)


async def start(engine: Engine, *tasks: object) -> int:
    await engine.execute(SaveVersion("alice", definition(*tasks)))  # type: ignore[arg-type]
    reply = await engine.execute(StartVersion("alice", "flow"))
    assert isinstance(reply, StartReply)
    return reply.run_id


@pytest.mark.clause("B226", "B228", "B229", "B41", "B42")
async def test_a_run_over_the_wire(engine: Engine, peer: Peer, store: FailingStore) -> None:
    first = replace(
        task(0),
        arguments=payload(b"arguments"),
        env=(("DATATAILR_JOB_ENV_MINE", "1"), ("DATATAILR_USER", "eve"), ("DATATAILR_FRAMEWORK", "own")),
    )
    await peer.ready()
    run_id = await start(engine, first, task(1, 0))
    await peer.build()
    assignment = await peer.attempt()
    spec = assignment.spec
    assert assignment.desired == pb.DESIRED_STATE_RUN and spec.arguments.inline == b"arguments"
    assert (spec.run_id, spec.entrypoint, spec.bundle.directory) == (run_id, "pkg.mod:function", "pkg")
    env = {item.name: item.value for item in spec.env}
    assert env["MINE"] == "1" and env["DATATAILR_FRAMEWORK"] == "own"
    assert env["DATATAILR_USER"] == "alice", "the platform's own name wins"
    assert env["DATATAILR_JOB_NAME"] == env["DATATAILR_BATCH_ARG_JOB_NAME"] == "flow-0"
    assert env["DATATAILR_BATCH_RUN_ID"] == str(run_id) and env["DATATAILR_JOB_TYPE"] == "batch"
    assert env["DATATAILR_BATCH_ARG_SCHEDULED_TIME"].startswith(env["DATATAILR_BATCH_ARG_RUNDATE"] + "T")
    assert env["DATATAILR_ADDRESS"] == "127.0.0.1:7070"
    assert env["DATATAILR_TOKEN"] == spec.run_token == f"token-{run_id}-alice"
    result = common_pb2.Payload(inline=b"result", size=6)
    await peer.report(assignment, pb.ATTEMPT_STATE_RUNNING)
    await peer.report(assignment, pb.ATTEMPT_STATE_SUCCEEDED, result=result)
    second = await peer.attempt()
    assert [item.result.inline for item in second.spec.inputs] == [b"result"]
    await peer.report(second, pb.ATTEMPT_STATE_SUCCEEDED, result=result)
    await until(lambda: not engine.run_active(run_id))
    assert (await store.read_prior(run_id)).state is RunState.SUCCEEDED


@pytest.mark.clause("B130")
def test_partial_reruns_say_so_in_the_environment() -> None:
    plan = check_definition(definition(task(0))).plan(1)
    order = AttemptOrder("att", 1, False, 7, 0, "job", Environment.PRE, 1, plan, run_as="bob",
                         submit_time=START.wall, started_at=START.wall, run_date="2026-04-09",
                         original_run_id=3, partial_rerun=True)  # fmt: skip
    env = environment(order, token="t", address="a", domain="d")
    assert env["DATATAILR_BATCH_ARG_PARTIAL_RERUN"] == "true"
    assert env["DATATAILR_BATCH_ARG_ORIGINAL_RUN_ID"] == "3"
    assert env["DATATAILR_JOB_ENVIRONMENT"] == "pre" and env["DATATAILR_BATCH_ARG_RUNDATE"] == "2026-04-09"
    assert "DATATAILR_BATCH_ARG_PARTIAL_RERUN" not in environment(
        replace(order, partial_rerun=False), token="t", address="a", domain="d"
    )


async def test_inputs_that_are_too_much_together_travel_by_digest(
    engine: Engine, peer: Peer, objects: Objects
) -> None:
    await peer.ready()
    await start(engine, *(task(i) for i in range(5)), task(5, 0, 1, 2, 3, 4))
    await peer.build()
    seen: list[pb.AttemptAssignment] = []
    while len(seen) < 5:
        seen += (await peer.assignment(lambda frame: bool(frame.attempts))).attempts
    for number, assignment in enumerate(seen):
        data = bytes([number]) * 60_000
        await peer.report(
            assignment, pb.ATTEMPT_STATE_SUCCEEDED, result=common_pb2.Payload(inline=data, size=len(data))
        )
    last = await peer.attempt()
    assert all(item.result.WhichOneof("content") == "digest" for item in last.spec.inputs)
    assert {item.result.digest for item in last.spec.inputs} == set(objects.data)


async def test_a_result_that_is_not_stored_is_not_believed(
    engine: Engine, peer: Peer, objects: Objects
) -> None:
    await peer.ready()
    run_id = await start(engine, task(0))
    await peer.build()
    digest = await objects.put_bytes(b"big")
    await peer.report(
        await peer.attempt(), pb.ATTEMPT_STATE_SUCCEEDED, result=common_pb2.Payload(digest="0" * 64, size=3)
    )
    again = await peer.attempt()
    assert again.fence == 2
    await peer.report(again, pb.ATTEMPT_STATE_SUCCEEDED, result=common_pb2.Payload(digest=digest, size=3))
    await until(lambda: not engine.run_active(run_id))


async def test_stop_is_sent_and_heartbeats_are_answered(engine: Engine, peer: Peer) -> None:
    await peer.ready()
    run_id = await start(engine, task(0))
    await peer.build()
    assignment = await peer.attempt()
    await engine.execute(CancelRun("bob", run_id))
    stop = await peer.attempt()
    assert stop.desired == pb.DESIRED_STATE_STOP and stop.grace > 0 and not stop.HasField("spec")
    await peer.send(heartbeat=pb.Heartbeat(counter=7))
    lease = (await peer.receive("lease")).lease
    assert lease.counter == 7 and lease.ttl == engine.settings.lease_ttl
    await peer.report(assignment, pb.ATTEMPT_STATE_CANCELLED)
    await until(lambda: not engine.run_active(run_id))


async def test_a_second_session_supersedes_the_first(engine: Engine, peer: Peer, address: str) -> None:
    first = await peer.hello()
    other = Peer(address)
    second = await other.hello()
    assert second.epoch == first.epoch + 1
    assert (await peer.receive("go_away")).go_away.superseded
    assert await asyncio.wait_for(peer.call.read(), 10) is grpc.aio.EOF
    await other.close()


async def test_a_lost_stream_makes_the_node_suspect(engine: Engine, peer: Peer) -> None:
    await peer.ready()
    await until(lambda: [node.state.name for node in engine.nodes()] == ["READY"])
    await peer.close()
    await until(lambda: [node.state.name for node in engine.nodes()] == ["SUSPECT"])


async def test_another_protocol_is_sent_away_with_the_reason(engine: Engine, peer: Peer) -> None:
    await peer.send(hello=pb.Hello(protocol_min=2, protocol_max=3, agent_id="agt_1", journal_id="j"))
    go_away = (await peer.receive("go_away")).go_away
    assert go_away.superseded and "protocol 1" in go_away.reason and not engine.nodes()


@pytest.mark.parametrize("frame", ["heartbeat", "hello"])
async def test_a_stream_must_begin_with_a_good_hello(engine: Engine, peer: Peer, frame: str) -> None:
    if frame == "heartbeat":
        await peer.send(heartbeat=pb.Heartbeat(counter=1))
    else:
        await peer.send(hello=pb.Hello(protocol_min=1, protocol_max=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(peer.call.read(), 10)
    assert caught.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


async def test_reports_with_unknown_states_are_acknowledged_and_inert(engine: Engine, peer: Peer) -> None:
    await peer.ready()
    run_id = await start(engine, task(0))
    await peer.build()
    assignment = await peer.attempt()
    assert await peer.report(assignment, 77) == peer.seq
    assert engine.run_active(run_id)


async def test_assignments_are_cut_into_frames(engine: Engine, peer: Peer, address: str) -> None:
    """Forty attempts with 60 KB each: two frames, the second on the revision of the first."""
    big = [
        replace(task(i, memory=1 << 20, cpu=0.01), arguments=payload(bytes([i]) * 60_000)) for i in range(40)
    ]
    await peer.ready(capacity=pb.Capacity(memory_bytes=8 << 30, cpu=8, slots=64))
    await peer.send(credit=pb.Credit(attempt_limit=64, build_limit=2))
    await start(engine, *big)
    await peer.build()
    frames = [await peer.assignment(lambda frame: bool(frame.attempts))]
    while sum(len(frame.attempts) for frame in frames) < 40:
        frames.append(await peer.assignment(lambda frame: bool(frame.attempts)))
    assert len(frames) >= 2 and all(frame.ByteSize() < 4 << 20 for frame in frames)
    assert frames[1].base_revision == frames[0].revision


def test_the_outbox_merges_by_attempt() -> None:
    outbox = Outbox()

    def delta(base: int, *orders: AttemptOrder, removed: tuple[str, ...] = ()) -> Desired:
        return Desired("a", 1, False, base, base + 1, orders, (), removed)

    outbox.add(delta(1, AttemptOrder("x", 1, False), AttemptOrder("y", 1, False)))
    outbox.add(delta(2, AttemptOrder("x", 1, True), removed=("y",)))
    for number in range(100):
        outbox.add(LeaseGrant("a", 1, number))
        outbox.add(Acknowledge("a", 1, number))
    outbox.add(Welcome("a", 1, (), 0))
    welcome, desired, lease, acknowledge = outbox.take()
    assert isinstance(welcome, Welcome)
    assert isinstance(desired, Desired) and (desired.base, desired.revision) == (1, 3)
    assert [(order.attempt_id, order.stop) for order in desired.attempts] == [("x", True)]
    assert desired.removed == ("y",)
    assert (lease, acknowledge) == (LeaseGrant("a", 1, 99), Acknowledge("a", 1, 99))
    assert outbox.take() == []
    outbox.add(Dismiss("a", 1, "go", False))
    assert outbox.take() == outbox.take() == [Dismiss("a", 1, "go", False)]
