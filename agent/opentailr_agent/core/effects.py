"""What the core wants done; the output of `step`.

Those of the first group change the journal and are committed, all that gathered in one
transaction, before any of the second group is carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentailr_agent.core.model import AnyReport, Phase
from opentailr_agent.core.outbox import Entry
from opentailr_agent.ports import Outcome


@dataclass(frozen=True, slots=True)
class SaveAttempt:
    """Write the attempt's entry."""

    attempt_id: str
    fence: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class DropAttempt:
    """Delete the attempt's entry."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class SaveReport:
    """Write a numbered report."""

    entry: Entry[AnyReport]


@dataclass(frozen=True, slots=True)
class DropReports:
    """Delete the reports up to this number."""

    seq: int


@dataclass(frozen=True, slots=True)
class SaveRevision:
    """Write the revision that the journal now reflects."""

    revision: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make environment, code and inputs of the attempt present."""

    attempt_id: str
    spec: object


@dataclass(frozen=True, slots=True)
class CancelPreparation:
    """The attempt is not wanted any more; stop preparing it."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Hand the prepared attempt to the runtime."""

    attempt_id: str
    spec: object


@dataclass(frozen=True, slots=True)
class Stop:
    """End the attempt's processes; seconds of grace."""

    attempt_id: str
    grace: float


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Put the result into the object store."""

    attempt_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class FinishLogs:
    """Nothing more will be written: ship the rest and the end marks."""

    log_id: str


@dataclass(frozen=True, slots=True)
class DiscardLogs:
    """Nobody asks for the rest of this log."""

    log_id: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the attempt in the runtime and delete its files."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class Build:
    """Build an image and ship its log."""

    build_id: str
    image_key: str
    spec: object


@dataclass(frozen=True, slots=True)
class CancelBuild:
    """Nobody asks for this build any more."""

    build_id: str


@dataclass(frozen=True, slots=True)
class SendReports:
    """Send a batch."""

    entries: Sequence[Entry[AnyReport]]


@dataclass(frozen=True, slots=True)
class SendApplied:
    """Tell which revision the journal reflects."""

    revision: int
    need_full: bool


@dataclass(frozen=True, slots=True)
class SendCredit:
    """Tell how much the node is willing to have been sent in this session."""

    attempt_limit: int
    build_limit: int


JournalEffect = SaveAttempt | DropAttempt | SaveReport | DropReports | SaveRevision
Action = (
    Prepare
    | CancelPreparation
    | Start
    | Stop
    | StoreResult
    | FinishLogs
    | DiscardLogs
    | Remove
    | Build
    | CancelBuild
    | SendReports
    | SendApplied
    | SendCredit
)
Effect = JournalEffect | Action
