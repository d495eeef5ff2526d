"""The file outside of the platform in which tasks note their beginnings and ends."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

from . import facts


@dataclass(frozen=True)
class Entry:
    """One line: something that really happened in a user's process."""

    event: str
    """`start` or `finish`."""
    run: int
    task: int
    attempt: str
    fence: int
    pid: int
    cwd: str
    """Working directory of the attempt, below its agent's folder."""
    at: float
    """Monotonic seconds."""


class Ledger:
    """Reads the file; what was read stays, so that a long run reads each line once. Of any thread."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._offset = 0
        self._entries: list[Entry] = []
        self._lock = threading.Lock()
        """The faults look for living attempts while runs are judged."""

    def entries(self) -> list[Entry]:
        """All lines so far."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except FileNotFoundError:
                return []
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._entries += [Entry(**json.loads(line)) for line in whole.splitlines()]
            return list(self._entries)

    def forget(self, runs: set[int]) -> None:
        """Drops the lines of runs that were judged."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.run not in runs]

    def agent_of(self, entry: Entry) -> str:
        """Name of the agent that ran an attempt."""
        return Path(entry.cwd).relative_to(self._folder).parts[0]

    def running(self) -> dict[int, str]:
        """Pid and id of attempts whose function has begun and not finished, and whose process lives."""
        begun: dict[str, int] = {}
        for entry in self.entries():
            if entry.event == "start":
                begun[entry.attempt] = entry.pid
            else:
                begun.pop(entry.attempt, None)
        return {pid: attempt for attempt, pid in begun.items() if is_attempt(pid)}


def is_attempt(pid: int) -> bool:
    """Whether a live process carries the mark of an attempt; so a reused pid is told apart."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    mark = environment.partition(facts.MARK)[2][:32]
    return facts.alive(pid) and bool(mark) and mark != facts.NO_MARK
