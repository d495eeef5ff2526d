"""Schedules as values: readable fields, compiled to a cron string (clauses B76 to B91)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datatailr.scheduler._platform import ScheduleRequest

__all__ = ["Schedule"]

_WEEKDAYS = {name: number for number, name in enumerate(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 1)}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_CONDITIONS = {
    "success": "success",
    "completed": "success",
    "failure": "failure",
    "failed": "failure",
    "any": "any",
    "always": "any",
    "finished": "any",
}
_INT_LISTS = {"at_minutes": (0, 59), "at_hours": (0, 23)}
_INTS = {"every_minute": (1, 59), "every_hour": (1, 23), "day_of_month": (1, 31), "every_month": (1, 12)}
_NAME_LISTS = {"weekdays": _WEEKDAYS, "in_month": _MONTHS}
_TEXTS = ("timezone", "run_after_job_uuid", "run_after_job_name", "run_after_job_condition")
_EXCLUSIVE = (("at_minutes", "every_minute"), ("at_hours", "every_hour"), ("in_month", "every_month"))


def _integer(field: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{field} is {value!r}; it must be a whole number from {low} to {high}")
    return value


def _integers(field: str, value: object, low: int, high: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple | set | frozenset | range) else [value]
    if not values:
        raise ValueError(f"{field} is empty; leave it out or name at least one number")
    return [_integer(field, entry, low, high) for entry in values]


def _one_integer(field: str, value: object, low: int, high: int) -> int:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return _integer(field, value, low, high)


def _names(field: str, value: object, known: dict[str, int]) -> list[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        raise ValueError(f"{field} is {value!r}; it must be a list of names such as {list(known)[:2]!r}")
    for entry in value:
        if not isinstance(entry, str) or not entry.isalpha() or entry[:3].lower() not in known:
            raise ValueError(
                f"{field} holds {entry!r}; the first three letters must be one of {', '.join(known)}"
            )
    return list(value)


def _timezone(value: str) -> str:
    if value.upper() == "UTC":
        return value
    # zoneinfo costs an import that most processes never need
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError) as error:  # a missing zone is a KeyError, a folder an OSError
        raise ValueError(
            f"timezone {value!r} is unknown; it must be an IANA name such as 'Europe/Paris' or 'UTC'"
        ) from error
    return value


def _condition(value: str) -> str:
    words = value.lower().split()
    if words[:1] == ["on"]:
        words = words[1:]
    condition = _CONDITIONS.get(" ".join(words))
    if condition is None:
        raise ValueError(
            f"run_after_job_condition is {value!r}; it must be one of {', '.join(_CONDITIONS)}, "
            "with or without 'on' before it"
        )
    return condition


def _cron_expression(value: str) -> str:
    text = value.strip()
    if text and len(text.split()) not in (5, 6):
        raise ValueError(
            f"cron_expression {value!r} has {len(text.split())} fields; it must have 5 "
            "(minute hour day month weekday) or 6 (with the second before them)"
        )
    return text


class Schedule:
    """When a workflow runs by itself.

    Give either a raw `cron_expression` or the readable fields; if both are given, the fields win
    (clause B82). Every field is an attribute and is checked when it is assigned; what contradicts
    itself across fields is found by the constructor and by `get_cron_string()` (clause B86).

    Args:
        cron_expression: 5 or 6 fields; with 5 the second is 0.
        at_minutes: Minutes within the hour, 0 to 59; a list or one number.
        every_minute: Every N minutes, 1 to 59.
        at_hours: Hours of the day, 0 to 23; a list or one number.
        every_hour: Every N hours, 1 to 23.
        weekdays: Names of which the first three letters count, in any case.
        day_of_month: 1 to 31.
        in_month: Names of which the first three letters count, in any case.
        every_month: Every N months, 1 to 12.
        timezone: IANA name in which the fields are read; None means UTC. Not part of the cron string.
        run_after_job_uuid: Id of a job whose finished runs start this one.
        run_after_job_name: Display or internal name of such a job, in the same environment.
        run_after_job_condition: Outcome it must have: success (also completed; the default), failure
            (also failed), any (also always, finished); `on` may stand before it.

    Raises:
        ValueError: a value out of range, an unknown name, or fields that exclude each other.
    """

    cron_expression: str
    at_minutes: list[int] | None
    every_minute: int | None
    at_hours: list[int] | None
    every_hour: int | None
    weekdays: list[str] | None
    day_of_month: int | None
    in_month: list[str] | None
    every_month: int | None
    timezone: str | None
    run_after_job_uuid: str | None
    run_after_job_name: str | None
    run_after_job_condition: str | None

    def __init__(
        self,
        cron_expression: str = "",
        at_minutes: int | Iterable[int] | None = None,
        every_minute: int | list[int] | None = None,
        at_hours: int | Iterable[int] | None = None,
        every_hour: int | list[int] | None = None,
        weekdays: Iterable[str] | None = None,
        day_of_month: int | list[int] | None = None,
        in_month: Iterable[str] | None = None,
        every_month: int | list[int] | None = None,
        timezone: str | None = None,
        run_after_job_uuid: str | None = None,
        run_after_job_name: str | None = None,
        run_after_job_condition: str | None = None,
    ) -> None:
        given = dict(locals())
        del given["self"]
        for name, value in given.items():
            setattr(self, name, value)
        self._check_combinations()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._checked(name, value))

    @staticmethod
    def _checked(name: str, value: Any) -> Any:
        if name == "cron_expression":
            if value is None:
                return ""
            if not isinstance(value, str):
                raise ValueError(f"cron_expression is {value!r}; it must be a text")
            return value
        if value is None:
            return None
        if name in _INT_LISTS:
            return _integers(name, value, *_INT_LISTS[name])
        if name in _INTS:
            return _one_integer(name, value, *_INTS[name])
        if name in _NAME_LISTS:
            return _names(name, value, _NAME_LISTS[name])
        if name in _TEXTS:
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name} is {value!r}; it must be a text")
            if name == "timezone":
                return _timezone(value)
            if name == "run_after_job_condition":
                _condition(value)
        return value

    def _check_combinations(self) -> None:
        for first, second in _EXCLUSIVE:
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(f"{first} and {second} exclude each other; give one of them")
        if self.run_after_job_condition is not None and not (
            self.run_after_job_uuid or self.run_after_job_name
        ):
            raise ValueError(
                "run_after_job_condition needs a predecessor; give run_after_job_name or run_after_job_uuid"
            )
        if not self._has_helpers():
            _cron_expression(self.cron_expression)

    def _has_helpers(self) -> bool:
        names = (*_INT_LISTS, *_INTS, *_NAME_LISTS)
        return any(getattr(self, name) is not None for name in names)

    def get_cron_string(self) -> str:
        """Six fields: second minute hour day-of-month month day-of-week; "" when nothing is set.

        A raw expression is returned as given, outer blanks stripped.

        Raises:
            ValueError: fields exclude each other, or a list was changed in place to a bad value.
        """
        for name in (*_INT_LISTS, *_INTS, *_NAME_LISTS):
            self._checked(name, getattr(self, name))
        self._check_combinations()
        if not self._has_helpers():
            return _cron_expression(self.cron_expression)
        minute = self._number_field(self.at_minutes, self.every_minute)
        hour = self._number_field(self.at_hours, self.every_hour)
        month = self._number_field(self._numbers("in_month"), self.every_month)
        weekday = self._number_field(self._numbers("weekdays"), None)
        day = None if self.day_of_month is None else str(self.day_of_month)
        # Fields finer than the finest one given take their first value (clause B79).
        if minute is None and hour is not None:
            minute = "0"
        elif minute is None and (day is not None or weekday is not None):
            minute, hour = "0", "0"
        elif minute is None:
            minute, hour, day = "0", "0", "1"
        return " ".join(["0", *(part or "*" for part in (minute, hour, day, month, weekday))])

    def _numbers(self, name: str) -> list[int] | None:
        entries = getattr(self, name)
        return None if entries is None else [_NAME_LISTS[name][entry[:3].lower()] for entry in entries]

    @staticmethod
    def _number_field(at: list[int] | None, every: int | None) -> str | None:
        if at is not None:
            return ",".join(str(number) for number in sorted(set(at)))
        return None if every is None else f"*/{every}"

    def is_empty(self) -> bool:
        """True when it would never start anything: no cron string, no predecessor (clause B83)."""
        return not self.get_cron_string() and not (self.run_after_job_uuid or self.run_after_job_name)

    def get_schedule_args(self) -> dict[str, Any]:
        """The fields that are set, lists joined by `,` (clause B75)."""
        names = (
            *("at_minutes", "every_minute", "at_hours", "every_hour", "weekdays", "day_of_month"),
            *("in_month", "every_month", *_TEXTS),
        )
        found: dict[str, Any] = {}
        for name in names:
            value = getattr(self, name)
            if value is not None:
                found[name] = ",".join(str(entry) for entry in value) if isinstance(value, list) else value
        return found

    @classmethod
    def from_platform(cls, cron: str | None, schedule_args: dict[str, Any]) -> Schedule | None:
        """The schedule of a saved version, None when it has none (clause B112)."""
        known: dict[str, Any] = {}
        for name, value in schedule_args.items():
            if name in _INT_LISTS or name in _NAME_LISTS:
                entries = str(value).split(",")
                known[name] = [int(entry) for entry in entries] if name in _INT_LISTS else entries
            elif name in _INTS:
                known[name] = int(value)
            elif name in _TEXTS:
                known[name] = value
        schedule = cls(**known)
        if not schedule._has_helpers():
            schedule.cron_expression = cron or ""
        return None if schedule.is_empty() else schedule

    def request(self, schedule_args: dict[str, Any]) -> ScheduleRequest:
        """The form for the platform; `schedule_args` is what `get_schedule_args()` of the job gave."""
        condition = schedule_args.get("run_after_job_condition")
        predecessor = schedule_args.get("run_after_job_uuid") or schedule_args.get("run_after_job_name")
        return ScheduleRequest(
            cron=self.get_cron_string(),
            timezone=schedule_args.get("timezone"),
            run_after_job_uuid=schedule_args.get("run_after_job_uuid"),
            run_after_job_name=schedule_args.get("run_after_job_name"),
            run_after_job_condition=_condition(condition or "success") if predecessor else None,
            fields=dict(schedule_args),
        )

    def __str__(self) -> str:
        return self.get_cron_string()

    def __repr__(self) -> str:
        parts = [f"cron_expression={self.cron_expression!r}"] if self.cron_expression else []
        parts += [f"{name}={value!r}" for name, value in self.get_schedule_args().items()]
        return f"Schedule({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]
