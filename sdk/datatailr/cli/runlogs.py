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

app = new_group("Logs of runs and tasks.")


@app.callback()
def group() -> None:
    """Logs of runs and tasks."""


@app.command("read")
def read(
    name: Annotated[str, typer.Argument(help="Internal name, display name or id of the job.")],
    *,
    lines: Annotated[int, typer.Option("-l", "--lines", min=0, help="How many of the last lines.")] = 10,
    run_id: RunIdOption = None,
    environment: EnvironmentOption = "dev",
    child: Annotated[
        str | None,
        typer.Option("-c", "--child-num", help="Number or name of the task; without it the run's own log."),
    ] = None,
    stderr: Annotated[bool, typer.Option("-r", "--stderr", help="The error stream.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the log has ended.")] = False,
) -> None:
    """Print the last lines of a log.

    Examples: `dt log read my-flow -c train -l 100` and `dt log read my-flow -c 3 -r -f`.
    """
    connection = open_connection()
    run = find_run(connection, name, environment, run_id)

    from datatailr.client import logs, queries

    if child is None:
        target = logs.run_log(run.run_id)
    else:
        task = find_task(queries.run_tasks(connection, run.run_id), child, run=run)
        target = logs.task_log(run.run_id, task.task_id)

    try:
        written = copy_bytes(logs.read_log(connection, target, stderr=stderr, lines=lines, follow=follow))
    except KeyboardInterrupt:
        tell("", f"Stopped reading; run {run.run_id} goes on.")
        raise typer.Exit(int(Exit.INTERRUPTED)) from None

    if not written and lines:
        tell(f"The {'error' if stderr else 'output'} log is empty.")

        if child is None:
            tell(f"Read a task's own log:  dt log read {run.job_name} -i {run.run_id} -c TASK")


def copy_bytes(pieces: Iterable[bytes]) -> int:
    """Write a log to stdout, byte for byte, as it comes; returns how many bytes it had."""
    sys.stdout.flush()
    written = 0

    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        written += len(piece)

    return written
