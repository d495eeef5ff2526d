"""The one entrance to the core: `step`.

`step` carries out one command or event at a given time. A refused command raises and has changed nothing.
After the last step of a commit `finish` places what became ready and collects the desired sets; the effects
in `State.effects` may leave only when what `State.dirty` names is on disk.
"""

from __future__ import annotations

import heapq

from . import drains, fleet, jobs, retention
from .commands import (
    AgentApplied,
    AgentBye,
    AgentCredit,
    AgentEvent,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    CancelRun,
    Command,
    EnsureImage,
    ImageReply,
    NodeReply,
    Promote,
    Remove,
    Reply,
    Rerun,
    Restore,
    Retire,
    SaveVersion,
    SessionClosed,
    SetNodeSchedulable,
    StartVersion,
    StopJob,
    Tick,
)
from .flow import expire_run, ready_task, time_out_run
from .images import check_pre_script, ensure_image, key_of
from .model import State
from .outbox import flush
from .placement import place
from .remembering import forget_old, recall, remember
from .values import Instant, RunState, TaskState


def step(state: State, event: Command | AgentEvent | Tick, now: Instant) -> Reply | int | None:
    """Carries out one event: the reply of a command, the epoch of a Hello, else None.

    Raises:
        CoreError: a command was refused.
        NeedsPlan, NeedsPrior: something must be loaded first.
    """
    match event:
        case SaveVersion() | StartVersion() | Rerun():
            return _remembered(state, event, now)
        case AgentReport():
            fleet.report(state, event, now)
        case AgentHeartbeat():
            fleet.heartbeat(state, event, now)
        case AgentCredit():
            fleet.credit(state, event, now)
        case AgentApplied():
            fleet.applied(state, event, now)
        case Tick():
            _tick(state, event, now)
        case AgentHello():
            return fleet.hello(state, event, now)
        case SessionClosed():
            fleet.closed(state, event, now)
        case AgentBye():
            fleet.bye(state, event, now)
        case StopJob():
            return jobs.stop(state, event, now)
        case CancelRun():
            return jobs.cancel(state, event, now)
        case Promote():
            return jobs.promote(state, event, now)
        case Remove():
            return jobs.remove(state, event, now)
        case Restore():
            return jobs.restore(state, event, now)
        case EnsureImage():
            key = key_of(event.recipe, event.bundle)
            check_pre_script(state, event.recipe)
            image = ensure_image(state, event.recipe, event.bundle, key, now)
            return ImageReply(key, image.state, image.build_id)
        case SetNodeSchedulable():
            return NodeReply(fleet.set_schedulable(state, event, now).agent_id)
        case Retire():
            return retention.retire(state, event)
        case _:
            raise TypeError(f"not an event of the core: {type(event).__name__}")
    return None


def finish(state: State, now: Instant) -> None:
    """Ends a round of steps: assigns what fits and makes the frames for the agents."""
    place(state, now)
    flush(state)


def _remembered(state: State, event: SaveVersion | StartVersion | Rerun, now: Instant) -> Reply:
    earlier = recall(state, event.actor, event.idempotency_key, event.request_digest)
    if earlier is not None:
        return earlier
    reply: Reply
    if isinstance(event, SaveVersion):
        reply = jobs.save(state, event, now)
    elif isinstance(event, StartVersion):
        reply = jobs.start(state, event, now)
    else:
        reply = jobs.rerun(state, event, now)
    remember(state, event.actor, event.idempotency_key, event.request_digest, reply, now)
    return reply


def _tick(state: State, event: Tick, now: Instant) -> None:
    if event.late:
        fleet.pardon(state, now)
    while state.mono_timers and state.mono_timers[0][0] <= now.mono:
        due, kind, key = heapq.heappop(state.mono_timers)
        if kind == "backoff":
            _backoff_over(state, key, now)
        elif key in state.agents:
            if kind == "drain":
                drains.drain_due(state, key, now)
            else:
                fleet.lease_due(state, key, due, now)
    while state.wall_timers and state.wall_timers[0][0] <= now.wall:
        _, kind, (run_id, _) = heapq.heappop(state.wall_timers)
        if kind == "expire":
            if state.expiries.get(run_id, now.wall + 1) <= now.wall:
                expire_run(state, run_id)
            continue
        run = state.runs.get(run_id)
        if run is not None and run.state is RunState.RUNNING:
            time_out_run(state, run, now)
    forget_old(state, now)


def _backoff_over(state: State, key: str, now: Instant) -> None:
    run_id, task_id = map(int, key.split("/"))
    run = state.runs.get(run_id)
    if run is None:
        return
    task = run.tasks[task_id]
    if task.state is TaskState.BACKOFF:
        task.not_before = 0
        ready_task(state, run, task, now, owner="time")
