"""Records of the hot state, and the state itself.

Only what may still change is here: active runs, live attempts, agents, images, and the heads of jobs and
versions. Finished runs leave; the store keeps them. A record is changed by the modules of this package
alone; everybody else reads. Whoever changes a record marks it in `State.dirty`, from which the engine makes
the next transaction.

Fields that are not kept in the store are named in `EPHEMERAL`: they belong to a session or are counted anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .commands import Reply
from .definition import CheckedDefinition, Plan
from .effects import Effects
from .rows import LateRow, OutcomeRow
from .settings import CoreSettings
from .values import (
    Acl,
    AgentState,
    AttemptState,
    BuildState,
    Bundle,
    Cause,
    Environment,
    ImageState,
    JobType,
    PayloadRef,
    Recipe,
    RunState,
    TaskState,
)

Shape = tuple[int, float, str]
"""What decides whether a task fits on a node: bytes of memory, cores, image key."""


@dataclass(slots=True)
class Version:
    """The head of one saved version; what it consists of is in the store under `definition_id`."""

    job_id: str
    version: int
    definition_id: int
    image_key: str
    task_count: int
    verified: bool
    has_schedule: bool
    create_time: int
    created_by: str
    removed: bool = False
    instant: bool = False
    """Made for one run and in no list; only its number finds it (B55)."""


@dataclass(slots=True)
class Job:
    """A named job in one environment (B5); `versions` ascend by number."""

    job_id: str
    name: str
    display_name: str
    environment: Environment
    type: JobType
    acl: Acl
    create_time: int
    next_version: int = 1
    scheduled_version: int = 0
    """The version that is on its schedule, 0 for none (B103)."""
    versions: dict[int, Version] = field(default_factory=dict)

    def latest(self) -> Version | None:
        """The latest version that is not removed (B104)."""
        return next(
            (
                self.versions[number]
                for number in sorted(self.versions, reverse=True)
                if not (self.versions[number].removed or self.versions[number].instant)
            ),
            None,
        )

    def listed(self) -> list[int]:
        """Numbers of the versions that are neither removed nor instant, ascending (B118)."""
        return sorted(v.version for v in self.versions.values() if not (v.removed or v.instant))


@dataclass(slots=True)
class Task:
    """A task of an active run."""

    task_id: int
    state: TaskState = TaskState.BLOCKED
    open_upstreams: int = 0
    fence: int = 0
    """Of the latest attempt; the first has 1. Never given twice."""
    attempts: int = 0
    infra_failures: int = 0
    attempt_id: str = ""
    """The latest attempt; live exactly while the state is ACTIVE."""
    not_before: int = 0
    """Wall time at which BACKOFF ends."""
    queue_seq: int = 0
    """Its ticket in the queue for nodes; 0 when it has none."""
    start_provisioning_time: int = 0
    start_time: int = 0
    end_time: int = 0
    cause: Cause | None = None
    result: PayloadRef | None = None
    peak_memory_bytes: int = 0
    node: str = ""


@dataclass(slots=True)
class Run:
    """An active run. `tasks` has every task of the plan, by ascending id."""

    run_id: int
    job_id: str
    environment: Environment
    """Of the job; a promoted version's definition names the one it was saved in."""
    version: int
    plan: Plan
    submit_time: int
    run_as: str
    started_by: str
    run_date: str
    original_run_id: int = -1
    partial_rerun: bool = False
    scheduled_time: int = 0
    state: RunState = RunState.QUEUED
    start_provisioning_time: int = 0
    start_time: int = 0
    end_time: int = 0
    expire_time: int = 0
    cancel_requested: bool = False
    cause: Cause | None = None
    tasks: dict[int, Task] = field(default_factory=dict)
    held: bool = False
    """True while the image is not there yet: nothing of it is queued for nodes."""
    open: int = 0
    """Tasks without an outcome."""
    active: int = 0
    """Tasks that a node has; of those `running` have begun."""
    running: int = 0
    completed: int = 0
    failed: int = 0
    other: int = 0
    failed_states: set[TaskState] = field(default_factory=set)


@dataclass(slots=True)
class Attempt:
    """One try of a task on one agent, named by (task, fence)."""

    attempt_id: str
    run_id: int
    task_id: int
    fence: int
    agent_id: str
    memory_bytes: int
    cpu: float
    assigned_time: int
    state: AttemptState = AttemptState.ASSIGNED
    stop_wanted: bool = False
    start_time: int = 0
    end_time: int = 0
    cause: Cause | None = None
    peak_memory_bytes: int = 0
    gone: bool = False
    """True once its processes are known to be gone; until then it counts against the agent (invariant 9)."""


@dataclass(slots=True)
class Image:
    """What code runs in, by key. `waiting` holds the active runs that need it."""

    image_key: str
    recipe: Recipe
    bundle: Bundle | None
    create_time: int
    state: ImageState = ImageState.QUEUED
    cause: Cause | None = None
    notice: str = ""
    build_id: str = ""
    agent_id: str = ""
    """Where the latest build is or was made."""
    tries: int = 0
    """Builds that the platform itself failed since the image was last asked for."""
    start_time: int = 0
    end_time: int = 0
    waiting: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class Build:
    """A live build of an image."""

    build_id: str
    image_key: str
    create_time: int
    state: BuildState = BuildState.QUEUED
    agent_id: str = ""
    start_time: int = 0
    end_time: int = 0
    cause: Cause | None = None


@dataclass(slots=True)
class Agent:
    """An agent: what is known of it, and the state of its present session."""

    agent_id: str
    name: str
    first_seen: int
    epoch: int = 0
    """Of the latest session; strictly increasing, stored before the welcome is sent."""
    journal_id: str = ""
    acked_seq: int = 0
    """Reports up to this number of `journal_id` are committed."""
    schedulable: bool = True
    reason: str = ""
    memory_bytes: int = 0
    cpu: float = 0.0
    slots: int = 0
    software_version: str = ""
    runtime: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    python_versions: tuple[str, ...] = ()
    allows_pre_scripts: bool = False
    last_heard: int = 0
    drain_by: int = 0
    """Wall time at which what still runs on a draining node is stopped; 0 for no such deadline."""
    # What follows is not stored.
    state: AgentState = AgentState.DOWN
    image_keys: dict[str, None] = field(default_factory=dict)
    pressure: str = ""
    lease_start: int = 0
    """Monotonic time from which the lease counts."""
    lease_armed: int = 0
    """Monotonic time of the reminder to judge the lease; 0 when there is none."""
    attempt_limit: int = 0
    attempts_sent: int = 0
    build_limit: int = 0
    builds_sent: int = 0
    revision: int = 0
    full_revision: int = 0
    """The revision of the full set of this session; the agent is ready once it has applied it."""
    full_wanted: bool = False
    changed: dict[str, None] = field(default_factory=dict)
    """Ids of attempts and builds whose place in the desired set changed since the last revision."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """Live attempts, and ended ones whose processes are not known to be gone."""
    builds: dict[str, Build] = field(default_factory=dict)
    memory_reserved: int = 0
    cpu_reserved: float = 0.0
    reserved_at_hello: tuple[int, float, int] = (0, 0.0, 0)
    """Reservations that an agent brought along, which a smaller offer cannot undo."""


EPHEMERAL: dict[str, frozenset[str]] = {
    "Agent": frozenset(
        {
            "state", "image_keys", "pressure", "lease_start", "lease_armed",
            "last_heard",
            "attempt_limit", "attempts_sent",
            "build_limit", "builds_sent", "revision", "full_revision", "full_wanted", "changed",
            "reserved_at_hello",
        }
    ),
    "Task": frozenset({"queue_seq"}),
}  # fmt: skip
"""Fields that a restart need not bring back, by record."""


@dataclass(slots=True)
class Remembered:
    """The answer to a command with an idempotency key."""

    request_digest: str
    reply: Reply
    expire_time: int


@dataclass(frozen=True, slots=True)
class PriorTask:
    """A task of a finished run, as far as a rerun needs it."""

    task_id: int
    name: str
    depends_on: tuple[int, ...]
    state: TaskState
    result: PayloadRef | None
    preview: str


@dataclass(frozen=True, slots=True)
class PriorRun:
    """A finished run, read from the store for a rerun (B126); `state` None means it does not exist."""

    run_id: int
    job_id: str
    job_name: str
    environment: int
    state: RunState | None
    original_run_id: int
    tasks: dict[int, PriorTask]
    version: int = 0


@dataclass(slots=True)
class Retired:
    """What leaves the store by retention, by id; of runs the rest follows in small steps."""

    runs: list[int] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    versions: list[tuple[str, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.agents or self.images or self.versions)


@dataclass(slots=True)
class Dirty:
    """What changed since the last transaction."""

    counters: bool = False
    definitions: dict[int, CheckedDefinition] = field(default_factory=dict)
    new_runs: dict[int, Run] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    builds: dict[str, Build] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    tasks: dict[tuple[int, int], tuple[Run, Task]] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    late: list[LateRow] = field(default_factory=list)
    payloads: dict[str, bytes] = field(default_factory=dict)
    remembered: dict[tuple[str, str], Remembered] = field(default_factory=dict)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    expired_runs: list[int] = field(default_factory=list)
    retired: Retired = field(default_factory=Retired)

    def __bool__(self) -> bool:
        return bool(
            self.counters or self.definitions or self.new_runs or self.jobs or self.versions or self.images
            or self.builds or self.agents or self.runs or self.tasks or self.attempts or self.outcomes
            or self.late or self.payloads or self.remembered or self.forgotten or self.expired_runs
            or self.retired
        )  # fmt: skip


Observer = Callable[[str, str, str], None]
"""Told of each transition: machine, from, to. For tests that count what was reached."""


@dataclass(slots=True)
class State:
    """Everything the core knows. One step changes it at a time."""

    settings: CoreSettings
    installation: str
    next_job: int = 1
    next_definition: int = 1
    next_run: int = 1
    next_build: int = 1
    jobs: dict[str, Job] = field(default_factory=dict)
    job_names: dict[tuple[str, Environment], str] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    builds: dict[str, Build] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    job_runs: dict[str, dict[int, None]] = field(default_factory=dict)
    """Active runs by job."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """As `Agent.attempts`, of all agents."""
    remembered: dict[tuple[str, str], Remembered] = field(default_factory=dict)
    expiries: dict[int, int] = field(default_factory=dict)
    """Finished runs whose results will be cleaned up, and when (B109)."""
    # What follows is not stored.
    plans: dict[int, Plan] = field(default_factory=dict)
    """Plans at hand for a start; the engine fills and bounds it."""
    priors: dict[int, PriorRun] = field(default_factory=dict)
    """Finished runs at hand for a rerun; the engine fills and empties it."""
    queues: dict[Shape, deque[tuple[int, int, int]]] = field(default_factory=dict)
    """Ready tasks by what they ask for, in order: (ticket, run, task). Stale ones are dropped at the head."""
    queued: int = 0
    queue_times: dict[Shape, int] = field(default_factory=dict)
    """Monotonic time since which the head of a queue has waited."""
    next_ticket: int = 1
    open_agents: dict[str, None] = field(default_factory=dict)
    """Agents that may be sent an attempt, the longest not chosen first."""
    image_holders: dict[str, dict[str, None]] = field(default_factory=dict)
    """Of those, the ones that have an image at hand, by image key."""
    placing: bool = False
    """True when the last round stopped at its limit: more can be placed at once."""
    build_queue: dict[str, None] = field(default_factory=dict)
    woken_shapes: dict[Shape, None] = field(default_factory=dict)
    woken_agents: dict[str, None] = field(default_factory=dict)
    outgoing: dict[str, None] = field(default_factory=dict)
    """Agents whose desired set changed since the last flush."""
    stale: int = 0
    """Entries of the queues whose task needs no node any more."""
    wall_timers: list[tuple[int, str, tuple[int, int]]] = field(default_factory=list)
    mono_timers: list[tuple[int, str, str]] = field(default_factory=list)
    lease_floor: int = 0
    """Monotonic time before which no lease ends (recovery after a start)."""
    assignments: int = 0
    """Attempts made since the start, for monitoring."""
    dirty: Dirty = field(default_factory=Dirty)
    effects: Effects = field(default_factory=Effects)
    observer: Observer | None = None


class NeedsPlan(Exception):
    """The step needs a plan that is not at hand; nothing was changed. Load it and step again."""

    def __init__(self, definition_id: int) -> None:
        super().__init__(definition_id)
        self.definition_id = definition_id


class NeedsPrior(Exception):
    """The step needs a finished run that is not at hand; nothing was changed. Load it and step again."""

    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self.run_id = run_id
