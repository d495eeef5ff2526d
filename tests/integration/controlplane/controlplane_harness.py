"""What the tests of the control plane share: a client, a fake engine, a fake agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from sqlalchemy import create_engine, insert

from datatailr.v1 import (
    agent_pb2_grpc,
    common_pb2,
    identity_pb2_grpc,
    image_pb2_grpc,
    job_pb2_grpc,
    log_pb2_grpc,
    node_pb2_grpc,
    object_pb2_grpc,
    run_pb2_grpc,
)
from opentailr_controlplane.core.commands import Command, Reply
from opentailr_controlplane.core.model import Job, Version
from opentailr_controlplane.core.values import Environment
from opentailr_controlplane.engine_setup import EngineParts
from opentailr_controlplane.ports import Change, NodeView
from opentailr_controlplane.store.migrate import migrate


class Client:
    """A channel with all stubs; `metadata` carries the token."""

    def __init__(self, address: str, token: str = "", *, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self.metadata: tuple[tuple[str, str], ...] = extra
        if token:
            self.metadata = (("authorization", f"Bearer {token}"), *extra)
        self.channel = grpc.aio.insecure_channel(address)
        self.agents = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.identity = identity_pb2_grpc.IdentityServiceStub(self.channel)
        self.images = image_pb2_grpc.ImageServiceStub(self.channel)
        self.jobs = job_pb2_grpc.JobServiceStub(self.channel)
        self.logs = log_pb2_grpc.LogServiceStub(self.channel)
        self.nodes = node_pb2_grpc.NodeServiceStub(self.channel)
        self.objects = object_pb2_grpc.ObjectServiceStub(self.channel)
        self.runs = run_pb2_grpc.RunServiceStub(self.channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def call(self, method: Any, request: Any) -> Any:
        """One answer."""
        return await method(request, metadata=self.metadata, timeout=20)

    def stream(self, method: Any, request: Any) -> Any:
        """A call that streams."""
        return method(request, metadata=self.metadata, timeout=60)


@dataclass(frozen=True)
class Refusal:
    """A failed call as a client sees it."""

    code: grpc.StatusCode
    message: str
    detail: common_pb2.ErrorDetail


async def refused(call: Any) -> Refusal:
    """The failure of a call that must fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        raw = trailing.get("opentailr-error-bin", b"")
        assert isinstance(raw, bytes)
        return Refusal(error.code(), error.details() or "", common_pb2.ErrorDetail.FromString(raw))
    raise AssertionError("the call succeeded")


class Changes:
    """One subscription to the fake engine."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self.closed = False

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        change = await self.queue.get()
        if change is None:
            raise StopAsyncIteration
        return change

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FakeEngine:
    """Holds what a test puts in, remembers what it was asked, and can fail."""

    jobs_here: list[Job] = field(default_factory=list)
    nodes_here: list[NodeView] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    replies: list[Reply | Exception] = field(default_factory=list)
    subscriptions: list[Changes] = field(default_factory=list)
    waiting: dict[int, tuple[str, ...]] = field(default_factory=dict)
    active: set[int] = field(default_factory=set)
    owned: set[tuple[str, str]] = field(default_factory=set)
    healthy: bool = True

    async def execute(self, command: Command) -> Reply:
        self.commands.append(command)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def subscribe(
        self, *, run_id: int | None = None, image_key: str | None = None, maxsize: int = 256
    ) -> AsyncIterator[Change]:
        changes = Changes()
        self.subscriptions.append(changes)
        return changes

    def tell(self, change: Change) -> None:
        for changes in self.subscriptions:
            if not changes.closed:
                changes.queue.put_nowait(change)

    def find_job(self, name: str, environment: Environment) -> Job | None:
        return next(
            (job for job in self.jobs_here if (job.name, job.environment) == (name, environment)), None
        )

    def jobs(self) -> list[Job]:
        return list(self.jobs_here)

    def find_version(self, job: Job, version: int = 0) -> Version | None:
        found = job.versions.get(version) if version else job.latest()
        return None if found is None or found.removed else found

    def run_job_id(self, run_id: int) -> str | None:
        return None

    def run_active(self, run_id: int) -> bool:
        return run_id in self.active

    def waiting_for(self, run_id: int, task_ids: Iterable[int] = ()) -> dict[int, tuple[str, ...]]:
        return self.waiting

    def waiting_tasks(self, run_id: int, *, limit: int) -> list[int]:
        return [task_id for task_id in self.waiting if task_id >= 0][:limit]

    def image_waiting_for(self, image_key: str) -> str:
        return "no node has joined yet"

    def nodes(self) -> list[NodeView]:
        return list(self.nodes_here)

    async def owns_log(self, agent_id: str, log_id: str) -> bool:
        return (agent_id, log_id) in self.owned

    def metrics(self) -> dict[str, float]:
        return {"queue_length": 0.0}


class FakeRunning:
    """A fake engine with a true, empty database beside it."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.agents = agent_pb2_grpc.AgentServiceServicer()
        self.parts: EngineParts | None = None

    async def open(self, parts: EngineParts) -> FakeRunning:
        """What a control plane calls as its engine factory."""
        self.parts = parts
        await asyncio.to_thread(migrate, parts.database)
        return self

    maintained = None

    @property
    def healthy(self) -> bool:
        return self.engine.healthy

    async def disconnect(self) -> None:
        for changes in self.engine.subscriptions:
            changes.queue.put_nowait(None)

    async def close(self) -> None:
        assert all(changes.closed for changes in self.engine.subscriptions), "a subscription was left open"

    async def put(self, table: Any, *rows: tuple[Any, ...]) -> None:
        """Puts rows into the database, replacing none."""
        assert self.parts is not None
        database = self.parts.database

        def work() -> None:
            engine = create_engine(f"sqlite:///{database}")
            with engine.begin() as connection:
                for row in rows:
                    names = getattr(row, "_fields", None) or [column.name for column in table.columns]
                    connection.execute(insert(table).prefix_with("OR REPLACE").values(dict(zip(names, row))))
            engine.dispose()

        await asyncio.to_thread(work)
