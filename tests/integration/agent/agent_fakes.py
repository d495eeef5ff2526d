"""A control plane for tests of the agent: speaks the real protocol, and can fail in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import common_pb2, log_pb2, object_pb2
from datatailr.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from datatailr.v1.log_pb2_grpc import LogServiceServicer, add_LogServiceServicer_to_server
from datatailr.v1.object_pb2_grpc import ObjectServiceServicer, add_ObjectServiceServicer_to_server
from opentailr_agent.ports import (
    Adopted,
    AttemptOrder,
    Ended,
    EndState,
    Outcome,
    RuntimeEvent,
    Started,
)

TOKEN = "agent-token"


async def until(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Waits for a condition; fails after a deadline."""
    deadline = time.monotonic() + within

    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


class FakeObjects(ObjectServiceServicer):
    """Objects in memory; transfers can be cut after a number of bytes."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}
        self.cut_after: list[int] = []
        """Bytes after which the next transfers are cut, one entry each."""
        self.lose_complete = 0
        """How many times the answer to a complete write is lost after the work was done."""
        self.full = 0
        self.reads = 0
        self.tampered = False

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.content[digest] = data
        return digest

    async def FindMissingObjects(self, request, context):
        return object_pb2.FindMissingObjectsResponse(
            digests=[digest for digest in request.digests if digest not in self.content]
        )

    async def ReadObject(self, request, context):
        self.reads += 1
        data = self.content.get(request.digest)

        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such object")

        if self.tampered:
            data = b"x" * len(data)

        limit = self.cut_after.pop(0) if self.cut_after else None
        sent = 0

        for start in range(request.offset, len(data), 65536):
            part = data[start : start + 65536]
            yield object_pb2.ReadObjectResponse(size=len(data), data=part)
            sent += len(part)

            if limit is not None and sent >= limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    async def WriteObject(self, requests, context):
        first = await anext(requests)

        if self.full:
            self.full -= 1
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "disk full")

        data = bytearray(self.partial.get(first.digest, b""))
        limit = self.cut_after.pop(0) if self.cut_after else None
        sent = 0
        yield object_pb2.WriteObjectResponse(durable_offset=len(data))

        while len(data) < first.size:
            part = await anext(requests)
            assert part.offset == len(data), "a write goes on where it was"
            data += part.data
            sent += len(part.data)
            self.partial[first.digest] = bytes(data)

            if limit is not None and sent >= limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

            yield object_pb2.WriteObjectResponse(durable_offset=len(data))

        if hashlib.sha256(data).hexdigest() != first.digest:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "content does not hash to the digest")

        self.content[first.digest] = bytes(data)

        if self.lose_complete:
            self.lose_complete -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "answer lost")

        yield object_pb2.WriteObjectResponse(durable_offset=len(data), complete=True)


class FakeLogs(LogServiceServicer):
    """Logs in memory, by the rules of the protocol."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, int], bytearray] = {}
        self.ended: set[tuple[str, int]] = set()
        self.refuse: set[str] = set()
        self.cut_after: list[int] = []
        """Chunks after which the next streams are cut, one entry each."""
        self.lose_answers = False
        """With a cut: the last chunk is stored and its answer lost."""
        self.gate = asyncio.Event()
        """Cleared: answers wait."""
        self.gate.set()
        self.unanswered = 0
        self.most_unanswered = 0
        self.senders: set[str] = set()
        """Ids of agents in the metadata of the streams."""

    def text(self, log_id: str, stream: int = log_pb2.LOG_STREAM_STDOUT) -> bytes:
        return bytes(self.data.get((log_id, stream), b""))

    def complete(self, log_id: str) -> bool:
        return {(log_id, 1), (log_id, 2)} <= self.ended

    async def AppendLogs(self, requests, context):
        self.senders.add(dict(context.invocation_metadata()).get("opentailr-agent", ""))
        limit = self.cut_after.pop(0) if self.cut_after else None
        count = 0

        async for chunk in requests:
            count += 1
            key = (chunk.log_id, chunk.stream)
            self.unanswered += len(chunk.data)
            self.most_unanswered = max(self.most_unanswered, self.unanswered)
            answer = self._append(key, chunk)

            if limit is not None and count >= limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

            await self.gate.wait()
            self.unanswered -= len(chunk.data)
            yield answer

    def _append(self, key, chunk):
        answer = log_pb2.AppendLogsResponse(log_id=chunk.log_id, stream=chunk.stream)

        if chunk.log_id in self.refuse:
            answer.refused = True
            return answer

        held = self.data.setdefault(key, bytearray())

        if chunk.offset > len(held):
            answer.expected = True
        elif chunk.offset == len(held):
            held += chunk.data

            if chunk.end:
                self.ended.add(key)

        answer.durable_offset = len(held)
        return answer


@dataclass
class Link:
    """One session as the control plane sees it."""

    hello: pb.Hello
    epoch: int
    outbound: asyncio.Queue[pb.ConnectResponse | grpc.StatusCode]
    received: list[pb.ConnectRequest] = field(default_factory=list)
    revision: int = 0

    def send(self, **frame: object) -> None:
        self.outbound.put_nowait(pb.ConnectResponse(**frame))

    def cut(self, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.outbound.put_nowait(status)

    def frames(self, kind: str) -> list:
        return [getattr(frame, kind) for frame in self.received if frame.WhichOneof("frame") == kind]


class FakeControlPlane(AgentServiceServicer):
    """Scripted: tests say what the agent should have; reports are kept and acknowledged."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.entries: dict[int, pb.ReportEntry] = {}
        self.desired: dict[str, pb.AttemptAssignment] = {}
        self.builds: dict[str, pb.BuildAssignment] = {}
        self.verdicts: Mapping[str, int] = {}
        self.acknowledge = True
        self.answer_heartbeats = True
        self.welcome = True
        self.protocol = 1
        self.refuse: list[grpc.StatusCode] = []
        self.heartbeat_interval = 0.2
        self.lease_ttl = 5.0
        self.acked = 0
        self.journal_id = ""

    @property
    def link(self) -> Link:
        return self.links[-1]

    def outcomes(self, attempt_id: str) -> list[pb.AttemptReport]:
        return [
            entry.attempt
            for entry in self.entries.values()
            if entry.HasField("attempt")
            and entry.attempt.attempt_id == attempt_id
            and entry.attempt.state >= 100
        ]

    def outcome(self, attempt_id: str) -> pb.AttemptReport | None:
        found = self.outcomes(attempt_id)
        assert len(found) <= 1, "one outcome"
        return found[0] if found else None

    def states(self, attempt_id: str) -> list[int]:
        return [
            entry.attempt.state
            for _, entry in sorted(self.entries.items())
            if entry.HasField("attempt") and entry.attempt.attempt_id == attempt_id
        ]

    def build_report(self, build_id: str) -> pb.BuildReport | None:
        ends = [
            entry.build
            for entry in self.entries.values()
            if entry.HasField("build") and entry.build.build_id == build_id and entry.build.state != 2
        ]
        return ends[0] if ends else None

    def assign(self, attempt_id: str, spec: pb.AttemptSpec) -> None:
        self.desired[attempt_id] = pb.AttemptAssignment(
            attempt_id=attempt_id, fence=1, desired=pb.DESIRED_STATE_RUN, spec=spec
        )
        self._delta(attempts=[self.desired[attempt_id]])

    def stop(self, attempt_id: str, grace: float = 1.0) -> None:
        entry = pb.AttemptAssignment(
            attempt_id=attempt_id, fence=1, desired=pb.DESIRED_STATE_STOP, grace=int(grace * 1e6)
        )
        self.desired[attempt_id] = entry
        self._delta(attempts=[entry])

    def build(self, build_id: str, key: str, recipe: common_pb2.ImageRecipe, **more: object) -> None:
        self.builds[build_id] = pb.BuildAssignment(build_id=build_id, image_key=key, recipe=recipe, **more)
        self._delta(builds=[self.builds[build_id]])

    def remove(self, *names: str) -> None:
        for name in names:
            self.desired.pop(name, None)
            self.builds.pop(name, None)

        self._delta(removed=list(names))

    def _delta(self, **what: object) -> None:
        link = self.link
        base, link.revision = link.revision, link.revision + 1
        link.send(assignments=pb.Assignments(base_revision=base, revision=link.revision, **what))

    def full(self, link: Link) -> None:
        link.revision += 1
        link.send(
            assignments=pb.Assignments(
                full=True,
                revision=link.revision,
                attempts=list(self.desired.values()),
                builds=list(self.builds.values()),
            )
        )

    async def Connect(self, requests, context):
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token")

        if self.refuse:
            await context.abort(self.refuse.pop(0), "refused by the test")

        hello = (await anext(requests)).hello
        link = Link(hello, len(self.links) + 1, asyncio.Queue())
        self.links.append(link)

        if not self.welcome:
            await asyncio.Event().wait()

        if hello.journal_id != self.journal_id:
            self.journal_id = hello.journal_id
            self.acked = 0

        link.send(
            welcome=pb.Welcome(
                epoch=link.epoch,
                protocol=self.protocol,
                heartbeat_interval=int(self.heartbeat_interval * 1e6),
                lease_ttl=int(self.lease_ttl * 1e6),
                acknowledged_report_seq=self.acked,
                verdicts=[
                    pb.Verdict(
                        attempt_id=entry.attempt_id,
                        kind=self.verdicts.get(entry.attempt_id, pb.VERDICT_KIND_KEEP),
                    )
                    for entry in hello.inventory
                ],
            )
        )
        self.full(link)
        reader = asyncio.create_task(self._read(requests, link))
        reader.add_done_callback(lambda _: link.cut(grpc.StatusCode.OK))

        try:
            while True:
                frame = await link.outbound.get()

                if frame is grpc.StatusCode.OK:
                    return

                if isinstance(frame, grpc.StatusCode):
                    await context.abort(frame, "cut by the test")

                yield frame
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ConnectRequest], link: Link) -> None:
        async for frame in requests:
            link.received.append(frame)

            match frame.WhichOneof("frame"):
                case "heartbeat" if self.answer_heartbeats:
                    counter = frame.heartbeat.counter
                    link.send(lease=pb.Lease(counter=counter, ttl=int(self.lease_ttl * 1e6)))
                case "report":
                    for entry in frame.report.entries:
                        known = self.entries.get(entry.report_seq)
                        assert known is None or known == entry or entry.report_seq > self.acked
                        self.entries[entry.report_seq] = entry

                    if self.acknowledge:
                        self.ack(link)
                case "applied" if frame.applied.need_full:
                    self.full(link)
                case _:
                    pass

    def ack(self, link: Link) -> None:
        while self.acked + 1 in self.entries:
            self.acked += 1

        link.send(report_ack=pb.ReportAck(report_seq=self.acked))


class FakeServer:
    """All three services on one port of the loopback interface; can go away and come back."""

    def __init__(self) -> None:
        self.control = FakeControlPlane()
        self.logs = FakeLogs()
        self.objects = FakeObjects()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AgentServiceServicer_to_server(self.control, self._server)
        add_LogServiceServicer_to_server(self.logs, self._server)
        add_ObjectServiceServicer_to_server(self.objects, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


class FakeRuntime:
    """A runtime without processes; tests end attempts. It outlives agents, as keepers do."""

    name = "process"

    def __init__(self) -> None:
        self.orders: dict[str, AttemptOrder] = {}
        self.running: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.stopped: list[tuple[str, float]] = []
        self.removed: list[str] = []
        self.refuse = ""
        self.at_once: Callable[[AttemptOrder], Outcome] | None = None
        """Ends each attempt as soon as it started."""
        self.closed: bool | None = None
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()

    def reopen(self) -> None:
        """A new agent: events of the old one are gone."""
        self._events = asyncio.Queue()

    async def start(self, order: AttemptOrder) -> None:
        if self.refuse:
            raise OSError(self.refuse)

        assert order.attempt_id not in self.orders, "started once"
        self.orders[order.attempt_id] = order
        self.running.add(order.attempt_id)
        self._events.put_nowait(Started(order.attempt_id, 1, time.time()))

        if self.at_once is not None:
            self.end(self.at_once(order))

    def end(self, outcome: Outcome) -> None:
        self.running.discard(outcome.attempt_id)
        self.outcomes[outcome.attempt_id] = outcome
        self._events.put_nowait(Ended(outcome))

    async def stop(self, attempt_id: str, grace_seconds: float) -> None:
        self.stopped.append((attempt_id, grace_seconds))

        if attempt_id in self.running:
            self.end(Outcome(attempt_id, EndState.STOPPED))

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    async def adopt(self, attempts: Mapping[str, Path]) -> Sequence[Adopted]:
        return [
            Adopted(key, key in self.running, outcome=self.outcomes.get(key))
            for key in attempts
            if key in self.running or key in self.outcomes
        ]

    async def remove(self, attempt_id: str) -> None:
        assert attempt_id not in self.running
        self.removed.append(attempt_id)
        self.outcomes.pop(attempt_id, None)

    async def close(self, *, stop_attempts: bool) -> None:
        self.closed = stop_attempts
