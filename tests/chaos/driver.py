"""Submits work, watches it, stops some of it, and writes down what it was told and when.

The driver is a client like any other: every call may meet a platform that is away, and is made again until it
is answered. What an answer promised is kept in `RunRecord`, for the oracle to compare.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from datatailr.client import queries
from datatailr.errors import ConflictError, UnavailableError
from datatailr.v1 import common_pb2, job_pb2, run_pb2

from .workload import Plan
from .world import World

T = TypeVar("T")
State = common_pb2.State

FINAL: Final = frozenset(
    {
        common_pb2.STATE_COMPLETED,
        common_pb2.STATE_FAILED,
        common_pb2.STATE_FAILED_AFTER,
        common_pb2.STATE_OUT_OF_MEMORY,
        common_pb2.STATE_STOPPED,
        common_pb2.STATE_DID_NOT_RUN,
    }
)
PATIENCE: Final = 120.0
"""Seconds for one call to be answered, over all that happens to the platform."""


@dataclass
class RunRecord:
    """One run as its user knows it."""

    plan: Plan
    run_id: int
    job_name: str
    submitted: float
    """Monotonic seconds before the first request for it."""
    run: run_pb2.Run | None = None
    """As last seen."""
    tasks: dict[int, run_pb2.RunTask] = field(default_factory=dict)
    """As last seen."""
    promised: dict[int, tuple[int, str, int, int]] = field(default_factory=dict)
    """What was told of a task when it was first seen ended: state, attempt, fence, time of the end."""
    cancel_asked: float = 0.0
    """Monotonic seconds before the first request to stop it; 0 for never."""
    cancelled: bool = False
    """The platform acknowledged the stop while the run was not seen ended."""
    fences_at_cancel: dict[int, int] = field(default_factory=dict)
    """Newest fence of each task, read after the stop was acknowledged."""
    ended: float = 0.0
    """Monotonic seconds when it was first seen ended."""
    faults: list[str] = field(default_factory=list)
    """What contradicted an earlier answer."""

    @property
    def done(self) -> bool:
        """Whether it was seen ended."""
        return self.run is not None and self.run.state in FINAL


class Driver:
    """The clients of one platform.

    Args:
        world: The platform.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.records: list[RunRecord] = []
        self.troubles: list[str] = []
        """Answers that no fault explains."""

    @property
    def active(self) -> list[RunRecord]:
        """Runs that were not seen ended."""
        return [record for record in self.records if not record.done]

    def submit(self, plan: Plan) -> RunRecord:
        """Saves and starts a plan."""
        self.save(plan)
        return self.start(plan)

    def cancel(self, record: RunRecord) -> None:
        """Stops a run, however long the platform takes to answer."""
        self._insist(lambda: self._cancel(record))

    def save(self, plan: Plan) -> None:
        """Saves a plan as a new version, however long that takes."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ok, text = self._world.deployer.save(plan.definition(self._world.ledger_file))
            if ok:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{plan.name} could not be saved: {text}")
            time.sleep(0.5)

    def start(self, plan: Plan) -> RunRecord:
        """Starts a plan that is saved; twice with one key if it says so."""
        submitted = time.monotonic()
        request = job_pb2.StartJobRequest(
            idempotency_key=uuid.uuid4().hex,
            name=plan.name,
            environment=common_pb2.ENVIRONMENT_DEV,
            run_date="2026-01-01",
        )
        answer = self._insist(lambda: self._start(request))
        if plan.twice:
            again = self._insist(lambda: self._start(request))
            if again.run_id != answer.run_id:
                self.troubles.append(
                    f"one key started runs {answer.run_id} and {again.run_id} of {plan.name}"
                )
            other = job_pb2.StartJobRequest()
            other.CopyFrom(request)
            other.run_date = "2026-01-02"
            try:
                third = self._insist(lambda: self._start(other))
                self.troubles.append(
                    f"a key was taken for another request: run {third.run_id} of {plan.name}"
                )
            except ConflictError:
                pass
        record = RunRecord(plan, answer.run_id, plan.name, submitted)
        self.records.append(record)
        return record

    def poll(self) -> None:
        """Looks at every active run once and stops those whose time has come; nothing while it is silent."""
        try:
            for record in self.active:
                self._look(record)
                due = record.plan.cancel_after
                late = time.monotonic() - record.submitted > due
                if due and late and not (record.done or record.cancelled):
                    self._cancel(record)
        except UnavailableError:
            return

    def wait_all(self, *, seconds: float) -> list[RunRecord]:
        """Waits for the end of all runs; those that did not end in time."""
        deadline = time.monotonic() + seconds
        while self.active and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.3)
        return self.active

    def refresh(self, record: RunRecord) -> None:
        """Reads a run anew, however long the platform takes to answer."""
        self._insist(lambda: self._look(record))

    def runs_of(self, name: str) -> list[int]:
        """Ids of all runs of a job."""
        return self._insist(lambda: [run.run_id for run in queries.runs(self._world.connection, name)])

    def _start(self, request: job_pb2.StartJobRequest) -> job_pb2.StartJobResponse:
        return self._world.connection.call(lambda s: s.jobs.StartJob, request, timeout=10)

    def _insist(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except UnavailableError:  # noqa: PERF203 - each try for itself
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def _look(self, record: RunRecord) -> None:
        connection = self._world.connection
        # The run first: an ended run whose tasks are read later shows them ended too.
        run = queries.run(connection, record.run_id)
        tasks = {task.task_id: task for task in queries.run_tasks(connection, record.run_id)}
        if record.run is not None and record.done and run.state != record.run.state:
            record.faults.append(f"the run ended {record.run.state} and is {run.state} now")
        record.run, record.tasks = run, tasks
        for number, task in tasks.items():
            seen = (task.state, task.attempt_id, task.fence, task.end_time)
            if number in record.promised and record.promised[number] != seen:
                record.faults.append(f"task {number} was {record.promised[number]} and is {seen} now")
            elif task.state in FINAL:
                record.promised[number] = seen
        if record.done and not record.ended:
            record.ended = time.monotonic()
            open_tasks = [number for number, task in tasks.items() if task.state not in FINAL]
            if open_tasks:
                record.faults.append(f"the run has ended, but tasks {open_tasks} have not")

    def _cancel(self, record: RunRecord) -> None:
        record.cancel_asked = record.cancel_asked or time.monotonic()
        request = run_pb2.CancelRunRequest(run_id=record.run_id)
        self._world.connection.call(lambda s: s.runs.CancelRun, request, timeout=10)
        tasks = queries.run_tasks(self._world.connection, record.run_id)
        record.fences_at_cancel = {task.task_id: task.fence for task in tasks}
        record.cancelled = True
