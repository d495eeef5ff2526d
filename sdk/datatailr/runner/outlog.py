"""The keeper's one log file: what it accepted and how each attempt ended.

Lines of JSON, appended without a sync: they survive the death of every process,
and after a crash of the machine the attempts are lost anyway. Read by an agent
only when the keeper is dead.
"""

from __future__ import annotations

import json
import os

from . import wire

TRIM_BYTES = 1 << 20
"""Size from which the log is emptied as soon as everything in it is acknowledged."""


class OutcomeLog:
    """Appends records; each write is one whole line."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def accepted(self, attempt: str, mark: str) -> None:
        self._append({"accepted": attempt, "mark": mark})

    def outcome(self, outcome: wire.Message) -> None:
        """An outcome as far as it is known; a later record of the same attempt replaces it."""
        self._append({"outcome": outcome})

    def ended(self, attempt: str, outcome: wire.Message | None) -> None:
        """Everything of the attempt is gone; with its outcome unless that is in the log."""
        self._append({"ended": attempt} if outcome is None else {"ended": attempt, "outcome": outcome})

    def acknowledged(self, attempt: str, *, all_done: bool) -> None:
        """The agent has the outcome; with `all_done` nothing in the log matters any more."""
        if all_done and self._size > TRIM_BYTES:
            os.ftruncate(self._file, 0)
            self._size = 0
        else:
            self._append({"acknowledged": attempt})

    def close(self) -> None:
        os.close(self._file)

    def _append(self, record: wire.Message) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        wire.write_all(self._file, line)
        self._size += len(line)
