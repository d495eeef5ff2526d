"""What the engine needs from outside, and what it gives to the services, as interfaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Protocol, TypeVar

from .core.commands import Command, Reply
from .core.model import Job, Version
from .core.rows import ImageRow, RunRow, TaskRow
from .core.values import AgentState, Environment, Instant

T = TypeVar("T")


class Clock(Protocol):
    """The one source of time."""

    def now(self) -> Instant:
        """Wall and monotonic time, both in microseconds."""


class IdSource(Protocol):
    """The one source of randomness."""

    def installation(self) -> str:
        """A short random word (lower-case letters and digits) that names a new installation."""


class ObjectStore(Protocol):
    """Content-addressed bytes."""

    async def has(self, digest: str) -> bool:
        """True when the object is there, complete and verified."""

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes durably and returns their digest; storing them again is harmless."""


class Maintained(Protocol):
    """The store, as far as retention changes it by itself."""

    async def maintain(self, work: Callable[[Connection], T]) -> T:
        """Runs a function in a short transaction between those of the engine."""


class RunTokens(Protocol):
    """Makes the tokens that attempts call back with."""

    def issue(self, run_id: int, user: str) -> str:
        """A token that acts as `user` while the run is active."""


Offload = Callable[[Callable[[], object]], Awaitable[object]]
"""Runs a function that computes for long outside the loop."""


@dataclass(frozen=True, slots=True)
class Resync:
    """The subscriber was too slow and missed changes: read everything again."""


@dataclass(frozen=True, slots=True)
class RunChange:
    """Committed changes of one run: its summary if that changed, and the tasks that changed.

    `all_tasks` is True when so many tasks changed at once (a start, a cancellation) that they are not
    listed: read them from the store.
    """

    run_id: int
    run: RunRow | None
    tasks: tuple[TaskRow, ...] = ()
    all_tasks: bool = False


@dataclass(frozen=True, slots=True)
class ImageChange:
    """A committed change of an image or its build."""

    image_key: str
    image: ImageRow


Change = RunChange | ImageChange | Resync


@dataclass(frozen=True, slots=True)
class NodeView:
    """An agent for people; sizes in bytes, times in microseconds."""

    agent_id: str
    name: str
    state: AgentState
    reason: str
    memory_bytes: int
    memory_reserved: int
    cpu: float
    cpu_reserved: float
    attempts: int
    software_version: str
    runtime: str
    labels: tuple[tuple[str, str], ...]
    python_versions: tuple[str, ...]
    last_heard: int
    drain_by: int


class Engine(Protocol):
    """The face of the engine for the services."""

    async def execute(self, command: Command) -> Reply:
        """Carries out a command and returns its reply once everything it changed is on disk.

        Raises:
            CoreError: the command was refused and changed nothing.
        """

    def subscribe(
        self, *, run_id: int | None = None, image_key: str | None = None, maxsize: int = 256
    ) -> AsyncIterator[Change]:
        """Committed changes of one run, of one image, or of everything.

        The subscription begins with this call, not with the first `anext`: subscribe, read the present
        from the store, then follow; nothing falls between. At most `maxsize` changes wait; a slower
        reader gets `Resync` in place of what was dropped. Close the iterator (`aclose`) when done.
        """

    def find_job(self, name: str, environment: Environment) -> Job | None:
        """The job of this internal name, for access checks and lookups."""

    def jobs(self) -> list[Job]:
        """All jobs, by name and environment. Read, never change."""

    def find_version(self, job: Job, version: int = 0) -> Version | None:
        """A version of a job that is not removed; 0 is the latest."""

    def run_job_id(self, run_id: int) -> str | None:
        """The job of an active run; None when the run is not active."""

    def run_active(self, run_id: int) -> bool:
        """True while the run has not ended."""

    def waiting_for(self, run_id: int, task_ids: Iterable[int] = ()) -> dict[int, tuple[str, ...]]:
        """Why an active run waits, for people: -1 to its reasons as a whole, ids to those of `task_ids`."""

    def waiting_tasks(self, run_id: int, *, limit: int) -> list[int]:
        """The first tasks of an active run that wait for nothing but the platform, at most so many."""

    def image_waiting_for(self, image_key: str) -> str:
        """Why a build has not begun, for people; empty when it has."""

    def nodes(self) -> list[NodeView]:
        """All agents, by name."""

    async def owns_log(self, agent_id: str, log_id: str) -> bool:
        """True when the agent made this attempt or build and so may append to its log."""

    def metrics(self) -> dict[str, float]:
        """Numbers for monitoring, by name."""
