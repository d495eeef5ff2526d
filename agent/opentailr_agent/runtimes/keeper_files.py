"""What a keeper leaves on the disk, and the words of its messages.

A keeper's folder holds its configuration, its identity (pid, start time and the
boot of the machine), its socket and its outcome log. The agent reads the log
only when the keeper is dead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentailr_agent.ports import AttemptOrder, EndState, Failure, Outcome

LENGTH = struct.Struct("!I")
MAX_FRAME = 64 << 20

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """One message: its length and its JSON text."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


def mark(attempt_id: str, folder: Path) -> str:
    """The mark by which the processes of an attempt are found, also without their keeper."""
    return hashlib.sha256(f"{folder}\0{attempt_id}".encode()).hexdigest()[:32]


def order_message(order: AttemptOrder) -> Message:
    """The order in the keeper's words."""
    return {
        "id": order.attempt_id,
        "mark": mark(order.attempt_id, order.folder),
        "python": str(order.python),
        "bundle": order.bundle_digest,
        "path": [str(folder) for folder in order.python_path],
        "module": order.module,
        "function": order.function,
        "folder": str(order.folder),
        "arguments": str(order.arguments),
        "inputs": {str(task): str(path) for task, path in order.inputs.items()},
        "env": dict(order.env),
        "memory": order.memory_bytes,
        "fresh": order.fresh,
    }


def outcome_of(message: Mapping[str, Any]) -> Outcome:
    """An outcome from the keeper's words, which may be those of another release: what it lacks is unknown."""
    failure = message.get("failure")
    result = message.get("result")
    result_file = message.get("result_file")
    return Outcome(
        attempt_id=message["id"],
        state=EndState(message["state"]),
        exit_code=message.get("exit_code"),
        signal=message.get("signal"),
        started_at=message.get("started_at", 0.0),
        ended_at=message.get("ended_at", 0.0),
        result=None if result is None else base64.b64decode(result),
        result_file=None if result_file is None else Path(result_file),
        result_size=message.get("size", 0),
        preview=message.get("preview", ""),
        failure=None if failure is None else _failure_of(failure),
        peak_memory_bytes=message.get("peak", 0),
    )


def _failure_of(message: Mapping[str, Any]) -> Failure:
    exception = message.get("exception")
    return Failure(
        kind=message["kind"],
        message=message["message"],
        traceback=message.get("traceback", ""),
        exception=None if exception is None else base64.b64decode(exception),
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process a keeper is."""

    pid: int
    boot_id: str
    started: int
    """Start of the process in clock ticks of the machine; a reused pid differs in it."""
    image_key: str

    @classmethod
    def read(cls, folder: Path) -> Identity | None:
        """The identity in a keeper's folder, None when the keeper never came to write it."""
        try:
            found = json.loads((folder / "keeper.json").read_text())
            return cls(found["pid"], found["boot_id"], found["started"], found["image_key"])
        except (OSError, ValueError, KeyError):
            return None

    def alive(self) -> bool:
        """Whether this very process still exists."""
        if self.boot_id != boot_id():
            return False
        try:
            text = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False
        fields = text[text.rindex(b")") + 2 :].split()
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == self.started


RUNNER_FILE = "runner"
"""Name of the file in a keeper's folder that tells which runner it is part of."""


def runner_digest(boot: Path) -> str:
    """Which runner this installation has: a digest of its source, whose first file is `boot`."""
    digest = hashlib.sha256()
    for path in sorted(boot.parent.glob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def runner_of(folder: Path) -> str:
    """Which runner the keeper of a folder is part of; empty for releases that did not tell."""
    try:
        return (folder / RUNNER_FILE).read_text()
    except OSError:
        return ""


def boot_id() -> str:
    """Id of this start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True)
class Leavings:
    """What the log of a dead keeper says."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Attempt to mark, of all that it ever took."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    """Attempts of which nothing is left."""
    acknowledged: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> Leavings:
        """Reads the log; a last line that was cut off counts as not written."""
        found = cls()
        try:
            lines = (folder / "outcomes.log").read_bytes().split(b"\n")
        except OSError:
            return found
        for line in lines:
            try:
                record = json.loads(line)
                if "accepted" in record:
                    found.accepted[record["accepted"]] = record["mark"]
                if "outcome" in record:
                    outcome = outcome_of(record["outcome"])
                    found.outcomes[outcome.attempt_id] = outcome
                if "ended" in record:
                    found.ended.add(record["ended"])
                if "acknowledged" in record:
                    found.acknowledged.add(record["acknowledged"])
            except (ValueError, KeyError, TypeError):  # noqa: PERF203 - each line for itself
                continue
        return found

    def unswept(self) -> set[str]:
        """Marks of attempts whose processes may still exist."""
        return {self.accepted[attempt] for attempt in self.accepted.keys() - self.ended}


def environment_for_keeper() -> dict[str, str]:
    """What a keeper needs of the agent's environment: how to find libraries, nothing else."""
    wanted = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
    return {name: os.environ[name] for name in wanted if name in os.environ}
