"""The options that say when something runs, and cron text in words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from datatailr.scheduler import Schedule

AtMinutes = Annotated[
    str | None, typer.Option("-m", "--at-minutes", metavar="0,30", help="Minutes of the hour, 0 to 59.")
]
EveryMinute = Annotated[
    int | None, typer.Option("-M", "--every-minute", metavar="N", help="Every N minutes, 1 to 59.")
]
AtHours = Annotated[
    str | None, typer.Option("-a", "--at-hours", metavar="8,16", help="Hours of the day, 0 to 23.")
]
EveryHour = Annotated[
    int | None, typer.Option("-H", "--every-hour", metavar="N", help="Every N hours, 1 to 23.")
]
Weekdays = Annotated[
    str | None, typer.Option("-w", "--weekdays", metavar="mon,fri", help="Days of the week.")
]
DayOfMonth = Annotated[
    int | None, typer.Option("-d", "--day-of-month", metavar="N", help="Day of the month, 1 to 31.")
]
InMonth = Annotated[str | None, typer.Option("-i", "--in-month", metavar="jan,jul", help="Months.")]
EveryMonth = Annotated[
    int | None, typer.Option("-e", "--every-month", metavar="N", help="Every N months, 1 to 12.")
]
Timezone = Annotated[
    str | None, typer.Option("-z", "--timezone", metavar="NAME", help="Where these are read; UTC by default.")
]
RunAfterId = Annotated[
    str | None, typer.Option("-u", "--run-after-job-uuid", metavar="ID", help="Run after this job, by id.")
]
RunAfterName = Annotated[
    str | None,
    typer.Option("-r", "--run-after-job-name", metavar="NAME", help="Run after this job, by name."),
]
RundateOffset = Annotated[
    int | None,
    typer.Option("-o", "--rundate-offset", metavar="DAYS", help="Days from the start to the run date."),
]

_MONTHS: Final = (
    *("", "Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_DAYS: Final = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class When:
    """What the options said; None for those that were not given."""

    at_minutes: str | None = None
    every_minute: int | None = None
    at_hours: str | None = None
    every_hour: int | None = None
    weekdays: str | None = None
    day_of_month: int | None = None
    in_month: str | None = None
    every_month: int | None = None
    timezone: str | None = None
    run_after_job_uuid: str | None = None
    run_after_job_name: str | None = None
    rundate_offset: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def schedule(self) -> Schedule:
        """The schedule that the options describe (clauses B76 to B87).

        Raises:
            typer.BadParameter: a value out of range, or options that exclude each other.
        """
        from datatailr.scheduler import Schedule

        given = {name: value for name, value in self.given.items() if name != "rundate_offset"}

        for name in ("at_minutes", "at_hours"):
            if name in given:
                given[name] = _numbers(name, given[name])

        for name in ("weekdays", "in_month"):
            if name in given:
                given[name] = [part.strip() for part in given[name].split(",")]

        try:
            schedule = Schedule(**given)
            schedule.get_cron_string()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

        return schedule


def cron_words(cron: str) -> str:
    """A cron text of six fields in words: `at minute 0 of hours 8 and 16, on Mon and Fri`."""
    if not cron:
        return "never"

    _, minute, hour, day, month, weekday = cron.split()
    words = [f"{_clock(minute, hour)}"]

    if day != "*":
        words.append(f"on day {_listed(day)}")

    if weekday != "*":
        words.append(f"on {_listed(weekday, _DAYS)}")

    if month.startswith("*/"):
        words.append("every month" if month == "*/1" else f"every {month[2:]} months")
    elif month != "*":
        words.append(f"in {_listed(month, _MONTHS)}")

    return ", ".join(words)


def _clock(minute: str, hour: str) -> str:
    if minute.startswith("*/"):
        start = "every minute" if minute == "*/1" else f"every {minute[2:]} minutes"
    elif minute == "*":
        start = "every minute"
    elif hour.isdigit() and minute.isdigit():
        return f"at {int(hour):02d}:{int(minute):02d}"
    else:
        start = f"at minute{'s' if ',' in minute else ''} {_listed(minute)}"

    if hour == "*":
        return start if minute.startswith("*") else f"{start} of every hour"

    if hour.startswith("*/"):
        return f"{start} of {'every hour' if hour == '*/1' else f'every {hour[2:]} hours'}"

    return f"{start} of hour{'s' if ',' in hour else ''} {_listed(hour)}"


def _listed(text: str, names: tuple[str, ...] | None = None) -> str:
    parts = [names[int(part)] if names else part for part in text.split(",")]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _numbers(name: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]

    if not all(part.isascii() and part.isdigit() for part in parts):
        option = name.replace("_", "-")
        raise typer.BadParameter(f"{text!r} is no list of numbers like 0,30", param_hint=f"--{option}")

    return [int(part) for part in parts]
