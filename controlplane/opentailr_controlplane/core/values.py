"""Values of the core: enumerations and immutable definitions.

Numbers of the enumerations that also travel on the wire (`Environment`, `JobType`, `PeopleState`,
`CauseKind`, `AttemptState`, `ImageState`) equal those of the protos. All times are integer microseconds;
0 means "not reached".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

SECOND = 1_000_000
"""Microseconds in a second."""

INLINE_LIMIT = 64 * 1024
"""Largest payload, in bytes, that travels and is stored inline."""


class Number(IntEnum):
    """Base of the enumerations: they hash as the integers they are, in C, as they key the tables of steps."""

    __hash__ = int.__hash__


class Environment(Number):
    """Where a job lives, in the order of promotion (B6)."""

    DEV = 1
    PRE = 2
    PROD = 3

    @property
    def text(self) -> str:
        """`dev`, `pre` or `prod`."""
        return self.name.lower()


class JobType(Number):
    """What kind of work a job is."""

    BATCH = 1
    SERVICE = 2
    APP = 3
    EXCEL = 4

    @property
    def text(self) -> str:
        """`batch`, `service`, `app` or `excel` (B195)."""
        return self.name.lower()


class PeopleState(Number):
    """State of a version, run or task as people see it (B107)."""

    CREATED = 1
    BUILDING = 2
    READY = 3
    SCHEDULED = 4
    PENDING = 5
    STARTING = 6
    RUNNING = 7
    COMPLETED = 8
    FAILED = 9
    FAILED_AFTER = 10
    OUT_OF_MEMORY = 11
    STOPPED = 12
    EXPIRED = 13
    DID_NOT_RUN = 14


class CauseKind(Number):
    """Why something ended as it did."""

    NONE = 0
    EXCEPTION = 1
    EXIT_CODE = 2
    SIGNAL = 3
    OUT_OF_MEMORY = 4
    RESULT = 5
    IMPORT = 6
    FAIL_AFTER = 7
    STOPPED = 8
    UPSTREAM = 9
    BUILD_FAILED = 10
    LEASE_LOST = 11
    NODE_RESTARTED = 12
    LOST_BY_RUNTIME = 13
    NODE_FAULT = 14
    NODE_DRAINED = 15


INFRASTRUCTURE = frozenset(
    {
        CauseKind.LEASE_LOST,
        CauseKind.NODE_RESTARTED,
        CauseKind.LOST_BY_RUNTIME,
        CauseKind.NODE_FAULT,
        CauseKind.NODE_DRAINED,
    }
)
"""Causes that are the platform's fault: they are retried on a budget of their own."""


class RunState(Number):
    """A run in the core. From `SUCCEEDED` on terminal; `EXPIRED` is the one thing retention may add."""

    QUEUED = 10
    RUNNING = 20
    CANCELLING = 30
    TIMING_OUT = 35
    SUCCEEDED = 100
    FAILED = 110
    OUT_OF_MEMORY = 115
    TIMED_OUT = 120
    CANCELLED = 130
    EXPIRED = 140

    @property
    def terminal(self) -> bool:
        """True when nothing of the run can change by itself any more."""
        return self >= RunState.SUCCEEDED


class TaskState(Number):
    """A task of a run in the core. From `SUCCEEDED` on terminal."""

    BLOCKED = 10
    READY = 20
    ACTIVE = 30
    BACKOFF = 40
    SUCCEEDED = 100
    FAILED = 110
    OUT_OF_MEMORY = 115
    TIMED_OUT = 120
    CANCELLED = 130
    SKIPPED = 140
    CACHED = 150

    @property
    def terminal(self) -> bool:
        """True when the task has its outcome."""
        return self >= TaskState.SUCCEEDED


DONE = frozenset({TaskState.SUCCEEDED, TaskState.CACHED})
"""States of a task on which its successors may start."""


class AttemptState(Number):
    """An attempt; numbers as on the wire. From `SUCCEEDED` on terminal."""

    ASSIGNED = 10
    ACCEPTED = 20
    PREPARING = 30
    STARTING = 40
    RUNNING = 50
    STOPPING = 60
    SUCCEEDED = 100
    FAILED = 110
    OUT_OF_MEMORY = 115
    CANCELLED = 130
    REJECTED = 140
    LOST = 150
    WITHDRAWN = 160

    @property
    def terminal(self) -> bool:
        """True when the attempt has ended for the control plane."""
        return self >= AttemptState.SUCCEEDED


GIVEN_UP = frozenset({AttemptState.LOST, AttemptState.WITHDRAWN})
"""Ends of an attempt that the control plane sets: what its node tells afterwards is evidence only."""


class ImageState(Number):
    """An image; numbers as on the wire."""

    QUEUED = 1
    BUILDING = 2
    READY = 3
    FAILED = 4


class BuildState(Number):
    """One build of an image. From `READY` on terminal."""

    QUEUED = 10
    ASSIGNED = 20
    BUILDING = 30
    READY = 100
    FAILED = 110
    LOST = 150

    @property
    def terminal(self) -> bool:
        """True when the build has ended."""
        return self >= BuildState.READY


class AgentState(Number):
    """An agent as the control plane sees it; numbers as NodeState on the wire."""

    SYNCING = 1
    READY = 2
    DRAINING = 3
    DRAINED = 4
    SUSPECT = 5
    DOWN = 6

    @property
    def connected(self) -> bool:
        """True while a session is open."""
        return self <= AgentState.DRAINED


class Instant(NamedTuple):
    """Now, told to the core from outside.

    `wall` is microseconds since the epoch, for what is stored and for deadlines that must survive a
    restart; `mono` is microseconds of a clock that never steps, for leases.
    """

    wall: int
    mono: int


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt, task or run ended, or a build failed."""

    kind: CauseKind
    message: str = ""
    traceback: str = ""
    exit_code: int = 0
    signal: int = 0
    node: str = ""
    """Name of the node that was lost, drained or at fault."""
    since: int = 0
    """When the node was last heard."""
    memory_limit_bytes: int = 0
    """The limit that was passed; 0 where it was the node's own for tasks without one (B65a)."""
    peak_memory_bytes: int = 0
    time_limit: int = 0
    """`fail_after` of the run."""
    user: str = ""
    """Who stopped it."""
    build_id: str = ""
    task: str = ""
    """Of a run the task that failed first, of a task the one before it that did not complete."""

    def short(self) -> Cause:
        """Without the traceback, which the hot state does not keep."""
        if not self.traceback and len(self.message) <= 4096:
            return self
        return replace(self, message=self.message[:4096], traceback="")


@dataclass(frozen=True, slots=True)
class PayloadRef:
    """Where opaque bytes are: in the payload table when `inline`, else in the object store."""

    digest: str
    size: int
    inline: bool


@dataclass(frozen=True, slots=True)
class Payload:
    """Opaque bytes on their way in. `data` is set for inline ones (at most 64 KiB), None for objects."""

    digest: str
    size: int
    data: bytes | None = field(default=None, repr=False)

    def reference(self) -> PayloadRef:
        """The same without the bytes."""
        return PayloadRef(self.digest, self.size, self.data is not None)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job or task asks of a node: `memory` as written (B7), the same in bytes, cores (B64, B65a)."""

    memory: str = "128m"
    memory_bytes: int = 128 * 1024 * 1024
    cpu: float = 0.25
    memory_is_default: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What code runs in, apart from the code (B169 to B175)."""

    python_version: str
    python_requirements: str = ""
    build_script_pre: str = ""
    build_script_post: str = ""

    @property
    def needs_bundle(self) -> bool:
        """True when the post script sees the code, which is then part of the image's key."""
        return bool(self.build_script_post.strip())


@dataclass(frozen=True, slots=True)
class Bundle:
    """Packaged code, an object (B182)."""

    digest: str
    size: int
    directory: str
    top_level: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the packaged code came from (B71)."""

    branch_name: str = ""
    commit_hash: str = ""
    path_to_repo: str = ""
    path_to_module: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a workflow starts by itself; all empty means never (B83)."""

    cron: str = ""
    timezone: str = ""
    run_after_job_id: str = ""
    run_after_job_name: str = ""
    run_after_condition: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        """True when nothing would ever start the workflow (B83)."""
        return not (self.cron.strip() or self.run_after_job_id or self.run_after_job_name)


@dataclass(frozen=True, slots=True)
class Acl:
    """Permissions of a job: ids, users positive, groups negative (B238)."""

    read: tuple[int, ...] = ()
    write: tuple[int, ...] = ()
    operate: tuple[int, ...] = ()
    access: tuple[int, ...] = ()
    promote: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """One node of a workflow, as saved."""

    task_id: int
    name: str
    entrypoint: str
    resources: Resources
    depends_on: tuple[int, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    arguments: Payload | PayloadRef | None = None


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """Everything a version consists of. `tasks` is empty for other types than workflows."""

    name: str
    display_name: str
    environment: Environment
    type: JobType
    run_as: str
    resources: Resources
    recipe: Recipe
    bundle: Bundle
    origin: Origin = Origin()
    entrypoint: str = ""
    env: tuple[tuple[str, str], ...] = ()
    app_section: str = ""
    tasks: tuple[TaskDefinition, ...] = ()
    schedule: Schedule = Schedule()
    fail_after: int = 0
    expire_after: int = 0
    repository_verified: bool = False
