"""What a step wants sent to agents. The engine releases it after the commit, never before."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from .definition import Plan
from .values import Bundle, Environment, PayloadRef, Recipe


class VerdictKind(IntEnum):
    """What an agent shall do with an attempt in its journal; numbers as on the wire."""

    KEEP = 1
    STOP = 2
    FORGET = 3


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """One attempt in an agent's desired set.

    With `stop` nothing but id and fence matters. `inputs` are the results of the task's upstreams.
    """

    attempt_id: str
    fence: int
    stop: bool
    run_id: int = 0
    task_id: int = 0
    job_id: str = ""
    environment: Environment = Environment.DEV
    version: int = 0
    plan: Plan | None = None
    inputs: tuple[tuple[int, PayloadRef], ...] = ()
    run_as: str = ""
    run_date: str = ""
    submit_time: int = 0
    scheduled_time: int = 0
    started_at: int = 0
    original_run_id: int = -1
    partial_rerun: bool = False


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """One build in an agent's desired set."""

    build_id: str
    image_key: str
    recipe: Recipe
    bundle: Bundle | None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a Hello."""

    agent_id: str
    epoch: int
    verdicts: tuple[tuple[str, VerdictKind], ...]
    acked_seq: int


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired set of an agent, whole or as a difference to `base`."""

    agent_id: str
    epoch: int
    full: bool
    base: int
    revision: int
    attempts: tuple[AttemptOrder, ...]
    builds: tuple[BuildOrder, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """The answer to a heartbeat."""

    agent_id: str
    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Reports up to this number are committed."""

    agent_id: str
    epoch: int
    report_seq: int


@dataclass(frozen=True, slots=True)
class Directive:
    """Whether the agent gets new work."""

    agent_id: str
    epoch: int
    schedulable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A session ends; `superseded` when another process took the agent's place."""

    agent_id: str
    epoch: int
    reason: str
    superseded: bool


Effect = Welcome | Desired | LeaseGrant | Acknowledge | Directive | Dismiss


@dataclass(slots=True)
class Effects:
    """Effects of the steps since the last commit, in order."""

    items: list[Effect] = field(default_factory=list)
