"""What must hold in every state, as code. Runs after each step in tests.

The numbers are those of the protocol's list of invariants. What compares two states (monotone steps, fences
and epochs that never fall) needs a memory: `History`. Where each of them is checked:

| number | where |
|---|---|
| 2, 5, 11, 12, 18, 20, 24, 26 | `History` |
| 3, 5, 7, 8, 9, 10, 18, 19, 20, 22, 25, 26, 29 | `validate` |
| 1, 2, 4, 5, 10 to 14, 18, 20, 24, 26 | tests/property, judged by rows and frames from outside |
| 6, 12, 13, 15, 16, 29 to 31 | tests/property, both cores against one another |

17 (exclusive jobs) and 23 (schedules) are of things that this release does not run; 21, 27 and 28 are not the
core's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .commands import Reply
from .effects import Desired, Effect
from .errors import InvariantViolation
from .model import Agent, Run, State, Task
from .placement import live
from .transitions import ATTEMPT
from .values import DONE, AgentState, AttemptState, BuildState, ImageState, Instant, RunState, TaskState


def _demand(holds: bool, number: int, text: str) -> None:
    if not holds:
        raise InvariantViolation(f"invariant {number}: {text}")


def validate(state: State) -> None:
    """Raises InvariantViolation for the first thing that must not be."""
    for run in state.runs.values():
        _run(state, run)
    for agent in state.agents.values():
        _agent(state, agent)
    _attempts(state)
    _choice(state)
    _images(state)
    _queues(state)


def _run(state: State, run: Run) -> None:
    _demand(not run.state.terminal, 26, f"run {run.run_id} has ended and is still here")
    _demand(run.open > 0, 26, f"run {run.run_id} has no open task and has not ended")
    tasks = run.tasks.values()
    _demand(run.open == sum(not task.state.terminal for task in tasks), 26, f"run {run.run_id}: open count")
    running = sum(task.state is TaskState.ACTIVE and task.start_time > 0 for task in tasks)
    active = sum(task.state is TaskState.ACTIVE for task in run.tasks.values())
    _demand(run.active == active, 26, f"run {run.run_id}: active count")
    _demand(run.running == running, 26, f"run {run.run_id}: running count")
    _demand(
        run.completed == sum(task.state in DONE for task in tasks), 26, f"run {run.run_id}: completed count"
    )
    _demand(
        len(run.tasks) == run.open + run.completed + run.failed + run.other,
        26,
        f"run {run.run_id}: counts do not add up",
    )
    _demand(
        run.held == (run.run_id in state.images[run.plan.image_key].waiting), 25, f"run {run.run_id}: held"
    )
    for task in tasks:
        _task(state, run, task)


def _task(state: State, run: Run, task: Task) -> None:
    where = f"task {run.run_id}/{task.task_id} ({task.state.name})"
    upstreams = run.plan.tasks[task.task_id].depends_on
    open_upstreams = sum(run.tasks[upstream].state not in DONE for upstream in upstreams)
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        _demand(task.open_upstreams == open_upstreams, 7, f"{where}: open upstreams")
        _demand(task.state is not TaskState.BLOCKED or open_upstreams > 0, 29, f"{where}: blocked by nothing")
    else:
        _demand(
            task.state is TaskState.ACTIVE or task.state.terminal, 19, f"{where}: idle in a run that ends"
        )
    if task.state in (TaskState.READY, TaskState.ACTIVE, TaskState.BACKOFF, TaskState.SUCCEEDED):
        _demand(open_upstreams == 0, 7, f"{where}: upstreams are not done")
    attempt = state.attempts.get(task.attempt_id)
    if task.state is TaskState.ACTIVE:
        _demand(attempt is not None and live(attempt), 3, f"{where}: active without a live attempt")
        _demand(attempt is None or attempt.fence == task.fence, 3, f"{where}: fence")
        _demand(
            run.state not in (RunState.CANCELLING, RunState.TIMING_OUT)
            or (attempt is not None and attempt.stop_wanted),
            19,
            f"{where}: not told to stop",
        )
    else:
        _demand(attempt is None or not live(attempt), 3, f"{where}: a live attempt of a task not active")
    _demand(task.fence == task.attempts, 3, f"{where}: fences and attempts differ")
    _demand(task.infra_failures <= state.settings.infra_budget + 1, 8, f"{where}: infrastructure budget")
    charged = task.attempts - task.infra_failures
    _demand(charged <= 1 + state.settings.drain_budget, 8, f"{where}: charged {charged} attempts to the user")
    queued = task.state is TaskState.READY and not run.held
    _demand(bool(task.queue_seq) == queued, 29, f"{where}: queue ticket {task.queue_seq}")
    _demand(task.result is None or task.state in DONE, 5, f"{where}: a result without an outcome")


def _agent(state: State, agent: Agent) -> None:
    where = f"agent {agent.agent_id} ({agent.state.name})"
    memory = sum(attempt.memory_bytes for attempt in agent.attempts.values())
    cpu = sum(attempt.cpu for attempt in agent.attempts.values())
    _demand(agent.memory_reserved == memory, 9, f"{where}: memory reserved")
    _demand(abs(agent.cpu_reserved - cpu) < 1e-6, 9, f"{where}: cpu reserved")
    brought_memory, brought_cpu, brought = agent.reserved_at_hello
    _demand(memory <= max(agent.memory_bytes, brought_memory), 9, f"{where}: more memory than it offers")
    _demand(cpu <= max(agent.cpu, brought_cpu) + 1e-6, 9, f"{where}: more cores than it offers")
    _demand(len(agent.attempts) <= max(agent.slots, brought), 9, f"{where}: more attempts than slots")
    if agent.state is AgentState.DOWN:
        _demand(not any(live(item) for item in agent.attempts.values()), 18, f"{where}: live attempts")
    if agent.state is AgentState.DRAINED:
        _demand(not agent.attempts and not agent.builds, 20, f"{where}: work left")
    if agent.agent_id in state.open_agents:
        _demand(agent.state is AgentState.READY, 10, f"{where}: open for work")
        _demand(agent.attempts_sent < agent.attempt_limit, 10, f"{where}: open without credit")
    for attempt in agent.attempts.values():
        _demand(state.attempts.get(attempt.attempt_id) is attempt, 9, f"{where}: unknown attempt")
        _demand(not attempt.gone, 9, f"{where}: {attempt.attempt_id} is gone and still counted")


def _attempts(state: State) -> None:
    seen: dict[tuple[int, int], str] = {}
    for attempt in state.attempts.values():
        agent = state.agents[attempt.agent_id]
        _demand(
            agent.attempts.get(attempt.attempt_id) is attempt, 9, f"{attempt.attempt_id}: not at its agent"
        )
        if not live(attempt):
            continue
        key = (attempt.run_id, attempt.task_id)
        _demand(key not in seen, 3, f"task {key} has two live attempts")
        seen[key] = attempt.attempt_id
        run = state.runs.get(attempt.run_id)
        _demand(run is not None, 26, f"{attempt.attempt_id} lives on after its run")
        if run is not None:
            task = run.tasks[attempt.task_id]
            _demand(task.attempt_id == attempt.attempt_id, 3, f"{attempt.attempt_id}: not its task's latest")


def _choice(state: State) -> None:
    holders: dict[str, set[str]] = {}
    for agent_id in state.open_agents:
        for image in state.agents[agent_id].image_keys:
            holders.setdefault(image, set()).add(agent_id)
    kept = {image: set(agents) for image, agents in state.image_holders.items()}
    _demand(kept == holders, 29, "the agents with an image at hand are not those that are open")
    _demand(set(state.woken_agents) <= set(state.open_agents), 29, "a closed agent is up for choice")


def _images(state: State) -> None:
    by_key: dict[str, int] = {}
    for build in state.builds.values():
        _demand(not build.state.terminal, 25, f"{build.build_id} has ended and is still here")
        by_key[build.image_key] = by_key.get(build.image_key, 0) + 1
        waits = build.state is BuildState.QUEUED
        _demand(waits == (build.build_id in state.build_queue), 25, f"{build.build_id}: queue")
        if not waits:
            held = state.agents[build.agent_id].builds.get(build.build_id)
            _demand(held is build, 25, f"{build.build_id}: not at its agent")
    for image in state.images.values():
        unsettled = image.state in (ImageState.QUEUED, ImageState.BUILDING)
        _demand(
            by_key.get(image.image_key, 0) == int(unsettled), 25, f"image {image.image_key[:8]}: live builds"
        )
        _demand(unsettled or not image.waiting, 25, f"image {image.image_key[:8]}: runs wait for nothing")


def _queues(state: State) -> None:
    tickets = {(entry[1], entry[2]): entry[0] for queue in state.queues.values() for entry in queue}
    waiting = 0
    for run in state.runs.values():
        for task in run.tasks.values():
            if task.queue_seq:
                waiting += 1
                _demand(
                    tickets.get((run.run_id, task.task_id)) == task.queue_seq,
                    29,
                    f"task {run.run_id}/{task.task_id}: its ticket is in no queue",
                )
    _demand(state.queued == waiting, 22, f"{state.queued} counted, {waiting} waiting")


@dataclass(slots=True)
class History:
    """Checks what only two states together can show."""

    attempts: dict[str, AttemptState] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    fences: dict[tuple[int, int], int] = field(default_factory=dict)
    outcomes: dict[tuple[int, int], TaskState] = field(default_factory=dict)
    cancelling: dict[int, int] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    active: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    answers: dict[tuple[str, str], tuple[int, str, Reply]] = field(default_factory=dict)
    begun: bool = False

    def observe(self, state: State, effects: list[Effect], now: Instant) -> None:
        """Compares the state with what was seen before."""
        self._closure(state)
        self._answers(state)
        for attempt in state.attempts.values():
            before = self.attempts.get(attempt.attempt_id)
            if before is None and self.begun and live(attempt):
                agent = state.agents[attempt.agent_id]
                open_for_work = agent.state is AgentState.READY and agent.schedulable
                _demand(open_for_work, 20, f"{attempt.attempt_id} given to a node that takes nothing")
            if before is not None and before is not attempt.state:
                _demand(
                    (before, attempt.state) in ATTEMPT,
                    2,
                    f"{attempt.attempt_id}: {before} -> {attempt.state}",
                )
            self.attempts[attempt.attempt_id] = attempt.state
            if attempt.state is AttemptState.LOST and before is not AttemptState.LOST:
                agent = state.agents[attempt.agent_id]
                if not agent.state.connected:
                    settings = state.settings
                    earliest = max(self.heard.get(agent.agent_id, 0) + settings.lost_after, state.lease_floor)
                    _demand(now.mono >= earliest, 18, f"{attempt.attempt_id} lost too early")
        for agent in state.agents.values():
            _demand(agent.epoch >= self.epochs.get(agent.agent_id, 0), 11, f"{agent.agent_id}: epoch fell")
            self.epochs[agent.agent_id] = agent.epoch
            self.heard[agent.agent_id] = agent.lease_start
        for run in state.runs.values():
            made = 0
            for task in run.tasks.values():
                key = (run.run_id, task.task_id)
                _demand(task.fence >= self.fences.get(key, 0), 3, f"task {key}: fence fell")
                self.fences[key] = task.fence
                made += task.attempts
                if key in self.outcomes:
                    _demand(self.outcomes[key] is task.state, 5, f"task {key}: second outcome")
                if task.state.terminal:
                    self.outcomes[key] = task.state
            if run.state is RunState.CANCELLING:
                _demand(
                    self.cancelling.setdefault(run.run_id, made) == made, 19, f"run {run.run_id}: new attempt"
                )
        for effect in effects:
            if isinstance(effect, Desired):
                last = self.revisions.get(effect.agent_id, 0)
                _demand(effect.full or effect.base == last, 12, f"{effect.agent_id}: delta on a wrong base")
                _demand(effect.revision > last, 12, f"{effect.agent_id}: revision fell")
                self.revisions[effect.agent_id] = effect.revision
        self.begun = True

    def _closure(self, state: State) -> None:
        active = set(state.runs)
        self.ended |= self.active - active
        _demand(not self.ended & active, 26, f"runs {self.ended & active} came back after their end")
        self.active = active

    def _answers(self, state: State) -> None:
        for key, kept in state.remembered.items():
            answer = (kept.expire_time, kept.request_digest, kept.reply)
            first = self.answers.get(key, answer)
            _demand(first[0] != answer[0] or first == answer, 24, f"the answer to {key} changed")
            self.answers[key] = answer
        self.answers = {key: self.answers[key] for key in state.remembered}
