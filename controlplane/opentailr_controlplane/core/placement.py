"""Which ready task goes to which agent.

Ready tasks queue by what they ask for (memory, cores, image). A round looks at the heads only, oldest first,
and only at what changed since the last round: new heads against all open agents, agents with new room
against all heads. Memory is hard and cores count against what the node offers; an agent with the image at
hand goes first, else the one that was not chosen for longest, which spreads the load.

A head that waited longer than `placement_age` gets the node with most free memory among those large enough
kept free of other shapes, so that a stream of small tasks cannot starve a large one (invariant 29).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from .model import Agent, Attempt, Build, Run, Shape, State, Task
from .transitions import move_build, move_task
from .values import AgentState, AttemptState, BuildState, Instant, TaskState

_CPU_SLACK = 1e-9  # sums of tenths of a core must not miss the offer by a rounding error
_STALE_FLOOR = 1024

ROUND_LIMIT = 500
"""Most assignments of one round, some 20 ms with their rows; the next commit goes on."""


def enqueue(state: State, run: Run, task: Task, now: Instant) -> None:
    """Puts a ready task into the queue of its shape."""
    resources = run.plan.tasks[task.task_id].resources
    shape: Shape = (resources.memory_bytes, resources.cpu, run.plan.image_key)
    queue = state.queues.get(shape)
    if queue is None:
        queue = state.queues[shape] = deque()
        state.queue_times[shape] = now.mono
    task.queue_seq = state.next_ticket
    state.next_ticket += 1
    state.queued += 1
    queue.append((task.queue_seq, run.run_id, task.task_id))
    state.woken_shapes[shape] = None


def unqueue(state: State, task: Task) -> None:
    """Takes a task's ticket away; its entry is dropped when it comes to the head."""
    if task.queue_seq:
        task.queue_seq = 0
        state.queued -= 1
        state.stale += 1


def refresh(state: State, agent: Agent) -> None:
    """Notes whether an agent may be sent an attempt now, and that its room may have changed."""
    if (
        agent.state is AgentState.READY
        and not agent.pressure
        and agent.attempts_sent < agent.attempt_limit
        and len(agent.attempts) < agent.slots
    ):
        if agent.agent_id not in state.open_agents:
            state.open_agents[agent.agent_id] = None
            for image in agent.image_keys:
                state.image_holders.setdefault(image, {})[agent.agent_id] = None
        state.woken_agents[agent.agent_id] = None
    elif agent.agent_id in state.open_agents:
        del state.open_agents[agent.agent_id]
        state.woken_agents.pop(agent.agent_id, None)
        for image in agent.image_keys:
            holders = state.image_holders[image]
            del holders[agent.agent_id]
            if not holders:
                del state.image_holders[image]


def learn_image(state: State, agent: Agent, image: str) -> None:
    """The agent has the image at hand from now on."""
    if image not in agent.image_keys:
        agent.image_keys[image] = None
        if agent.agent_id in state.open_agents:
            state.image_holders.setdefault(image, {})[agent.agent_id] = None


def close(state: State, agent: Agent) -> None:
    """Takes the agent out of the choice, before what it has at hand is replaced."""
    agent.attempt_limit = 0
    refresh(state, agent)


def fits(agent: Agent, memory_bytes: int, cpu: float) -> bool:
    """True when the agent has room for it now."""
    return (
        agent.memory_reserved + memory_bytes <= agent.memory_bytes
        and agent.cpu_reserved + cpu <= agent.cpu + _CPU_SLACK
    )


def ever_fits(agent: Agent, memory_bytes: int, cpu: float) -> bool:
    """True when the whole offer of the agent is large enough."""
    return memory_bytes <= agent.memory_bytes and cpu <= agent.cpu + _CPU_SLACK


def reserve(agent: Agent, attempt: Attempt) -> None:
    """Takes the attempt's room on its agent."""
    agent.attempts[attempt.attempt_id] = attempt
    agent.memory_reserved += attempt.memory_bytes
    agent.cpu_reserved += attempt.cpu


def release(state: State, agent: Agent, attempt: Attempt) -> None:
    """Gives the attempt's room back, once: when its processes are known to be gone (invariant 9)."""
    if agent.attempts.pop(attempt.attempt_id, None) is None:
        return
    state.attempts.pop(attempt.attempt_id, None)
    agent.memory_reserved -= attempt.memory_bytes
    agent.cpu_reserved -= attempt.cpu
    if not agent.attempts:
        agent.cpu_reserved = 0.0  # what rounding left over
    refresh(state, agent)


def place(state: State, now: Instant) -> None:
    """One scheduling round: assigns whatever fits."""
    state.placing = False
    _place_builds(state, now)
    if not state.woken_shapes and not state.woken_agents:
        return
    if state.stale > max(_STALE_FLOOR, state.queued):
        _compact(state)
    if state.open_agents:
        _round(state, now)
    else:
        for shape in state.woken_shapes:
            _head(state, shape)
    if not state.placing:
        state.woken_shapes.clear()
        state.woken_agents.clear()


def _round(state: State, now: Instant) -> None:
    shapes: Iterable[Shape] = list(state.queues) if state.woken_agents else list(state.woken_shapes)
    heads = [(head[0], shape) for shape in shapes if (head := _head(state, shape)) is not None]
    heapq.heapify(heads)
    hold = _held_agent(state, now)
    limit = state.assignments + ROUND_LIMIT
    while heads and state.open_agents:
        if state.assignments >= limit:
            state.placing = True
            return
        _, shape = heapq.heappop(heads)
        candidates = state.open_agents if shape in state.woken_shapes else state.woken_agents
        agent = _choose(state, shape, candidates, hold)
        if agent is None:
            continue
        _, run_id, task_id = state.queues[shape].popleft()
        run = state.runs[run_id]
        _assign(state, run, run.tasks[task_id], agent, shape, now)
        state.queue_times[shape] = now.mono
        if hold is not None and hold[1] == shape:
            hold = _held_agent(state, now)
        head = _head(state, shape)
        if head is not None:
            heapq.heappush(heads, (head[0], shape))


def _head(state: State, shape: Shape) -> tuple[int, int, int] | None:
    """The first entry of a queue whose task still waits; forgets empty queues."""
    queue = state.queues.get(shape)
    if queue is None:
        return None
    while queue:
        ticket, run_id, task_id = queue[0]
        run = state.runs.get(run_id)
        if run is not None and run.tasks[task_id].queue_seq == ticket:
            return queue[0]
        queue.popleft()
        state.stale -= 1
    del state.queues[shape]
    state.queue_times.pop(shape, None)
    return None


def _compact(state: State) -> None:
    """Drops all stale entries: a queue behind a head that cannot go must not grow without bound."""
    for shape in list(state.queues):
        live = deque(
            entry
            for entry in state.queues[shape]
            if (run := state.runs.get(entry[1])) is not None and run.tasks[entry[2]].queue_seq == entry[0]
        )
        if live:
            state.queues[shape] = live
        else:
            del state.queues[shape]
            state.queue_times.pop(shape, None)
    state.stale = 0


def _held_agent(state: State, now: Instant) -> tuple[str, Shape] | None:
    """The agent kept free for the oldest head that waited too long, and that head's shape."""
    limit = now.mono - state.settings.placement_age
    if not any(since <= limit for since in state.queue_times.values()):
        return None
    aged = sorted(
        (queue[0][0], shape)
        for shape, queue in state.queues.items()
        if queue and state.queue_times[shape] <= limit
    )
    for _, (memory_bytes, cpu, image) in aged:
        best: Agent | None = None
        for agent in state.agents.values():
            if agent.state is AgentState.READY and ever_fits(agent, memory_bytes, cpu):
                free = agent.memory_bytes - agent.memory_reserved
                if best is None or free > best.memory_bytes - best.memory_reserved:
                    best = agent
        if best is not None:
            return best.agent_id, (memory_bytes, cpu, image)
    return None


def _choose(
    state: State, shape: Shape, candidates: dict[str, None], hold: tuple[str, Shape] | None
) -> Agent | None:
    memory_bytes, cpu, image = shape
    kept = hold[0] if hold is not None and hold[1] != shape else None
    holders = state.image_holders.get(image, {})
    # Those with the image first, found along the shorter of the two lists; then anybody.
    shorter, other = (holders, candidates) if len(holders) < len(candidates) else (candidates, holders)
    for agent_id in shorter:
        if agent_id in other and agent_id != kept:
            agent = state.agents[agent_id]
            if fits(agent, memory_bytes, cpu):
                return agent
    for agent_id in candidates:
        if agent_id != kept and fits(state.agents[agent_id], memory_bytes, cpu):
            return state.agents[agent_id]
    return None


def _assign(state: State, run: Run, task: Task, agent: Agent, shape: Shape, now: Instant) -> None:
    task.queue_seq = 0
    state.queued -= 1
    task.fence += 1
    task.attempts += 1
    attempt = Attempt(
        f"att_{state.installation}_{run.run_id}_{task.task_id}_{task.fence}",
        run.run_id,
        task.task_id,
        task.fence,
        agent.agent_id,
        shape[0],
        shape[1],
        now.wall,
    )
    state.attempts[attempt.attempt_id] = attempt
    state.dirty.attempts[attempt.attempt_id] = attempt
    state.assignments += 1
    reserve(agent, attempt)
    agent.attempts_sent += 1
    agent.changed[attempt.attempt_id] = None
    state.outgoing[agent.agent_id] = None
    task.attempt_id = attempt.attempt_id
    task.node = agent.name
    task.start_provisioning_time = now.wall
    if not run.start_provisioning_time:
        run.start_provisioning_time = now.wall
    move_task(state, run, task, TaskState.ACTIVE, "core")
    woken = agent.agent_id in state.woken_agents
    refresh(state, agent)
    if not woken:
        # Taking work is no news for the other shapes.
        state.woken_agents.pop(agent.agent_id, None)
    # To the end: the next task goes to another agent.
    for order in (state.open_agents, state.woken_agents, state.image_holders.get(shape[2], {})):
        if agent.agent_id in order:
            del order[agent.agent_id]
            order[agent.agent_id] = None


def could_build(state: State, agent: Agent, build: Build) -> bool:
    """True when the agent makes builds of this kind, now or as soon as it has room."""
    pre = bool(state.images[build.image_key].recipe.build_script_pre.strip())
    return agent.state is AgentState.READY and (agent.allows_pre_scripts or not pre)


def may_build(agent: Agent, needs_pre_scripts: bool) -> bool:
    """True when the agent takes a build now."""
    return (
        agent.state is AgentState.READY
        and not agent.pressure
        and agent.builds_sent < agent.build_limit
        and (agent.allows_pre_scripts or not needs_pre_scripts)
    )


def _place_builds(state: State, now: Instant) -> None:
    for build_id in list(state.build_queue):
        build: Build = state.builds[build_id]
        image = state.images[build.image_key]
        pre = bool(image.recipe.build_script_pre.strip())
        agent = min(
            (agent for agent in state.agents.values() if may_build(agent, pre)),
            key=lambda agent: len(agent.builds),
            default=None,
        )
        if agent is None:
            continue
        del state.build_queue[build_id]
        build.agent_id = image.agent_id = agent.agent_id
        move_build(state, build, BuildState.ASSIGNED, "core")
        state.dirty.images[image.image_key] = image
        agent.builds[build_id] = build
        agent.builds_sent += 1
        agent.changed[build_id] = None
        state.outgoing[agent.agent_id] = None


def live(attempt: Attempt) -> bool:
    """True while the attempt has no end."""
    return attempt.state < AttemptState.SUCCEEDED
