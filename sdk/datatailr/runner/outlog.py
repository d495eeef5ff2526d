"""The keeper's one log file: what it accepted and how each attempt ended.

Lines of JSON, appended without a sync: they survive the death of every process,
and after a crash of the machine the attempts are lost anyway. Read by an agent
only when the keeper is dead.

On a full disk nothing new is accepted. Outcomes are kept in memory, at most a few
for each attempt, and written in their order as soon as there is room; until then
they are lost only if the keeper dies before an agent has taken them.
"""

from __future__ import annotations

import json
import os
from collections import deque

from . import wire

TRIM_BYTES = 1 << 20
"""Size from which the log is emptied as soon as everything in it is acknowledged."""


class OutcomeLog:
    """Appends records; each write is one whole line, or leaves no trace."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._waiting: deque[bytes] = deque()
        self._error = 0

    @property
    def behind(self) -> bool:
        """Records wait for room on the disk; `catch_up` tries again."""
        return bool(self._waiting)

    def accepted(self, attempt: str, mark: str) -> None:
        """What is not in the log must not be started: its processes could not be found again.

        Raises OSError when it cannot be written.
        """
        if not self.catch_up():
            raise OSError(self._error, os.strerror(self._error))
        self._append(_line({"accepted": attempt, "mark": mark}))

    def outcome(self, outcome: wire.Message) -> None:
        """An outcome as far as it is known; a later record of the same attempt replaces it."""
        self._write({"outcome": outcome})

    def ended(self, attempt: str, outcome: wire.Message | None) -> None:
        """Everything of the attempt is gone; with its outcome unless that is in the log."""
        self._write({"ended": attempt} if outcome is None else {"ended": attempt, "outcome": outcome})

    def acknowledged(self, attempt: str, *, all_done: bool) -> None:
        """The agent has the outcome; with `all_done` nothing in the log matters any more."""
        if all_done and (self._size > TRIM_BYTES or self._waiting):
            os.ftruncate(self._file, 0)
            self._size = 0
            self._waiting.clear()
        else:
            self._write({"acknowledged": attempt})

    def catch_up(self) -> bool:
        """Writes what waits; True when nothing waits any more."""
        while self._waiting:
            try:
                self._append(self._waiting[0])
            except OSError as error:
                self._error = error.errno or 0
                return False
            self._waiting.popleft()
        return True

    def close(self) -> None:
        self.catch_up()
        os.close(self._file)

    def _write(self, record: wire.Message) -> None:
        self._waiting.append(_line(record))
        self.catch_up()

    def _append(self, line: bytes) -> None:
        try:
            wire.write_all(self._file, line)
        except OSError:
            # A part of the line would spoil the next one.
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


def _line(record: wire.Message) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
