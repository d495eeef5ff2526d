"""Rebuilds the hot state from the tables, exactly (invariant 1)."""

from __future__ import annotations

import gc
import json
import sqlite3
from typing import Any

from ..core import placement
from ..core.causes import decode_cause
from ..core.definition import Plan, stored_plan
from ..core.drains import arm_drain
from ..core.model import (
    Agent,
    Attempt,
    Build,
    Image,
    Job,
    PriorRun,
    PriorTask,
    Remembered,
    Run,
    State,
    Task,
    Version,
)
from ..core.remembering import decode_reply
from ..core.settings import CoreSettings
from ..core.timers import arm_backoff, arm_wall
from ..core.values import (
    DONE,
    AttemptState,
    BuildState,
    Cause,
    CauseKind,
    Environment,
    ImageState,
    Instant,
    JobType,
    RunState,
    TaskState,
)
from . import codec


def load(connection: sqlite3.Connection, settings: CoreSettings, now: Instant) -> State | None:
    """The state as last committed; None for a database that was never used."""
    # Everything that is made here stays: looking for garbage among it takes a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _load(connection, settings, now)
    finally:
        if collecting:
            gc.enable()


def _load(connection: sqlite3.Connection, settings: CoreSettings, now: Instant) -> State | None:
    counters = _rows(connection, "SELECT * FROM counters")
    if not counters:
        return None
    row = counters[0]
    state = State(
        settings,
        row["installation"],
        row["next_job"],
        row["next_definition"],
        row["next_run"],
        row["next_build"],
    )
    _jobs(connection, state)
    _agents(connection, state)
    _images(connection, state)
    _runs(connection, state)
    _attempts(connection, state)
    _settle(state, now)
    for row in _rows(connection, "SELECT * FROM idempotency ORDER BY expire_time, actor, key"):
        state.remembered[row["actor"], row["key"]] = Remembered(
            row["request_digest"], decode_reply(row["kind"], row["reply"]), row["expire_time"]
        )
    expiring = _rows(
        connection,
        "SELECT run_id, expire_time FROM runs WHERE state = ? AND expire_time > 0",
        (int(RunState.SUCCEEDED),),
    )
    for row in expiring:
        state.expiries[row["run_id"]] = row["expire_time"]
        arm_wall(state, row["expire_time"], "expire", (row["run_id"], 0))
    return state


def read_plan(connection: sqlite3.Connection, definition_id: int) -> Plan | None:
    """The plan of a saved definition."""
    rows = _rows(connection, "SELECT * FROM definitions WHERE definition_id = ?", (definition_id,))
    if not rows:
        return None
    tasks = [
        codec.decode_task_definition(tuple(row))
        for row in _rows(
            connection,
            "SELECT * FROM definition_tasks WHERE definition_id = ? ORDER BY task_id",
            (definition_id,),
        )
    ]
    definition = codec.decode_header(rows[0]["header"])
    return stored_plan(definition_id, definition, tasks, rows[0]["image_key"])


def read_prior(connection: sqlite3.Connection, run_id: int) -> PriorRun:
    """A run for a rerun; `state` is None when there is no such run."""
    rows = _rows(connection, "SELECT * FROM runs WHERE run_id = ?", (run_id,))
    if not rows:
        return PriorRun(run_id, "", "", 0, None, -1, {})
    run = rows[0]
    tasks = {}
    for row in _rows(
        connection,
        "SELECT t.task_id, t.state, t.result_digest, t.result_size, t.result_inline, d.name, d.depends_on, "
        "o.preview FROM run_tasks t "
        "JOIN definition_tasks d ON d.definition_id = ? AND d.task_id = t.task_id "
        "LEFT JOIN outcomes o ON o.run_id = t.run_id AND o.task_id = t.task_id WHERE t.run_id = ?",
        (run["definition_id"], run_id),
    ):
        tasks[row["task_id"]] = PriorTask(
            row["task_id"],
            row["name"],
            tuple(json.loads(row["depends_on"])),
            TaskState(row["state"]),
            codec.payload_ref(row["result_digest"], row["result_size"], row["result_inline"]),
            row["preview"] or "",
        )
    return PriorRun(
        run_id,
        run["job_id"],
        run["job_name"],
        run["environment"],
        RunState(run["state"]),
        run["original_run_id"],
        tasks,
        run["version"],
    )


def _rows(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(sql, values).fetchall()


def _cause(row: sqlite3.Row) -> Cause | None:
    """Of an image or build: kind and message alone."""
    return Cause(CauseKind(row["cause_kind"]), row["cause_message"]) if row["cause_kind"] else None


def _run_cause(row: sqlite3.Row) -> Cause | None:
    return decode_cause(row["cause_kind"], row["cause_message"], row["cause_detail"])


def _task_cause(row: sqlite3.Row) -> Cause | None:
    return decode_cause(
        row["cause_kind"],
        row["cause_message"],
        row["cause_detail"],
        exit_code=row["exit_code"],
        signal=row["signal"],
    )


def _jobs(connection: sqlite3.Connection, state: State) -> None:
    for row in _rows(connection, "SELECT * FROM jobs"):
        job = Job(
            row["job_id"],
            row["name"],
            row["display_name"],
            Environment(row["environment"]),
            JobType(row["type"]),
            codec.decode_acl(row["acl"]),
            row["create_time"],
            row["next_version"],
            row["scheduled_version"],
        )
        state.jobs[job.job_id] = job
        state.job_names[job.name, job.environment] = job.job_id
    for row in _rows(connection, "SELECT * FROM versions ORDER BY job_id, version"):
        state.jobs[row["job_id"]].versions[row["version"]] = Version(
            row["job_id"],
            row["version"],
            row["definition_id"],
            row["image_key"],
            row["task_count"],
            bool(row["verified"]),
            bool(row["has_schedule"]),
            row["create_time"],
            row["created_by"],
            bool(row["removed"]),
            bool(row["instant"]),
        )


def _agents(connection: sqlite3.Connection, state: State) -> None:
    for row in _rows(connection, "SELECT * FROM agents"):
        state.agents[row["agent_id"]] = Agent(
            row["agent_id"],
            row["name"],
            row["first_seen"],
            row["epoch"],
            row["journal_id"],
            row["acked_seq"],
            bool(row["schedulable"]),
            row["reason"],
            row["memory_bytes"],
            row["cpu"],
            row["slots"],
            row["software_version"],
            row["runtime"],
            codec.pairs(json.loads(row["labels"])),
            tuple(json.loads(row["python_versions"])),
            bool(row["allows_pre_scripts"]),
            row["last_heard"],
            row["drain_by"],
        )


def _images(connection: sqlite3.Connection, state: State) -> None:
    for row in _rows(connection, "SELECT * FROM images"):
        state.images[row["image_key"]] = Image(
            row["image_key"],
            codec.decode_recipe(row["recipe"]),
            codec.decode_bundle(row["bundle"]),
            row["create_time"],
            ImageState(row["state"]),
            _cause(row),
            row["notice"],
            row["build_id"],
            row["agent_id"],
            row["tries"],
            row["start_time"],
            row["end_time"],
        )
    for row in _rows(
        connection, "SELECT * FROM builds WHERE state < ? ORDER BY create_time", (int(BuildState.READY),)
    ):
        build = Build(
            row["build_id"],
            row["image_key"],
            row["create_time"],
            BuildState(row["state"]),
            row["agent_id"],
            row["start_time"],
            row["end_time"],
            _cause(row),
        )
        state.builds[build.build_id] = build
        if build.state is BuildState.QUEUED:
            state.build_queue[build.build_id] = None
        else:
            state.agents[build.agent_id].builds[build.build_id] = build


def _runs(connection: sqlite3.Connection, state: State) -> None:
    active = (int(RunState.SUCCEEDED),)
    for row in _rows(connection, "SELECT * FROM runs WHERE state < ? ORDER BY run_id", active):
        plan = state.plans.get(row["definition_id"])
        if plan is None:
            plan = read_plan(connection, row["definition_id"])
            if plan is None:
                raise LookupError(f"run {row['run_id']} has no definition {row['definition_id']}")
            state.plans[plan.definition_id] = plan
        run = Run(
            row["run_id"],
            row["job_id"],
            Environment(row["environment"]),
            row["version"],
            plan,
            row["submit_time"],
            row["run_as"],
            row["started_by"],
            row["run_date"],
            row["original_run_id"],
            bool(row["partial_rerun"]),
            row["scheduled_time"],
            RunState(row["state"]),
            row["start_provisioning_time"],
            row["start_time"],
            row["end_time"],
            row["expire_time"],
            bool(row["cancel_requested"]),
            _run_cause(row),
        )
        state.runs[run.run_id] = run
        state.job_runs.setdefault(run.job_id, {})[run.run_id] = None
    for row in _rows(
        connection,
        "SELECT t.* FROM run_tasks t JOIN runs r ON r.run_id = t.run_id WHERE r.state < ? "
        "ORDER BY t.run_id, t.task_id",
        active,
    ):
        state.runs[row["run_id"]].tasks[row["task_id"]] = Task(
            row["task_id"],
            TaskState(row["state"]),
            0,
            row["fence"],
            row["attempts"],
            row["infra_failures"],
            row["attempt_id"],
            row["not_before"],
            0,
            row["start_provisioning_time"],
            row["start_time"],
            row["end_time"],
            _task_cause(row),
            codec.payload_ref(row["result_digest"], row["result_size"], row["result_inline"]),
            row["peak_memory_bytes"],
            row["node"],
        )


def _attempts(connection: sqlite3.Connection, state: State) -> None:
    for row in _rows(connection, "SELECT * FROM attempts WHERE gone IS 0 ORDER BY assigned_time, attempt_id"):
        attempt = Attempt(
            row["attempt_id"],
            row["run_id"],
            row["task_id"],
            row["fence"],
            row["agent_id"],
            row["memory_bytes"],
            row["cpu"],
            row["assigned_time"],
            AttemptState(row["state"]),
            bool(row["stop_wanted"]),
            row["start_time"],
            row["end_time"],
            _task_cause(row),
            row["peak_memory_bytes"],
        )
        state.attempts[attempt.attempt_id] = attempt
        placement.reserve(state.agents[attempt.agent_id], attempt)


def _settle(state: State, now: Instant) -> None:
    """Counts anew what follows from the rows: counters, queues, reminders."""
    for agent in state.agents.values():
        arm_drain(state, agent, now)
    for run in state.runs.values():
        image = state.images[run.plan.image_key]
        if image.state is not ImageState.READY:
            run.held = True
            image.waiting[run.run_id] = None
        if run.start_time and run.plan.definition.fail_after:
            arm_wall(state, run.start_time + run.plan.definition.fail_after, "fail_after", (run.run_id, 0))
        for task in run.tasks.values():
            _settle_task(state, run, task, now)


def _settle_task(state: State, run: Run, task: Task, now: Instant) -> None:
    depends_on = run.plan.tasks[task.task_id].depends_on
    task.open_upstreams = sum(run.tasks[upstream].state not in DONE for upstream in depends_on)
    accepting = run.state in (RunState.QUEUED, RunState.RUNNING)
    if task.state is TaskState.BLOCKED and not task.open_upstreams and accepting:
        # That a task is ready follows from the tasks before it and is not written by itself.
        task.state = TaskState.READY
    if task.state in DONE:
        run.completed += 1
    elif task.state.terminal and task.state <= TaskState.TIMED_OUT:
        run.failed += 1
        run.failed_states.add(task.state)
    elif task.state.terminal:
        run.other += 1
    else:
        run.open += 1
    if task.state is TaskState.ACTIVE:
        run.active += 1
        run.running += bool(task.start_time)
    elif task.state is TaskState.READY and not run.held:
        placement.enqueue(state, run, task, now)
    elif task.state is TaskState.BACKOFF:
        # Wall time is all that is kept of it; a clock that was set since then must not prolong the pause.
        longest = state.settings.infra_backoff << state.settings.infra_budget
        pause = min(max(task.not_before - now.wall, 0), longest)
        arm_backoff(state, run.run_id, task.task_id, now.mono + pause)
