"""What waits in the engine's queue, and what becomes of it when a round breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from .core.commands import AgentEvent, Command, Reply
from .core.definition import Plan
from .core.errors import CoreError, Unavailable
from .core.model import PriorRun
from .engine_views import SessionSink


@dataclass(slots=True, eq=False)
class Item:
    """A command or an agent's event, and who waits for its answer."""

    event: Command | AgentEvent
    future: asyncio.Future[Reply | int | None] | None = None
    sink: SessionSink | None = None
    result: Reply | int | None = None
    error: Exception | None = None
    plan: Plan | None = None
    prior: PriorRun | None = None
    prior_as_of: int = 0
    """How often results had been taken away when `prior` was read."""


def stopping() -> CoreError:
    """Why a command is refused that comes, or still waits, when the engine ends."""
    return Unavailable("stopping", "The control plane stops.", hint="Try again in a moment.")


@dataclass(frozen=True, slots=True)
class Broken:
    """How a round that met a defect is taken apart."""

    culprit: Item | None
    """Whose step failed. None when it failed before or after the steps of several items."""
    again: list[Item]
    """Commands that changed nothing and are to be carried out anew, in order."""


def take_apart(items: Sequence[Item], done: Sequence[Item], position: int) -> Broken:
    """Tells the culprit of a defect from the rest of its round.

    Args:
        items: The round.
        done: Those whose step came back; others before `position` wait for something to be loaded.
        position: Of the item whose step failed, -1 before the first, the length of `items` after the last.
    """
    tried = [*done, *items[position + 1 :]]
    culprit = None
    if 0 <= position < len(items):
        culprit = items[position]
    elif len(tried) == 1:
        culprit = tried[0]
    return Broken(
        culprit, [item for item in tried if item is not culprit and isinstance(item.event, Command)]
    )
