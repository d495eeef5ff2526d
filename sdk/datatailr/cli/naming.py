"""Names as people type them: a beginning that fits one job alone is enough, and near misses are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from datatailr._near import near
from datatailr.cli.output import tell
from datatailr.errors import NotFoundError

if TYPE_CHECKING:
    from datatailr.client.connection import Connection

T = TypeVar("T")

_MOST_CANDIDATES: Final = 10
"""Names that a message lists."""


def forgiving(connection: Connection, name: str, environment: str | None, call: Callable[[str], T]) -> T:
    """The answer of a call that takes a job by name, also for the unique beginning of a name.

    The name is sent as it is first, so internal names, display names and ids cost no further call.
    Only for what reads or starts: whatever stops, changes or removes wants the whole name.

    Args:
        connection: The server.
        name: What the user typed.
        environment: Where the job lives; None for all.
        call: Makes the call with a name.

    Raises:
        NotFoundError: there is no such job, with names that are near, or several begin like that.
    """
    try:
        return call(name)
    except NotFoundError as error:
        failure = error

    full = full_name(connection, name, environment, failure)
    tell(f"note: {name} is taken for {full}")
    return call(full)


def full_name(connection: Connection, name: str, environment: str | None, failure: NotFoundError) -> str:
    """The name of the one job that begins like that.

    Args:
        connection: The server.
        name: What the user typed, which is no whole name.
        environment: Where to look; None for all.
        failure: Raised when no better message is possible.

    Raises:
        NotFoundError: none begins like that, or several do.
    """
    from datatailr.client import queries

    known: dict[str, str] = {}
    ids: set[str] = set()

    for job in queries.jobs(connection, environment=environment):
        known[job.definition.name] = job.definition.display_name
        ids.add(job.id)

    if name in known or name in known.values() or name in ids:
        # Something else than the job is missing.
        raise failure

    begun = name.casefold()
    fitting = [
        internal
        for internal, display in known.items()
        if begun and (internal.casefold().startswith(begun) or display.casefold().startswith(begun))
    ]

    if len(fitting) == 1:
        return fitting[0]

    where = f" in {environment}" if environment else ""

    if fitting:
        listed = ", ".join(fitting[:_MOST_CANDIDATES])
        more = f" and {len(fitting) - _MOST_CANDIDATES} more" if len(fitting) > _MOST_CANDIDATES else ""
        raise NotFoundError(
            f"{name!r} is the beginning of {len(fitting)} names{where}: {listed}{more}\n"
            "hint: give more of the name"
        )

    meant = near(name, [*known, *known.values()])

    if meant:
        raise NotFoundError(f"no job {name!r}{where}\nhint: did you mean {meant!r}?")

    raise failure
