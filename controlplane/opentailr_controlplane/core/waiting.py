"""Why something waits, in words, worked out when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Agent, Image, Run, State, Task
from .people import size
from .placement import ever_fits
from .values import AgentState, ImageState, RunState, TaskState

_REASONS = 5
"""Most reasons that are told of a run as a whole."""


def start_notices(state: State, run: Run) -> tuple[str, ...]:
    """What the caller of a start should know at once."""
    if not state.agents:
        return ("No node has joined yet; the run waits for one.",)
    notices = []
    for memory_bytes, cpu in run.plan.large:
        text = _too_large(state, memory_bytes, cpu)
        if text:
            names = [
                task.name
                for task in run.plan.tasks.values()
                if (task.resources.memory_bytes, task.resources.cpu) == (memory_bytes, cpu)
            ]
            notices.append(f"Task {names[0]!r}{f' and {len(names) - 1} more' if names[1:] else ''}: {text}")
    return tuple(notices[:20])


def run_reasons(state: State, run: Run) -> tuple[str, ...]:
    """Why nothing of a run goes on; empty while something does."""
    if run.held:
        return (f"Waits for its image: {image_reason(state, state.images[run.plan.image_key])}",)
    if run.state is not RunState.QUEUED or run.start_provisioning_time:
        return ()
    asked: dict[tuple[int, float], Task] = {}
    for task in run.tasks.values():
        if task.state is TaskState.READY:
            resources = run.plan.tasks[task.task_id].resources
            asked.setdefault((resources.memory_bytes, resources.cpu), task)
            if len(asked) == _REASONS:
                break
    reasons = (reason for task in asked.values() for reason in task_reasons(state, run, task))
    return tuple(dict.fromkeys(reasons))


def reasons_of(state: State, run: Run, task_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Why those of these tasks wait that are ready or pause; tasks that ask for the same share the answer."""
    shared: dict[tuple[int, float], tuple[str, ...]] = {}
    found: dict[int, tuple[str, ...]] = {}
    for task_id in task_ids:
        task = run.tasks.get(task_id)
        if task is None or task.state not in (TaskState.READY, TaskState.BACKOFF):
            continue
        if task.state is TaskState.BACKOFF:
            found[task_id] = task_reasons(state, run, task)
            continue
        resources = run.plan.tasks[task_id].resources
        key = (resources.memory_bytes, resources.cpu)
        if key not in shared:
            shared[key] = task_reasons(state, run, task)
        found[task_id] = shared[key]
    return found


def task_reasons(state: State, run: Run, task: Task) -> tuple[str, ...]:
    """Why a task that has not ended does not run; empty when it does."""
    if task.state is TaskState.BLOCKED:
        names = [
            repr(run.plan.tasks[upstream].name)
            for upstream in run.plan.tasks[task.task_id].depends_on
            if not run.tasks[upstream].state.terminal
        ]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return (f"Waits for {', '.join(names[:5])}{more}.",)
    if task.state is TaskState.BACKOFF:
        return (f"Tried again soon: {task.cause.message if task.cause else 'its node failed.'}",)
    if task.state is not TaskState.READY:
        return ()
    if run.held:
        return (f"Waits for its image: {image_reason(state, state.images[run.plan.image_key])}",)
    resources = run.plan.tasks[task.task_id].resources
    return (_no_room(state, resources.memory_bytes, resources.cpu),)


def image_reason(state: State, image: Image) -> str:
    """What a build is waiting for; empty once the image has ended."""
    if image.state is ImageState.BUILDING:
        agent = state.agents.get(image.agent_id)
        return f"it is being built on {agent.name if agent else 'a node'}."
    if image.state is not ImageState.QUEUED:
        return ""
    if image.agent_id:
        return f"{state.agents[image.agent_id].name} begins to build it."
    able = [agent for agent in state.agents.values() if agent.state.connected]
    if not able:
        return "no node is connected to build it."
    if image.recipe.build_script_pre.strip() and not any(agent.allows_pre_scripts for agent in able):
        return "no node allows its build_script_pre (start an agent with --allow-pre-scripts)."
    return "all nodes are busy with other builds."


def _too_large(state: State, memory_bytes: int, cpu: float) -> str:
    known = list(state.agents.values())
    if any(ever_fits(agent, memory_bytes, cpu) for agent in known):
        return ""
    memory = max(agent.memory_bytes for agent in known)
    cores = max(agent.cpu for agent in known)
    return (
        f"asks for {size(memory_bytes)} of memory and {cpu:g} cores; the largest node offers "
        f"{size(memory)} and {cores:g} cores. It waits until one that fits has joined."
    )


def _no_room(state: State, memory_bytes: int, cpu: float) -> str:
    agents = [agent for agent in state.agents.values() if agent.state.connected]
    if not agents:
        return "No node is connected."
    too_large = _too_large(state, memory_bytes, cpu)
    if too_large:
        return too_large[0].upper() + too_large[1:]
    ready = [agent for agent in agents if agent.state is AgentState.READY]
    if not ready:
        return "All connected nodes are drained or not ready yet."
    able: list[Agent] = [agent for agent in ready if ever_fits(agent, memory_bytes, cpu)]
    if not able:
        return "The nodes that are large enough are drained or not connected."
    pressed = [agent for agent in able if agent.pressure]
    if len(pressed) == len(able):
        return f"Node {pressed[0].name} takes no work: {pressed[0].pressure}"
    return f"All nodes are busy: it asks for {size(memory_bytes)} of memory and {cpu:g} cores."
