"""What each listing can be filtered and sorted by (clause B280)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from datatailr.filters.expressions import Operator


class Kind(Enum):
    """What a field holds."""

    TEXT = "text"
    WORD = "word"
    """A text out of a fixed list."""

    NUMBER = "number"
    TIME = "time"
    """Microseconds since the epoch; null while it is not reached."""


@dataclass(frozen=True)
class Field:
    """One field of a listing.

    Attributes:
        name: As expressions and JSON write it.
        kind: What it holds.
        words: The values of a `WORD`.
    """

    name: str
    kind: Kind
    words: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        """True where values are numbers."""
        return self.kind in (Kind.NUMBER, Kind.TIME)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators that fit the type (clause B277)."""
        return tuple(
            operator for operator in Operator if not (operator.textual if self.numeric else operator.ordering)
        )


@dataclass(frozen=True)
class Listing:
    """A list that people ask for.

    Attributes:
        name: The command that prints it, for messages.
        fields: Its fields by name.
    """

    name: str
    fields: Mapping[str, Field]


STATES: Final = (
    "created",
    "building",
    "ready",
    "scheduled",
    "pending",
    "starting",
    "running",
    "completed",
    "failed",
    "failed_after",
    "out_of_memory",
    "stopped",
    "expired",
)
"""States of versions and runs (clause B107)."""

TYPES: Final = ("batch", "service", "app", "excel")
ENVIRONMENTS: Final = ("dev", "pre", "prod")


def _listing(name: str, *fields: Field) -> Listing:
    return Listing(name, {field.name: field for field in fields})


JOBS: Final = _listing(
    "job ls",
    Field("name", Kind.TEXT),
    Field("display_name", Kind.TEXT),
    Field("id", Kind.TEXT),
    Field("type", Kind.WORD, TYPES),
    Field("state", Kind.WORD, STATES),
    Field("environment", Kind.WORD, ENVIRONMENTS),
    Field("run_as", Kind.TEXT),
    Field("create_time", Kind.TIME),
    Field("cpu", Kind.NUMBER),
    Field("memory", Kind.NUMBER),
    Field("version", Kind.NUMBER),
)

RUNS: Final = _listing(
    "job runs",
    Field("name", Kind.TEXT),
    Field("state", Kind.WORD, STATES),
    Field("type", Kind.WORD, TYPES),
    Field("environment", Kind.WORD, ENVIRONMENTS),
    Field("job_id", Kind.TEXT),
    Field("run_id", Kind.NUMBER),
    Field("submit_time", Kind.TIME),
    Field("start_time", Kind.TIME),
    Field("scheduled_time", Kind.TIME),
    Field("end_time", Kind.TIME),
)

USERS: Final = _listing(
    "user ls",
    Field("name", Kind.TEXT),
    Field("user_id", Kind.NUMBER),
    Field("email", Kind.TEXT),
)

GROUPS: Final = _listing("group ls", Field("name", Kind.TEXT), Field("group_id", Kind.NUMBER))
