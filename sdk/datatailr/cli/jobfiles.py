"""`dt job save`, `run`, `modify`, `copy`, `new` and `cron`: definitions from files and options."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

from datatailr.cli import crons
from datatailr.cli.joblists import NameArgument
from datatailr.cli.output import tell
from datatailr.cli.session import (
    EnvironmentOption,
    JsonOption,
    PrettyOption,
    VersionOption,
    open_connection,
)
from datatailr.cli.shape import JqOption, Shape

if TYPE_CHECKING:
    from datatailr.client.connection import Connection
    from datatailr.scheduler._platform import JobDefinition, SavedVersion, ScheduleRequest

FileArgument = Annotated[
    str | None, typer.Argument(metavar="file://DEFINITION", help="A JSON file as `dt job get -j` prints it.")
]
CronOnly = Annotated[
    bool, typer.Option("-c", "--cron-string", help="Only print the cron text of the options.")
]


class JobKind(str, Enum):
    """Types of jobs, for `dt job new`."""

    BATCH = "batch"
    SERVICE = "service"
    APP = "app"
    EXCEL = "excel"


def save(
    file: FileArgument = None,
    *,
    at_minutes: crons.AtMinutes = None,
    every_minute: crons.EveryMinute = None,
    at_hours: crons.AtHours = None,
    every_hour: crons.EveryHour = None,
    weekdays: crons.Weekdays = None,
    day_of_month: crons.DayOfMonth = None,
    in_month: crons.InMonth = None,
    every_month: crons.EveryMonth = None,
    timezone: crons.Timezone = None,
    run_after_job_uuid: crons.RunAfterId = None,
    run_after_job_name: crons.RunAfterName = None,
    rundate_offset: crons.RundateOffset = None,
    cron_string: CronOnly = False,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    jq: JqOption = None,
) -> None:
    """Save a new version of a job from a definition file; options give it a schedule.

    A definition with a version keeps the code and arguments of that version; without one the code
    is packaged from image.path_to_repo and path_to_module.

    Examples: `dt job save file://job.json` and `dt job save file://job.json -a 8 -w mon,fri`.
    """
    when = crons.When(
        *(at_minutes, every_minute, at_hours, every_hour, weekdays, day_of_month, in_month, every_month),
        *(timezone, run_after_job_uuid, run_after_job_name, rundate_offset),
    )

    if cron_string:
        print(when.schedule().get_cron_string())
        return

    shape = Shape(json, pretty, jq=jq)
    _, definition, saved = _save_file(file, when)
    _tell_saved(definition, saved, shape)


def run(
    file: FileArgument = None,
    *,
    at_minutes: crons.AtMinutes = None,
    every_minute: crons.EveryMinute = None,
    at_hours: crons.AtHours = None,
    every_hour: crons.EveryHour = None,
    weekdays: crons.Weekdays = None,
    day_of_month: crons.DayOfMonth = None,
    in_month: crons.InMonth = None,
    every_month: crons.EveryMonth = None,
    timezone: crons.Timezone = None,
    run_after_job_uuid: crons.RunAfterId = None,
    run_after_job_name: crons.RunAfterName = None,
    rundate_offset: crons.RundateOffset = None,
    cron_string: CronOnly = False,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    jq: JqOption = None,
) -> None:
    """Save a new version from a definition file and start it: a run, or its schedule if it has one.

    Examples: `dt job run file://job.json` and `dt job run file://job.json -H 2 -z Europe/Berlin`.
    """
    when = crons.When(
        *(at_minutes, every_minute, at_hours, every_hour, weekdays, day_of_month, in_month, every_month),
        *(timezone, run_after_job_uuid, run_after_job_name, rundate_offset),
    )

    if cron_string:
        print(when.schedule().get_cron_string())
        return

    from datatailr.cli.jobactions import start_each

    shape = Shape(json, pretty, jq=jq)
    connection, definition, saved = _save_file(file, when)
    answer, started = start_each(
        connection, [definition.name], definition.environment, version=saved.version, silent=shape.data
    )

    if shape.data:
        shape.print(answer)
    elif started:
        tell(f"Follow it:  dt job watch {definition.name} -e {definition.environment} -i {started[-1]}")


def modify(
    name: NameArgument,
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    child: Annotated[
        str | None,
        typer.Option("-c", "--child", help="Memory and CPUs are those of this task, by number or name."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("-s", "--schedule", metavar="CRON", help='Cron text; "" removes the schedule.'),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("-m", "--memory", metavar="SIZE", help="For instance 512m.")
    ] = None,
    num_cpus: Annotated[float | None, typer.Option("-N", "--num-cpus", metavar="N", help="Cores.")] = None,
    display_name: Annotated[
        str | None, typer.Option("-d", "--display-name", help="Another way to write the same name.")
    ] = None,
    app_section: Annotated[
        str | None, typer.Option("-a", "--app-section", help="Where an app is listed.")
    ] = None,
    groups: Annotated[
        str, typer.Option("-g", "--groups", metavar="NAME:rwoap", help="Permissions of groups.")
    ] = "",
    users: Annotated[str, typer.Option("-u", "--users", metavar="NAME:rwoap", help="Of users.")] = "",
    others: Annotated[
        str | None, typer.Option("-o", "--others", metavar="rwoap", help='Of everybody; "" takes them away.')
    ] = None,
    run_as: Annotated[
        str | None, typer.Option("-r", "--run-as", metavar="USER", help="Whom it runs as.")
    ] = None,
    json: JsonOption = False,
    pretty: PrettyOption = False,
) -> None:
    """Save a new version of a job that differs in what the options say; code and the rest stay.

    Examples: `dt job modify my-flow -c train -m 2g -N 4` and `dt job modify my-flow -g dtusers:ra`.
    """
    values = {
        "schedule": schedule,
        "memory": memory,
        "cpu": num_cpus,
        "display_name": display_name,
        "app_section": app_section,
        "run_as": run_as,
    }
    document = {key: value for key, value in values.items() if value is not None}

    if child is not None and memory is None and num_cpus is None:
        raise typer.BadParameter("give --memory or --num-cpus for it", param_hint="--child")

    if not document and not groups and not users and others is None:
        raise typer.BadParameter(
            "nothing to change; `dt job modify -h` lists the options", param_hint="OPTIONS"
        )

    connection = open_connection()

    from datatailr.client import edits

    definition, saved = edits.modify(
        connection,
        name,
        environment,
        version=version,
        child=child,
        document=document,
        groups=groups,
        users=users,
        others=others,
    )
    _tell_saved(definition, saved, Shape(json, pretty))


def copy(
    name: NameArgument,
    new_name: Annotated[str, typer.Argument(help="Name of the job to make.")],
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    json: JsonOption = False,
    pretty: PrettyOption = False,
) -> None:
    """Make a job of your own from a version of another: its code, arguments and resources, no schedule.

    Examples: `dt job copy my-flow "My Flow Test"` and `dt job copy my-flow mine -v 3`.
    """
    connection = open_connection()

    from datatailr.client import edits

    definition, saved = edits.copy(connection, name, new_name, environment, version=version)
    _tell_saved(definition, saved, Shape(json, pretty))


def new(
    kind: Annotated[
        JobKind, typer.Argument(metavar="TYPE", help="batch, service, app or excel.")
    ] = JobKind.BATCH,
) -> None:
    """Print a definition to fill in and to save.

    Examples: `dt job new` and `dt job new service`.
    """
    from datatailr.client import documents

    Shape(pretty=True).print(documents.template(kind.value, Path.cwd()))


def cron(
    *,
    at_minutes: crons.AtMinutes = None,
    every_minute: crons.EveryMinute = None,
    at_hours: crons.AtHours = None,
    every_hour: crons.EveryHour = None,
    weekdays: crons.Weekdays = None,
    day_of_month: crons.DayOfMonth = None,
    in_month: crons.InMonth = None,
    every_month: crons.EveryMonth = None,
) -> None:
    """Print cron text for the options, and what it says in words.

    Examples: `dt job cron -a 8,16 -w mon,fri` and `dt job cron --every-minute 15`.
    """
    when = crons.When(
        at_minutes, every_minute, at_hours, every_hour, weekdays, day_of_month, in_month, every_month
    )
    text = when.schedule().get_cron_string()

    if not text:
        raise typer.BadParameter("no option says when; `dt job cron -h` lists them", param_hint="OPTIONS")

    print(f"{text} ({crons.cron_words(text)})")


def _save_file(file: str | None, when: crons.When) -> tuple[Connection, JobDefinition, SavedVersion]:
    path = _file_path(file)
    schedule = _schedule_request(when)
    connection = open_connection()

    from datatailr.client import documents, edits

    try:
        document = documents.read_document(path)
    except OSError as error:
        raise typer.BadParameter(
            f"{path}: {error.strerror or error}", param_hint="file://DEFINITION"
        ) from None

    definition, saved = edits.save_document(connection, document, schedule=schedule)
    return connection, definition, saved


def _file_path(file: str | None) -> Path:
    if file is None:
        raise typer.BadParameter("no definition file is given", param_hint="file://DEFINITION")

    scheme, mark, path = file.partition("://")

    if mark and scheme != "file":
        raise typer.BadParameter(f"{file!r} is no file:// address", param_hint="file://DEFINITION")

    return Path(unquote(path) if mark else file).expanduser()


def _schedule_request(when: crons.When) -> ScheduleRequest | None:
    if not when.given:
        return None

    schedule = when.schedule()
    request = schedule.request(schedule.get_schedule_args())

    if when.rundate_offset is not None:
        request = replace(request, fields={**request.fields, "rundate_offset": when.rundate_offset})

    return request


def _tell_saved(definition: JobDefinition, saved: SavedVersion, shape: Shape) -> None:
    answer: dict[str, Any] = {"versions": {saved.job_id: saved.version}}

    if shape.data:
        shape.print(answer)
        return

    print(f"{definition.name} version {saved.version} saved in {definition.environment}")
