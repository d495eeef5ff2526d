"""The course of a run: readiness along the graph, ends of attempts and tasks, cancelling, timing out.

No step here walks a whole run for one event, except those that end all of it: readiness is a count of open
upstreams per task, and a failure visits each dependent once.
"""

from __future__ import annotations

from . import causes
from .definition import Plan
from .errors import FailedPrecondition
from .model import Attempt, PriorRun, Run, State, Task, Version
from .placement import enqueue, release, unqueue
from .rows import OutcomeRow
from .timers import arm_backoff, arm_lease, arm_wall
from .transitions import check, move_attempt, move_run, move_task
from .values import (
    DONE,
    INFRASTRUCTURE,
    AttemptState,
    Cause,
    CauseKind,
    ImageState,
    Instant,
    Payload,
    RunState,
    TaskState,
)

_ACCEPTING = (RunState.QUEUED, RunState.RUNNING)
_AT_ONCE = frozenset({CauseKind.LEASE_LOST, CauseKind.NODE_RESTARTED, CauseKind.NODE_DRAINED})
"""Failures after which a pause would help nobody: the node itself is out of the choice."""


def start_run(
    state: State,
    version: Version,
    plan: Plan,
    *,
    actor: str,
    run_date: str,
    now: Instant,
    prior: PriorRun | None = None,
    partial: bool = False,
) -> Run:
    """Begins a run of a version; with `prior` a rerun that takes over its results if `partial` (B127)."""
    run = Run(
        state.next_run,
        version.job_id,
        state.jobs[version.job_id].environment,
        version.version,
        plan,
        now.wall,
        plan.definition.run_as,
        actor,
        run_date,
    )
    state.next_run += 1
    state.dirty.counters = True
    if prior is not None:
        run.original_run_id = prior.original_run_id if prior.original_run_id > 0 else prior.run_id
        run.partial_rerun = partial
    run.tasks = {
        task_id: Task(task_id, TaskState.BLOCKED, len(definition.depends_on))
        for task_id, definition in plan.tasks.items()
    }
    run.open = len(run.tasks)
    state.runs[run.run_id] = run
    state.job_runs.setdefault(run.job_id, {})[run.run_id] = None
    state.dirty.new_runs[run.run_id] = run
    state.dirty.runs[run.run_id] = run
    image = state.images[plan.image_key]
    if image.state is not ImageState.READY:
        run.held = True
        image.waiting[run.run_id] = None
    if prior is not None and partial:
        _take_over(state, run, prior)
    for task in run.tasks.values():
        if task.state is TaskState.BLOCKED and not task.open_upstreams:
            ready_task(state, run, task, now)
    settle(state, run, now)
    return run


def _take_over(state: State, run: Run, prior: PriorRun) -> None:
    for task_id, old in prior.tasks.items():
        if old.state not in DONE:
            continue
        task = run.tasks[task_id]
        task.result = old.result
        move_task(state, run, task, TaskState.CACHED, "core")
        if old.preview:
            state.dirty.outcomes.append(OutcomeRow(run.run_id, task_id, old.preview, "", b""))
        for successor in run.plan.downstream.get(task_id, ()):
            run.tasks[successor].open_upstreams -= 1


def check_fit(plan: Plan, prior: PriorRun) -> None:
    """Refuses a partial rerun whose tasks are not those of the version (B132)."""
    old = {task_id: (task.name, task.depends_on) for task_id, task in prior.tasks.items()}
    new = {task_id: (task.name, task.depends_on) for task_id, task in plan.tasks.items()}
    if old != new:
        differing = sorted({*old.items()} ^ {*new.items()})
        name = differing[0][1][0]
        raise FailedPrecondition(
            "tasks_do_not_fit",
            f"The tasks of run {prior.run_id} are not those of the version; {name!r} differs.",
            field="version",
            hint="Rerun everything (full), or name the version that the run was made of.",
        )


def ready_task(state: State, run: Run, task: Task, now: Instant, *, owner: str = "core") -> None:
    """All that the task waits for is done: it may go to a node as soon as the image is there."""
    move_task(state, run, task, TaskState.READY, owner)
    if not run.held:
        enqueue(state, run, task, now)


def end_task(
    state: State,
    run: Run,
    task: Task,
    target: TaskState,
    *,
    owner: str,
    cause: Cause | None,
    now: Instant,
) -> None:
    """Gives a task its outcome and lets its successors know."""
    unqueue(state, task)
    task.not_before = 0
    if task.attempts:
        task.end_time = now.wall
    task.cause = cause.short() if cause is not None else None
    move_task(state, run, task, target, owner)
    accepting = run.state in _ACCEPTING
    if target in DONE:
        for successor_id in run.plan.downstream.get(task.task_id, ()):
            successor = run.tasks[successor_id]
            successor.open_upstreams -= 1
            if accepting and not successor.open_upstreams and successor.state is TaskState.BLOCKED:
                ready_task(state, run, successor, now)
        return
    if not accepting:
        return
    name = run.plan.tasks[task.task_id].name
    if run.cause is None and cause is not None:
        run.cause = causes.of_run(name, cause)
    _skip_dependents(state, run, task.task_id, causes.upstream(name))


def _skip_dependents(state: State, run: Run, task_id: int, cause: Cause) -> None:
    stack = [task_id]
    while stack:
        for successor_id in run.plan.downstream.get(stack.pop(), ()):
            successor = run.tasks[successor_id]
            if successor.state is TaskState.BLOCKED:
                successor.cause = cause
                move_task(state, run, successor, TaskState.SKIPPED, "core")
                stack.append(successor_id)


def settle(state: State, run: Run, now: Instant) -> None:
    """Ends the run once all its tasks have ended (invariant 26)."""
    if run.open:
        return
    if run.state is RunState.CANCELLING:
        target = RunState.CANCELLED
    elif run.state is RunState.TIMING_OUT:
        target = RunState.TIMED_OUT
    elif run.failed_states == {TaskState.OUT_OF_MEMORY}:
        target = RunState.OUT_OF_MEMORY
    elif run.failed_states or (run.cause is not None and run.cause.kind is CauseKind.BUILD_FAILED):
        target = RunState.FAILED
    else:
        target = RunState.SUCCEEDED
    run.end_time = now.wall
    move_run(state, run, target, "core")
    if target is RunState.SUCCEEDED and run.plan.definition.expire_after:
        run.expire_time = now.wall + run.plan.definition.expire_after
        state.expiries[run.run_id] = run.expire_time
        arm_wall(state, run.expire_time, "expire", (run.run_id, 0))
    del state.runs[run.run_id]
    of_job = state.job_runs[run.job_id]
    del of_job[run.run_id]
    if not of_job:
        del state.job_runs[run.job_id]
    state.images[run.plan.image_key].waiting.pop(run.run_id, None)


def mark_started(state: State, run: Run, task: Task, attempt: Attempt, observed: int, now: Instant) -> None:
    """The user's function runs."""
    if attempt.start_time:
        return
    # The node's clock may be off: never before the assignment, never in the future.
    attempt.start_time = min(max(observed, attempt.assigned_time), now.wall)
    task.start_time = attempt.start_time
    run.running += 1
    state.dirty.tasks[run.run_id, task.task_id] = (run, task)
    state.dirty.runs[run.run_id] = run
    state.dirty.attempts[attempt.attempt_id] = attempt
    if not run.start_time:
        run.start_time = attempt.start_time
        if run.plan.definition.fail_after:
            arm_wall(state, run.start_time + run.plan.definition.fail_after, "fail_after", (run.run_id, 0))
    elif attempt.start_time < run.start_time:
        # Reports of several tasks may come in another order than the tasks started in.
        run.start_time = attempt.start_time
    if run.state is RunState.QUEUED:
        move_run(state, run, RunState.RUNNING, "agent")


def end_attempt(
    state: State,
    attempt: Attempt,
    target: AttemptState,
    *,
    owner: str,
    cause: Cause | None,
    now: Instant,
    result: Payload | None = None,
    preview: str = "",
    exception: bytes = b"",
    ended_at: int = 0,
) -> None:
    """Ends a live attempt and decides what becomes of its task."""
    run = state.runs[attempt.run_id]
    task = run.tasks[attempt.task_id]
    agent = state.agents[attempt.agent_id]
    move_attempt(state, attempt, target, owner)
    attempt.end_time = min(max(ended_at or now.wall, attempt.start_time, attempt.assigned_time), now.wall)
    if target in (AttemptState.CANCELLED, AttemptState.WITHDRAWN) and run.state not in _ACCEPTING:
        # The node knows that it was to end it, the run knows why.
        cause = run.cause
    elif cause is not None:
        cause = causes.completed(
            cause,
            node=agent.name,
            resources=run.plan.tasks[task.task_id].resources,
            peak_memory_bytes=attempt.peak_memory_bytes,
        )
    attempt.cause = cause.short() if cause is not None else None
    task.peak_memory_bytes = max(task.peak_memory_bytes, attempt.peak_memory_bytes)
    agent.changed[attempt.attempt_id] = None
    state.outgoing[agent.agent_id] = None
    if target not in (AttemptState.LOST, AttemptState.WITHDRAWN):
        attempt.gone = True
        release(state, agent, attempt)
    if target is AttemptState.SUCCEEDED:
        if result is not None:
            task.result = result.reference()
            if result.data is not None:
                state.dirty.payloads[result.digest] = result.data
        end_task(state, run, task, TaskState.SUCCEEDED, owner=owner, cause=None, now=now)
        task.end_time = attempt.end_time
        if preview:
            state.dirty.outcomes.append(OutcomeRow(run.run_id, task.task_id, preview, "", b""))
    elif run.state is RunState.CANCELLING:
        end_task(state, run, task, TaskState.CANCELLED, owner="core", cause=run.cause, now=now)
    elif run.state is RunState.TIMING_OUT:
        end_task(state, run, task, TaskState.TIMED_OUT, owner="core", cause=run.cause, now=now)
    else:
        _failed(state, run, task, attempt, cause, owner, now)
        if task.state.terminal:
            task.end_time = attempt.end_time
            traceback = cause.traceback if cause is not None else ""
            if traceback or exception or preview:
                state.dirty.outcomes.append(
                    OutcomeRow(run.run_id, task.task_id, preview, traceback, exception)
                )
    settle(state, run, now)


def _failed(
    state: State, run: Run, task: Task, attempt: Attempt, cause: Cause | None, owner: str, now: Instant
) -> None:
    target = attempt.state
    if target is AttemptState.OUT_OF_MEMORY:
        cause = cause or Cause(CauseKind.OUT_OF_MEMORY, "It used more memory than it asked for.")
        end_task(state, run, task, TaskState.OUT_OF_MEMORY, owner="agent", cause=cause, now=now)
        return
    if target is AttemptState.FAILED and (cause is None or cause.kind not in INFRASTRUCTURE):
        cause = cause or Cause(CauseKind.EXIT_CODE, "It failed without a reason.", exit_code=1)
        end_task(state, run, task, TaskState.FAILED, owner="agent", cause=cause, now=now)
        return
    cause = cause or Cause(CauseKind.NODE_FAULT, "The node could not run it.")
    # What the operator planned is charged to nobody: restarts of a node must never fail a run.
    planned = cause.kind is CauseKind.NODE_DRAINED
    if not planned or task.attempts - task.infra_failures > state.settings.drain_budget:
        task.infra_failures += 1
    if task.infra_failures > state.settings.infra_budget:
        final = causes.not_again(cause, task.infra_failures)
        end_task(state, run, task, TaskState.FAILED, owner="core", cause=final, now=now)
        return
    move_task(state, run, task, TaskState.BACKOFF, "core")
    task.start_time = 0
    task.cause = cause.short()
    if cause.kind in _AT_ONCE or target is AttemptState.LOST:
        ready_task(state, run, task, now)
        return
    pause = state.settings.infra_backoff << (task.infra_failures - 1)
    task.not_before = now.wall + pause
    arm_backoff(state, run.run_id, task.task_id, now.mono + pause)


def cancel_run(state: State, run: Run, actor: str, now: Instant) -> None:
    """A person ends the run: from now on no attempt is made (invariant 19)."""
    if run.state not in _ACCEPTING:
        if not run.cancel_requested:
            run.cancel_requested = True
            state.dirty.runs[run.run_id] = run
        return
    run.cancel_requested = True
    run.cause = causes.stopped(actor)
    move_run(state, run, RunState.CANCELLING, "user")
    _wind_down(state, run, TaskState.CANCELLED, now)


def time_out_run(state: State, run: Run, now: Instant) -> None:
    """`fail_after` passed: running tasks are killed, the others do not start (B108)."""
    run.cause = causes.timed_out(run.plan.definition.fail_after)
    move_run(state, run, RunState.TIMING_OUT, "time")
    _wind_down(state, run, TaskState.SKIPPED, now)


def fail_for_image(state: State, run: Run, message: str, build_id: str, now: Instant) -> None:
    """The build that the run waited for failed."""
    run.cause = causes.of_build(message, build_id)
    for task in run.tasks.values():
        if not task.state.terminal:
            unqueue(state, task)
            task.cause = run.cause
            move_task(state, run, task, TaskState.SKIPPED, "core")
    settle(state, run, now)


def _wind_down(state: State, run: Run, idle: TaskState, now: Instant) -> None:
    active = []
    for task in run.tasks.values():
        if task.state is TaskState.ACTIVE:
            active.append(task)
        elif not task.state.terminal:
            end_task(state, run, task, idle, owner="core", cause=run.cause, now=now)
    for task in active:
        attempt = state.attempts[task.attempt_id]
        attempt.stop_wanted = True
        state.dirty.attempts[attempt.attempt_id] = attempt
        agent = state.agents[attempt.agent_id]
        agent.changed[attempt.attempt_id] = None
        state.outgoing[agent.agent_id] = None
        if agent.state.connected:
            continue
        if attempt.state is AttemptState.ASSIGNED:
            # Perhaps it never arrived. Should the agent come back with it, it counts until it is gone.
            end_attempt(state, attempt, AttemptState.WITHDRAWN, owner="core", cause=run.cause, now=now)
        else:
            # What nobody wants is not waited for with the patience for a lone node.
            arm_lease(state, agent, now.mono)
    if run.run_id in state.runs:
        settle(state, run, now)


def expire_run(state: State, run_id: int) -> None:
    """`expire_after` passed since the end: the stored results go (B109)."""
    del state.expiries[run_id]
    check(state, "run", RunState.SUCCEEDED, RunState.EXPIRED, owner="time", subject=str(run_id))
    state.dirty.expired_runs.append(run_id)
