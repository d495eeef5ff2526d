"""The port to the platform: the one seam between what users define and what runs it.

Everything that needs a server goes through the protocol `Platform`. The rest of the SDK knows no
transport; `datatailr.client.platform.connect` implements the port over gRPC and is imported only
when an address is configured and something is really asked for.

Conventions of all methods:

- Names of jobs are internal names (clause B1); a lookup also takes display names and ids (B116).
- Environments are the strings `dev`, `pre`, `prod`; job types `batch`, `service`, `app`, `excel`.
- Times are integer microseconds since the epoch; None, or 0 in the place of a time, means that
  it was not reached.
- Failures are exceptions below `datatailr.errors.PlatformError`, never return values.
- Calls may be made from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

__all__ = [
    "Bundle",
    "CodeOrigin",
    "ImageRecipe",
    "JobDefinition",
    "Platform",
    "ResourceRequest",
    "SavedVersion",
    "ScheduleRequest",
    "StartedRun",
    "TaskDefinition",
    "UserDirectory",
    "get_platform",
]


@dataclass(frozen=True)
class ResourceRequest:
    """What a job or task asks of a node."""

    memory: str
    """As the user wrote it, for instance `512m`."""
    memory_bytes: int
    """The same in bytes."""
    cpu: float
    """Cores."""
    memory_is_default: bool
    """True when the user gave no memory, so that the node's soft limit applies (clause B65a)."""


@dataclass(frozen=True)
class ImageRecipe:
    """What code runs in, apart from the code itself; equal recipes build once."""

    python_version: str
    """`major.minor` or `major.minor.patch`."""
    python_requirements: str = ""
    """Requirement lines, separated by newlines."""
    build_script_pre: str = ""
    """Shell text that runs before the requirements are installed."""
    build_script_post: str = ""
    """Shell text that runs after the code was laid out."""


@dataclass(frozen=True)
class CodeOrigin:
    """Where packaged code came from."""

    branch_name: str | None = None
    """`unknown` when the repository could not be verified (clause B167)."""
    commit_hash: str | None = None
    path_to_repo: str | None = None
    path_to_module: str | None = None


class Bundle(Protocol):
    """Packaged code, ready to be uploaded: an uncompressed tar archive.

    The archive holds one top-level directory called `directory`. The content can be opened any
    number of times until the call that was given the bundle returns.
    """

    @property
    def digest(self) -> str:
        """SHA-256 of the archive, 64 lower-case hexadecimal digits."""

    @property
    def size(self) -> int:
        """Length of the archive in bytes."""

    @property
    def directory(self) -> str:
        """Name of the directory that the archive unpacks to."""

    @property
    def top_level(self) -> bool:
        """True when the directory itself belongs on the import path too (clause B176)."""

    def open(self) -> BinaryIO:
        """A new stream over the archive, at its first byte; the caller closes it."""


@dataclass(frozen=True)
class ScheduleRequest:
    """When a workflow starts by itself."""

    cron: str = ""
    """Five or six fields, or empty."""
    timezone: str | None = None
    """IANA name; None means UTC."""
    run_after_job_uuid: str | None = None
    run_after_job_name: str | None = None
    run_after_job_condition: str | None = None
    """`success`, `failure` or `any`; None without a predecessor."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What `get_schedule_args()` returned, kept with the version (clauses B74, B75)."""


@dataclass(frozen=True)
class TaskDefinition:
    """One node of a workflow."""

    id: int
    name: str
    entrypoint: str
    """`module:function`."""
    resources: ResourceRequest
    depends_on: Sequence[int] = ()
    """Ids of the tasks it waits for, ascending."""
    env: Sequence[tuple[str, str]] = ()
    """The user's variables without prefix, in order."""
    arguments: bytes | None = None
    """Pickle (protocol 5) of the dictionary of bound arguments; a task among them is the
    persistent id `("task", id)`. None: those of the task of this id in `base_version`."""


@dataclass(frozen=True)
class JobDefinition:
    """Everything that a version consists of."""

    name: str
    """Internal name."""
    display_name: str
    environment: str
    type: str
    resources: ResourceRequest
    image: ImageRecipe
    origin: CodeOrigin
    document: Mapping[str, Any]
    """`Job.to_dict()` of the moment of saving (clauses B66 to B71)."""
    run_as: str | None = None
    """User name; None means the signed-in user."""
    bundle: Bundle | None = None
    """None: the code of `base_version` is kept (clause B113)."""
    entrypoint: str | None = None
    """`module:function` for other types than workflows."""
    env: Sequence[tuple[str, str]] = ()
    app_section: str = ""
    tasks: Sequence[TaskDefinition] = ()
    schedule: ScheduleRequest | None = None
    fail_after: int | None = None
    """Microseconds."""
    expire_after: int | None = None
    """Microseconds."""
    acl: Mapping[str, Sequence[int]] | None = None
    """Permission name to ids, users positive, groups negative; None keeps the job's list, or
    gives a new job the standard one (clause B240)."""
    repository_verified: bool = False
    """Only versions saved with True can be promoted (clauses B121, B167)."""
    base_version: int | None = None
    """The version of the same job and environment that this one was loaded from (B112, B113)."""
    base_job_id: str | None = None
    """Id of the job that `base_version` is one of; None for this job itself."""
    instant: bool = False
    """Made for one run, which is started by the number of the version: it stands in no list, is never the
    latest, and leaves name and access list of the job as they are (clause B55)."""


@dataclass(frozen=True)
class SavedVersion:
    """The platform's answer to a save."""

    job_id: str
    version: int
    state: str
    create_time: int
    run_as: str
    """The user that the job will run as."""
    image_key: str
    """Names the image for `wait_for_image`; empty when nothing is built."""


@dataclass(frozen=True)
class StartedRun:
    """The platform's answer to a start or a rerun."""

    run_id: int | None
    """None when the version went on its schedule instead (clause B103)."""
    version: int
    state: str
    job_id: str


class Platform(Protocol):
    """What the SDK asks of a platform; see the module for the conventions."""

    @property
    def address(self) -> str:
        """`host:port`, for messages."""

    @property
    def public_url(self) -> str | None:
        """Address of the pages without a trailing slash, None if there are none."""

    def caller(self) -> Mapping[str, Any]:
        """The signed-in user: name, user_id, first_name, last_name, email, groups
        (comma-separated), is_system (clauses B250, B272)."""

    def save_job(self, definition: JobDefinition) -> SavedVersion:
        """Upload what is missing and save one new version (clauses B98 to B101).

        The build of the image begins by itself; the answer does not wait for it.
        """

    def wait_for_image(self, image_key: str, *, progress: Callable[[str], None] | None = None) -> None:
        """Return when the image is ready; `progress` is given one short line per change.

        Raises:
            ImageBuildError: the build failed; the message holds the end of its log.
        """

    def start_job(
        self, name: str, environment: str, *, version: int | None = None, run_date: str | None = None
    ) -> StartedRun:
        """Start a version, the latest that is not removed by default (clauses B103 to B106)."""

    def stop_job(self, name: str, environment: str) -> Sequence[int]:
        """End all active runs and leave the schedule (clause B124); ids of the runs it ended."""

    def stop_run(self, run_id: int) -> None:
        """End one run; one that has ended is left as it is. NotFoundError for an unknown one."""

    def get_job(
        self, name: str, environment: str, *, version: int | None = None, with_tasks: bool = False
    ) -> Mapping[str, Any]:
        """One version, the latest by default, as `job get` shows it (clause B270).

        `image` is the object of clause B71. Beside the keys of B270: `schedule_args` (the mapping
        of clause B75), `fail_after` and `expire_after` (microseconds or None). With `with_tasks`
        also `children_full`.

        Raises:
            NotFoundError: no such job or version in the environment.
            ConflictError: several jobs fit the name.
        """

    def list_jobs(
        self, *, environment: str | None = None, filter: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """The latest version of every job the caller may read, as `job ls` shows it; None means
        all environments; `filter` is an expression of clause B276."""

    def list_versions(self, name: str, *, environment: str | None = None) -> Sequence[int]:
        """Version numbers in one environment or in all; none for an unknown job (clause B118)."""

    def list_runs(
        self, name: str, environment: str, *, start_from: int | None = None, start_to: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Mother runs of a job as `job runs` shows them (clause B271), newest first, those whose
        start_time lies within the bounds, both inclusive."""

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        """One run, in the form of `list_runs`, with `display_name` beside. NotFoundError if
        there is none."""

    def list_run_tasks(self, run_id: int) -> Sequence[Mapping[str, Any]]:
        """The tasks of a run: the keys of clause B271 and `child_number` (the task's id).

        Tasks that produced no run may be left out, or stand there with state `did_not_run`; one
        that was taken over from an earlier run may stand there with `reused` True.
        """

    def read_log(
        self, run_id: int, *, task_id: int | None = None, stderr: bool = False, lines: int = 5000
    ) -> str:
        """The last lines of a task's log, "" when there is none yet.

        Without a task id: a workflow's own log (clause B156), for other types the output of the
        job's process (B155). NotFoundError for an unknown run or task.
        """

    def get_result(self, run_id: int, task_id: int) -> bytes | None:
        """The pickle that a task returned, None when there is none (clauses B159, B160)."""

    def rerun(
        self, run_id: int, *, name: str, environment: str, version: int | None = None, full: bool = False
    ) -> StartedRun:
        """Start a new run that repeats an earlier one (clauses B126 to B132)."""

    def promote_job(
        self, name: str, *, from_environment: str | None = None, version: int | None = None
    ) -> Sequence[str]:
        """Copy versions one environment further; one text per move (clauses B119 to B123)."""

    def remove_job(self, name: str, environment: str, *, all_versions: bool = True) -> Sequence[int]:
        """Stop the job and hide its versions, or the latest one (clause B125); the numbers."""


@runtime_checkable
class UserDirectory(Protocol):
    """What a platform that manages people answers beside `Platform` (sections 16 and 17).

    Users are mappings in the form of `Platform.caller`, groups have name, group_id and members.
    """

    def get_user(self, *, name: str | None = None, user_id: int | None = None) -> Mapping[str, Any]:
        """One user; NotFoundError if there is none."""

    def list_users(self, *, filter: str | None = None) -> Sequence[Mapping[str, Any]]:
        """All users, or those that fit the filter."""

    def add_user(self, user: Mapping[str, Any], *, password: str | None) -> Mapping[str, Any]:
        """Make a user; the answer is the user as stored."""

    def remove_user(self, name: str) -> None:
        """Remove a user."""

    def get_group(self, *, name: str | None = None, group_id: int | None = None) -> Mapping[str, Any]:
        """One group; NotFoundError if there is none."""


def get_platform() -> Platform | None:
    """The configured platform, or None when there is none (clause B61).

    Nothing is sent yet: the first call of a method connects. The client package is imported here
    and not before, so that definitions alone load neither grpc nor protobuf.

    Raises:
        InvalidRequestError: the configuration cannot be read or understood.
    """
    from datatailr.client.config import load_config

    config = load_config()
    if config is None:
        return None
    from datatailr.client.platform import connect

    platform: Platform = connect(config.address, config.token)
    return platform
