"""What every command of `dt` shares: the options, and the connection to the server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from datatailr._near import near
from datatailr.cli.lazy import lazy_group
from datatailr.errors import NotConfiguredError
from datatailr.utils import Environment

if TYPE_CHECKING:
    from datatailr.client.connection import Connection
    from datatailr.v1 import run_pb2


def environment_name(text: str) -> str:
    """`dev`, `pre` or `prod`, which may be written in any letter case (clause B6)."""
    try:
        return str(Environment.parse(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run_reference(text: str) -> int:
    """The number of a run; below 0 the how-manieth newest: -1 for `latest` and `@-1`, -2 for `@-2`."""
    if text == "latest":
        return -1

    digits = text.removeprefix("@-")

    if not (digits.isascii() and digits.isdigit() and int(digits)) or len(digits) > 18:
        raise typer.BadParameter(f"{text!r} is neither the number of a run nor 'latest' nor @-1, @-2, …")

    return int(digits) if digits == text else -int(digits)


JsonOption = Annotated[bool, typer.Option("-j", "--json", help="Print JSON, times in microseconds.")]
PrettyOption = Annotated[bool, typer.Option("-p", "--pretty", help="Print JSON, indented.")]
UtcOption = Annotated[bool, typer.Option("-u", "--utc", help="Show times in UTC instead of local time.")]
EnvironmentOption = Annotated[
    str,
    typer.Option(*("-e", "--environment"), parser=environment_name, metavar="NAME", help="dev, pre or prod."),
]
VersionOption = Annotated[
    int | None, typer.Option("-v", "--version", min=1, help="Version number; the latest by default.")
]
OffsetOption = Annotated[int, typer.Option("-o", "--offset", min=0, help="Leave out the first so many.")]
BatchSizeOption = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Show at most so many.")]
RunIdOption = Annotated[
    int | None,
    typer.Option(
        *("-i", "--run-id"),
        parser=run_reference,
        metavar="RUN",
        help="Number of the run; `latest`, which is the default; @-2 for the one before.",
    ),
]
RunChoiceOption = Annotated[
    int | None,
    typer.Option(
        *("-i", "--run-id"),
        parser=run_reference,
        metavar="RUN",
        help="With this run, its tasks and tries: its number; `latest`, which is shown in short anyway; @-2.",
    ),
]


def new_group(help_text: str, commands: Mapping[str, str] | None = None) -> typer.Typer:
    """A group of commands with the manners of this program.

    Args:
        help_text: What its help begins with.
        commands: Commands by name as `module:function`, imported when they are asked for; those that
            are registered in the usual way come before them.
    """
    return typer.Typer(
        help=help_text,
        cls=lazy_group(commands or {}),
        # Completion is our own, see `datatailr.cli.completion`.
        add_completion=False,
        no_args_is_help=True,
        # Without this typer imports rich for each help text.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def completion_asked() -> bool:
    """Whether a shell runs the program to learn what may follow."""
    return "OPENTAILR_COMPLETE" in os.environ


def complete(app: typer.Typer) -> None:
    """Print what may follow the words of the command line; never raises."""
    from datatailr.cli import completion

    completion.answer(lambda: typer.main.get_command(app))


def open_connection() -> Connection:
    """The connection to the configured server; nothing is sent yet.

    Raises:
        NotConfiguredError: no address is known.
    """
    from datatailr.client.config import load_config

    config = load_config()

    if config is None:
        raise NotConfiguredError

    from datatailr.client.connection import Connection

    return Connection(config.address, config.token)


def find_run(connection: Connection, name: str, environment: str, run_id: int | None) -> run_pb2.Run:
    """The given or latest run of a job.

    Args:
        connection: The server.
        name: Internal name, display name, id or unique beginning of a name.
        environment: Where the job lives.
        run_id: As `run_reference` makes it; None for the latest.

    Raises:
        NotFoundError: no such job or run, a run of another job, or a job that has not so many.
    """
    from datatailr.cli.naming import forgiving
    from datatailr.client import queries
    from datatailr.errors import NotFoundError

    if run_id is not None and run_id > 0:
        run = queries.run(connection, run_id)

        begun = name.casefold()
        names = (run.job_name.casefold(), run.display_name.casefold())

        if name != run.job_id and not (begun and any(known.startswith(begun) for known in names)):
            raise NotFoundError(
                f"run {run_id} is one of {run.job_name!r}, not of {name!r}\n"
                f"hint: `dt job runs {name}` lists the runs of this job"
            )

        return run

    job = forgiving(connection, name, environment, lambda full: queries.job(connection, full, environment))
    found = nth_newest(connection, job.definition.name, environment, -(run_id or -1))

    if found is None:
        raise NotFoundError(
            f"{name!r} has not run in {environment} yet\n"
            f"hint: `dt job start {job.definition.name} -e {environment}` starts it"
        )

    return found


def nth_newest(connection: Connection, name: str, environment: str, place: int) -> run_pb2.Run | None:
    """The run at a place of a job's runs, 1 for the newest; None when there are none at all.

    Raises:
        NotFoundError: there are some, but not so many.
    """
    from datatailr.client import queries
    from datatailr.errors import NotFoundError

    found = next(queries.runs(connection, name, environment=environment, offset=place - 1, page_size=1), None)

    if found is None and place > 1 and nth_newest(connection, name, environment, 1) is not None:
        raise NotFoundError(
            f"{name!r} has fewer than {place} runs in {environment}\n"
            f"hint: `dt job runs {name} -e {environment}` lists them"
        )

    return found


def find_task(tasks: Iterable[run_pb2.RunTask], wanted: str, *, run: run_pb2.Run) -> run_pb2.RunTask:
    """The task of a run with a number or name.

    Raises:
        NotFoundError: there is none; suggests a name that is near.
    """
    from datatailr.errors import NotFoundError

    by_name: dict[str, run_pb2.RunTask] = {}

    for task in tasks:
        if wanted == str(task.task_id):
            return task

        by_name[task.name] = task

    if wanted in by_name:
        return by_name[wanted]

    meant = near(wanted, by_name)
    remedy = (
        f"did you mean {meant!r}?"
        if meant
        else f"`dt job watch {run.job_name} -i {run.run_id}` shows its tasks"
    )
    raise NotFoundError(f"run {run.run_id} has no task {wanted!r}\nhint: {remedy}")
