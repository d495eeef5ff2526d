"""How long things are kept: by age and by count, for each environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from .core.values import Environment

DAY: Final = 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_LONGEST: Final = 100 * 365 * DAY
_AGE: Final = re.compile(r"(\d{1,9})([smhdw])")


class PolicyError(ValueError):
    """A rule cannot be used; the text names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long the finished runs of one environment are kept; 0 means for ever, and without limit."""

    run_age: int
    """Seconds since the end of a run."""
    run_count: int
    """Runs of one job, the newest."""
    log_age: int
    """Seconds since the end of a run for which its logs are kept."""


_DEFAULTS: Final[Mapping[Environment, Keep]] = MappingProxyType(
    {
        Environment.DEV: Keep(30 * DAY, 10_000, 14 * DAY),
        Environment.PRE: Keep(180 * DAY, 10_000, 90 * DAY),
        Environment.PROD: Keep(180 * DAY, 10_000, 90 * DAY),
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept for how long. Times in seconds."""

    environments: Mapping[Environment, Keep] = field(default_factory=lambda: _DEFAULTS)
    """For each environment."""
    node_age: int = 30 * DAY
    """Since a node was last heard; then it is forgotten, with what it may have taken along."""
    object_grace: int = DAY
    """For which an object stays that nobody refers to: an upload whose sender has not said what it is for."""
    damaged_age: int = 30 * DAY
    """For which an object that lost its content stays aside for inspection."""

    @classmethod
    def parse(cls, runs: Iterable[str] = (), logs: Iterable[str] = ()) -> Policy:
        """The defaults, changed by rules such as `dev=30d,10000` for runs and `dev=14d` for logs.

        An age is a number with s, m, h, d or w, or `forever`; the count may be left out and then stays as
        it is, 0 means no limit. Logs are never kept longer than their run.

        Raises:
            PolicyError: a rule cannot be read.
        """
        chosen = dict(_DEFAULTS)
        for rule in runs:
            environment, text = _split(rule, "--retain", "dev=30d,10000")
            age, comma, count = text.partition(",")
            keep = replace(chosen[environment], run_age=_age(age, rule, "--retain"))
            if comma:
                keep = replace(keep, run_count=_count(count, rule))
            chosen[environment] = keep
        for rule in logs:
            environment, text = _split(rule, "--retain-logs", "dev=14d")
            chosen[environment] = replace(chosen[environment], log_age=_age(text, rule, "--retain-logs"))
        return cls(MappingProxyType(chosen))

    def describe(self) -> list[tuple[str, str]]:
        """Environment and rule in words, for people."""
        return [(environment.text, _words(keep)) for environment, keep in self.environments.items()]


def _split(rule: str, flag: str, example: str) -> tuple[Environment, str]:
    name, equals, text = rule.partition("=")
    known = {environment.text: environment for environment in Environment}
    if not equals or name.strip().lower() not in known:
        raise PolicyError(f"{flag} {rule!r}: begin with dev=, pre= or prod=, for instance {example}")
    return known[name.strip().lower()], text


def _age(text: str, rule: str, flag: str) -> int:
    if text.strip() == "forever":
        return 0
    match = _AGE.fullmatch(text.strip())
    seconds = int(match[1]) * _UNITS[match[2]] if match is not None else 0
    if not 0 < seconds <= _LONGEST:
        raise PolicyError(
            f"{flag} {rule!r}: {text.strip()!r} is no age; give a number with s, m, h, d or w, for instance "
            "30d, or forever"
        )
    return seconds


def _count(text: str, rule: str) -> int:
    if not re.fullmatch(r"\s*\d{1,9}\s*", text):
        raise PolicyError(
            f"--retain {rule!r}: {text.strip()!r} is no number of runs; give one, or 0 for no limit"
        )
    return int(text)


def _words(keep: Keep) -> str:
    runs = f"runs {_span(keep.run_age)}"
    if keep.run_count:
        runs += f", at most {keep.run_count:,} of a job"
    return f"{runs}; logs {_span(keep.log_age)}"


def _span(seconds: int) -> str:
    if not seconds:
        return "for ever"
    for unit in reversed(_UNITS):
        if seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    raise AssertionError(seconds)
