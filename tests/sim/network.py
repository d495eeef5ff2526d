"""The network between agents and the control plane: gRPC's bidirectional streams in memory.

Every message is serialised and parsed again. A link (one per agent's machine) delays, refuses, goes silent
in one or both directions, or is slow; order is kept within a stream only. Writers meet a bounded window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from opentailr_controlplane.core.errors import CoreError
from opentailr_controlplane.services.interceptor import status_of

from .loop import Process, SimLoop

UP, DOWN = 0, 1
CLIENT_PATIENCE: Final = 30.0
SERVER_PATIENCE: Final = 50.0
"""Seconds of silence after which keepalive ends a stream, on either side."""

Observer = Callable[[int, str, str, Any], None]
"""Told of each delivered message: direction, agent, method, message."""


class Link:
    """The way between one machine and the control plane."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.blocked = [False, False]
        self.cut = False
        self.delay = 0.001
        self.jitter = 0.002
        self.per_byte = 0.0
        """Seconds per byte, for a slow reader."""
        self.streams: list[Stream] = []
        self._blocks = 0

    @property
    def silent(self) -> bool:
        """True when nobody can get an answer."""
        return self.cut or self.blocked[UP] or self.blocked[DOWN]

    def hop(self) -> float:
        """Seconds that a message needs now."""
        return self.delay + self.jitter * self.network.loop.chance.random()

    def block(self, *directions: int) -> None:
        """What is sent in these directions does not arrive, and nobody is told."""
        for direction in directions:
            self.blocked[direction] = True
        self._blocks += 1
        for patience, server in ((CLIENT_PATIENCE, False), (SERVER_PATIENCE, True)):
            self.network.loop.world_call(patience, self._lose_patience, self._blocks, server)

    def unblock(self) -> None:
        """Everything that was held arrives."""
        self.blocked = [False, False]
        self._blocks += 1
        for stream in list(self.streams):
            for pipe in stream.pipes:
                pipe.release()

    def reset(self, stream: Stream | None = None) -> None:
        """Connections are closed under both sides."""
        for one in [stream] if stream is not None else list(self.streams):
            one.break_client()
            one.break_server()

    def _lose_patience(self, block: int, server: bool) -> None:
        if block == self._blocks:
            for stream in list(self.streams):
                (stream.break_server if server else stream.break_client)()


class Pipe:
    """One direction of one stream."""

    def __init__(self, link: Link, direction: int) -> None:
        self._link = link
        self._loop = link.network.loop
        self._direction = direction
        self._last = 0.0
        self._travelling: deque[tuple[str, Any]] = deque()
        self._held: list[tuple[str, Any]] = []
        self._buffer: deque[tuple[str, Any]] = deque()
        self._weight = 0
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self.broken = False

    async def send(self, data: bytes) -> None:
        """Waits for room, then lets the message travel."""
        while self._weight >= self._link.network.window and not self.broken:
            future = self._loop.create_future()
            self._writers.append(future)
            await future
        self._weight += len(data) + 64
        self.put("data", data, len(data))

    def put(self, kind: str, value: Any, size: int = 0) -> None:
        """Lets something travel without waiting."""
        due = max(self._last, self._loop.now + self._link.hop() + size * self._link.per_byte)
        self._last = due + 1e-6
        self._travelling.append((kind, value))
        self._loop.world_call(due - self._loop.now, self._arrive)

    def _arrive(self) -> None:
        # The loop may run arrivals of one moment in any order; what arrives is in the order of sending.
        item = self._travelling.popleft()
        if self._link.blocked[self._direction] or self._held:
            self._held.append(item)
            return
        self._buffer.append(item)
        self._wake()

    def release(self) -> None:
        """What was held arrives now."""
        held, self._held = self._held, []
        self._buffer.extend(held)
        if held:
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def receive(self) -> tuple[str, Any]:
        """The next item, in order; `("broken", None)` for ever once the pipe is broken and empty."""
        while not self._buffer:
            if self.broken:
                return "broken", None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        kind, value = self._buffer.popleft()
        if kind == "data":
            self._weight -= len(value) + 64
            self._let_write()
        return kind, value

    def _let_write(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def snap(self, *, drop: bool) -> None:
        """Nothing arrives any more; with `drop` not even what has arrived is read."""
        self.broken = True
        if drop:
            self._buffer.clear()
        self._held.clear()
        self._wake()
        self._let_write()


class Stream:
    """One RPC: two pipes, and who is at their ends."""

    def __init__(self, link: Link, method: Method, client: Process) -> None:
        self.link = link
        self.method = method
        self.client = client
        self.server: Process | None = None
        self.up, self.down = Pipe(link, UP), Pipe(link, DOWN)
        self.pipes = (self.up, self.down)
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.call: Call | None = None
        self.handler: asyncio.Task[None] | None = None
        self.server_over = False
        link.streams.append(self)

    def break_client(self) -> None:
        """The client finds its connection closed."""
        if self.call is not None:
            self.call.lose(grpc.StatusCode.UNAVAILABLE, "the connection is gone")

    def break_server(self) -> None:
        """The server finds the connection closed: the handler is cancelled."""
        self.server_over = True
        self.up.snap(drop=True)
        self.down.snap(drop=False)
        if self.server is not None and self.handler is not None:
            self.link.network.loop.call_in(self.server, self.handler.cancel)
        self.close()

    def close(self) -> None:
        """Forgets the stream once both ends are through with it."""
        if self.server_over and (self.call is None or self.call.over) and self in self.link.streams:
            self.link.streams.remove(self)

    def client_died(self) -> None:
        """The client's process is gone: its system closes the connection, if that can be heard."""
        if self.link.blocked[UP]:
            self.up.put("gone", None)
        else:
            self.link.network.loop.world_call(self.link.hop(), self.break_server)

    def server_died(self) -> None:
        """The server's process is gone."""
        self.server_over = True
        if self.link.blocked[DOWN]:
            self.down.put("end", (grpc.StatusCode.UNAVAILABLE, "connection reset"))
        else:
            self.link.network.loop.world_call(self.link.hop(), self.break_client)


class Method:
    """How messages of one RPC are made and read."""

    def __init__(self, path: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        self.path = path
        self.encode = encode
        self.decode = decode
        self.name = path.rpartition("/")[2]


class Call:
    """The client's side, with the manners of `grpc.aio`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._cancelled = False
        stream.call = self

    @property
    def over(self) -> bool:
        return self._code is not None

    def lose(self, code: grpc.StatusCode, details: str) -> None:
        """The connection broke."""
        if self._code is None:
            self._code, self._details = code, details
            chance = self._stream.link.network.loop.chance
            self._stream.down.snap(drop=chance.random() < 0.5)
            self._stream.up.snap(drop=False)
            self._stream.close()

    async def read(self) -> Any:
        try:
            kind, value = await self._stream.down.receive()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if kind == "data":
            message = self._stream.method.decode(value)
            self._stream.link.network.observe(DOWN, self._stream, message)
            return message
        if kind == "end" and self._code is None:
            self._code, self._details = value
            self._stream.close()
        self._raise()
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        if self._code is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        try:
            await self._stream.up.send(self._stream.method.encode(message))
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._code is not None:
            self._raise()

    def _raise(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._code is not None and self._code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(self._code, grpc.aio.Metadata(), grpc.aio.Metadata(), self._details)

    def cancel(self) -> bool:
        if self._code is not None:
            return False
        self._code, self._cancelled = grpc.StatusCode.CANCELLED, True
        self._stream.up.put("gone", None)
        self._stream.down.snap(drop=True)
        return True

    async def done_writing(self) -> None:
        if self._code is None:
            self._stream.up.put("eof", None)

    async def code(self) -> grpc.StatusCode:
        return self._code or grpc.StatusCode.UNKNOWN

    async def details(self) -> str:
        return self._details

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    trailing_metadata = initial_metadata


class Channel:
    """What a stub is made with, for one process of one machine."""

    def __init__(self, link: Link, process: Process) -> None:
        self._link = link
        self._process = process

    def stream_stream(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: Any,
    ) -> Callable[..., Call]:
        method = Method(path, request_serializer, response_deserializer)

        def call(metadata: Sequence[tuple[str, str]] = ()) -> Call:
            stream = Stream(self._link, method, self._process)
            stream.metadata = tuple(metadata)
            made = Call(stream)
            self._link.network.dial(stream)
            return made

        return call

    unary_stream = unary_unary = stream_unary = stream_stream


class Context:
    """What a handler is given, with the manners of `grpc.aio`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, message: Any) -> None:
        if self._stream.server_over:
            raise grpc.aio.UsageError("RPC already finished.")
        await self._stream.down.send(message.SerializeToString())

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        self.end(code, details)
        raise grpc.aio.AbortError("Locally aborted.")

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        if not self._stream.server_over:
            self._stream.server_over = True
            self._stream.down.put("end", (code, details))

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._stream.metadata


class Network:
    """All links, and the server behind them.

    Args:
        window: Bytes that may be under way in one direction of a stream before its writer has to wait.
    """

    def __init__(self, loop: SimLoop, observer: Observer, *, window: int) -> None:
        self.loop = loop
        self.window = window
        self._observer = observer
        self.links: dict[str, Link] = {}
        self.server: Process | None = None
        """The process that listens, if one does."""
        self.handlers: dict[str, tuple[Callable[[bytes], Any], Callable[..., Any], bool]] = {}
        """By method: how requests are read, the handler, whether it yields its responses."""
        self.defects: list[str] = []

    def link(self, name: str) -> Link:
        self.links[name] = Link(self, name)
        return self.links[name]

    def observe(self, direction: int, stream: Stream, message: Any) -> None:
        self._observer(direction, stream.link.name, stream.method.name, message)

    def dial(self, stream: Stream) -> None:
        """A connection is opened, or fails, later."""
        self.loop.world_call(stream.link.hop(), self._connect, stream, self.loop.now)

    def _connect(self, stream: Stream, began: float) -> None:
        call = stream.call
        assert call is not None
        if call.over or not stream.client.alive:
            stream.server_over = True
            stream.close()
        elif stream.link.cut or (not stream.link.silent and self.server is None):
            stream.server_over = True
            call.lose(grpc.StatusCode.UNAVAILABLE, "connection refused")
        elif stream.link.silent:
            if self.loop.now - began > 20:
                stream.server_over = True
                call.lose(grpc.StatusCode.UNAVAILABLE, "no connection")
            else:
                self.loop.world_call(1.0, self._connect, stream, began)
        else:
            assert self.server is not None
            stream.server = self.server
            self.loop.call_in(self.server, self._accept, stream, self.server)

    def _accept(self, stream: Stream, server: Process) -> None:
        if stream.server_over or stream.link.network.server is not server:
            return
        stream.handler = self.loop.create_task(self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        decode, handler, yields = self.handlers[stream.method.path]
        context = Context(stream)
        requests = self._requests(stream, decode)
        try:
            if yields:
                responses = handler(requests, context)
                try:
                    async for response in responses:
                        await context.write(response)
                finally:
                    await responses.aclose()
            else:
                await handler(requests, context)
        except grpc.aio.AbortError:
            pass
        except grpc.aio.UsageError:
            pass
        except CoreError as error:
            context.end(status_of(error), error.message)
        except Exception as error:
            self.defects.append(f"{stream.method.name}: {error!r}")
            context.end(grpc.StatusCode.UNKNOWN, repr(error))
        else:
            context.end(grpc.StatusCode.OK)
        finally:
            stream.server_over = True
            stream.close()

    async def _requests(self, stream: Stream, decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while True:
            kind, value = await stream.up.receive()
            if kind == "data":
                message = decode(value)
                self.observe(UP, stream, message)
                yield message
            elif kind == "eof":
                return
            else:
                # The client has gone: the handler is cancelled, as the library does it.
                self.loop.world_call(0.0, stream.break_server)
                await self.loop.create_future()

    def died(self, process: Process) -> None:
        """All connections of a process end with it."""
        if self.server is process:
            self.server = None
        for link in self.links.values():
            for stream in list(link.streams):
                if stream.client is process:
                    if stream.call is not None and not stream.call.over:
                        stream.call._code = grpc.StatusCode.CANCELLED
                    stream.client_died()
                elif stream.server is process:
                    stream.server_died()


async def round_trip(link: Link, serving: Callable[[], bool], *, within: float) -> bool:
    """Waits until a small request to the control plane would be answered; False after `within` seconds."""
    loop = link.network.loop
    began = loop.now
    await asyncio.sleep(link.hop())
    while link.silent or not serving():
        if loop.now - began > within:
            return False
        await asyncio.sleep(0.25)
    await asyncio.sleep(link.hop())
    return True


__all__ = ["DOWN", "UP", "Awaitable", "Channel", "Link", "Network", "Stream", "round_trip"]
