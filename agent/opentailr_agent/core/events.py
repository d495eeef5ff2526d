"""What can happen to a node; the input of `step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opentailr_agent.core.model import BuildState, Cause, Desired, StoredResult
from opentailr_agent.ports import Adopted, Outcome


@dataclass(frozen=True, slots=True)
class Recovered:
    """The journal was loaded and the runtime looked for the attempts that it names."""

    found: Mapping[str, Adopted]
    rebooted: bool = False
    """The machine restarted since the journal was written."""


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A session was opened."""

    keep: frozenset[str]
    stop: frozenset[str]
    forget: frozenset[str]
    acknowledged: int
    """Reports up to this number are committed."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The session ended; attempts go on."""


@dataclass(frozen=True, slots=True)
class WantedAttempt:
    """An entry of the desired set."""

    attempt_id: str
    fence: int
    desired: Desired
    grace: float = 0.0
    spec: object | None = None


@dataclass(frozen=True, slots=True)
class WantedBuild:
    """A build of the desired set."""

    build_id: str
    image_key: str
    spec: object


@dataclass(frozen=True, slots=True)
class Assigned:
    """The desired set: all of it, or the difference to `base`."""

    full: bool
    base: int
    revision: int
    attempts: Sequence[WantedAttempt] = ()
    builds: Sequence[WantedBuild] = ()
    removed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Reports up to this number are committed by the control plane."""

    seq: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Environment, code and inputs of the attempt are present."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """The attempt cannot be started here."""

    attempt_id: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The runtime has the order."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The runtime refused the order; nothing was started."""

    attempt_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The user's process exists. Microseconds since the epoch."""

    attempt_id: str
    started_at: int


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """Everything of the attempt is gone and reaped."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ResultStored:
    """The result is in the object store, verified."""

    attempt_id: str
    result: StoredResult


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The object store refuses the result for good."""

    attempt_id: str
    message: str


@dataclass(frozen=True, slots=True)
class LogsShipped:
    """Everything that the attempt or build wrote is durable at the control plane, or refused there."""

    log_id: str


@dataclass(frozen=True, slots=True)
class Removed:
    """Processes and files of the attempt are gone."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class BuildEnded:
    """A build is ready or failed."""

    build_id: str
    state: BuildState
    cause: Cause | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Why the node takes nothing new; empty when it does."""

    reason: str


@dataclass(frozen=True, slots=True)
class FlushDue:
    """Reports that are not terminal have waited long enough."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The operator ends the agent together with its attempts."""

    reason: str = field(default="the agent was ended by its operator")


Event = (
    Recovered
    | Welcomed
    | Disconnected
    | Assigned
    | Acknowledged
    | Prepared
    | PrepareFailed
    | HandedOver
    | StartFailed
    | ProcessStarted
    | ProcessEnded
    | ResultStored
    | StoreFailed
    | LogsShipped
    | Removed
    | BuildEnded
    | PressureChanged
    | FlushDue
    | Drain
)
