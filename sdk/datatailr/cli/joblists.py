"""`dt job ls`, `runs`, `get` and `versions`: what there is."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datatailr.cli.naming import forgiving
from datatailr.cli.output import duration_text, print_table, tell, time_text
from datatailr.cli.session import (
    BatchSizeOption,
    EnvironmentOption,
    JsonOption,
    OffsetOption,
    PrettyOption,
    RunChoiceOption,
    UtcOption,
    VersionOption,
    environment_name,
    open_connection,
)
from datatailr.cli.shape import FieldsOption, FilterOption, JqOption, Shape, SortOption, check_expressions

if TYPE_CHECKING:
    from datatailr.v1 import run_pb2

NameArgument = Annotated[str, typer.Argument(help="Internal name, display name or id of the job.")]
NamesArgument = Annotated[list[str], typer.Argument(help="Internal names, display names or ids of jobs.")]


def list_jobs(
    *,
    all_: Annotated[bool, typer.Option("-a", "--all", help="Removed ones too.")] = False,
    filter: FilterOption = "",
    sort: SortOption = "",
    json: JsonOption = False,
    pretty: PrettyOption = False,
    fields: FieldsOption = None,
    jq: JqOption = None,
    utc: UtcOption = False,
    offset: OffsetOption = 0,
    batch_size: BatchSizeOption = 100,
) -> None:
    """List the latest version of every job.

    Examples: `dt job ls -f "state = failed"` and `dt job ls -s -create_time --fields name,version`.
    """
    check_expressions(filter, sort, "jobs")
    shape = Shape(json, pretty, fields, jq)
    connection = open_connection()

    from datatailr.client import answers, queries

    found = queries.jobs(
        connection, include_removed=all_, filter=filter, sort=sort, offset=offset, page_size=batch_size
    )
    jobs = [answers.job_answer(job) for job in itertools.islice(found, batch_size)]

    if shape.data:
        shape.print(jobs, keys=answers.JOB_KEYS)
        return

    if not jobs:
        if filter:
            tell("No job fits the filter.")
        elif offset:
            tell("No more jobs.")
        else:
            tell(
                f"No jobs at {connection.address} yet. Call a workflow in Python and it appears:",
                "",
                *_EXAMPLE,
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
    filter: FilterOption = "",
    sort: SortOption = "",
    json: JsonOption = False,
    pretty: PrettyOption = False,
    fields: FieldsOption = None,
    jq: JqOption = None,
    utc: UtcOption = False,
    offset: OffsetOption = 0,
    batch_size: BatchSizeOption = 100,
) -> None:
    """List runs, newest first unless sorted.

    Examples: `dt job runs my-flow -b 5` and `dt job runs -f "state = [failed, stopped]" -s name`.
    """
    check_expressions(filter, sort, "runs")
    shape = Shape(json, pretty, fields, jq)
    connection = open_connection()

    from datatailr.client import answers, queries

    def listed(wanted: str) -> list[run_pb2.Run]:
        found = queries.runs(
            connection,
            wanted,
            environment=environment,
            filter=filter,
            sort=sort,
            offset=offset,
            page_size=batch_size,
        )
        return list(itertools.islice(found, batch_size))

    runs = forgiving(connection, name, environment, listed) if name else listed("")

    if shape.data:
        shape.print([answers.run_answer(run) for run in runs], keys=answers.RUN_KEYS)
        return

    if not runs and (filter or offset):
        tell("No run fits the filter." if filter else "No more runs.")
        return

    if not runs:
        where = environment or "dev"
        tell(
            f"No runs at {connection.address}{f' in {environment}' if environment else ''} yet. Start one:",
            "",
            f"    dt job start {name or 'NAME'} -e {where}",
            f"    dt job watch {name or 'NAME'} -e {where}",
        )
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
    fields: FieldsOption = None,
    jq: JqOption = None,
    utc: UtcOption = False,
) -> None:
    """Show one version of a job and how its newest run stands: why it stopped, why it waits.

    Examples: `dt job get my-flow -c`, `dt job get my-flow -b stderr`, `dt job get my-flow -j -i latest`.
    """
    if build_logs not in (None, "stdout", "stderr"):
        raise typer.BadParameter(f"{build_logs!r} is neither stdout nor stderr", param_hint="--build-logs")

    shape = Shape(json, pretty, fields, jq)
    connection = open_connection()

    from datatailr.client import answers, logs, queries

    job = forgiving(
        connection,
        name,
        environment,
        lambda full: queries.job(connection, full, environment, version=version),
    )

    if build_logs is not None:
        from datatailr.cli.runlogs import copy_bytes

        target = logs.build_log(job.image_key)
        copy_bytes(logs.read_log(connection, target, stderr=build_logs == "stderr"))
        return

    tasks = list(queries.version_tasks(connection, job)) if show_children else None
    answer = answers.job_answer(job, tasks)

    from datatailr.cli import describe, story

    run = None

    if run_id or not shape.data:
        run = story.run_of(connection, job.definition.name, environment, run_id or -1)

    if shape.data:
        if run_id:
            answer["run"] = story.run_story(connection, run) if run else None

        shape.print([answer])
        return

    describe.describe_job(job, answer, utc=utc)

    if run:
        print()
        story.describe_run(connection, run, utc=utc, whole=run_id is not None)


def list_versions(
    name: NameArgument,
    *,
    environment: EnvironmentOption = "dev",
    json: JsonOption = False,
    pretty: PrettyOption = False,
    jq: JqOption = None,
) -> None:
    """List the version numbers of a job.

    Examples: `dt job versions my-flow` and `dt job versions my-flow -e prod -j`.
    """
    shape = Shape(json, pretty, jq=jq)
    connection = open_connection()

    from datatailr.client import queries

    versions = queries.versions(connection, name, environment=environment)

    if not versions:
        # Says what is missing, or finds the job by the beginning of its name.
        job = forgiving(
            connection, name, environment, lambda full: queries.job(connection, full, environment)
        )
        versions = queries.versions(connection, job.definition.name, environment=environment)

    if shape.data:
        shape.print(versions)
    else:
        print("\n".join(map(str, versions)))


def run_duration(run: dict[str, Any]) -> str:
    """How long a run took; `-` while it has not ended."""
    begin, end = run["start_time"] or run["submit_time"], run["end_time"]
    return duration_text(end - begin if begin and end else None)


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
