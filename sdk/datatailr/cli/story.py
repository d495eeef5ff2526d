"""A run for people: how it stands, why tasks of it ended or wait, and what became of each try."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from datatailr.cli.output import duration_text, print_aligned, print_table, time_text
from datatailr.cli.session import nth_newest
from datatailr.client import answers, queries
from datatailr.client.words import cause_label, lineage, outcome_word, retry_text, state_word
from datatailr.errors import NotFoundError, ProtocolMismatchError
from datatailr.v1 import common_pb2, run_pb2

if TYPE_CHECKING:
    from datatailr.client.connection import Connection

_LOOKED_AT: Final = 1_000
"""Most tasks of a run that completed which are looked at without being asked for."""

_SHOWN: Final = 10
"""Most tasks of each sort that are shown; the JSON form has all."""


def run_of(connection: Connection, name: str, environment: str, which: int) -> run_pb2.Run | None:
    """The run with a number, or below 0 the how-manieth newest of a job; None when a job has none.

    Raises:
        NotFoundError: no run of this number, one of another job, or a job that has not so many.
    """
    if which < 0:
        return nth_newest(connection, name, environment, -which)

    run = queries.run(connection, which)

    if run.job_name != name:
        raise NotFoundError(
            f"run {which} is one of {run.job_name!r}, not of {name!r}\n"
            f"hint: `dt job runs {name}` lists the runs of this job"
        )

    return run


def run_story(connection: Connection, run: run_pb2.Run) -> dict[str, Any]:
    """The run with all tasks and attempts, as `answers.run_story_answer` gives it."""
    return answers.run_story_answer(
        run, queries.run_tasks(connection, run.run_id), _attempts(connection, run.run_id, [])
    )


def describe_run(connection: Connection, run: run_pb2.Run, *, utc: bool, whole: bool = False) -> None:
    """Print how a run stands, with the tasks of which there is something to say.

    Args:
        connection: The server.
        run: The run.
        utc: Show times in UTC.
        whole: Look at the tasks of a large run too that completed; few of them were tried again.
    """
    counts = run.counts
    begin = run.start_time or run.submit_time
    took = f" after {duration_text(run.end_time - begin)}" if begin and run.end_time else ""
    rows = [
        ("Run", f"{run.run_id} of version {run.job_version}{lineage(run)}"),
        ("State", f"{state_word(run.state)}{took}"),
        ("Started", f"{time_text(run.submit_time, utc=utc)} by {run.started_by or '-'}"),
        ("Done", f"{counts.completed} of {counts.total}"),
    ]

    if run.cause.message:
        label = cause_label(run.cause)
        rows.append(("Because", f"{_line(run.cause.message)}{f' ({label})' if label else ''}"))

    rows.extend(("Waits", reason) for reason in run.waiting_for)
    print_aligned(rows)

    well = run.state in (common_pb2.STATE_COMPLETED, common_pb2.STATE_EXPIRED)

    if well and counts.total > _LOOKED_AT and not whole:
        return

    tasks = list(queries.run_tasks(connection, run.run_id))
    done = {task.task_id for task in tasks if task.state == common_pb2.STATE_COMPLETED or task.reused}
    waiting = [task for task in tasks if task.waiting_for]
    # Those that only the platform keeps from running come first: they hold up the others.
    _print_waiting(sorted(waiting, key=lambda task: not done.issuperset(task.dependencies)))
    # What failed comes before what only followed from it.
    told = sorted(filter(_has_story, tasks), key=lambda task: task.state == common_pb2.STATE_DID_NOT_RUN)

    if told:
        _print_tries(connection, run, told, utc=utc)


def _has_story(task: run_pb2.RunTask) -> bool:
    """Whether a task ended for a reason that is told, or was failed by the platform."""
    return bool(task.cause.kind) or task.HasField("last_failure") or task.tried_to_start_time > 1


def _print_waiting(tasks: list[run_pb2.RunTask]) -> None:
    if not tasks:
        return

    print()
    print_table(
        ("TASK", "NAME", "WAITS"),
        [(str(task.task_id), task.name, "; ".join(task.waiting_for)) for task in tasks[:_SHOWN]],
    )
    _print_more(len(tasks), "waiting tasks")


def _print_tries(
    connection: Connection, run: run_pb2.Run, tasks: list[run_pb2.RunTask], *, utc: bool
) -> None:
    shown = {task.task_id: task for task in tasks[:_SHOWN]}
    rows: list[tuple[str, ...]] = []
    attempts: dict[int, list[run_pb2.Attempt]] = {task_id: [] for task_id in shown}

    for attempt in _attempts(connection, run.run_id, list(shown)):
        attempts[attempt.task_id].append(attempt)

    for task in shown.values():
        if not attempts[task.task_id]:
            rows.append((task.name, "-", "-", state_word(task.state), "-", _why(task.cause)))

        for attempt in attempts[task.task_id]:
            rows.extend(_try_rows(task.name, attempt, utc=utc))

    if rows:
        print()
        print_table(
            ("TASK", "ATTEMPT", "NODE", "STATE", "ENDED", "BECAUSE"),
            rows,
            state="STATE",
        )

    _print_more(len(tasks), "tasks that did not go well")

    for task in shown.values():
        if task.HasField("last_failure"):
            print(f"{task.name}: {retry_text(task)}")


def _try_rows(name: str, attempt: run_pb2.Attempt, *, utc: bool) -> Iterator[tuple[str, ...]]:
    """One try, and below it what its node told when it was too late."""
    state, ended = outcome_word(attempt.outcome), time_text(attempt.end_time, utc=utc)
    yield name, str(attempt.fence), attempt.node or "-", state, ended, _why(attempt.cause) or "-"

    if attempt.HasField("late"):
        late = attempt.late
        why = f"its node said so too late, {time_text(late.heard_time, utc=utc)}"
        cause = f"; {_why(late.cause)}" if late.cause.kind else ""
        yield "", "", "", "", "", f"({outcome_word(late.outcome)}: {why}{cause})"


def _why(cause: common_pb2.Cause) -> str:
    if not cause.kind and not cause.message:
        return ""

    return ": ".join(filter(None, (cause_label(cause), _line(cause.message))))


def _print_more(count: int, what: str) -> None:
    if count > _SHOWN:
        print(f"… and {count - _SHOWN} more {what}")


def _attempts(connection: Connection, run_id: int, task_ids: list[int]) -> list[run_pb2.Attempt]:
    """The tries; none from a server that is too old to tell them."""
    try:
        return list(queries.attempts(connection, run_id, task_ids))
    except ProtocolMismatchError:
        return []


def _line(text: str) -> str:
    return text.partition("\n")[0]
