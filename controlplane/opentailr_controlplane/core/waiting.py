"""Why something waits, in words, worked out when somebody asks.

Bounded in number and length, whatever the size of the run: names are given for the first few and counted for
the rest, and tasks that ask for the same share one answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from .model import Agent, Image, Run, State, Task
from .people import size
from .placement import ever_fits, fits
from .values import AgentState, ImageState, RunState, TaskState

_REASONS = 5
"""Most reasons that are told of a run as a whole."""

_LOOKED_AT = 1_000
"""Most tasks that are looked at for further reasons of a run once one was found."""

_NAMES = 3
"""Most tasks and nodes that one reason names."""

_NAME = 60
"""Most characters of a name in a reason."""

_TEXT = 300
"""Most characters of a text that came from elsewhere."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


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
    if run.state not in (RunState.QUEUED, RunState.RUNNING) or run.active:
        return ()
    if run.held:
        return (_held(state, run),)
    asked: dict[tuple[int, float] | str, tuple[str, ...]] = {}
    looked = 0
    for task in run.tasks.values():
        looked += bool(asked)
        if task.state is TaskState.READY:
            resources = run.plan.tasks[task.task_id].resources
            key: tuple[int, float] | str = (resources.memory_bytes, resources.cpu)
        elif task.state is TaskState.BACKOFF:
            key = "back-off"
        else:
            continue
        if key not in asked:
            asked[key] = task_reasons(state, run, task)
        if len(asked) == _REASONS or looked > _LOOKED_AT:
            break
    return tuple(dict.fromkeys(reason for reasons in asked.values() for reason in reasons))


def reasons_of(state: State, run: Run, task_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Why those of these tasks wait that do; tasks that ask for the same share the answer."""
    shared: dict[tuple[int, float], tuple[str, ...]] = {}
    found: dict[int, tuple[str, ...]] = {}
    for task_id in task_ids:
        task = run.tasks.get(task_id)
        if task is None or task.state >= TaskState.SUCCEEDED or task.state is TaskState.ACTIVE:
            continue
        if task.state is not TaskState.READY:
            found[task_id] = task_reasons(state, run, task)
            continue
        resources = run.plan.tasks[task_id].resources
        key = (resources.memory_bytes, resources.cpu)
        if key not in shared:
            shared[key] = task_reasons(state, run, task)
        found[task_id] = shared[key]
    return found


def waiting_tasks(run: Run, limit: int) -> list[int]:
    """The first tasks that nothing but the platform keeps from running, in order, at most so many."""
    found: list[int] = []
    for task in run.tasks.values():
        if task.state is TaskState.READY or task.state is TaskState.BACKOFF:
            found.append(task.task_id)
            if len(found) == limit:
                break
    return found


def task_reasons(state: State, run: Run, task: Task) -> tuple[str, ...]:
    """Why a task that has not ended does not run; empty when it does."""
    if task.state is TaskState.BLOCKED:
        names = []
        for upstream in run.plan.tasks[task.task_id].depends_on:
            if not run.tasks[upstream].state.terminal:
                names.append(_quoted(run.plan.tasks[upstream].name))
                if len(names) == _NAMES:
                    break
        if not names:
            # Its run is being ended: nothing before it is open, and it will not begin.
            return ()
        return (f"Waits for {_some(names, task.open_upstreams)}.",)
    if task.state is TaskState.BACKOFF:
        why = task.cause.message if task.cause else "Its node failed."
        return (f"Tried again at {_clock(task.not_before)}: {_cut(why, _TEXT)}",)
    if task.state is not TaskState.READY:
        return ()
    if run.held:
        return (_held(state, run),)
    resources = run.plan.tasks[task.task_id].resources
    return (_no_room(state, run.job_id, resources.memory_bytes, resources.cpu),)


def image_reason(state: State, image: Image) -> str:
    """What a build is waiting for; empty once the image has ended."""
    if image.state is ImageState.BUILDING:
        agent = state.agents.get(image.agent_id)
        return (
            f"it is being built on {agent.name if agent else 'a node'} "
            f"({image.build_id}, since {_clock(image.start_time)})."
        )
    if image.state is not ImageState.QUEUED:
        return ""
    if image.agent_id:
        return f"{state.agents[image.agent_id].name} begins to build it ({image.build_id})."
    able = [agent for agent in state.agents.values() if agent.state.connected]
    if not able:
        return "no node is connected to build it."
    if image.recipe.build_script_pre.strip() and not any(agent.allows_pre_scripts for agent in able):
        return "no node allows its build_script_pre (start an agent with --allow-pre-scripts)."
    unable = [text for agent in able if (text := _takes_nothing(agent))]
    if len(unable) == len(able):
        return f"no node takes builds now: {_listed(unable)}."
    return "all nodes are busy with other builds."


def _held(state: State, run: Run) -> str:
    return f"Waits for its environment: {image_reason(state, state.images[run.plan.image_key])}"


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


def _no_room(state: State, job_id: str, memory_bytes: int, cpu: float) -> str:
    """Why a task that could run has no node: what keeps each one from it, the first few by name."""
    if not state.agents:
        return "No node has joined yet."
    connected = [agent for agent in state.agents.values() if agent.state.connected]
    if not connected:
        last = max(state.agents.values(), key=lambda agent: agent.last_heard)
        return f"No node is connected; the last one, {last.name}, was heard at {_clock(last.last_heard)}."
    too_large = _too_large(state, memory_bytes, cpu)
    if too_large:
        return too_large[0].upper() + too_large[1:]
    able = [agent for agent in connected if ever_fits(agent, memory_bytes, cpu)]
    if not able:
        away = [agent.name for agent in state.agents.values() if ever_fits(agent, memory_bytes, cpu)]
        return f"The nodes that are large enough are not connected: {_some(away, len(away))}."
    idle = [text for agent in able if (text := _takes_nothing(agent))]
    if len(idle) == len(able):
        return f"No node takes work: {_listed(idle)}."
    full: list[str] = []
    for agent in able:
        # Only the first few are shown, so only of those it is worked out who is there.
        tenants = _tenants(state, agent, job_id) if len(full) < _NAMES else ""
        if text := _full(agent, memory_bytes, cpu, tenants):
            full.append(text)
    if not full and not idle:
        return "It is among the next to be given to a node."
    asks = f"it asks for {size(memory_bytes)} of memory and {cpu:g} cores"
    return f"All nodes are busy ({asks}): {_listed([*full, *idle])}."


def _takes_nothing(agent: Agent) -> str:
    """Why a node takes no work at all; empty when it does."""
    if agent.pressure:
        return f"{agent.name} takes none ({_cut(agent.pressure, _TEXT).rstrip('.')})"
    if agent.state is AgentState.SYNCING:
        return f"{agent.name} has just connected"
    if agent.state in (AgentState.DRAINING, AgentState.DRAINED):
        why = f" ({_cut(agent.reason, _TEXT).rstrip('.')})" if agent.reason else ""
        return f"{agent.name} is {'drained' if agent.state is AgentState.DRAINED else 'draining'}{why}"
    return ""


def _full(agent: Agent, memory_bytes: int, cpu: float, tenants: str) -> str:
    """What of a node is taken, and by whom; empty when it has room or takes nothing at all."""
    if _takes_nothing(agent):
        return ""
    if len(agent.attempts) >= agent.slots:
        return f"all {agent.slots} slots of {agent.name} are taken by {tenants}"
    if not fits(agent, memory_bytes, cpu):
        memory = max(0, agent.memory_bytes - agent.memory_reserved)
        cores = max(0.0, agent.cpu - agent.cpu_reserved)
        taken = f", the rest is taken by {tenants}" if agent.attempts else ""
        return f"{agent.name} has {size(memory)} and {cores:.4g} cores left{taken}"
    if agent.attempts_sent >= agent.attempt_limit:
        return f"{agent.name} has taken as many as it can for now"
    return ""


def _tenants(state: State, agent: Agent, job_id: str) -> str:
    """Who has a node, as told to those who may read a job: what is not of that job is counted, never named.

    Nobody learns from a reason the names of what he may not read (clause B241). Of which job an attempt is
    whose run has ended is not known here, so it counts as one of another job.
    """
    names: list[str] = []
    own = 0
    for attempt in agent.attempts.values():
        run = state.runs.get(attempt.run_id)
        if run is None or run.job_id != job_id:
            continue
        own += 1
        if own <= _NAMES:
            names.append(f"{_quoted(run.plan.tasks[attempt.task_id].name)} of run {attempt.run_id}")
    others = len(agent.attempts) - own
    told = [_some(names, own)] if names else []
    if others:
        told.append("1 task of another job" if others == 1 else f"{others} tasks of other jobs")
    return " and ".join(told)


def _listed(texts: list[str]) -> str:
    more = f"; and {len(texts) - _NAMES} more nodes" if len(texts) > _NAMES else ""
    return "; ".join(texts[:_NAMES]) + more


def _some(names: list[str], count: int) -> str:
    """The first few names and how many more there are."""
    shown = ", ".join(names[:_NAMES])
    return f"{shown} and {count - _NAMES} more" if count > _NAMES else shown


def _quoted(name: str) -> str:
    return repr(_cut(name, _NAME))


def _cut(text: str, limit: int) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _clock(micros: int) -> str:
    """A time of the control plane in words: `2026-01-31 08:55:01Z`."""
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%SZ")
