"""The one stream to the control plane: dialled out, greeted, kept alive, dialled again.

    IDLE -> CONNECTING -> GREETING -> RECONCILING -> ACTIVE -> (cut) -> BACKOFF -> CONNECTING

The session carries frames and decides nothing. It measures its lease on the monotonic clock from
the moment a heartbeat was *sent*, so that the agent's view of it always ends before the control
plane's. A lease that ends while the stream looks open means that one direction is dead: the stream
is dropped and dialled again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

# The C core reports each broken connection on stderr by itself; our log lines say it better.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio
import structlog

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1.agent_pb2_grpc import AgentServiceStub
from opentailr_agent.backoff import Backoff

if TYPE_CHECKING:
    from datatailr.v1.agent_pb2_grpc import AgentServiceAsyncStub

    Call = grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]

PROTOCOL: Final = 1
"""The only version of the protocol that this agent speaks."""
CHANNEL_OPTIONS: Final[Mapping[str, int]] = {
    "grpc.max_receive_message_length": 64 << 20,
    "grpc.max_send_message_length": 8 << 20,
    # A peer that vanished without a word is noticed after some 30 s.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 0,
    # We pace our own repetitions; the channel should not add a long pause of its own.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 3_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.enable_http_proxy": 0,
}
NEAR_OPTIONS: Final[Mapping[str, int]] = {"grpc.max_reconnect_backoff_ms": 200}
"""What differs where the control plane is on this machine."""
_CALM: Final = 30.0
"""Seconds in ACTIVE after which the next pause is short again."""
_WELCOME: Final = 15.0
"""Seconds to wait for the answer to Hello."""
_SLOW_FIRST: Final = 4.0
_SLOW_LONGEST: Final = 30.0
"""Pauses, seconds, where repeating at once would not help: wrong token, other protocol."""
_REFUSALS: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "the control plane does not accept this token; check --token-file",
    grpc.StatusCode.PERMISSION_DENIED: "the token is not one for agents; check --token-file",
    grpc.StatusCode.FAILED_PRECONDITION: "agent and control plane do not fit; upgrade the older one",
    grpc.StatusCode.UNIMPLEMENTED: "no control plane for agents answers there; check --address",
}


def is_loopback(address: str) -> bool:
    """True when `host:port` names this machine itself."""
    host = address.rpartition(":")[0].strip("[]")

    if host == "localhost":
        return True

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Listener(Protocol):
    """Who hears of the session; called in the event loop, must not block."""

    def hello(self, last_epoch: int) -> pb.Hello:
        """The greeting, put together for each session anew."""

    def heartbeat(self) -> pb.Heartbeat:
        """Present facts; the counter is filled in by the session."""

    def frame(self, frame: pb.ConnectResponse) -> None:
        """Welcome, assignments, acknowledgement or directive, in the order of their arrival."""

    def cut(self) -> None:
        """The session is over; what was sent and not acknowledged may have arrived or not."""


@dataclass(slots=True)
class Lease:
    """How long the control plane takes this agent for alive, by our monotonic clock."""

    ttl: float
    until: float

    def renew(self, sent_at: float, ttl: float) -> None:
        """An answer came to the heartbeat sent at `sent_at`; answers out of order never shorten it."""
        self.ttl = ttl
        self.until = max(self.until, sent_at + ttl)


class _Outbound:
    """What waits to be written: the newest of each mergeable frame, reports in order.

    Bounded: reports by the window of the outbox, everything else to one frame each.
    """

    def __init__(self) -> None:
        self._merged: dict[str, pb.ConnectRequest] = {}
        self._ordered: deque[pb.ConnectRequest] = deque()
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        """Everything was handed to the transport."""

    def put(self, frame: pb.ConnectRequest) -> None:
        kind = frame.WhichOneof("frame") or ""

        if kind in ("report", "bye"):
            self._ordered.append(frame)
        elif kind == "applied" and frame.applied.need_full:
            # Must not be overtaken by a later Applied of the same old revision.
            self._merged["full"] = frame
        else:
            self._merged[kind] = frame

        self.drained.clear()
        self.ready.set()

    def take(self) -> list[pb.ConnectRequest]:
        # Reports last: credit must not wait behind a long batch, and nothing follows Bye.
        frames = [*self._merged.values(), *self._ordered]
        self._merged.clear()
        self._ordered.clear()
        self.ready.clear()
        return frames


class Session:
    """Keeps a session for as long as it runs.

    Args:
        channel: Made with `CHANNEL_OPTIONS`; not closed here.
        metadata: Authentication of the stream.
        listener: Who puts frames together and hears them.
        draw: Source of numbers between 0 and 1, for jitter.
        backoff: Pauses after a cut; None means 0.1 s doubling to 8 s with full jitter.
        slow: Pauses after a refusal; None means 4 s doubling to 30 s.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Sequence[tuple[str, str]],
        listener: Listener,
        *,
        draw: Callable[[], float] = random.random,
        backoff: Backoff | None = None,
        slow: Backoff | None = None,
    ) -> None:
        self._stub: AgentServiceAsyncStub = AgentServiceStub(channel)  # type: ignore[assignment]
        self._metadata = tuple(metadata)
        self._listener = listener
        self._draw = draw
        self._backoff = backoff or Backoff(draw=draw)
        self._slow = slow or Backoff(first=_SLOW_FIRST, longest=_SLOW_LONGEST, draw=lambda: 0.5 + draw() / 2)
        self._outbound = _Outbound()
        self._sent_at: dict[int, float] = {}
        self._interval = 5.0
        self._active_since = 0.0
        self._call: Call | None = None
        self._over = asyncio.Event()
        self._leaving = False
        self._log = structlog.get_logger("session")
        self.epoch = 0
        """Of the present or last session; 0 before the first."""
        self.active = False
        self.lease = Lease(15.0, 0.0)

    @property
    def leased(self) -> bool:
        """Whether the control plane still takes this agent for alive, also while the stream is cut."""
        return asyncio.get_running_loop().time() <= self.lease.until

    def send(self, frame: pb.ConnectRequest) -> None:
        """Queues a frame of the present session; dropped when there is none, because the next
        session begins with everything that matters."""
        if self.active:
            self._outbound.put(frame)

    async def run(self) -> None:
        """Connects again and again until cancelled, or until after `bye`."""
        loop = asyncio.get_running_loop()
        told = ""

        while not self._leaving:
            pause: float | None = None
            self._active_since = 0.0

            try:
                pause = await self._once()
                told = ""
            except grpc.aio.AioRpcError as error:
                refusal = _REFUSALS.get(error.code())
                words = refusal or "the control plane does not answer"

                # Once per trouble, not once per repetition.
                if words != told:
                    log = self._log.error if refusal else self._log.warning
                    log(words, status=error.code().name, details=error.details())
                    told = words

                if refusal:
                    pause = self._slow.next()
            except (_Dead, asyncio.InvalidStateError) as error:
                self._log.warning("session lost", reason=str(error) or "the stream was cut")
                told = ""
            finally:
                self.active = False
                self._listener.cut()

            if self._active_since:
                self._slow.reset()

                if loop.time() - self._active_since >= _CALM:
                    self._backoff.reset()

            await asyncio.sleep(max(self._backoff.next(), pause or 0.0))

    async def bye(self, *, attempts_keep_running: bool, timeout: float = 1.0) -> None:
        """Says that the agent ends, if there is a session, and waits until the control plane has
        closed the stream for its part: a frame under way would be lost with a cancelled stream."""
        call = self._call

        if call is None or not self.active:
            return

        self._leaving = True
        self._outbound.put(pb.ConnectRequest(bye=pb.Bye(attempts_keep_running=attempts_keep_running)))

        try:
            async with asyncio.timeout(timeout):
                await self._outbound.drained.wait()
                await call.done_writing()
                await self._over.wait()
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
            self._log.debug("the control plane did not close the session in time")

    async def _once(self) -> float | None:
        """One session from dial to end; returns a pause that the control plane asked for."""
        call = self._stub.Connect(metadata=self._metadata)
        tasks: list[asyncio.Task[float]] = []
        self._call = call
        self._over.clear()

        try:
            await self._greet(call)
            tasks = [
                asyncio.create_task(self._read(call)),
                asyncio.create_task(self._write(call)),
                asyncio.create_task(self._beat()),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # The reader knows the status of a stream that the writer only finds closed.
            ordered = sorted(done, key=tasks.index)
            results = [task.result() for task in ordered]
            return results[0]
        finally:
            self.active = False
            self._call = None
            self._over.set()
            call.cancel()

            for task in tasks:
                task.cancel()

            await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self, call: Call) -> None:
        self._outbound.take()
        self._sent_at.clear()
        began = asyncio.get_running_loop().time()
        await call.write(pb.ConnectRequest(hello=self._listener.hello(self.epoch)))

        try:
            async with asyncio.timeout(_WELCOME):
                answer = await call.read()
        except TimeoutError:
            raise _Dead("no welcome came") from None

        if not isinstance(answer, pb.ConnectResponse):
            await _raise_status(call, "the control plane ended the stream")

        if answer.WhichOneof("frame") == "go_away":
            raise _Dead(f"sent away: {answer.go_away.reason}")

        if answer.WhichOneof("frame") != "welcome":
            raise _Dead("the first frame was no welcome")

        welcome = answer.welcome

        if welcome.protocol != PROTOCOL:
            self._log.error(
                "agent and control plane do not fit; upgrade the older one",
                chosen=welcome.protocol,
                spoken=PROTOCOL,
            )
            await asyncio.sleep(self._slow.next())
            raise _Dead(f"protocol {welcome.protocol} is not spoken here")

        self.epoch = welcome.epoch
        self._interval = max(0.05, welcome.heartbeat_interval / 1_000_000)
        ttl = welcome.lease_ttl / 1_000_000
        self.lease = Lease(ttl, began + ttl)
        self.active = True
        self._active_since = asyncio.get_running_loop().time()
        self._log.info("session opened", epoch=self.epoch, heartbeat=self._interval, lease=ttl)
        self._listener.frame(answer)

    async def _read(self, call: Call) -> float:
        while True:
            frame = await call.read()

            if not isinstance(frame, pb.ConnectResponse):
                await _raise_status(call, "the control plane ended the stream")

            kind = frame.WhichOneof("frame")

            if kind == "lease":
                self._renew(frame.lease)
            elif kind == "go_away":
                return self._sent_away(frame.go_away)
            elif kind is not None and kind != "welcome":
                self._listener.frame(frame)

    async def _write(self, call: Call) -> NoReturn:
        while True:
            await self._outbound.ready.wait()

            for frame in self._outbound.take():
                await call.write(frame)

            if not self._outbound.ready.is_set():
                self._outbound.drained.set()

    async def _beat(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        counter = 0

        while True:
            now = loop.time()

            if now > self.lease.until:
                raise _Dead("no answer to heartbeats within the lease")

            counter += 1
            heartbeat = self._listener.heartbeat()
            heartbeat.counter = counter
            # Before it is written: the lease must end here no later than there.
            self._sent_at[counter] = now
            self._sent_at.pop(counter - 100, None)
            self._outbound.put(pb.ConnectRequest(heartbeat=heartbeat))
            wait = self._interval * (0.9 + 0.2 * self._draw())
            await asyncio.sleep(min(wait, max(0.01, self.lease.until - loop.time() + 0.01)))

    def _renew(self, lease: pb.Lease) -> None:
        sent_at = self._sent_at.pop(lease.counter, None)

        if lease.next_interval > 0:
            self._interval = max(0.05, lease.next_interval / 1_000_000)

        if sent_at is not None and lease.ttl > 0:
            self.lease.renew(sent_at, lease.ttl / 1_000_000)

    def _sent_away(self, frame: pb.GoAway) -> float:
        self._log.warning("sent away", reason=frame.reason, superseded=frame.superseded)
        within = frame.reconnect_within / 1_000_000 * self._draw()
        return max(within, self._slow.next()) if frame.superseded else within


class _Dead(Exception):
    """The session is over for a reason that is no status of the stream."""


async def _raise_status(call: Call, words: str) -> NoReturn:
    """Raises the status of a stream that was ended by the other side."""
    code = await call.code()

    if code is grpc.StatusCode.OK:
        raise _Dead(words)

    raise grpc.aio.AioRpcError(
        code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )
