"""A TCP proxy between agent and control plane that breaks connections on command, per direction.

It runs in a thread of its own; all methods may be called from any thread. A direction that is held is
a network that delivers nothing: bytes wait, none is lost or changed, so what follows the healing is what
TCP itself would do after a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

UP: Final = "up"
"""From the agent to the control plane."""
DOWN: Final = "down"
"""From the control plane to the agent."""
DIRECTIONS: Final = (UP, DOWN)

_CHUNK: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: the socket ends with RST instead of FIN."""

T = TypeVar("T")


@dataclass
class _Lane:
    """What one direction does with bytes at present."""

    rate: float = 0.0
    """Bytes per second of each connection; 0 means no bound."""
    delay: float = 0.0
    """Seconds that each chunk is kept."""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    carried: int = 0
    """Bytes so far."""


class Proxy:
    """Listens on a free port of the loopback interface and connects to `host:port`.

    Args:
        host: Where the control plane is.
        port: Its port for agents.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        # Bound but never listening: keeps the port ours while connections are refused.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}")
        self._thread.start()
        self._lanes = {direction: _Lane() for direction in DIRECTIONS}
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.accepted = 0
        """Connections so far."""
        self._call(self._heal())

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """`host:port` for the agent's `--address`."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections that exist now."""
        return len(self._links)

    def carried(self, direction: str) -> int:
        """Bytes that went in a direction so far."""
        return self._lanes[direction].carried

    def cut(self, *, reset: bool = True) -> int:
        """Ends all present connections on both sides, by RST or by FIN; how many there were."""
        return self._call(self._cut(reset))

    def refuse(self) -> None:
        """Cuts what there is by RST and refuses new connections until `heal`."""
        self._call(self._refuse())

    def hold(self, *directions: str) -> None:
        """Delivers nothing in the directions, both unless named, until `heal`; connections stay open."""
        self._call(self._hold(directions or DIRECTIONS))

    def throttle(self, rate: float, *directions: str) -> None:
        """Lets each connection carry at most `rate` bytes per second, until `heal`."""
        self._call(self._shape("rate", rate, directions or DIRECTIONS))

    def delay(self, seconds: float, *directions: str) -> None:
        """Keeps each chunk for some seconds, until `heal`."""
        self._call(self._shape("delay", seconds, directions or DIRECTIONS))

    def heal(self) -> None:
        """Ends all faults; held bytes are delivered, connections are accepted."""
        self._call(self._heal())

    def close(self) -> None:
        """Ends all connections and the thread; may be called again."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _heal(self) -> None:
        for lane in self._lanes.values():
            lane.rate = lane.delay = 0.0
            lane.flowing.set()
        if self._server is None:
            listening = _bound(self.port)
            self._server = await asyncio.start_server(self._accept, sock=listening, limit=_CHUNK)

    async def _hold(self, directions: tuple[str, ...]) -> None:
        for direction in directions:
            self._lanes[direction].flowing.clear()

    async def _shape(self, what: str, value: float, directions: tuple[str, ...]) -> None:
        for direction in directions:
            setattr(self._lanes[direction], what, value)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut(True)

    async def _cut(self, reset: bool) -> int:
        links = list(self._links)
        for link in links:
            link.cut(reset=reset)
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        return len(links)

    async def _end(self) -> None:
        await self._refuse()
        # Closed transports take one more round of the loop to let go of their sockets.
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self._target, self._lanes, reader, writer)
        link.task = asyncio.current_task()
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One connection of an agent and the one that it leads to."""

    task: Any = None

    def __init__(
        self,
        target: tuple[str, int],
        lanes: dict[str, _Lane],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._target = target
        self._lanes = lanes
        self._reader = reader
        self._writers = [writer]
        self._pumps: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Carries until both sides have ended or `cut`."""
        near = self._writers[0]
        try:
            try:
                reader, far = await asyncio.open_connection(*self._target, limit=_CHUNK)
            except OSError:
                # Nobody listens there: the agent sees what it would see without a proxy, an end.
                _end(near, reset=True)
                return
            self._writers.append(far)
            self._pumps = [
                asyncio.create_task(self._pump(self._lanes[UP], self._reader, far)),
                asyncio.create_task(self._pump(self._lanes[DOWN], reader, near)),
            ]
            await asyncio.gather(*self._pumps)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            for writer in self._writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def cut(self, *, reset: bool) -> None:
        """Ends both sides now."""
        for writer in self._writers:
            _end(writer, reset=reset)
        if self.task is not None:
            self.task.cancel()

    async def _pump(self, lane: _Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await lane.flowing.wait()
            data = await reader.read(_CHUNK)
            if lane.delay:
                await asyncio.sleep(lane.delay)
            if not data:
                await lane.flowing.wait()
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            while data:
                # What was read before a fault is not delivered during it either.
                await lane.flowing.wait()
                size = max(1, int(lane.rate / 10)) if lane.rate else _CHUNK
                piece, data = data[:size], data[size:]
                writer.write(piece)
                lane.carried += len(piece)
                await writer.drain()
                if lane.rate:
                    await asyncio.sleep(len(piece) / lane.rate)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    handle = writer.get_extra_info("socket")
    if reset and handle is not None:
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
