"""Starting interpreters, and the keeper's hold on one that serves it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping

from . import procs, wire
from .loop import Loop

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")


def spawn(
    python: str,
    arguments: list[str],
    *,
    environment: Mapping[str, str],
    inherited: list[int],
    streams: tuple[int, int],
) -> int:
    """Starts an interpreter on the runner in a session of its own; returns its pid.

    All descriptors are closed in it but the streams and `inherited`.
    """
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(
            python,
            [python, "-u", BOOT, *arguments],
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, streams[0], 1),
                (os.POSIX_SPAWN_DUP2, streams[1], 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP],
        )
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)


class Process:
    """A prepared interpreter: its control socket and its end."""

    def __init__(
        self, loop: Loop, on_message: Callable[[wire.Message], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        self._pidfd = -1
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self.pid = 0
        self.ended = False
        self._control, self.far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        loop.watch(self._control.fileno(), self._ready)

    def know(self, pid: int) -> None:
        """Learns the pid; from now on the end of the process is noticed at once."""
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            self._loop.later(0, self._end)
            return
        self._loop.watch(self._pidfd, self._end)

    def order(self, data: bytes, descriptors: list[int]) -> None:
        """Sends an order with descriptors, which are closed here afterwards."""
        self._unsent.append((data, descriptors))
        self._send()

    def close(self) -> None:
        """Lets the process go: it ends when its socket closes. May be called again."""
        if self.ended:
            # Whoever hears of the end lets go too, and has more to do after that.
            return
        self._loop.forget(self._control.fileno())
        self._control.close()
        self.far_end.close()
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        self.ended = True

    def kill(self) -> None:
        """Ends the process whatever it does."""
        if self.pid and not self.ended:
            procs.send(self.pid, signal.SIGKILL)

    def _send(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._control, [data], descriptors)
            except BlockingIOError:
                break
            except OSError:
                # The process is gone; its end will say so.
                pass
            self._unsent.popleft()
            _close_all(descriptors)
        self._loop.watch(self._control.fileno(), self._ready, writing=bool(self._unsent))

    def _ready(self) -> None:
        if self._unsent:
            self._send()
        if not self._receive():
            self._loop.forget(self._control.fileno())
            if self._pidfd < 0:
                self._loop.later(0, self._end)

    def _receive(self) -> bool:
        """Takes all messages; False at the end of the connection."""
        while not self.ended:
            try:
                data = self._control.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._on_message(json.loads(data))
        return True

    def _end(self) -> None:
        if not self.ended:
            # Orphans of the process are the keeper's children by now; what it sent before comes first.
            self._receive()
        if not self.ended:
            self.close()
            self._on_end()


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
