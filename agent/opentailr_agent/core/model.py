"""Vocabulary of the agent's core: states, causes, reports and records.

Numbers of enumerations equal those on the wire, so that the translator is a cast and a test can
compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from opentailr_agent.core.outbox import Outbox


class AttemptState(IntEnum):
    """What the control plane is told; ordered, states may be skipped forward, never taken back."""

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
        """True when nothing follows."""
        return self >= AttemptState.SUCCEEDED


class CauseKind(IntEnum):
    """Why an attempt ended as it did, or a build failed."""

    EXCEPTION = 1
    EXIT_CODE = 2
    SIGNAL = 3
    OUT_OF_MEMORY = 4
    RESULT = 5
    IMPORT = 6
    STOPPED = 8
    BUILD_FAILED = 10
    NODE_RESTARTED = 12
    LOST_BY_RUNTIME = 13
    NODE_FAULT = 14
    NODE_DRAINED = 15


class BuildState(IntEnum):
    """State of an image as the builder tells it."""

    BUILDING = 2
    READY = 3
    FAILED = 4

    @property
    def terminal(self) -> bool:
        """True when nothing follows."""
        return self is not BuildState.BUILDING


class Phase(IntEnum):
    """Where an attempt is on this node; finer than what is reported, and kept in the journal."""

    ACCEPTED = 1
    """The intent is on disk; nothing was started."""
    PREPARING = 2
    """Environment, code and inputs are being made present."""
    STARTING = 3
    """The runtime may have it: from here on it is never started again."""
    RUNNING = 4
    """The user's process exists."""
    ENDED = 5
    """Everything of it is reaped; its result is on the way to the object store."""
    DONE = 6
    """Its terminal report is in the outbox."""
    ACKNOWLEDGED = 7
    """The control plane has the outcome; the rest of the log may still be travelling."""
    RETIRED = 8
    """Nothing is left on the node but this entry, until the control plane takes it off its list."""


PHASES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.ACCEPTED: frozenset({Phase.PREPARING, Phase.DONE, Phase.ACKNOWLEDGED}),
    Phase.PREPARING: frozenset({Phase.STARTING, Phase.DONE, Phase.ACKNOWLEDGED}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.ENDED, Phase.DONE, Phase.ACKNOWLEDGED}),
    Phase.RUNNING: frozenset({Phase.ENDED, Phase.DONE, Phase.ACKNOWLEDGED}),
    Phase.ENDED: frozenset({Phase.DONE, Phase.ACKNOWLEDGED}),
    Phase.DONE: frozenset({Phase.ACKNOWLEDGED}),
    Phase.ACKNOWLEDGED: frozenset({Phase.RETIRED}),
    Phase.RETIRED: frozenset(),
}
"""Legal moves; the direct one to ACKNOWLEDGED belongs to attempts whose outcome nobody awaits."""


class Desired(IntEnum):
    """What the control plane wants of an attempt."""

    RUN = 1
    STOP = 2


@dataclass(frozen=True, slots=True)
class Cause:
    """One end, told the same way in every interface."""

    kind: CauseKind
    message: str = ""
    traceback: str = ""
    exit_code: int = 0
    signal: int = 0


@dataclass(frozen=True, slots=True)
class StoredResult:
    """Where the pickle of a result is: inside (at most 64 KiB), or in the object store."""

    size: int
    inline: bytes | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What happened to an attempt. Times are microseconds since the epoch, 0 for "not reached"."""

    attempt_id: str
    fence: int
    state: AttemptState
    observed_at: int
    cause: Cause | None = None
    started_at: int = 0
    ended_at: int = 0
    result: StoredResult | None = None
    preview: str = ""
    peak_memory_bytes: int = 0
    exception: bytes = b""

    @property
    def subject(self) -> str:
        """Key under which non-terminal reports replace one another."""
        return self.attempt_id

    @property
    def terminal(self) -> bool:
        """Terminal reports are never merged or dropped."""
        return self.state.terminal

    @property
    def weight(self) -> int:
        """About the bytes on the wire; bounds a batch."""
        inline = len(self.result.inline or b"") if self.result else 0
        told = len(self.cause.message) + len(self.cause.traceback) if self.cause else 0
        return 256 + inline + 3 * told + len(self.preview) + len(self.exception)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What happened to a build."""

    build_id: str
    image_key: str
    state: BuildState
    observed_at: int
    cause: Cause | None = None
    notice: str = ""

    @property
    def subject(self) -> str:
        """Key under which non-terminal reports replace one another."""
        return self.build_id

    @property
    def terminal(self) -> bool:
        """Terminal reports are never merged or dropped."""
        return self.state.terminal

    @property
    def weight(self) -> int:
        """About the bytes on the wire; bounds a batch."""
        told = len(self.cause.message) + len(self.cause.traceback) if self.cause else 0
        return 256 + 3 * told + len(self.notice)


AnyReport = AttemptReport | BuildReport


@dataclass(slots=True)
class AttemptRecord:
    """One attempt on this node; `attempt_id`, `fence` and the durable part of `phase` are journalled."""

    attempt_id: str
    fence: int
    phase: Phase
    desired: Desired = Desired.RUN
    grace: float = 0.0
    """Seconds between SIGTERM and SIGKILL."""
    spec: object | None = None
    """What to run, opaque here. It holds a token and the user's variables and is therefore never
    journalled: after a restart the next full set brings it again."""
    told: int = 0
    """Largest reported state; later reports never go below it."""
    handed_over: bool = False
    """The runtime has confirmed the order, so a stop can reach it."""
    stop_sent: bool = False
    forgotten: bool = False
    """Nobody awaits the outcome: end it, report nothing."""
    drained: bool = False
    """Stopped by the operator of the node, not by a person who stopped the run."""
    logs_shipped: bool = False
    outcome: AttemptReport | None = None
    """Terminal report that waits for its result to be stored."""
    started_at: int = 0


@dataclass(slots=True)
class BuildRecord:
    """One build asked for by the control plane; rebuilt from the full set after a restart."""

    build_id: str
    image_key: str
    spec: object
    done: bool = False


@dataclass(slots=True)
class NodeState:
    """All that the core knows. Only `step` writes it."""

    slots: int
    build_slots: int = 2
    drain_grace: float = 2.0
    """Seconds between SIGTERM and SIGKILL when the operator ends the agent with its attempts."""
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)
    builds: dict[str, BuildRecord] = field(default_factory=dict)
    desired: set[str] = field(default_factory=set)
    """Ids on the control plane's list as of `revision`."""
    revision: int = 0
    synced: bool = False
    """A full set of this session was applied; deltas may follow."""
    connected: bool = False
    received_attempts: int = 0
    """New attempts in this session; credit is counted from it."""
    received_builds: int = 0
    attempt_limit: int = 0
    """Credit given in this session; only grows."""
    build_limit: int = 0
    pressure: str = ""
    draining: bool = False
    outbox: Outbox[AnyReport] = field(default_factory=Outbox)

    @property
    def live_attempts(self) -> int:
        """Attempts that hold a slot: until everything is reaped and the result is stored."""
        return sum(record.phase < Phase.DONE for record in self.attempts.values())

    @property
    def live_builds(self) -> int:
        """Builds that go on."""
        return sum(not record.done for record in self.builds.values())
