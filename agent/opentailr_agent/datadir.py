"""The agent's data directory: one process at a time, never written by an older version.

VERSION        layout of the directory
lock           held while an agent runs; holds its pid
agent_id       permanent id
journal.db     what must not be forgotten
attempts/  environments/  bundles/  objects/  builds/  platform/  cache/  runtime/
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, TextIO

LAYOUT: Final = 1


class DataDirError(RuntimeError):
    """The directory cannot be used."""


class DataDirBusyError(DataDirError):
    """Another agent uses it."""


class DataDirNewerError(DataDirError):
    """A newer version of the agent wrote it."""


class DataDir:
    """The directory, locked until `close`.

    Args:
        path: Made with mode 0700 if needed.

    Raises:
        DataDirBusyError: Another process holds the lock.
        DataDirNewerError: It has a layout that this version does not know.
        DataDirError: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._take_lock()
        except OSError as error:
            raise DataDirError(f"data directory {path} cannot be used: {error}") from error

        try:
            self._check_layout()
        except BaseException:
            self.close()
            raise

    def folder(self, name: str) -> Path:
        """A folder inside, made if needed."""
        made = self.path / name
        made.mkdir(exist_ok=True)
        return made

    def close(self) -> None:
        """Gives the lock back; harmless to repeat."""
        self._lock.close()

    def _take_lock(self) -> TextIO:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = os.fdopen(descriptor, "r+", encoding="ascii")

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise DataDirBusyError(
                f"data directory {self.path} is in use by another agent (pid {holder}); "
                "end it or choose another --data-dir"
            ) from None

        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def _check_layout(self) -> None:
        path = self.path / "VERSION"

        if not path.exists():
            path.write_text(f"{LAYOUT}\n", encoding="ascii")
            return

        text = path.read_text(encoding="utf-8", errors="replace").strip()

        if not text.isdigit():
            raise DataDirError(f"{path} holds {text!r}, not the number of a layout; is this an agent's data?")

        if int(text) > LAYOUT:
            raise DataDirNewerError(
                f"data directory {self.path} has layout {text}, this agent knows {LAYOUT}: use a newer agent"
            )
