"""`dt log …`: what tasks and runs wrote."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from datatailr.cli.exits import Exit
from datatailr.cli.output import tell
from datatailr.cli.session import (
    EnvironmentOption,
    RunIdOption,
    find_run,
    find_task,
    new_group,
    open_connection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datatailr.client.connection import Connection
    from datatailr.v1 import run_pb2

app = new_group("Logs of runs and tasks.")


@app.callback()
def group() -> None:
    """Logs of runs and tasks."""


@app.command("read")
def read(
    name: Annotated[str, typer.Argument(help="Internal name, display name or id of the job.")],
    *,
    lines: Annotated[
        int | None,
        typer.Option(
            *("-l", "--lines"),
            min=0,
            help="How many of the last lines; 10, or 50 with --failed.",
            metavar="N",
        ),
    ] = None,
    whole: Annotated[bool, typer.Option("-w", "--whole", help="All of it, from the first byte.")] = False,
    run_id: RunIdOption = None,
    environment: EnvironmentOption = "dev",
    child: Annotated[
        str | None,
        typer.Option("-c", "--child-num", help="Number or name of the task; without it the run's own log."),
    ] = None,
    stderr: Annotated[bool, typer.Option("-r", "--stderr", help="The error stream.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the log has ended.")] = False,
    all_tasks: Annotated[
        bool, typer.Option("-a", "--all-tasks", help="The logs of all tasks as one, each line with its task.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Cause and last lines of each task that failed.")
    ] = False,
) -> None:
    """Print the last lines of a log, byte for byte.

    Examples: `dt log read my-flow -c train -l 100`, `dt log read my-flow -c 3 -r -f`,
    `dt log read my-flow -a -f` and `dt log read my-flow --failed`.
    """
    _check_options(child=child, all_tasks=all_tasks, failed=failed, follow=follow, stderr=stderr)

    if whole and lines is not None:
        raise typer.BadParameter("--lines and --whole exclude one another", param_hint="--whole")

    connection = open_connection()
    run = find_run(connection, name, environment, run_id)

    if all_tasks or failed:
        _read_tasks(connection, run, stderr=stderr, lines=lines, whole=whole, follow=follow, failed=failed)
        return

    from datatailr.client import logs, queries

    last = None if whole else 10 if lines is None else lines

    if child is None:
        target = logs.run_log(run.run_id)
    else:
        task = find_task(queries.run_tasks(connection, run.run_id), child, run=run)
        target = logs.task_log(run.run_id, task.task_id)

    try:
        written = copy_bytes(logs.read_log(connection, target, stderr=stderr, lines=last, follow=follow))
    except KeyboardInterrupt:
        tell("", f"Stopped reading; run {run.run_id} goes on.")
        raise typer.Exit(int(Exit.INTERRUPTED)) from None

    if not written and last != 0:
        tell(f"The {'error' if stderr else 'output'} log is empty.")

        if child is None:
            tell(f"Read a task's own log:  dt log read {run.job_name} -i {run.run_id} -c TASK")


def _check_options(*, child: str | None, all_tasks: bool, failed: bool, follow: bool, stderr: bool) -> None:
    """Refuse what cannot be meant together, before anything is sent."""
    for is_given, name in ((all_tasks, "--all-tasks"), (failed, "--failed")):
        if is_given and child is not None:
            raise typer.BadParameter(f"{name} is for all tasks, --child-num for one", param_hint=name)

    if failed and (follow or all_tasks or stderr):
        other = "--follow" if follow else "--all-tasks" if all_tasks else "--stderr"
        raise typer.BadParameter(
            f"it shows what has ended, both streams of it; leave {other} out", param_hint="--failed"
        )


def _read_tasks(
    connection: Connection,
    run: run_pb2.Run,
    *,
    stderr: bool,
    lines: int | None,
    whole: bool,
    follow: bool,
    failed: bool,
) -> None:
    from datatailr.cli import mergedlogs

    if failed:
        last = 1_000_000 if whole else 50 if lines is None else lines

        if not mergedlogs.print_failed(connection, run, lines=last):
            tell(f"No task of run {run.run_id} failed.")

        return

    wanted = None if whole else 10 if lines is None else lines
    read_all = mergedlogs.follow_all if follow else mergedlogs.print_all

    try:
        count = read_all(connection, run, stderr=stderr, lines=wanted)
    except KeyboardInterrupt:
        tell("", f"Stopped reading; run {run.run_id} goes on.")
        raise typer.Exit(int(Exit.INTERRUPTED)) from None

    if not count and wanted != 0:
        tell(f"The {'error' if stderr else 'output'} logs of all tasks of run {run.run_id} are empty.")


def copy_bytes(pieces: Iterable[bytes]) -> int:
    """Write a log to stdout, byte for byte, as it comes; returns how many bytes it had."""
    sys.stdout.flush()
    written = 0

    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        written += len(piece)

    return written
