"""The part of the state that a restart must bring back, as plain values to compare (invariant 1)."""

from __future__ import annotations

import dataclasses
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
    if isinstance(value, Plan):
        return (value.definition_id, value.image_key, value.definition, tuple(value.tasks.items()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        skipped = EPHEMERAL.get(kind, frozenset())
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in skipped
        }
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 6)
    return value
