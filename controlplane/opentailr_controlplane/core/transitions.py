"""The state machines as data: which step exists, and who may make it.

Owners: `user` (a command), `agent` (a report or frame), `time` (a deadline), `core` (a consequence inside
the control plane).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

from .errors import IllegalTransition
from .model import Agent, Attempt, Build, Image, Run, State, Task
from .values import AgentState, AttemptState, BuildState, ImageState, RunState, TaskState

S = TypeVar("S", bound=IntEnum)
Table = dict[tuple[S, S], frozenset[str]]


def _table(*edges: tuple[S | tuple[S, ...], S | tuple[S, ...], str]) -> Table[S]:
    table: Table[S] = {}
    for sources, targets, owners in edges:
        for source in sources if isinstance(sources, tuple) else (sources,):
            for target in targets if isinstance(targets, tuple) else (targets,):
                table[source, target] = frozenset(owners.split()) | table.get((source, target), frozenset())
    return table


_R = RunState
RUN: Table[RunState] = _table(
    (_R.QUEUED, _R.RUNNING, "agent"),
    (_R.QUEUED, (_R.SUCCEEDED, _R.FAILED), "core"),
    ((_R.QUEUED, _R.RUNNING), _R.CANCELLING, "user"),
    (_R.RUNNING, _R.TIMING_OUT, "time"),
    (_R.RUNNING, (_R.SUCCEEDED, _R.FAILED, _R.OUT_OF_MEMORY), "core"),
    (_R.CANCELLING, _R.CANCELLED, "core"),
    (_R.TIMING_OUT, _R.TIMED_OUT, "core"),
    (_R.SUCCEEDED, _R.EXPIRED, "time"),
)

_T = TaskState
TASK: Table[TaskState] = _table(
    (_T.BLOCKED, _T.READY, "core"),
    (_T.BLOCKED, _T.CACHED, "core"),
    (_T.READY, _T.ACTIVE, "core"),
    (_T.ACTIVE, (_T.SUCCEEDED, _T.OUT_OF_MEMORY), "agent"),
    (_T.ACTIVE, _T.FAILED, "agent core"),
    (_T.ACTIVE, (_T.BACKOFF, _T.CANCELLED, _T.TIMED_OUT), "core"),
    (_T.BACKOFF, _T.READY, "core time"),
    ((_T.BLOCKED, _T.READY, _T.BACKOFF), (_T.SKIPPED, _T.CANCELLED), "core"),
)
# A task in BACKOFF has had an attempt, so its image was there: nothing but the end of its run skips it.

_A = AttemptState
_LIVE = (_A.ASSIGNED, _A.ACCEPTED, _A.PREPARING, _A.STARTING, _A.RUNNING, _A.STOPPING)
ATTEMPT: Table[AttemptState] = _table(
    *((source, tuple(target for target in _LIVE if target > source), "agent") for source in _LIVE[:-1]),
    # The end that its agent tells is the end from wherever it was: one that is not taken would never come
    # again, and the attempt would live for ever.
    (_LIVE, (_A.SUCCEEDED, _A.FAILED, _A.OUT_OF_MEMORY, _A.CANCELLED, _A.REJECTED), "agent"),
    (_LIVE, _A.LOST, "time core agent"),
    (_A.ASSIGNED, _A.WITHDRAWN, "core"),
)

_N = AgentState
AGENT: Table[AgentState] = _table(
    ((_N.DOWN, _N.SUSPECT, _N.READY, _N.DRAINING, _N.DRAINED), _N.SYNCING, "agent"),
    (_N.SYNCING, (_N.READY, _N.DRAINING), "agent"),
    (_N.READY, _N.DRAINING, "user"),
    ((_N.DRAINING, _N.DRAINED), _N.READY, "user"),
    (_N.DRAINING, _N.DRAINED, "core"),
    ((_N.SYNCING, _N.READY, _N.DRAINING, _N.DRAINED), _N.SUSPECT, "agent time"),
    ((_N.SYNCING, _N.READY, _N.DRAINING, _N.DRAINED), _N.DOWN, "agent"),
    (_N.SUSPECT, _N.DOWN, "time"),
)

_B = BuildState
BUILD: Table[BuildState] = _table(
    (_B.QUEUED, _B.ASSIGNED, "core"),
    (_B.ASSIGNED, _B.BUILDING, "agent"),
    ((_B.ASSIGNED, _B.BUILDING), (_B.READY, _B.FAILED), "agent"),
    ((_B.ASSIGNED, _B.BUILDING), _B.LOST, "time core agent"),
)

_I = ImageState
IMAGE: Table[ImageState] = _table(
    (_I.QUEUED, _I.BUILDING, "agent"),
    ((_I.QUEUED, _I.BUILDING), (_I.READY, _I.FAILED), "agent"),
    ((_I.QUEUED, _I.BUILDING), _I.FAILED, "core"),
    (_I.BUILDING, _I.QUEUED, "core"),
    (_I.FAILED, _I.QUEUED, "user"),
)

MACHINES: Mapping[str, Mapping[tuple[Any, Any], frozenset[str]]] = {
    "run": RUN,
    "task": TASK,
    "attempt": ATTEMPT,
    "agent": AGENT,
    "build": BUILD,
    "image": IMAGE,
}


def check(state: State, machine: str, source: IntEnum, target: IntEnum, *, owner: str, subject: str) -> None:
    """Raises IllegalTransition unless the table has the step for this owner; tells the observer."""
    owners = MACHINES[machine].get((source, target))
    if owners is None or owner not in owners:
        raise IllegalTransition(machine, source.name, target.name, owner, subject)
    if state.observer is not None:
        state.observer(machine, source.name, target.name)


def move_run(state: State, run: Run, target: RunState, owner: str) -> None:
    """Moves a run and marks it."""
    check(state, "run", run.state, target, owner=owner, subject=str(run.run_id))
    run.state = target
    state.dirty.runs[run.run_id] = run


def move_task(state: State, run: Run, task: Task, target: TaskState, owner: str) -> None:
    """Moves a task, keeps its run's counts, and marks both."""
    source = task.state
    check(state, "task", source, target, owner=owner, subject=f"{run.run_id}/{task.task_id}")
    if source is TaskState.ACTIVE:
        run.active -= 1
        if task.start_time:
            run.running -= 1
    if target is TaskState.ACTIVE:
        run.active += 1
    task.state = target
    if target >= TaskState.SUCCEEDED:
        run.open -= 1
        if target is TaskState.SUCCEEDED or target is TaskState.CACHED:
            run.completed += 1
        elif target <= TaskState.TIMED_OUT:
            run.failed += 1
            run.failed_states.add(target)
        else:
            run.other += 1
    # Whether a task is blocked or ready follows from the tasks before it, so that step alone needs no row.
    if target is not TaskState.READY or source is not TaskState.BLOCKED:
        state.dirty.tasks[run.run_id, task.task_id] = (run, task)
        state.dirty.runs[run.run_id] = run


def move_attempt(state: State, attempt: Attempt, target: AttemptState, owner: str) -> None:
    """Moves an attempt and marks it."""
    check(state, "attempt", attempt.state, target, owner=owner, subject=attempt.attempt_id)
    attempt.state = target
    state.dirty.attempts[attempt.attempt_id] = attempt


def move_agent(state: State, agent: Agent, target: AgentState, owner: str) -> None:
    """Moves an agent; this state is of the session and not stored."""
    check(state, "agent", agent.state, target, owner=owner, subject=agent.agent_id)
    agent.state = target


def move_build(state: State, build: Build, target: BuildState, owner: str) -> None:
    """Moves a build and marks it."""
    check(state, "build", build.state, target, owner=owner, subject=build.build_id)
    build.state = target
    state.dirty.builds[build.build_id] = build


def move_image(state: State, image: Image, target: ImageState, owner: str) -> None:
    """Moves an image and marks it."""
    check(state, "image", image.state, target, owner=owner, subject=image.image_key)
    image.state = target
    state.dirty.images[image.image_key] = image
