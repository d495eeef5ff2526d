"""The agent's connection to one keeper."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from opentailr_agent.runtimes.keeper_files import LENGTH, MAX_FRAME, Identity, Message, pack

CONNECT_SECONDS = 10.0

logger = logging.getLogger(__name__)


class KeeperGone(ConnectionError):
    """The keeper ended, or ends now; what was not accepted was not started."""


class KeeperLink:
    """Speaks with a living keeper and notices its end at once.

    `on_message` gets what the keeper tells, in order; `on_end` is awaited once
    when the keeper is dead or has let go of its folder for good.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        on_message: Callable[[KeeperLink, Message], None],
        on_end: Callable[[KeeperLink], Awaitable[None]],
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.image_key = identity.image_key
        self.live: set[str] = set()
        """Attempts that it accepted and has not reported as ended."""
        self.dead = asyncio.Event()
        """Set when the process of the keeper is gone."""
        self.usable = True
        """False from the moment that its connection ended."""
        self._on_message = on_message
        self._on_end = on_end
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._pidfd = -1

    async def open(self) -> Message:
        """Connects and returns the keeper's welcome: what runs and what has ended.

        Raises KeeperGone when nothing answers.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._let_go()
            raise KeeperGone(f"the keeper in {self.folder} does not answer: {error}") from error

    @property
    def reading(self) -> asyncio.Task[None] | None:
        """The task that passes messages on; done when the end of the keeper is settled."""
        return self._task

    def start_reading(self) -> None:
        """Begins to pass messages on."""
        self._task = asyncio.create_task(self._read(), name=f"keeper {self.identity.pid}")

    async def _connect(self) -> Message:
        loop = asyncio.get_running_loop()
        if self._pidfd < 0:
            self._pidfd = os.pidfd_open(self.identity.pid)
            loop.add_reader(self._pidfd, self._on_death)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        directory = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            await loop.sock_connect(connection, f"/proc/self/fd/{directory}/socket")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(directory)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        self._writer.write(pack({"op": "hello"}))
        return await self._next()

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.dead.set()

    async def _next(self) -> Message:
        assert self._reader is not None
        (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        if size > MAX_FRAME:
            raise ConnectionError(f"the keeper sent a message of {size} bytes")
        message: Message = json.loads(await self._reader.readexactly(size))
        return message

    async def _read(self) -> None:
        try:
            while True:
                message = await self._next()
                if message["op"] in ("accepted", "refused"):
                    answer = self._answers.pop(message["id"], None)
                    if answer is not None and not answer.done():
                        answer.set_result(message)
                else:
                    self._on_message(self, message)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except (ValueError, KeyError, TypeError):
            logger.exception("the keeper %d sent what is no message; connecting again", self.identity.pid)
        finally:
            self.usable = False
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(KeeperGone(f"the keeper {self.identity.pid} ended"))
            self._answers.clear()
        await self._on_end(self)

    async def start(self, order: Message) -> Message:
        """Hands an order over; returns the keeper's answer, `accepted` or `refused`."""
        if not self.usable:
            raise KeeperGone(f"the keeper {self.identity.pid} ended")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[order["id"]] = answer
        self.tell({"op": "start", "order": order})
        return await answer

    def tell(self, message: Message) -> None:
        """Sends a message; to a dead keeper it is lost, and its end is told by `on_end`."""
        if self._writer is not None and self.usable:
            self._writer.write(pack(message))

    async def close(self) -> None:
        """Lets go of the connection; the keeper goes on."""
        self.usable = False
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._let_go()

    def _let_go(self) -> None:
        self.usable = False
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
