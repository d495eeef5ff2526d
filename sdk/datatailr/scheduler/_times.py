"""Times of the platform and times of users (clauses B145, B147)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ["local_time", "microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def local_time(count: Any) -> datetime | None:
    """Microseconds since the epoch as a naive local datetime; None for None and 0."""
    if not count:
        return None
    seconds, rest = divmod(int(count), 1_000_000)
    return datetime.fromtimestamp(seconds).replace(microsecond=rest)


def microseconds(value: datetime | None, *, field: str) -> int | None:
    """Microseconds since the epoch; a naive datetime is local time.

    Raises:
        TypeError: no datetime.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{field} is {value!r}; it must be a datetime")
    return (value.astimezone(timezone.utc) - _EPOCH) // timedelta(microseconds=1)
