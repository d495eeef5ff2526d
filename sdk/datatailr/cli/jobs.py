"""`dt job …`: definitions and their runs."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Annotated, Any

import typer

from datatailr.cli.exits import Exit
from datatailr.cli.output import duration_text, print_json, print_table, tell, time_text
from datatailr.cli.session import (
    BatchSizeOption,
    EnvironmentOption,
    JsonOption,
    OffsetOption,
    PrettyOption,
    RunChoiceOption,
    RunIdOption,
    UtcOption,
    VersionOption,
    environment_name,
    find_run,
    new_group,
    open_connection,
)

app = new_group("Jobs, their versions and runs.")

NameArgument = Annotated[str, typer.Argument(help="Internal name, display name or id of the job.")]
NamesArgument = Annotated[list[str], typer.Argument(help="Internal names, display names or ids of jobs.")]


@app.command("ls")
def list_jobs(
    *,
    all_: Annotated[bool, typer.Option("-a", "--all", help="Removed ones too.")] = False,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    utc: UtcOption = False,
    offset: OffsetOption = 0,
    batch_size: BatchSizeOption = 100,
) -> None:
    """List the latest version of every job.

    Examples: `dt job ls` and `dt job ls -j --batch-size 1000`.
    """
    connection = open_connection()

    from datatailr.client import answers, queries

    found = queries.jobs(connection, include_removed=all_)
    jobs = [answers.job_answer(job) for job in itertools.islice(found, offset, offset + batch_size)]

    if json or pretty:
        print_json(jobs, pretty=pretty)
        return

    if not jobs:
        tell(
            "No jobs here yet. Call a workflow in Python and it appears:" if not offset else "No more jobs.",
            *(("", *_EXAMPLE) if not offset else ()),
        )
        return

    print_table(
        ("NAME", "TYPE", "ENVIRONMENT", "VERSION", "STATE", "SCHEDULE", "RUN AS", "SAVED"),
        [
            (
                job["name"],
                job["type"],
                job["environment"],
                str(job["version"]),
                job["state"],
                job["schedule"] or "-",
                job["run_as"],
                time_text(job["create_time"], utc=utc),
            )
            for job in jobs
        ],
        state="STATE",
    )


@app.command("runs")
def list_runs(
    name: Annotated[str | None, typer.Argument(help="Only runs of this job.")] = None,
    *,
    environment: Annotated[
        str | None,
        typer.Option(
            *("-e", "--environment"),
            parser=environment_name,
            metavar="NAME",
            help="dev, pre or prod; all by default.",
        ),
    ] = None,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    utc: UtcOption = False,
    offset: OffsetOption = 0,
    batch_size: BatchSizeOption = 100,
) -> None:
    """List runs, newest first.

    Examples: `dt job runs` and `dt job runs my-flow -b 5`.
    """
    connection = open_connection()

    from datatailr.client import answers, queries

    found = queries.runs(connection, name or "", environment=environment, page_size=offset + batch_size)
    runs = list(itertools.islice(found, offset, offset + batch_size))

    if json or pretty:
        print_json([answers.run_answer(run) for run in runs], pretty=pretty)
        return

    if not runs:
        tell("No runs here yet. Start one:", "", f"    dt job start {name or 'NAME'}")
        return

    rows = []

    for run in runs:
        row = answers.run_answer(run)
        waits = "; ".join(run.waiting_for)
        rows.append(
            (
                str(run.run_id),
                row["job_name"],
                row["environment"],
                str(row["job_version"]),
                row["state"],
                f"{run.counts.completed}/{run.counts.total}",
                time_text(row["submit_time"], utc=utc),
                run_duration(row),
                row["error_message"].partition("\n")[0] or waits,
            )
        )

    print_table(
        ("RUN", "JOB", "ENVIRONMENT", "VERSION", "STATE", "DONE", "SUBMITTED", "TOOK", "BECAUSE"),
        rows,
        state="STATE",
    )


@app.command("get")
def get_job(
    name: NameArgument,
    *,
    environment: EnvironmentOption = "dev",
    version: VersionOption = None,
    show_children: Annotated[bool, typer.Option("-c", "--show-children", help="With all tasks.")] = False,
    build_logs: Annotated[
        str | None, typer.Option("-b", "--build-logs", help="Print the build log: stdout or stderr.")
    ] = None,
    run_id: RunChoiceOption = None,
    json: JsonOption = False,
    pretty: PrettyOption = False,
    utc: UtcOption = False,
) -> None:
    """Show one version of a job and how its newest run stands: why it stopped, why it waits.

    Examples: `dt job get my-flow -c`, `dt job get my-flow -b stderr`, `dt job get my-flow -j -i latest`.
    """
    if build_logs not in (None, "stdout", "stderr"):
        raise typer.BadParameter(f"{build_logs!r} is neither stdout nor stderr", param_hint="--build-logs")

    connection = open_connection()

    from datatailr.client import answers, logs, queries

    job = queries.job(connection, name, environment, version=version)

    if build_logs is not None:
        from datatailr.cli.runlogs import copy_bytes

        target = logs.build_log(job.image_key)
        copy_bytes(logs.read_log(connection, target, stderr=build_logs == "stderr"))
        return

    tasks = list(queries.version_tasks(connection, job)) if show_children else None
    answer = answers.job_answer(job, tasks)

    from datatailr.cli import describe, story

    run = None

    if run_id or not (json or pretty):
        run = story.run_of(connection, job.definition.name, environment, run_id or story.LATEST)

    if json or pretty:
        if run_id:
            answer["run"] = story.run_story(connection, run) if run else None

        print_json([answer], pretty=pretty)
        return

    describe.describe_job(job, answer, utc=utc)

    if run:
        print()
        story.describe_run(connection, run, utc=utc, whole=run_id is not None)


@app.command("start")
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
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow the run until it has ended.")] = False,
    json: JsonOption = False,
    pretty: PrettyOption = False,
) -> None:
    """Start jobs: a new run each, or its schedule if it has one.

    Examples: `dt job start my-flow --watch` and `dt job start my-flow -v 3 -r 2026-01-31`.
    """
    if watch and len(names) > 1:
        raise typer.BadParameter("only one job can be watched at a time", param_hint="--watch")

    connection = open_connection()

    from datatailr.client.connection import new_key
    from datatailr.client.words import environment_number
    from datatailr.v1 import common_pb2, job_pb2

    answer: dict[str, list[dict[str, Any]]] = {"running": [], "pending": []}
    started: list[int] = []

    for name in names:
        request = job_pb2.StartJobRequest(
            idempotency_key=new_key(),
            name=name,
            environment=environment_number(environment),
            version=version or 0,
            run_date="" if run_date is None else run_date.date().isoformat(),
        )
        response = connection.call(lambda s: s.jobs.StartJob, request)
        entry = {"Id": response.job_id, "RunId": response.run_id or None}
        waits = response.state in (common_pb2.STATE_PENDING, common_pb2.STATE_SCHEDULED)
        answer["pending" if waits else "running"].append(entry)

        for notice in response.notices:
            tell(f"note: {notice}")

        if response.run_id:
            started.append(response.run_id)

        if not (json or pretty):
            what = f"run {response.run_id} started" if response.run_id else "on its schedule"
            print(f"{name} version {response.version} in {environment}: {what}", flush=True)

    if json or pretty:
        print_json(answer, pretty=pretty)

    if watch and started:
        _watch(connection, started[0])
    elif started and not (json or pretty):
        tell(f"Follow it:  dt job watch {names[-1]} -i {started[-1]}")


@app.command("stop")
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


@app.command("rerun")
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


@app.command("versions")
def list_versions(
    name: NameArgument,
    *,
    environment: EnvironmentOption = "dev",
    json: JsonOption = False,
    pretty: PrettyOption = False,
) -> None:
    """List the version numbers of a job.

    Examples: `dt job versions my-flow` and `dt job versions my-flow -e prod -j`.
    """
    connection = open_connection()

    from datatailr.client import queries

    versions = queries.versions(connection, name, environment=environment)

    if not versions:
        queries.job(connection, name, environment)  # says what is missing

    if json or pretty:
        print_json(versions, pretty=pretty)
    else:
        print("\n".join(map(str, versions)))


@app.command("promote")
def promote(
    name: NameArgument,
    version: Annotated[int, typer.Argument(min=1, help="Version to promote.")],
    environment: Annotated[
        str,
        typer.Argument(parser=environment_name, metavar="ENVIRONMENT", help="Where it is now: dev or pre."),
    ],
) -> None:
    """Copy a version to the next environment: from dev to pre, or from pre to prod.

    Example: `dt job promote my-flow 3 dev`.
    """
    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2

    request = job_pb2.PromoteJobRequest(
        name=name, from_environment=environment_number(environment), version=version
    )
    moves = connection.call(lambda s: s.jobs.PromoteJob, request).moves
    print("\n".join(moves) or f"{name} version {version}: nothing to move")


@app.command("rm")
def remove(
    names: NamesArgument,
    *,
    environment: EnvironmentOption = "dev",
    all_: Annotated[bool, typer.Option("-a", "--all", help="All versions, not the latest alone.")] = False,
) -> None:
    """Stop jobs and hide their latest version, or all of them; `restore` undoes it.

    Examples: `dt job rm my-flow` and `dt job rm --all my-flow -e pre`.
    """
    connection = open_connection()

    from datatailr.client.words import environment_number
    from datatailr.v1 import job_pb2

    for name in names:
        request = job_pb2.RemoveJobRequest(
            name=name, environment=environment_number(environment), all_versions=all_
        )
        # A second call would hide one version more, so a lost answer is not asked for again.
        versions = connection.call(lambda s: s.jobs.RemoveJob, request, repeatable=all_).versions
        print(f"{name} in {environment}: removed {_version_list(versions)}")
        tell(f"Undo it:  dt job restore {name} -e {environment}")


@app.command("restore")
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


@app.command("watch")
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


def run_duration(run: dict[str, Any]) -> str:
    """How long a run took; `-` while it has not ended."""
    begin, end = run["start_time"] or run["submit_time"], run["end_time"]
    return duration_text(end - begin if begin and end else None)


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


_EXAMPLE = (
    "    from datatailr.scheduler import task, workflow",
    "",
    "    @task()",
    "    def hello():",
    '        return "hello"',
    "",
    '    @workflow(name="First flow")',
    "    def first_flow():",
    "        hello()",
    "",
    "    first_flow()",
)
