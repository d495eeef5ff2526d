"""A run for people: how it stands, why tasks of it ended or wait, and what became of each try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from datatailr.cli.output import duration_text, print_aligned, print_table, time_text
from datatailr.client import answers, queries
from datatailr.client.words import cause_label, outcome_word, retry_text, state_word
from datatailr.errors import NotFoundError, ProtocolMismatchError
from datatailr.v1 import common_pb2, run_pb2

if TYPE_CHECKING:
    from datatailr.client.connection import Connection

LATEST: Final = "latest"
"""Stands for the newest run where a number is expected."""

_SHOWN: Final = 10
"""Most tasks of each sort that are shown; the JSON form has all."""

_FAILED: Final = frozenset(
    {common_pb2.STATE_FAILED, common_pb2.STATE_FAILED_AFTER, common_pb2.STATE_OUT_OF_MEMORY}
)
_ENDED: Final = _FAILED | {
    common_pb2.STATE_COMPLETED,
    common_pb2.STATE_STOPPED,
    common_pb2.STATE_EXPIRED,
    common_pb2.STATE_DID_NOT_RUN,
}


def run_of(connection: Connection, name: str, environment: str, which: str) -> run_pb2.Run | None:
    """The run with a number, or the newest one of a job; None when a job has none.

    Raises:
        NotFoundError: no run of this number, or one of another job.
    """
    if which == LATEST:
        return next(queries.runs(connection, name, environment=environment, page_size=1), None)

    run = queries.run(connection, int(which))

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


def describe_run(connection: Connection, run: run_pb2.Run, *, utc: bool) -> None:
    """Print how a run stands. Its tasks are asked for only where there is something to say of them."""
    counts = run.counts
    begin = run.start_time or run.submit_time
    took = f" after {duration_text(run.end_time - begin)}" if begin and run.end_time else ""
    rows = [
        ("Run", f"{run.run_id} of version {run.job_version}"),
        ("State", f"{state_word(run.state)}{took}"),
        ("Started", f"{time_text(run.submit_time, utc=utc)} by {run.started_by or '-'}"),
        ("Done", f"{counts.completed} of {counts.total}"),
    ]

    if run.cause.message:
        label = cause_label(run.cause)
        rows.append(("Because", f"{_line(run.cause.message)}{f' ({label})' if label else ''}"))

    rows.extend(("Waits", reason) for reason in run.waiting_for)
    print_aligned(rows)

    if run.state in (common_pb2.STATE_COMPLETED, common_pb2.STATE_EXPIRED) or not counts.total:
        return

    tasks = list(queries.run_tasks(connection, run.run_id))
    done = {task.task_id for task in tasks if task.state == common_pb2.STATE_COMPLETED or task.reused}
    waiting = [task for task in tasks if task.waiting_for]
    # Those that only the platform keeps from running come first: they hold up the others.
    _print_waiting(sorted(waiting, key=lambda task: not done.issuperset(task.dependencies)))
    told = [task for task in tasks if _has_story(task)]

    if told:
        _print_tries(connection, run, told, utc=utc)


def _has_story(task: run_pb2.RunTask) -> bool:
    """Whether a task failed, was stopped, or was failed by the platform."""
    return task.state in _FAILED or task.state == common_pb2.STATE_STOPPED or task.tried_to_start_time > 1


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
    rows = []
    attempts = _attempts(connection, run.run_id, list(shown))

    for attempt in attempts:
        state = outcome_word(attempt.outcome)
        rows.append(_try_row(shown[attempt.task_id].name, attempt, state, _why(attempt.cause), utc=utc))

        if attempt.HasField("late"):
            late = attempt.late
            why = f"its node said so too late, {time_text(late.heard_time, utc=utc)}"
            cause = f"; {_why(late.cause)}" if late.cause.kind else ""
            rows.append(("", "", "", "", "", f"({outcome_word(late.outcome)}: {why}{cause})"))

    if rows:
        print()
        print_table(
            ("TASK", "ATTEMPT", "NODE", "STATE", "ENDED", "BECAUSE"),
            rows,
            state="STATE",
        )

    _print_more(len(tasks), "tasks that failed or were tried again")

    for task in shown.values():
        if task.HasField("last_failure") and task.state not in _ENDED:
            print(f"{task.name}: {retry_text(task)}")


def _try_row(
    name: str, attempt: run_pb2.Attempt, state: str, why: str, *, utc: bool
) -> tuple[str, str, str, str, str, str]:
    ended = time_text(attempt.end_time, utc=utc)
    return name, str(attempt.fence), attempt.node or "-", state, ended, why or "-"


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
