"""AgentService.Connect: one stream per agent.

Reading: each frame becomes an event of the engine. Writing: effects of committed steps wait in one bounded
outbox, merged by attempt, and leave in the order Welcome, desired set, directive, lease, acknowledgement. A
session that takes nothing for a whole lease is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from datatailr.v1 import agent_pb2, agent_pb2_grpc

from ..core.commands import AgentReport, AttemptReport, BuildReport, SessionClosed
from ..core.effects import (
    Acknowledge,
    AttemptOrder,
    BuildOrder,
    Desired,
    Directive,
    Dismiss,
    Effect,
    LeaseGrant,
    Welcome,
)
from ..core.errors import CoreError, InvalidArgument
from ..core.values import INLINE_LIMIT, SECOND, PayloadRef
from ..engine import Engine
from ..ports import Clock, ObjectStore, RunTokens
from . import agent_wire as wire

log = structlog.get_logger(__name__)

PROTOCOL = 1
HELLO_SECONDS = 10.0
"""How long a new stream may stay silent before its Hello."""

SPEC_INLINE = 4 * INLINE_LIMIT
"""Arguments and inputs of one attempt travel inline up to this total, else by digest."""

FRAME_BYTES = 2 * 1024 * 1024
"""Assignments are cut into frames of about this size; no message may pass 4 MiB."""

RECONNECT_WITHIN = 2 * SECOND
"""Agents that are sent away come back spread over this span."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What attempts are told of the platform."""

    people_address: str
    """Where code inside attempts reaches the services for people."""
    domain: str = "localhost"


class Outbox:
    """What waits for one agent: at most one entry per attempt or build, and the latest of the rest."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._dismiss: Dismiss | None = None
        self._empty()

    def _empty(self) -> None:
        self._welcome: Welcome | None = None
        self._full = False
        self._base: int | None = None
        self._revision = 0
        self._attempts: dict[str, AttemptOrder] = {}
        self._builds: dict[str, BuildOrder] = {}
        self._removed: dict[str, None] = {}
        self._directive: Directive | None = None
        self._lease: LeaseGrant | None = None
        self._acknowledge: Acknowledge | None = None

    def add(self, effect: Effect) -> None:
        """Takes an effect, merging it with what waits."""
        match effect:
            case Desired():
                self._merge(effect)
            case LeaseGrant():
                self._lease = effect
            case Acknowledge():
                self._acknowledge = effect
            case Welcome():
                self._welcome = effect
            case Directive():
                self._directive = effect
            case Dismiss():
                self._dismiss = effect
        self.wake.set()

    def _merge(self, desired: Desired) -> None:
        if desired.full:
            self._full = True
            self._attempts.clear()
            self._builds.clear()
            self._removed.clear()
        if self._base is None or desired.full:
            self._base = desired.base
        self._revision = desired.revision
        for key in desired.removed:
            self._attempts.pop(key, None)
            self._builds.pop(key, None)
            self._removed[key] = None
        for order in desired.attempts:
            self._removed.pop(order.attempt_id, None)
            self._attempts[order.attempt_id] = order
        for build in desired.builds:
            self._removed.pop(build.build_id, None)
            self._builds[build.build_id] = build

    def take(self) -> list[Effect]:
        """All that waits, in the order it shall leave."""
        self.wake.clear()
        desired: Desired | None = None
        if self._base is not None:
            desired = Desired(
                "",
                0,
                self._full,
                self._base,
                self._revision,
                tuple(self._attempts.values()),
                tuple(self._builds.values()),
                () if self._full else tuple(self._removed),
            )
        items = [
            self._welcome,
            desired,
            self._directive,
            self._lease,
            self._acknowledge,
            self._dismiss,
        ]
        self._empty()
        return [item for item in items if item is not None]


class _Session:
    """One open stream; the sink of the engine for it."""

    def __init__(self) -> None:
        self.outbox = Outbox()

    def deliver(self, effect: Effect) -> None:
        self.outbox.add(effect)

    def close(self, reason: str) -> None:
        self.outbox.add(Dismiss("", 0, reason, False))


class AgentSessions(agent_pb2_grpc.AgentServiceServicer):
    """The service of the agents."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock,
        objects: ObjectStore,
        tokens: RunTokens,
        settings: SessionSettings,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._objects = objects
        self._tokens = tokens
        self._settings = settings
        self._open: set[_Session] = set()

    def dismiss_all(self, reason: str) -> None:
        """Sends all agents away; they come back by themselves."""
        for session in self._open:
            session.close(reason)

    async def Connect(  # type: ignore[override]  # writes by the context, which the stubs do not know
        self,
        request_iterator: AsyncIterator[agent_pb2.ConnectRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """See the service's description."""
        hello = await self._hello(request_iterator, context)
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            reason = (
                f"The control plane speaks protocol {PROTOCOL}, the agent {hello.protocol_min} to "
                f"{hello.protocol_max}. Install the same version on both."
            )
            await context.write(_go_away(reason, superseded=True))
            return
        session = _Session()
        event = wire.decode_hello(hello)
        try:
            epoch = await self._engine.hello(event, session)
        except CoreError as error:
            code = (
                grpc.StatusCode.INVALID_ARGUMENT
                if isinstance(error, InvalidArgument)
                else grpc.StatusCode.UNAVAILABLE
            )
            await context.abort(code, error.message)
        logger = log.bind(agent=event.agent_id, node=event.name, epoch=epoch)
        logger.info("agent connected", attempts=len(event.inventory))
        self._open.add(session)
        reader = asyncio.create_task(self._read(request_iterator, event.agent_id, epoch))
        writer = asyncio.create_task(self._write(session, context))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(session)
            self._engine.detach(event.agent_id, epoch)
            for task in (reader, writer):
                task.cancel()
            results = await asyncio.gather(reader, writer, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, grpc.RpcError):
                    logger.warning("the session ended by an error", error=repr(result))
            await self._engine.post(SessionClosed(event.agent_id, epoch))
            logger.info("agent disconnected")

    async def _hello(
        self,
        frames: AsyncIterator[agent_pb2.ConnectRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> agent_pb2.Hello:
        frame: agent_pb2.ConnectRequest | None = None
        with contextlib.suppress(StopAsyncIteration, TimeoutError):
            frame = await asyncio.wait_for(anext(frames), HELLO_SECONDS)
        if frame is None or frame.WhichOneof("frame") != "hello":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The first frame must be a Hello.")
        return frame.hello

    # ------------------------------------------------------------------ reading

    async def _read(self, frames: AsyncIterator[agent_pb2.ConnectRequest], agent_id: str, epoch: int) -> None:
        async for frame in frames:
            match frame.WhichOneof("frame"):
                case "report":
                    await self._engine.post(await self._report(agent_id, epoch, frame.report))
                case "heartbeat":
                    received = self._clock.now().mono
                    await self._engine.post(wire.decode_heartbeat(agent_id, epoch, frame.heartbeat, received))
                case "credit":
                    await self._engine.post(wire.decode_credit(agent_id, epoch, frame.credit))
                case "applied":
                    await self._engine.post(wire.decode_applied(agent_id, epoch, frame.applied))
                case "bye":
                    await self._engine.post(wire.decode_bye(agent_id, epoch, frame.bye))
                case _:
                    log.warning("a frame that is not known was left out", agent=agent_id)

    async def _report(self, agent_id: str, epoch: int, report: agent_pb2.Report) -> AgentReport:
        entries: list[AttemptReport | BuildReport] = []
        for entry in report.entries:
            if entry.WhichOneof("subject") == "build":
                entries.append(wire.decode_build_report(entry))
                continue
            result = entry.attempt.result
            present = True
            if result.WhichOneof("content") == "digest":
                # Looked up once more before the commit: what is completed must exist (invariant 6).
                present = await self._objects.has(result.digest)
            entries.append(wire.decode_attempt_report(entry, result_present=present))
        return AgentReport(agent_id, epoch, tuple(entries))

    # ------------------------------------------------------------------ writing

    async def _write(self, session: _Session, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        patience = self._engine.settings.lease_ttl / SECOND
        while True:
            await session.outbox.wake.wait()
            for effect in session.outbox.take():
                if isinstance(effect, Desired):
                    async for frame in self._assignments(effect):
                        async with asyncio.timeout(patience):
                            await context.write(frame)
                    continue
                async with asyncio.timeout(patience):
                    await context.write(self._frame(effect))
                if isinstance(effect, Dismiss):
                    return

    def _frame(self, effect: Effect) -> agent_pb2.ConnectResponse:
        settings = self._engine.settings
        match effect:
            case Welcome():
                verdicts = [
                    agent_pb2.Verdict(attempt_id=attempt_id, kind=int(kind))  # type: ignore[arg-type]
                    for attempt_id, kind in effect.verdicts
                ]
                return agent_pb2.ConnectResponse(
                    welcome=agent_pb2.Welcome(
                        epoch=effect.epoch,
                        protocol=PROTOCOL,
                        heartbeat_interval=settings.heartbeat_interval,
                        lease_ttl=settings.lease_ttl,
                        verdicts=verdicts,
                        acknowledged_report_seq=effect.acked_seq,
                    )
                )
            case LeaseGrant():
                return agent_pb2.ConnectResponse(
                    lease=agent_pb2.Lease(
                        counter=effect.counter,
                        ttl=settings.lease_ttl,
                        next_interval=settings.heartbeat_interval,
                    )
                )
            case Acknowledge():
                return agent_pb2.ConnectResponse(report_ack=agent_pb2.ReportAck(report_seq=effect.report_seq))
            case Directive():
                return agent_pb2.ConnectResponse(
                    node_directive=agent_pb2.NodeDirective(
                        schedulable=effect.schedulable, reason=effect.reason
                    )
                )
            case Dismiss():
                return _go_away(effect.reason, superseded=effect.superseded)
            case _:
                raise TypeError(f"not a frame: {type(effect).__name__}")

    async def _assignments(self, desired: Desired) -> AsyncIterator[agent_pb2.ConnectResponse]:
        """The desired set in frames of bounded size; those after the first continue at its revision."""
        frame = agent_pb2.Assignments(
            full=desired.full,
            base_revision=desired.base,
            revision=desired.revision,
            builds=[wire.encode_build(build) for build in desired.builds],
            removed=desired.removed,
        )
        used = 0
        for order in desired.attempts:
            assignment = await self._assignment(order)
            size = assignment.ByteSize()
            if used and used + size > FRAME_BYTES:
                yield agent_pb2.ConnectResponse(assignments=frame)
                frame = agent_pb2.Assignments(base_revision=desired.revision, revision=desired.revision)
                used = 0
            frame.attempts.append(assignment)
            used += size
        yield agent_pb2.ConnectResponse(assignments=frame)

    async def _assignment(self, order: AttemptOrder) -> agent_pb2.AttemptAssignment:
        if order.stop:
            return agent_pb2.AttemptAssignment(
                attempt_id=order.attempt_id,
                fence=order.fence,
                desired=agent_pb2.DESIRED_STATE_STOP,
                grace=self._engine.settings.stop_grace,
            )
        return agent_pb2.AttemptAssignment(
            attempt_id=order.attempt_id,
            fence=order.fence,
            desired=agent_pb2.DESIRED_STATE_RUN,
            spec=await self._spec(order),
        )

    async def _spec(self, order: AttemptOrder) -> agent_pb2.AttemptSpec:
        assert order.plan is not None
        task = order.plan.tasks[order.task_id]
        arguments = task.arguments if isinstance(task.arguments, PayloadRef) else None
        references = [reference for _, reference in order.inputs]
        if arguments is not None:
            references.append(arguments)
        inline = {reference.digest: reference.size for reference in references if reference.inline}
        data = await self._engine.payloads(inline) if inline else {}
        total = sum(reference.size for reference in references if reference.inline)
        if total > SPEC_INLINE:
            for content in data.values():
                await self._objects.put_bytes(content)
            data = {}
        token = self._tokens.issue(order.run_id, order.run_as)
        variables = wire.environment(
            order, token=token, address=self._settings.people_address, domain=self._settings.domain
        )
        definition = order.plan.definition
        spec = agent_pb2.AttemptSpec(
            run_id=order.run_id,
            task_id=order.task_id,
            task_name=task.name,
            entrypoint=task.entrypoint,
            image_key=order.plan.image_key,
            image=wire.encode_recipe(definition.recipe),
            bundle=wire.encode_bundle(definition.bundle),
            resources=wire.encode_resources(task.resources),
            run_token=token,
        )
        for name, value in variables.items():
            spec.env.add(name=name, value=value)
        if arguments is not None:
            spec.arguments.CopyFrom(wire.encode_payload(arguments, _at_hand(arguments, data)))
        for task_id, reference in order.inputs:
            payload = wire.encode_payload(reference, _at_hand(reference, data))
            spec.inputs.add(task_id=task_id, result=payload)
        return spec


def _at_hand(reference: PayloadRef, data: dict[str, bytes]) -> bytes | None:
    return data.get(reference.digest) if reference.inline else None


def _go_away(reason: str, *, superseded: bool) -> agent_pb2.ConnectResponse:
    return agent_pb2.ConnectResponse(
        go_away=agent_pb2.GoAway(reason=reason, reconnect_within=RECONNECT_WITHIN, superseded=superseded)
    )
