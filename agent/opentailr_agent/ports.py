"""What the agent's supervisor asks of the parts that touch the machine.

A runtime starts, watches and ends attempts; it decides nothing. The supervisor
calls it only after the intent is in the journal, and treats every answer as an
event that goes back into the agent's pure core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol


class EndState(str, Enum):
    """How an attempt ended, as far as the node can know."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    STOPPED = "stopped"
    """Ended because the supervisor asked for it."""
    LOST = "lost"
    """The keeper is gone and left no outcome; nobody can say what happened."""


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """All that a runtime needs to run one attempt of one task.

    Every file named here exists before `Runtime.start` is called and belongs to
    the attempt alone (or is read-only and shared, as bundle and inputs are).
    """

    attempt_id: str
    image_key: str
    """Key of the environment; a keeper serves exactly one."""
    python: Path
    """Interpreter of the environment."""
    bundle_digest: str
    """SHA-256 of the packed code; a prepared second stage serves exactly one."""
    python_path: Sequence[Path]
    """Directories put in front of `sys.path`: the parent of the unpacked package
    directory and, for top-level modules, the directory itself (clause B176)."""
    module: str
    function: str
    """The entrypoint, `module:function`."""
    folder: Path
    """Folder of the attempt: spools, outcome and the working directory live here."""
    arguments: Path
    """Pickle of the dictionary of bound arguments; a task among them is the
    persistent id `("task", id)`."""
    inputs: Mapping[int, Path] = field(default_factory=dict)
    """Result files of the upstream tasks, by task id."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the user's process; nothing is inherited."""
    memory_bytes: int = 0
    """Private memory at which the attempt ends out_of_memory; 0 means no limit."""
    fresh: bool = False
    """True: always a new interpreter, never a fork of a prepared one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why user code failed, in words for people; never unpickled, never a secret of ours."""

    kind: str
    """Class of the exception, or `exit`, `signal`, `out_of_memory`, `result`, `import`."""
    message: str
    traceback: str = ""
    """Text as the interpreter prints it, user frames only, platform frames removed."""
    exception: bytes | None = None
    """Pickle of the exception for the caller's SDK, where it could be pickled and
    is at most 64 KiB; only the SDK ever unpickles it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt, read from the keeper's log."""

    attempt_id: str
    state: EndState
    exit_code: int | None = None
    signal: int | None = None
    started_at: float = 0.0
    """Seconds since the epoch; 0 when the user's process never began."""
    ended_at: float = 0.0
    result: bytes | None = None
    """Pickle of the result if it is at most 64 KiB, else None."""
    result_file: Path | None = None
    """File with the pickle of a larger result."""
    result_size: int = 0
    preview: str = ""
    """Short JSON text that shows the result to people; at most 4 KiB."""
    failure: Failure | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The user's process exists."""

    attempt_id: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt's process and all it left behind are gone and reaped."""

    outcome: Outcome


RuntimeEvent = Started | Ended


@dataclass(frozen=True, slots=True)
class Adopted:
    """An attempt found again after a restart of the agent."""

    attempt_id: str
    running: bool
    pid: int | None = None
    outcome: Outcome | None = None


class Runtime(Protocol):
    """Runs attempts. Every verb may be repeated for the same attempt without harm."""

    name: str
    """`process` or `docker`; shown to operators."""

    async def start(self, order: AttemptOrder) -> None:
        """Starts the attempt unless it was started before.

        Returns when the keeper has the order. What goes wrong later is an `Ended`
        event; what goes wrong before that raises `OSError` or `RuntimeError`, and
        then nothing was started.
        """

    async def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """Asks the process to end, kills its group and all descendants after the grace."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Started and Ended events of all attempts, in order per attempt; one reader."""

    async def adopt(self, attempts: Mapping[str, Path]) -> Sequence[Adopted]:
        """Finds the given attempts (id to folder) again after a restart of the agent.

        An attempt that no keeper knows and that left no outcome is absent from the answer.
        """

    async def remove(self, attempt_id: str) -> None:
        """Forgets an ended attempt after its report was acknowledged and its logs shipped."""

    async def close(self, *, stop_attempts: bool) -> None:
        """Lets go of the keepers; with `stop_attempts` ends them and all they run."""
