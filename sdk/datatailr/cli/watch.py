"""Following a run on the screen until it has ended.

On a terminal one block shows the run and its tasks and is kept up to date; elsewhere each change
is one line. Both end with the state, the duration, and for what went wrong the cause as the
user's code told it.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from datatailr.cli.exits import Exit
from datatailr.cli.interrupting import look_away
from datatailr.cli.output import STATE_COLOURS, duration_text, tell
from datatailr.client.connection import Connection
from datatailr.client.watching import WatchedRun, watch_run
from datatailr.client.words import CAUSE_HINTS, cause_label, code_text, lineage, state_word
from datatailr.v1 import common_pb2, run_pb2

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MARKS: Final = {
    "completed": "✓",
    "running": "●",
    "starting": "◐",
    "pending": "○",
    "failed": "✗",
    "failed_after": "✗",
    "out_of_memory": "✗",
    "stopped": "■",
    "did_not_run": "–",
}

# The order in which tasks are kept when the terminal has not room for all of them.
_INTEREST: Final = ("failed", "out_of_memory", "failed_after", "running", "starting", "pending")

_FAILED: Final = frozenset(
    {common_pb2.STATE_FAILED, common_pb2.STATE_FAILED_AFTER, common_pb2.STATE_OUT_OF_MEMORY}
)

_MOST_CAUSES: Final = 5
"""Failed tasks whose cause is printed in full at the end."""

_MOST_REASONS: Final = 5
"""Reasons to wait that are told at a time."""

_REASON_REST: Final = 15.0
"""Seconds before a reason of which only numbers or names changed is told again."""

_VARYING: Final = re.compile(r"[0-9'(]")
"""Where the part of a reason begins that may change from moment to moment."""


def watch(connection: Connection, run_id: int) -> Exit:
    """Follow a run on stdout; the exit code that tells how it ended.

    Raises:
        PlatformError: the run is unknown, or the server stayed away.
    """
    view: _View = _LiveView() if _on_terminal() else _PlainView()
    watched: WatchedRun | None = None

    try:
        with view:
            for watched in watch_run(connection, run_id, on_cut=view.cut):
                view.show(watched)
    except KeyboardInterrupt:
        return look_away(connection, run_id, watched.run.job_name if watched is not None else "NAME")

    if watched is None or not watched.ended:
        tell(f"error: the server ended the stream before run {run_id} had ended")
        return Exit.FAILED

    print_end(watched)
    return Exit.OK if watched.well else Exit.RUN_FAILED


def print_end(watched: WatchedRun) -> None:
    """Print how a run ended: state, duration, cause, and what failed in it."""
    run = watched.run
    took = duration_text(_length(run.start_time or run.submit_time, run.end_time))
    which = f"run {run.run_id} of {run.job_name} (version {run.job_version})"
    print(f"{which}: {watched.state} after {took}{lineage(run)}")

    if watched.well:
        return

    if run.cause.message:
        print(f"because: {run.cause.message}{_label(run.cause)}")

    failed = [task for task in watched.ordered_tasks() if task.state in _FAILED]

    for task in failed[:_MOST_CAUSES]:
        where = f" on {task.node}" if task.node else ""
        attempt = f", attempt {task.tried_to_start_time}" if task.tried_to_start_time > 1 else ""
        state = f"{state_word(task.state)}{_label(task.cause)}{code_text(task.cause.kind)}"
        print(f"\ntask {task.name} ({task.task_id}){where}{attempt}: {state}")
        print(task.cause.traceback.rstrip("\n") or task.cause.message or "no cause was recorded")

    if len(failed) > _MOST_CAUSES:
        print(f"\n… and {len(failed) - _MOST_CAUSES} more failed tasks")

    hints = dict.fromkeys(CAUSE_HINTS.get(task.cause.kind, "") for task in failed[:_MOST_CAUSES])
    hints = hints or {CAUSE_HINTS.get(run.cause.kind, ""): None}
    tell(*(f"hint: {_for_run(hint, run)}" for hint in hints if hint))

    if failed:
        tell(
            "",
            f"Its log:       dt log read {run.job_name} -i {run.run_id} -c {failed[0].task_id} -l 100",
            f"Its errors:    dt log read {run.job_name} -i {run.run_id} -c {failed[0].task_id} -l 100 -r",
            f"Run it again:  dt job rerun {run.run_id}",
        )


def waiting_reasons(watched: WatchedRun) -> list[str]:
    """Why the run or tasks of it wait, apart from other tasks: each reason once, with who waits for it."""
    return [f"{who}: {reason}" if who else reason for who, reason in _reasons(watched)]


def _reasons(watched: WatchedRun) -> list[tuple[str, str]]:
    """Who waits, empty for the run as a whole, and why."""
    waiting: dict[str, list[str]] = {reason: [] for reason in watched.run.waiting_for}

    for task in watched.ordered_tasks():
        for reason in task.waiting_for:
            if reason not in watched.run.waiting_for and not watched.open_upstreams(task):
                waiting.setdefault(reason, []).append(task.name)

    return [
        (f"{names[0]} and {len(names) - 1} more" if names[1:] else "".join(names), reason)
        for reason, names in waiting.items()
    ]


def _label(cause: common_pb2.Cause) -> str:
    label = cause_label(cause)
    return f" ({label})" if label else ""


def _for_run(hint: str, run: run_pb2.Run) -> str:
    return hint.replace("RUN", str(run.run_id)).replace("NAME", run.job_name)


class _View(Protocol):
    def __enter__(self) -> object: ...

    def __exit__(self, *exc: object) -> bool | None: ...

    def show(self, watched: WatchedRun) -> None: ...

    def cut(self) -> None: ...


class _PlainView:
    """One line for each change."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown: dict[int, common_pb2.State] = {}
        self._run_state: common_pb2.State | None = None
        self._retries: set[tuple[int, int]] = set()
        self._reasons: set[str] = set()
        """Those told that still hold."""
        self._told: dict[str, float] = {}
        """When a reason that begins so was told."""

    def __enter__(self) -> object:
        return self

    def __exit__(self, *exc: object) -> bool | None:
        return None

    def show(self, watched: WatchedRun) -> None:
        """Print what differs from the last time."""
        if watched.run.state != self._run_state:
            self._run_state = watched.run.state
            self._line(f"run {watched.run.run_id} of {watched.run.job_name}: {watched.state}")

        for task in watched.ordered_tasks():
            if self._shown.get(task.task_id) == task.state:
                continue

            self._shown[task.task_id] = task.state
            took = _task_time(task)
            end = f" after {took}" if task.end_time and took else ""
            reused = " (result of an earlier run)" if task.reused else ""
            why = _label(task.cause)
            self._line(f"task {task.name} ({task.task_id}): {state_word(task.state)}{end}{reused}{why}")

        for key, text in watched.retries.items():
            if key not in self._retries:
                self._retries.add(key)
                self._line(f"task {watched.tasks[key[0]].name} ({key[0]}): {text}")

        self._tell_reasons(_reasons(watched)[:_MOST_REASONS])

    def _tell_reasons(self, reasons: list[tuple[str, str]]) -> None:
        now = self._clock()

        for who, reason in reasons:
            # Numbers and names in a reason change all the time while it stays the same.
            head = _VARYING.split(reason, maxsplit=1)[0]

            if reason not in self._reasons and now - self._told.get(head, -math.inf) >= _REASON_REST:
                self._told[head] = now
                self._reasons.add(reason)
                self._line(f"waiting: {who}: {reason}" if who else f"waiting: {reason}")

        self._reasons.intersection_update(reason for _, reason in reasons)

    def cut(self) -> None:
        """Say that the connection is lost for now."""
        tell("the connection was lost, trying again")

    def _line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class _LiveView:
    """One block that is kept up to date, and gone at the end: the line that tells the end takes its place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
        self._watched: WatchedRun | None = None
        self._is_cut = False
        self._live: AbstractContextManager[object] = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> object:
        return self._live.__enter__()

    def __exit__(self, *exc: object) -> bool | None:
        return self._live.__exit__(None, None, None)

    def show(self, watched: WatchedRun) -> None:
        """Show the present state at the next refresh."""
        self._watched = watched
        self._is_cut = False

    def cut(self) -> None:
        """Mark what is shown as stale."""
        self._is_cut = True

    def _render(self) -> RenderableType:
        from rich.text import Text

        if self._watched is None:
            return Text("connecting …", style="dim")

        return render(self._watched, console=self._console, is_cut=self._is_cut)


def render(
    watched: WatchedRun,
    *,
    console: Console,
    is_cut: bool = False,
    clock: Callable[[], float] = time.time,
) -> RenderableType:
    """The block of a run: a headline, as many tasks as there is room for, and why it waits.

    Args:
        watched: The run.
        console: Whose height is the limit.
        is_cut: Whether the server is out of reach, so that the states may be stale.
        clock: Seconds since the epoch, for how long tasks have been running.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    run, now = watched.run, int(clock() * 1e6)
    begin = run.start_time or run.submit_time
    counts = Counter(state_word(task.state) for task in watched.tasks.values())
    headline = Text.assemble(
        (f"{run.display_name or run.job_name} ", "bold"),
        f"run {run.run_id}, version {run.job_version}{lineage(run)}  ",
        (watched.state, STATE_COLOURS.get(watched.state, "")),
        f"  {duration_text(_length(begin, run.end_time or now))}  ",
        (", ".join(f"{number} {state}" for state, number in counts.most_common()), "dim"),
        ("  reconnecting …" if is_cut else "", "yellow"),
    )

    table = Table.grid(padding=(0, 2))
    tasks, hidden = _choose(watched, max(3, console.height - 11 if watched.retries else console.height - 8))
    depths = _depths(watched)

    for task in tasks:
        state = state_word(task.state)
        style = STATE_COLOURS.get(state, "")
        table.add_row(
            Text(f"{'  ' * min(depths[task.task_id], 6)}{_MARKS.get(state, '·')} {task.name}", style=style),
            Text(f"{state}{' (earlier run)' if task.reused else ''}", style=style),
            Text(_task_time(task, now=now), style="dim"),
            Text(_note(watched, task), style="dim", no_wrap=True, overflow="ellipsis"),
        )

    parts: list[RenderableType] = [headline, table]

    if hidden:
        parts.append(Text(f"… and {hidden} more tasks", style="dim"))

    recent = list(watched.retries.items())[-3:]
    parts.extend(Text(f"{watched.tasks[key[0]].name}: {text}", style="yellow") for key, text in recent)
    parts.extend(Text(f"waiting: {reason}", style="yellow") for reason in waiting_reasons(watched)[:3])
    return Group(*parts)


def _note(watched: WatchedRun, task: run_pb2.RunTask) -> str:
    """Where a task runs, or why it does not."""
    if task.state == common_pb2.STATE_PENDING:
        return watched.waits_for(task)

    attempt = f", attempt {task.tried_to_start_time}" if task.tried_to_start_time > 1 else ""
    return f"{task.node}{attempt}{_label(task.cause)}".strip()


def _choose(watched: WatchedRun, room: int) -> tuple[list[run_pb2.RunTask], int]:
    """As many tasks as there is room for, the interesting ones first, in the order of ids."""
    tasks = watched.ordered_tasks()

    if len(tasks) <= room:
        return tasks, 0

    def interest(task: run_pb2.RunTask) -> int:
        state = state_word(task.state)
        return _INTEREST.index(state) if state in _INTEREST else len(_INTEREST)

    chosen = sorted(sorted(tasks, key=interest)[:room], key=lambda task: task.task_id)
    return chosen, len(tasks) - room


def _depths(watched: WatchedRun) -> dict[int, int]:
    """How many tasks stand before each one at most; a task may name only ones that exist.

    Edges may lead from a higher to a lower id, so ids are no order to go by: levels are peeled
    off, each task once its predecessors have theirs.
    """
    before = {
        task.task_id: [other for other in task.dependencies if other in watched.tasks]
        for task in watched.tasks.values()
    }
    after: dict[int, list[int]] = {task_id: [] for task_id in before}
    open_edges = {task_id: len(others) for task_id, others in before.items()}

    for task_id, others in before.items():
        for other in others:
            after[other].append(task_id)

    depths = dict.fromkeys(before, 0)
    ready = [task_id for task_id, number in open_edges.items() if not number]

    while ready:
        task_id = ready.pop()

        for follower in after[task_id]:
            depths[follower] = max(depths[follower], depths[task_id] + 1)
            open_edges[follower] -= 1

            if not open_edges[follower]:
                ready.append(follower)

    return depths


def _task_time(task: run_pb2.RunTask, *, now: int = 0) -> str:
    """How long a task took, or has been running by `now`; empty if it did not start."""
    if not task.start_time or not (task.end_time or now):
        return ""

    return duration_text(_length(task.start_time, task.end_time or now))


def _length(begin: int, end: int) -> int | None:
    """Microseconds between two times; clocks of two hosts may differ by a little."""
    return max(0, end - begin) if begin and end else None


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
