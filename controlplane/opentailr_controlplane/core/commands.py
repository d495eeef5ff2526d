"""Commands of people, events of agents and of time, and the replies.

Everything that may change the state is one of these frozen values. A command names its `actor` (the user's
name), for the records; whether the actor may is decided before. `idempotency_key` is empty where the caller
gave none; with a key, `request_digest` decides between "the same request again" and a conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .definition import CheckedDefinition
from .values import (
    Acl,
    AttemptState,
    Bundle,
    Cause,
    Environment,
    ImageState,
    JobDefinition,
    Payload,
    PeopleState,
    Recipe,
)


class Command:
    """Base of what people ask; `Engine.execute` takes these."""

    __slots__ = ()


class AgentEvent:
    """Base of what an agent's session tells. All carry the epoch of the session they came by."""

    __slots__ = ()


# --------------------------------------------------------------------------- replies


@dataclass(frozen=True, slots=True)
class SaveReply:
    """What SaveVersion answers."""

    job_id: str
    version: int
    state: PeopleState
    create_time: int
    image_key: str
    run_as: str


@dataclass(frozen=True, slots=True)
class StartReply:
    """What StartVersion answers; `run_id` is 0 when the version went on its schedule."""

    run_id: int
    version: int
    state: PeopleState
    job_id: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopReply:
    """The runs that StopJob or CancelRun told to end."""

    run_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RerunReply:
    """What Rerun answers."""

    run_id: int
    version: int


@dataclass(frozen=True, slots=True)
class PromoteReply:
    """What moved, for instance `my-job version 3: dev to pre`."""

    moves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionsReply:
    """The versions that Remove hid or Restore brought back, ascending."""

    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageReply:
    """What EnsureImage answers: the key, the state and the id of the latest build (or empty)."""

    image_key: str
    state: ImageState
    build_id: str


@dataclass(frozen=True, slots=True)
class NodeReply:
    """The agent that SetNodeSchedulable changed."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class RetireReply:
    """What Retire took out, by id; versions by (job id, number)."""

    run_ids: tuple[int, ...]
    agent_ids: tuple[str, ...]
    image_keys: tuple[str, ...]
    instants: tuple[tuple[str, int], ...] = ()


Reply = (
    SaveReply
    | StartReply
    | StopReply
    | RerunReply
    | PromoteReply
    | VersionsReply
    | ImageReply
    | NodeReply
    | RetireReply
)

# --------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class SaveVersion(Command):
    """Saves a new immutable version (B98 to B101); answers `SaveReply`.

    `acl` None keeps the job's present list; a new job then takes `default_acl` (B240). The definition's
    `run_as` is filled in by the caller. `checked` is filled in by the engine. An `instant` version is made
    for one run of a workflow in dev: it changes nothing of the job and stands in no list (B55).
    """

    actor: str
    definition: JobDefinition
    acl: Acl | None = None
    default_acl: Acl = field(default_factory=Acl)
    idempotency_key: str = ""
    request_digest: str = ""
    checked: CheckedDefinition | None = None
    instant: bool = False


@dataclass(frozen=True, slots=True)
class StartVersion(Command):
    """Starts a version, 0 the latest that is not removed (B103 to B106); answers `StartReply`.

    `run_date` is `YYYY-MM-DD` or empty (B41). `name` is the internal name. With `now` a version with a
    schedule runs too, and its schedule stays as it is.
    """

    actor: str
    name: str
    environment: Environment = Environment.DEV
    version: int = 0
    run_date: str = ""
    now: bool = False
    idempotency_key: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class StopJob(Command):
    """Ends all active runs of a job, or one of them, and takes it off its schedule (B124); `StopReply`."""

    actor: str
    name: str
    environment: Environment = Environment.DEV
    run_id: int = 0


@dataclass(frozen=True, slots=True)
class CancelRun(Command):
    """Ends one run; answers `StopReply`, with no run when it had ended already."""

    actor: str
    run_id: int


@dataclass(frozen=True, slots=True)
class Rerun(Command):
    """Starts a new run after a finished one (B126 to B132); answers `RerunReply`.

    If `name` is given the run must be one of that job in `environment` (None: any).
    """

    actor: str
    run_id: int
    version: int = 0
    full: bool = False
    name: str = ""
    environment: Environment | None = None
    idempotency_key: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Promote(Command):
    """Copies a version one environment on (B119 to B123); `environment` None means every one's."""

    actor: str
    name: str
    environment: Environment | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Remove(Command):
    """Stops and hides a job's versions, all or one, 0 the latest (B125); answers `VersionsReply`."""

    actor: str
    name: str
    environment: Environment = Environment.DEV
    all_versions: bool = True
    version: int = 0


@dataclass(frozen=True, slots=True)
class Restore(Command):
    """Undoes Remove for one version, 0 for all; answers `VersionsReply`."""

    actor: str
    name: str
    environment: Environment = Environment.DEV
    version: int = 0


@dataclass(frozen=True, slots=True)
class EnsureImage(Command):
    """Makes sure an image exists or is being built; a failed one is built again. `ImageReply`."""

    actor: str
    recipe: Recipe
    bundle: Bundle | None = None


@dataclass(frozen=True, slots=True)
class SetNodeSchedulable(Command):
    """Stops or resumes giving a node (id or name) new work; answers `NodeReply`.

    What still runs `drain_within` microseconds later is stopped and tried again elsewhere; 0: never.
    """

    actor: str
    node: str
    schedulable: bool
    reason: str = ""
    drain_within: int = 0


@dataclass(frozen=True, slots=True)
class Retire(Command):
    """Takes out what retention no longer keeps; answers `RetireReply`. Of the platform itself, not of people.

    `run_ids` are finished runs, `instants` instant versions, as (job id, number), whose runs are gone. Nodes
    last heard before `nodes_before` and images that no version uses and that ended before `images_before` go
    too; both are wall times in microseconds, 0 for none. What is in use after all stays.
    """

    run_ids: tuple[int, ...] = ()
    instants: tuple[tuple[str, int], ...] = ()
    nodes_before: int = 0
    images_before: int = 0


# --------------------------------------------------------------------------- agents


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One attempt in an agent's journal."""

    attempt_id: str
    fence: int
    state: AttemptState


@dataclass(frozen=True, slots=True)
class AgentHello(AgentEvent):
    """An agent opened a session. The step answers with the epoch and the verdicts."""

    agent_id: str
    name: str
    boot_id: str
    journal_id: str
    memory_bytes: int
    cpu: float
    slots: int
    software_version: str = ""
    runtime: str = "process"
    labels: tuple[tuple[str, str], ...] = ()
    python_versions: tuple[str, ...] = ()
    image_keys: tuple[str, ...] = ()
    allows_pre_scripts: bool = False
    inventory: tuple[InventoryEntry, ...] = ()
    last_epoch: int = 0


@dataclass(frozen=True, slots=True)
class AgentHeartbeat(AgentEvent):
    """The agent lives; `received` is the monotonic time at which the frame came in."""

    agent_id: str
    epoch: int
    counter: int
    received: int
    pressure: str = ""
    disk_free_bytes: int = 0
    memory_free_bytes: int = 0
    loop_delay: int = 0


@dataclass(frozen=True, slots=True)
class AgentCredit(AgentEvent):
    """New cumulative limits of what may be sent in this session."""

    agent_id: str
    epoch: int
    attempt_limit: int
    build_limit: int


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What happened to an attempt.

    `result_present` says whether a result named by digest was found in the object store.
    """

    report_seq: int
    attempt_id: str
    fence: int
    state: AttemptState
    observed_at: int = 0
    cause: Cause | None = None
    started_at: int = 0
    ended_at: int = 0
    result: Payload | None = None
    result_present: bool = True
    preview: str = ""
    peak_memory_bytes: int = 0
    exception: bytes = b""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What happened to a build; `state` is BUILDING, READY or FAILED."""

    report_seq: int
    build_id: str
    image_key: str
    state: ImageState
    observed_at: int = 0
    cause: Cause | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class AgentReport(AgentEvent):
    """A batch of reports, in the order of `report_seq`."""

    agent_id: str
    epoch: int
    entries: tuple[AttemptReport | BuildReport, ...]


@dataclass(frozen=True, slots=True)
class AgentApplied(AgentEvent):
    """The agent's journal reflects this revision."""

    agent_id: str
    epoch: int
    revision: int
    need_full: bool = False


@dataclass(frozen=True, slots=True)
class AgentBye(AgentEvent):
    """A clean end of the agent process."""

    agent_id: str
    epoch: int
    attempts_keep_running: bool


@dataclass(frozen=True, slots=True)
class SessionClosed(AgentEvent):
    """The stream of a session is gone."""

    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on; whatever is due happens."""

    late: bool = False
    """The control plane itself was away: what agents sent meanwhile has not been read yet."""
