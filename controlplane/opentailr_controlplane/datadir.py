"""The data directory: one owner at a time, one format, ports that stay the same.

VERSION       number of the format of this directory
lock          held by the process that owns it; its content is that process's id
admin.token   agent.token   run.key      secrets, mode 0600
ports.json    the ports used when any free one was asked for
state.db      objects/   logs/
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from .config import ConfigError
from .files import write_whole

FORMAT = 1
"""Format of the directory that this release writes; raised when an older release could not go on with it."""


class DirectoryInUse(Exception):
    """Another process owns the data directory; the text names its id."""


class NewerFormat(Exception):
    """The directory was written by a newer release."""


class DataDirectory:
    """Owns the directory from construction to `release`.

    Raises:
        ConfigError: It cannot be made or written.
        DirectoryInUse: Another process owns it.
        NewerFormat: It was written by a newer release; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A directory that was there keeps its mode: it may be shared, and every file that is made
            # in it is its owner's alone.
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"--data-dir {path}: {error.strerror}; give a directory that you can write to"
            ) from None
        try:
            self._own()
            self._check_format()
        except BaseException:
            os.close(self._lock)
            raise

    def release(self) -> None:
        """Gives the directory up; another process may own it from now on."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _own(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise DirectoryInUse(
                f"the data directory {self.path} is in use by process {holder}; "
                "stop it, or give another --data-dir"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_format(self) -> None:
        file = self.path / "VERSION"
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            write_whole(file, f"{FORMAT}\n".encode(), mode=0o644)
            return
        if not text.isascii() or not text.isdigit():
            raise ConfigError(f"{file} holds {text[:40]!r}, not a number; this is no data directory of ours")
        if int(text) > FORMAT:
            raise NewerFormat(
                f"the data directory {self.path} has format {text}, this release knows up to {FORMAT}; "
                "install the newer release again, or give another --data-dir"
            )

    def kept_ports(self) -> dict[str, int]:
        """The ports used last time, by name; empty when there are none or they cannot be read."""
        try:
            kept = json.loads((self.path / "ports.json").read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(kept, dict):
            return {}
        return {str(name): port for name, port in kept.items() if isinstance(port, int) and 0 < port < 65536}

    def keep_ports(self, ports: dict[str, int]) -> None:
        """Remembers the ports for the next start."""
        if ports != self.kept_ports():
            write_whole(self.path / "ports.json", json.dumps(ports).encode() + b"\n", mode=0o644)


def bind(host: str, port: int) -> socket.socket | None:
    """A socket bound to the port, or None when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        return None
    return bound
