"""Durations as users write them (clauses B10 to B12)."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["duration_microseconds", "parse_duration"]

_DURATION = re.compile(
    r"\s*(?:(?P<hours>[0-9]+)\s*h)?\s*(?:(?P<minutes>[0-9]+)\s*m)?\s*(?:(?P<seconds>[0-9]+)\s*s)?\s*"
)


def parse_duration(duration_str: str) -> timedelta:
    """Read `2h`, `1h 30m`, `45m`, `2h 15s`: hours, minutes, seconds in this order, each optional.

    Raises:
        TypeError: not a text.
        ValueError: the text does not match as a whole, or names nothing.
    """
    if not isinstance(duration_str, str):
        raise TypeError(f"duration is {duration_str!r}; it must be a text such as '1h 30m'")
    match = _DURATION.fullmatch(duration_str)
    parts = {unit: int(count) for unit, count in match.groupdict().items() if count} if match else {}
    if not parts:
        raise ValueError(
            f"duration {duration_str!r} cannot be read; write hours, minutes, seconds in this order, "
            "for instance '2h', '1h 30m', '45m' or '10s'"
        )
    try:
        return timedelta(**parts)
    except OverflowError as error:
        raise ValueError(f"duration {duration_str!r} is too long") from error


def duration_microseconds(value: timedelta | str | None, *, field: str) -> int | None:
    """Whole microseconds of a duration, None when it is not set (clause B12).

    Raises:
        TypeError: neither text, timedelta nor None.
        ValueError: unreadable, zero or negative.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            duration = parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None
    elif isinstance(value, timedelta):
        duration = value
    else:
        raise TypeError(f"{field} is {value!r}; it must be a timedelta or a text such as '1h 30m'")
    if duration <= timedelta(0):
        raise ValueError(f"{field} is {value!r}; it must be longer than zero")
    return duration // timedelta(microseconds=1)
