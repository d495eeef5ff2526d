"""`dt job start`, `stop`, `rerun`, `watch`, `promote`, `rm` and `restore`: what is to happen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datatailr.cli.exits import Exit
from datatailr.cli.joblists import NameArgument, NamesArgument
from datatailr.cli.naming import forgiving
from datatailr.cli.output import tell
from datatailr.cli.session import (
    EnvironmentOption,
    JsonOption,
    PrettyOption,
    RunIdOption,
    VersionOption,
    environment_name,
    find_run,
    open_connection,
)
from datatailr.cli.shape import JqOption, Shape

if TYPE_CHECKING:
    from datatailr.client.connection import Connection


def start_jobs(
    names: NamesArgument,
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    run_date: Annotated[
        datetime | None,
        typer.Option(
            *("-r", "--run-date"),
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Run date; today in UTC by default.",
        ),
    ] = None,
    now: Annotated[
        bool, typer.Option("-N", "--now", help="Begin a run also if the version has a schedule.")
    ] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow the run until it has ended.")] = False,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    jq: JqOption = None,
) -> None:
    """Start jobs: a new run each, or its schedule if it has one.

    Examples: `dt job start my-flow --watch` and `dt job start my-flow -v 3 -r 2026-01-31`.
    """
    if watch and len(names) > 1:
        raise typer.BadParameter("only one job can be watched at a time", param_hint="--watch")

    shape = Shape(json, pretty, jq=jq)
    connection = open_connection()
    date = "" if run_date is None else run_date.date().isoformat()
    answer, started = start_each(
        connection, names, environment, version=version, run_date=date, now=now, silent=shape.data
    )

    if shape.data:
        shape.print(answer)

    if watch and started:
        # Data stays alone on stdout.
        with contextlib.redirect_stdout(sys.stderr) if shape.data else contextlib.nullcontext():
            _watch(connection, started[0])
    elif started and not shape.data:
        tell(f"Follow it:  dt job watch {names[-1]} -i {started[-1]}")


def start_each(
    connection: Connection,
    names: Sequence[str],
    environment: str,
    *,
    version: int | None = None,
    run_date: str = "",
    now: bool = False,
    silent: bool = False,
) -> tuple[dict[str, list[dict[str, Any]]], list[int]]:
    """Start jobs one after the other; the answer of clause B272 and the numbers of the runs.

    Args:
        connection: The server.
        names: Jobs by internal name, display name or id.
        environment: Where they live.
        version: The version; the latest by default.
        run_date: `YYYY-MM-DD`; empty means today in UTC.
        now: Begin a run also if the version has a schedule.
        silent: Print no line for each.
    """
    from datatailr.client.connection import new_key
    from datatailr.client.words import environment_number
    from datatailr.v1 import common_pb2, job_pb2

    answer: dict[str, list[dict[str, Any]]] = {"running": [], "pending": []}
    started: list[int] = []

    def start(name: str) -> tuple[str, job_pb2.StartJobResponse]:
        request = job_pb2.StartJobRequest(
            idempotency_key=new_key(),
            name=name,
            environment=environment_number(environment),
            version=version or 0,
            run_date=run_date,
            now=now,
        )
        return name, connection.call(lambda s: s.jobs.StartJob, request)

    for wanted in names:
        name, response = forgiving(connection, wanted, environment, start)
        entry = {"Id": response.job_id, "RunId": response.run_id or None}
        waits = response.state in (common_pb2.STATE_PENDING, common_pb2.STATE_SCHEDULED)
        answer["pending" if waits else "running"].append(entry)

        for notice in response.notices:
            tell(f"note: {notice}")

        if response.run_id:
            started.append(response.run_id)

        if not silent:
            what = f"run {response.run_id} started" if response.run_id else "on its schedule"
            print(f"{name} version {response.version} in {environment}: {what}", flush=True)

    return answer, started


def stop_jobs(
    names: Annotated[list[str], typer.Argument(help="Jobs; or run numbers with --by-run-id.")],
    *,
    environment: EnvironmentOption = "dev",
    by_run_id: Annotated[
        bool, typer.Option("-b", "--by-run-id", help="The arguments are numbers of runs.")
    ] = False,
) -> None:
    """End all active runs of jobs and take them off their schedule, or end single runs.

    Examples: `dt job stop my-flow` and `dt job stop -b 17 18`.
    """
    run_ids = [_run_number(name) for name in names] if by_run_id else []
    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2, run_pb2

    for run_id in run_ids:
        connection.call(lambda s: s.runs.CancelRun, run_pb2.CancelRunRequest(run_id=run_id))
        print(f"run {run_id}: stopping")

    for name in () if by_run_id else names:
        request = job_pb2.StopJobRequest(name=name, environment=environment_number(environment))
        stopped = connection.call(lambda s: s.jobs.StopJob, request).run_ids
        what = f"stopping run {', '.join(map(str, stopped))}" if stopped else "no active run"
        print(f"{name} in {environment}: {what}")


def rerun(
    run_id: Annotated[int, typer.Argument(min=1, help="Number of the run to repeat.")],
    *,
    version: VersionOption = None,
    full: Annotated[
        bool, typer.Option("-f", "--full", help="Run all tasks again, also those that completed.")
    ] = False,
) -> None:
    """Repeat a run, by default only the tasks that did not complete.

    Examples: `dt job rerun 17` and `dt job rerun 17 --full -v 4`.
    """
    connection = open_connection()

    from datatailr.client.connection import new_key
    from datatailr.v1 import run_pb2

    request = run_pb2.RerunRunRequest(
        idempotency_key=new_key(), run_id=run_id, version=version or 0, full=full
    )
    answer = connection.call(lambda s: s.runs.RerunRun, request)
    print(f"run {answer.run_id} of version {answer.version} repeats run {run_id}")


def promote(
    name: NameArgument,
    version: Annotated[int, typer.Argument(min=1, help="Version to promote.")],
    environment: Annotated[
        str,
        typer.Argument(parser=environment_name, metavar="ENVIRONMENT", help="Where it is now: dev or pre."),
    ],
) -> None:
    """Copy a version to the next environment: from dev to pre, or from pre to prod.

    Examples: `dt job promote my-flow 3 dev` and `dt job promote my-flow 3 pre`.
    """
    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2

    request = job_pb2.PromoteJobRequest(
        name=name, from_environment=environment_number(environment), version=version
    )
    moves = connection.call(lambda s: s.jobs.PromoteJob, request).moves
    print("\n".join(moves) or f"{name} version {version}: nothing to move")


def remove(
    names: NamesArgument,
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    all_: Annotated[bool, typer.Option("-a", "--all", help="All versions, not one alone.")] = False,
) -> None:
    """Stop jobs and hide one version of them, the latest unless given, or all; `restore` undoes it.

    Examples: `dt job rm my-flow -v 3` and `dt job rm --all my-flow -e pre`.
    """
    if all_ and version is not None:
        raise typer.BadParameter("give either a version or --all", param_hint="--all")

    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2

    for name in names:
        request = job_pb2.RemoveJobRequest(
            name=name,
            environment=environment_number(environment),
            all_versions=all_,
            version=version or 0,
        )
        # A second call would hide one version more, so a lost answer is not asked for again.
        versions = connection.call(lambda s: s.jobs.RemoveJob, request, repeatable=all_).versions
        print(f"{name} in {environment}: removed {_version_list(versions)}")
        tell(f"Undo it:  dt job restore {name} -e {environment}")


def restore(
    names: NamesArgument,
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    all_: Annotated[
        bool, typer.Option("-a", "--all", help="All removed versions; so it is without -v.")
    ] = False,
) -> None:
    """Bring back removed versions of jobs.

    Examples: `dt job restore my-flow` and `dt job restore my-flow -v 3`.
    """
    if all_ and version is not None:
        raise typer.BadParameter("give either a version or --all", param_hint="--all")

    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2

    for name in names:
        request = job_pb2.RestoreJobRequest(
            name=name, environment=environment_number(environment), version=version or 0
        )
        versions = connection.call(lambda s: s.jobs.RestoreJob, request).versions
        print(f"{name} in {environment}: restored {_version_list(versions)}")


def watch_job(
    name: NameArgument,
    *,
    run_id: RunIdOption = None,
    environment: EnvironmentOption = "dev",
) -> None:
    """Follow a run until it has ended: its tasks with their states and times.

    The exit code is 6 if it did not complete. Ctrl-C ends the watching, not the run.

    Examples: `dt job watch my-flow` and `dt job watch my-flow -i 17`.
    """
    connection = open_connection()
    _watch(connection, find_run(connection, name, environment, run_id).run_id)


def _watch(connection: Any, run_id: int) -> None:
    from datatailr.cli.watch import watch

    code = watch(connection, run_id)

    if code is not Exit.OK:
        raise typer.Exit(int(code))


def _run_number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(f"{text!r} is not the number of a run", param_hint="NAMES")

    return int(text)


def _version_list(versions: Any) -> str:
    numbers = list(versions)

    if not numbers:
        return "nothing"

    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
