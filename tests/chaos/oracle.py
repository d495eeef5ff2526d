"""What must be true of every run, whatever was done to the processes; read from outside only.

The numbers name the invariants: 3 one live attempt, 4 stale is inert, 5 one outcome, 6 results exist, 7 order
of the graph, 8 budgets, 15 no double start, 16 no strays, 19 a stop sticks, 21 logs are what was written,
24 one key one run, 26 closure, 27 objects are whole.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from datatailr.client import logs
from datatailr.client.platform import GrpcPlatform
from datatailr.errors import DatatailrError
from datatailr.v1 import common_pb2, run_pb2

from .driver import RunRecord
from .faults import Faults
from .ledger import Entry
from .servers import eventually
from .workload import END, START
from .world import World

INFRA_BUDGET = 3
"""Extra attempts of a task after failures of the platform."""
LOG_SECONDS = 30.0
"""Logs travel apart from states: the last of them may come a little later."""

_USER_LINE = re.compile(r"^(out|err) \d{5} ", re.MULTILINE)

_PLATFORM_CAUSES = frozenset(
    {
        common_pb2.CAUSE_KIND_LEASE_LOST,
        common_pb2.CAUSE_KIND_NODE_RESTARTED,
        common_pb2.CAUSE_KIND_LOST_BY_RUNTIME,
        common_pb2.CAUSE_KIND_NODE_FAULT,
        common_pb2.CAUSE_KIND_NODE_DRAINED,
    }
)


@dataclass(frozen=True)
class _Story:
    """One task of one run: what was planned, what is told, what happened."""

    record: RunRecord
    number: int
    task: run_pb2.RunTask
    entries: tuple[Entry, ...]

    @property
    def starts(self) -> list[Entry]:
        """Beginnings, in the order of writing."""
        return [entry for entry in self.entries if entry.event == "start"]

    def wrong(self, text: str) -> str:
        """A violation, with the place named."""
        return f"run {self.record.run_id} ({self.record.plan.name}) task {self.number}: {text}"


class Oracle:
    """Judges ended runs.

    Args:
        world: The platform, whole again.
        faults: What was done to it.
        log_seconds: How long a log may take to arrive.
    """

    def __init__(self, world: World, faults: Faults, *, log_seconds: float = LOG_SECONDS) -> None:
        self._log_seconds = log_seconds
        self._world = world
        self._faults = faults
        self._platform = GrpcPlatform(world.connection)

    def judge(self, records: list[RunRecord]) -> list[str]:
        """Everything that is wrong with the runs; empty when the platform kept its word."""
        entries: dict[tuple[int, int], list[Entry]] = defaultdict(list)
        for entry in self._world.ledger.entries():
            entries[entry.run, entry.task].append(entry)
        found: list[str] = []
        for record in records:
            if record.run is None or not record.done:
                found.append(f"run {record.run_id} ({record.plan.name}) did not end: {shown(record)}")
                continue
            stories = [
                _Story(record, number, task, tuple(entries[record.run_id, number]))
                for number, task in sorted(record.tasks.items())
            ]
            found += [f"run {record.run_id} ({record.plan.name}): {text}" for text in record.faults]
            if len(stories) != len(record.plan.tasks):
                found.append(f"run {record.run_id} has {len(stories)} tasks of {len(record.plan.tasks)}")
                continue
            found += self._run_state(record)
            for story in stories:
                found += self._task(story)
            found += self._order(stories)
        return found

    def _run_state(self, record: RunRecord) -> Iterator[str]:
        assert record.run is not None
        states = {task.state for task in record.tasks.values()}
        if common_pb2.STATE_FAILED in states:
            expected = {common_pb2.STATE_FAILED}
        elif common_pb2.STATE_STOPPED in states:
            expected = {common_pb2.STATE_STOPPED}
        else:
            expected = {common_pb2.STATE_COMPLETED}
        if record.cancel_asked:
            expected |= {common_pb2.STATE_STOPPED}
        if record.run.state not in expected:
            yield f"run {record.run_id} is {_word(record.run.state)}, its tasks are {shown(record)}"
        if record.cancelled and record.run.state == common_pb2.STATE_COMPLETED:
            open_at_cancel = [n for n in record.fences_at_cancel if n not in record.promised]
            if open_at_cancel:
                yield f"run {record.run_id} completed although its stop was acknowledged"

    # -- one task ----------------------------------------------------------------------------------
    def _task(self, story: _Story) -> Iterator[str]:
        yield from self._outcome(story)
        yield from self._starts(story)
        yield from self._stop(story)
        if story.task.state == common_pb2.STATE_COMPLETED:
            yield from self._result(story)
        yield from self._logs(story)

    def _outcome(self, story: _Story) -> Iterator[str]:
        record, task, plan = story.record, story.task, story.record.plan
        state = task.state
        if state == common_pb2.STATE_COMPLETED:
            if story.number not in plan.values:
                yield story.wrong("completed, but it fails on purpose or comes after one that does")
            return
        if record.cancel_asked and state in (common_pb2.STATE_STOPPED, common_pb2.STATE_DID_NOT_RUN):
            return
        if state == common_pb2.STATE_DID_NOT_RUN:
            bad = [p for p in plan.tasks[story.number].parents if not _completed(record, p)]
            if not bad:
                yield story.wrong("did not run, although all before it completed")
        elif state == common_pb2.STATE_FAILED:
            yield from self._failure(story)
        else:
            yield story.wrong(f"ended {_word(state)}: {task.cause.message}")

    def _failure(self, story: _Story) -> Iterator[str]:
        task = story.task
        cause = task.cause
        if _by_platform(story):
            if task.tried_to_start_time <= INFRA_BUDGET:
                yield story.wrong(f"given up after {task.tried_to_start_time} attempts: {cause.message}")
            return
        purpose = {
            "raise": common_pb2.CAUSE_KIND_EXCEPTION,
            "exit": common_pb2.CAUSE_KIND_EXIT_CODE,
            "signal": common_pb2.CAUSE_KIND_SIGNAL,
        }
        planned = story.record.plan.tasks[story.number].fail
        if planned and cause.kind == purpose[planned]:
            return
        killed = any(f.kind == "user kill" and f.target == task.attempt_id for f in self._faults.log)
        if not (killed and cause.kind == common_pb2.CAUSE_KIND_SIGNAL and cause.signal == 9):
            yield story.wrong(f"failed: {common_pb2.CauseKind.Name(cause.kind)} {cause.message!r}")

    def _starts(self, story: _Story) -> Iterator[str]:
        starts = story.starts
        attempts = [entry.attempt for entry in starts]
        for attempt in sorted({a for a in attempts if attempts.count(a) > 1}):
            yield story.wrong(f"attempt {attempt} was started {attempts.count(attempt)} times")
        fences = [entry.fence for entry in starts]
        if len(set(fences)) != len(set(attempts)):
            yield story.wrong(f"fences {fences} do not tell the attempts {attempts} apart")
        if story.task.tried_to_start_time > INFRA_BUDGET + 1 and not self._drained():
            yield story.wrong(f"was tried {story.task.tried_to_start_time} times")
        if starts and story.task.state == common_pb2.STATE_DID_NOT_RUN and not story.record.cancel_asked:
            yield story.wrong("did not run, says the platform, but it did")
        if story.task.state == common_pb2.STATE_COMPLETED:
            ended = {entry.attempt for entry in story.entries if entry.event == "finish"}
            if story.task.attempt_id not in ended:
                yield story.wrong(f"completed by attempt {story.task.attempt_id}, which never finished")
        for one, next_one in pairwise(sorted(starts, key=lambda entry: entry.fence)):
            yield from self._again(story, one, next_one)

    def _again(self, story: _Story, one: Entry, next_one: Entry) -> Iterator[str]:
        """Two attempts of one task began: something must have been done to the first.

        An agent that was away for longer than its lease may even begin one that was given up meanwhile:
        then the absence came before both.
        """
        agent = self._world.ledger.agent_of(one)
        since = one.at - 1 if one.at <= next_one.at else story.record.submitted
        if not self._faults.excuse(agent, one.attempt, since, max(one.at, next_one.at)):
            yield story.wrong(
                f"began again after {next_one.at - one.at:.2f} s on {self._world.ledger.agent_of(next_one)}, "
                f"although nothing was done to attempt {one.attempt} on {agent}"
            )

    def _drained(self) -> bool:
        """A drain that the operator asked for need not count against a task's budget."""
        return any(fault.kind == "agent drain" for fault in self._faults.log)

    def _stop(self, story: _Story) -> Iterator[str]:
        before = story.record.fences_at_cancel.get(story.number)
        if before is not None and story.task.fence != before:
            yield story.wrong(f"attempt {story.task.fence} was made after the stop, the last was {before}")

    def _order(self, stories: list[_Story]) -> Iterator[str]:
        finished = {
            story.number: entry.at
            for story in stories
            for entry in story.entries
            if entry.event == "finish" and entry.attempt == story.task.attempt_id
        }
        for story in stories:
            for start in story.starts:
                for parent in story.record.plan.tasks[story.number].parents:
                    if finished.get(parent, float("inf")) > start.at:
                        yield story.wrong(f"began before task {parent} had finished")

    # -- what is stored ----------------------------------------------------------------------------
    def _result(self, story: _Story) -> Iterator[str]:
        if story.number not in story.record.plan.values:
            return
        try:
            content = self._platform.get_result(story.record.run_id, story.number)
            if content is None:
                yield story.wrong("completed, but there is no result")
            elif pickle.loads(content) != story.record.plan.result(story.number):
                yield story.wrong(f"the result of {len(content)} bytes is not what was returned")
        except (DatatailrError, pickle.UnpicklingError, EOFError) as error:
            yield story.wrong(f"the result cannot be read: {error}")

    def _logs(self, story: _Story) -> Iterator[str]:
        for stream in ("out", "err"):
            for number in range(1, story.task.tried_to_start_time + 1):
                last = number == story.task.tried_to_start_time
                problem = ""

                def right(number: int = number, last: bool = last, stream: str = stream) -> bool:
                    nonlocal problem
                    content = self._log(story, number, stream)
                    problem = self._log_problem(story, content, stream, last=last)
                    return not problem

                with contextlib.suppress(AssertionError):
                    eventually(right, seconds=self._log_seconds, what="the log", pause=0.3)
                if problem:
                    yield story.wrong(f"log {stream} of attempt {number} {problem}")

    def _log(self, story: _Story, attempt: int, stream: str) -> str:
        target = logs.task_log(story.record.run_id, story.number, attempt=attempt)
        chunks = logs.read_log(self._world.connection, target, stderr=stream == "err")
        return b"".join(chunks).decode("utf-8", "replace")

    def _log_problem(self, story: _Story, content: str, stream: str, *, last: bool) -> str:
        """Whether a stored log is what the attempt wrote: exactly, if it came to its own end."""
        lines = story.record.plan.tasks[story.number].log(stream)
        planned = story.record.plan.tasks[story.number].fail
        finished = any(
            entry.event == "finish" and entry.attempt == story.task.attempt_id for entry in story.entries
        )
        if last and story.task.state == common_pb2.STATE_COMPLETED and finished:
            return _difference(content, lines + END)
        own_end = planned and not self._killed(story)
        if last and story.task.state == common_pb2.STATE_FAILED and own_end and not _by_platform(story):
            if stream == "out":
                return _difference(content, lines + END)
            # Behind the lines stands why it failed, in words or as a traceback.
            whole = content.startswith(lines) and content.endswith(END)
            return "" if whole else _difference(content[: len(lines)], lines) or "has no end"
        return _not_prefix(content, lines + END)

    def _killed(self, story: _Story) -> bool:
        return any(f.kind == "user kill" and f.target == story.task.attempt_id for f in self._faults.log)


def _difference(content: str, expected: str) -> str:
    if content == expected:
        return ""
    same = next(
        (i for i, (one, other) in enumerate(zip(content, expected)) if one != other),
        min(len(content), len(expected)),
    )
    return (
        f"has {len(content)} bytes of {len(expected)} and differs at {same}: "
        f"{content[max(0, same - 40) : same + 40]!r}"
    )


def _not_prefix(content: str, lines: str) -> str:
    """An attempt that was ended from outside: its log is a piece of what it was about to write.

    What stands behind the lines is the end of an attempt that was asked to stop: a traceback of the
    interruption, or the platform's last line.
    """
    if content == lines[: len(content)]:
        return ""
    # Without the first line it was ended before the user's code had its turn.
    start = len(START) if content.startswith(START) else 0
    body, planned = content[start:], lines[len(START) :] if start else ""
    kept = 0
    for line in planned.splitlines(keepends=True):
        if not body.startswith(line, kept):
            break
        kept += len(line)
    rest = body[kept:].removesuffix(END)
    if body.endswith(END) and not _USER_LINE.search(rest):
        return ""
    return _difference(content[: len(lines)], lines)


def _by_platform(story: _Story) -> bool:
    return story.task.cause.kind in _PLATFORM_CAUSES


def _completed(record: RunRecord, number: int) -> bool:
    task = record.tasks.get(number)
    return task is not None and task.state == common_pb2.STATE_COMPLETED


def _word(state: int) -> str:
    return common_pb2.State.Name(state).removeprefix("STATE_").lower()


def shown(record: RunRecord) -> str:
    """The states of a run's tasks, and why some wait."""
    tasks = {number: _word(task.state) for number, task in sorted(record.tasks.items())}
    waiting = {number: list(task.waiting_for) for number, task in record.tasks.items() if task.waiting_for}
    return f"{tasks} {waiting}"
