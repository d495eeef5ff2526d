"""Environment variables of jobs (clauses B68, B228)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["ENV_PREFIX", "EnvVars", "checked_env_vars", "env_entries", "env_from_entries", "env_pairs"]

ENV_PREFIX = "DATATAILR_JOB_ENV_"
"""Stands before every user variable in JSON; the platform removes it again."""

EnvVars = dict[str, "str | int | float | bool"]


def checked_env_vars(env_vars: Mapping[str, Any] | None, *, owner: str) -> EnvVars:
    """A copy of the variables.

    Raises:
        TypeError: no mapping.
        ValueError: a name or value that no process can be given.
    """
    if env_vars is None:
        return {}
    if not isinstance(env_vars, Mapping):
        raise TypeError(f"env_vars of {owner} is {env_vars!r}; it must be a dict of names to values")
    for name, value in env_vars.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"env_vars of {owner}: {name!r} cannot be the name of a variable")
        if "\0" in str(value):
            raise ValueError(f"env_vars of {owner}: the value of {name} holds a null character")
    return dict(env_vars)


def env_pairs(env_vars: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts, in order."""
    return [(name, str(value)) for name, value in env_vars.items()]


def env_entries(env_vars: Mapping[str, Any]) -> list[dict[str, str]]:
    """The form of JSON: one-entry objects, in order, names with the prefix."""
    return [{ENV_PREFIX + name: text} for name, text in env_pairs(env_vars)]


def env_from_entries(entries: Iterable[Mapping[str, Any]] | Mapping[str, Any] | None) -> EnvVars:
    """The variables of a platform answer; the prefix may be there or not."""
    if entries is None:
        return {}
    mappings = [entries] if isinstance(entries, Mapping) else entries
    return {name.removeprefix(ENV_PREFIX): value for mapping in mappings for name, value in mapping.items()}
