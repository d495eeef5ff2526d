"""The keeper's socket and the agents connected to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

from . import wire
from .loop import Loop, guarded

SOCKET = "socket"
MAX_BACKLOG = 64 << 20
"""Bytes that may wait for an agent that does not read; it is cut off then and asks again later."""


def listen(folder: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A socket's path must be short, a data directory need not be: the descriptor is the short way.
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    finally:
        os.close(directory)
    listener.listen(64)
    listener.setblocking(False)
    return listener


class Client:
    """One connection of an agent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = wire.FrameReader()
        self.backlog = bytearray()
        self.blocked = False
        self.greeted = False
        """It said hello; before its welcome it is told nothing."""


class Server:
    """Takes messages from connected agents and sends them others, gathered once per pass of the loop."""

    def __init__(
        self, loop: Loop, listener: socket.socket, on_message: Callable[[Client, wire.Message], None]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._on_message = on_message
        self._clients: dict[int, Client] = {}
        loop.watch(listener.fileno(), self._accept)
        loop.after_pass.append(self.flush)

    def receive(self) -> bool:
        """Takes what has arrived from anyone; True if there was a message."""
        return any([self._receive(client) for client in list(self._clients.values())])  # noqa: C419 - all

    def close(self) -> None:
        """Takes no further connections and sends what is due."""
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self.flush()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        client = Client(connection)
        self._clients[connection.fileno()] = client
        self._loop.watch(connection.fileno(), partial(self._receive, client))

    def _receive(self, client: Client) -> bool:
        """Takes what has arrived; True if there was a message."""
        used = False
        while client.connection.fileno() >= 0:
            try:
                data = client.connection.recv(1 << 18)
                messages = client.reader.feed(data)
            except BlockingIOError:
                break
            except (OSError, wire.FrameError):
                self._drop(client)
                break
            if not data:
                self._drop(client)
                break
            for message in messages:
                used = True
                guarded(partial(self._on_message, client, message))
        return used

    def _drop(self, client: Client) -> None:
        descriptor = client.connection.fileno()
        if descriptor >= 0:
            self._loop.forget(descriptor)
            self._clients.pop(descriptor, None)
            client.connection.close()

    def tell(self, client: Client, message: wire.Message) -> None:
        client.backlog += wire.pack(message)

    def tell_all(self, message: wire.Message) -> None:
        data = wire.pack(message)
        for client in self._clients.values():
            if client.greeted:
                client.backlog += data

    def flush(self) -> None:
        """Sends what gathered during this pass, in one piece per connection."""
        for client in list(self._clients.values()):
            if not client.backlog:
                continue
            try:
                sent = client.connection.send(client.backlog)
                del client.backlog[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self._drop(client)
                continue
            if len(client.backlog) > MAX_BACKLOG:
                self._drop(client)
            elif bool(client.backlog) != client.blocked:
                client.blocked = bool(client.backlog)
                descriptor = client.connection.fileno()
                self._loop.watch(descriptor, partial(self._receive, client), writing=client.blocked)
