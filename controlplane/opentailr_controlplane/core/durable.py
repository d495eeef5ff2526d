"""The part of the state that a restart must bring back, as plain values to compare (invariant 1)."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from .definition import Plan
from .model import EPHEMERAL, State

_PARTS = (
    "installation",
    "next_job",
    "next_definition",
    "next_run",
    "next_build",
    "jobs",
    "job_names",
    "images",
    "builds",
    "agents",
    "runs",
    "job_runs",
    "attempts",
    "remembered",
    "expiries",
)


def durable_view(state: State) -> dict[str, Any]:
    """Every stored field of every record, with records that are shared named by their keys."""
    return {part: _plain(getattr(state, part)) for part in _PARTS}


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind is dict:
        return {key: _plain(item) for key, item in value.items()}
    if kind is float:
        return round(value, 6)
    if kind is Plan:
        return (value.definition_id, value.image_key, value.definition, tuple(value.tasks.items()))
    if kind is set:
        return frozenset(value)
    names = _kept(kind)
    return {name: _plain(getattr(value, name)) for name in names} if names else value


@cache
def _kept(kind: Any) -> tuple[str, ...]:
    """The stored fields of a record; none for values, which never change and compare by themselves."""
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or parameters.frozen:
        return ()
    skipped = EPHEMERAL.get(kind.__name__, frozenset())
    return tuple(field.name for field in dataclasses.fields(kind) if field.name not in skipped)
