"""The logs of all tasks of a run as one, and the last words of those that failed."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from datatailr.cli.output import text_width
from datatailr.client import logs, queries
from datatailr.client.lines import LineCutter, shown
from datatailr.client.watching import ENDED_STATES, watch_run
from datatailr.client.words import CAUSE_HINTS, cause_label, code_text, state_word
from datatailr.v1 import common_pb2, run_pb2

if TYPE_CHECKING:
    from datatailr.client.connection import Connection

_FAILED: Final = frozenset(
    {common_pb2.STATE_FAILED, common_pb2.STATE_FAILED_AFTER, common_pb2.STATE_OUT_OF_MEMORY}
)

_WAITING: Final = frozenset({common_pb2.STATE_PENDING, common_pb2.STATE_DID_NOT_RUN})

_WIDEST: Final = 32
"""Cells of the column of names; longer ones are cut."""

_AT_ONCE: Final = 64
"""Logs that are followed at the same time; those of further tasks wait their turn, nothing is lost."""

_LINES_AHEAD: Final = 10_000
"""Lines that are held while the reader of our output is slow."""

_PATIENCE: Final = 5.0
"""Seconds that readers have to end after the connection was closed."""


@dataclass(frozen=True)
class Line:
    """One line of the merged log."""

    task: str
    text: bytes


def print_all(connection: Connection, run: run_pb2.Run, *, stderr: bool, lines: int | None) -> int:
    """Print the logs of all tasks in the order in which they started; returns how many lines."""
    tasks = [task for task in queries.run_tasks(connection, run.run_id) if _has_log(task)]
    tasks.sort(key=lambda task: (task.start_time or sys.maxsize, task.task_id))
    width = _width(tasks)
    count = 0

    for task in tasks:
        for line in _lines(connection, run.run_id, task.task_id, stderr=stderr, lines=lines):
            _print(task.name, line, width)
            count += 1

    return count


def follow_all(connection: Connection, run: run_pb2.Run, *, stderr: bool, lines: int | None) -> int:
    """Print the logs of all tasks as they grow, until the run has ended; returns how many lines.

    Tasks that start meanwhile are shown from their first byte, whatever `lines` says.
    """
    follower = _Follower(connection, run.run_id, stderr=stderr, lines=lines)
    width = _width(queries.run_tasks(connection, run.run_id))
    count = 0

    try:
        for line in follower.lines():
            _print(line.task, line.text, width)
            sys.stdout.flush()
            count += 1
    finally:
        follower.close()

    return count


def print_failed(connection: Connection, run: run_pb2.Run, *, lines: int) -> int:
    """Print cause and last lines of each failed task; returns how many tasks that were."""
    failed = [task for task in queries.run_tasks(connection, run.run_id) if task.state in _FAILED]

    for number, task in enumerate(failed):
        where = f" on {task.node}" if task.node else ""
        label = cause_label(task.cause)
        title = f"task {task.name} ({task.task_id}){where}: {state_word(task.state)}"
        print(
            f"{chr(10) if number else ''}{title}{f' ({label})' if label else ''}{code_text(task.cause.kind)}"
        )

        if task.cause.message:
            print(f"because: {task.cause.message}")

        if hint := CAUSE_HINTS.get(task.cause.kind, "").replace("RUN", str(run.run_id)):
            print(f"hint: {hint.replace('NAME', run.job_name)}")

        for stderr, name in ((False, "output"), (True, "errors")):
            _print_tail(connection, run.run_id, task.task_id, stderr=stderr, lines=lines, name=name)

    return len(failed)


def _print_tail(
    connection: Connection, run_id: int, task_id: int, *, stderr: bool, lines: int, name: str
) -> None:
    last = list(_lines(connection, run_id, task_id, stderr=stderr, lines=lines))

    if last:
        print(f"-- {name}, last {len(last)} lines")

    for line in last:
        print(shown(line, colours=_colours()))


def _lines(
    connection: Connection,
    run_id: int,
    task_id: int,
    *,
    stderr: bool,
    lines: int | None,
    follow: bool = False,
) -> Iterator[bytes]:
    cutter = LineCutter()
    target = logs.task_log(run_id, task_id)

    for piece in logs.read_log(connection, target, stderr=stderr, lines=lines, follow=follow):
        yield from cutter.feed(piece)

    yield from cutter.flush()


def _has_log(task: run_pb2.RunTask) -> bool:
    return task.state not in _WAITING and not task.reused


def _width(tasks: Iterable[run_pb2.RunTask]) -> int:
    """Cells of the column of names, the same whichever task comes first."""
    return min(_WIDEST, max((text_width(task.name) for task in tasks), default=0))


def _print(task: str, line: bytes, width: int) -> None:
    name = task if text_width(task) <= _WIDEST else f"{task[: _WIDEST - 1]}…"
    padded = name + " " * max(0, width - text_width(name))
    print(f"{padded} | {shown(line, colours=_colours())}".rstrip())


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class _Follower:
    """Reads the logs of the tasks of a run in threads; whoever iterates over `lines` prints."""

    def __init__(self, connection: Connection, run_id: int, *, stderr: bool, lines: int | None) -> None:
        self._connection = connection
        self._run_id = run_id
        self._stderr = stderr
        self._lines = lines
        self._queue: queue.Queue[Line | BaseException | None] = queue.Queue(_LINES_AHEAD)
        self._room = threading.Semaphore(_AT_ONCE)
        self._stopped = threading.Event()
        self._readers: list[threading.Thread] = []
        self._watcher = self._thread(self._watch)

    def lines(self) -> Iterator[Line]:
        """The lines as they come, until the run and all logs of it have ended."""
        self._watcher.start()

        while True:
            item = self._queue.get()

            if item is None:
                return

            if isinstance(item, BaseException):
                raise item

            yield item

    def close(self) -> None:
        """End all threads; the connection is closed, since only that ends a stream that waits."""
        self._stopped.set()
        self._connection.close()

        for thread in (self._watcher, *self._readers):
            if thread.ident is not None:
                thread.join(_PATIENCE)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._put(error)

        return threading.Thread(target=guarded, name="dt-log", daemon=True)

    def _watch(self) -> None:
        seen: set[int] = set()
        is_first = True

        for watched in watch_run(self._connection, self._run_id):
            for task in watched.ordered_tasks():
                if task.task_id not in seen and _has_log(task):
                    seen.add(task.task_id)
                    self._read(task.task_id, task.name, self._lines if is_first else None)

            is_first = False

            if watched.run.state in ENDED_STATES or self._stopped.is_set():
                break

        for reader in self._readers:
            reader.join()

        self._put(None)

    def _read(self, task_id: int, name: str, lines: int | None) -> None:
        def read() -> None:
            try:
                for line in _lines(
                    self._connection, self._run_id, task_id, stderr=self._stderr, lines=lines, follow=True
                ):
                    self._put(Line(name, line))
            finally:
                self._room.release()

        while not self._room.acquire(timeout=1.0):
            if self._stopped.is_set():
                return

        self._readers = [reader for reader in self._readers if reader.is_alive()]
        reader = self._thread(read)
        self._readers.append(reader)
        reader.start()

    def _put(self, item: Line | BaseException | None) -> None:
        while not (self._stopped.is_set() or self._is_taken(item)):
            pass

    def _is_taken(self, item: Line | BaseException | None) -> bool:
        """Whether there was room for it within a second."""
        try:
            self._queue.put(item, timeout=1.0)
        except queue.Full:
            return False

        return True
