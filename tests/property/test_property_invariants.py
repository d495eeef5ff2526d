"""Each check of the invariants can fail: a state that is well is spoiled by hand, in one place each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from opentailr_agent.core import invariants as node_invariants
from opentailr_agent.core.model import AttemptRecord, BuildReport, BuildState, NodeState, Phase
from opentailr_agent.core.model import AttemptReport as NodeReport
from opentailr_agent.core.model import AttemptState as NodeAttemptState
from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentHello,
    AgentReport,
    SaveVersion,
    SetNodeSchedulable,
    StartReply,
    StartVersion,
)
from opentailr_controlplane.core.commands import (
    BuildReport as BuildTold,
)
from opentailr_controlplane.core.effects import Desired
from opentailr_controlplane.core.errors import InvariantViolation
from opentailr_controlplane.core.invariants import History, validate
from opentailr_controlplane.core.model import Agent, Attempt, Image, PayloadRef, Run, State, Task
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    AgentState,
    AttemptState,
    Cause,
    CauseKind,
    ImageState,
    Instant,
    RunState,
    TaskState,
)
from opentailr_controlplane.core.values import (
    BuildState as ImageBuildState,
)

from .cluster import START, Cluster
from .workloads import GIB, definition


class Scene:
    """A node with one attempt, a task that waits for room, one that waits for both; a drained node; a run
    that waits for its image."""

    def __init__(self) -> None:
        self.cluster = cluster = Cluster(CoreSettings())
        for agent_id in ("agt_1", "agt_2"):
            epoch = cluster.do(AgentHello(agent_id, agent_id, "boot", "j1", GIB, 4.0, 4))
            assert isinstance(epoch, int)
            cluster.do(AgentApplied(agent_id, epoch, cluster.state.agents[agent_id].full_revision))
        cluster.do(SetNodeSchedulable("admin", "agt_2", False))
        cluster.do(AgentCredit("agt_1", 1, 4, 2))
        cluster.do(SaveVersion("alice", definition(((), (), (0, 1)), memory=GIB)))
        (build,) = cluster.state.builds.values()
        ready = BuildTold(1, build.build_id, build.image_key, ImageState.READY)
        cluster.do(AgentReport("agt_1", 1, (ready,)))
        cluster.do(StartVersion("alice", "flow", idempotency_key="k", request_digest="d"))
        cluster.do(SaveVersion("alice", definition(name="held", requirements="numpy")))
        cluster.do(StartVersion("alice", "held"))
        validate(cluster.state)

    @property
    def state(self) -> State:
        return self.cluster.state

    @property
    def run(self) -> Run:
        return self.state.runs[1]

    @property
    def active(self) -> Task:
        return self.run.tasks[0]

    @property
    def ready(self) -> Task:
        return self.run.tasks[1]

    @property
    def blocked(self) -> Task:
        return self.run.tasks[2]

    @property
    def attempt(self) -> Attempt:
        return self.state.attempts[self.active.attempt_id]

    @property
    def agent(self) -> Agent:
        return self.state.agents["agt_1"]

    @property
    def drained(self) -> Agent:
        return self.state.agents["agt_2"]

    @property
    def building(self) -> Image:
        return next(image for image in self.state.images.values() if image.state is not ImageState.READY)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.cluster.close()


def _twin(scene: Scene) -> None:
    twin = replace(scene.attempt, attempt_id="att_twin")
    scene.state.attempts["att_twin"] = scene.agent.attempts["att_twin"] = twin
    scene.agent.memory_reserved *= 2
    scene.agent.cpu_reserved *= 2
    scene.agent.memory_bytes *= 2


def _ended_run_stays(scene: Scene) -> None:
    scene.run.state = RunState.FAILED


def _idle_while_cancelled(scene: Scene) -> None:
    scene.run.state = RunState.CANCELLING
    scene.attempt.stop_wanted = True


def _not_told_to_stop(scene: Scene) -> None:
    scene.run.state = RunState.CANCELLING
    for task in (scene.ready, scene.blocked):
        task.state = TaskState.CANCELLED
        task.queue_seq = 0
    scene.run.open, scene.run.other, scene.state.queued = 1, 2, 0


def _down_with_work(scene: Scene) -> None:
    scene.state.open_agents.clear()
    scene.state.image_holders.clear()
    scene.state.woken_agents.clear()
    scene.agent.state = AgentState.DOWN


def _orphan(scene: Scene) -> None:
    scene.state.attempts["att_orphan"] = replace(scene.attempt, attempt_id="att_orphan", agent_id="agt_2")


def _lives_on(scene: Scene) -> None:
    del scene.state.runs[1]
    scene.state.queued = 0


def _end_attempt(scene: Scene) -> None:
    scene.attempt.state = AttemptState.LOST


def _ready_too_soon(scene: Scene) -> None:
    scene.blocked.state = TaskState.READY


def _unknown(scene: Scene) -> None:
    ended = replace(scene.attempt, attempt_id="att_x", state=AttemptState.LOST, memory_bytes=0, cpu=0.0)
    scene.agent.attempts["att_x"] = ended


def _of_another_task(scene: Scene) -> None:
    scene.ready.attempt_id = scene.attempt.attempt_id


def _attempts(task: Task, number: int) -> None:
    task.attempts = task.fence = number


SPOILED: list[tuple[int, str, Callable[[Scene], object]]] = [
    (26, "has ended and is still here", _ended_run_stays),
    (26, "no open task", lambda s: setattr(s.run, "open", 0)),
    (26, "open count", lambda s: setattr(s.run, "open", 2)),
    (26, "active count", lambda s: setattr(s.run, "active", 0)),
    (26, "running count", lambda s: setattr(s.run, "running", 1)),
    (26, "completed count", lambda s: setattr(s.run, "completed", 1)),
    (26, "counts do not add up", lambda s: setattr(s.run, "failed", 1)),
    (26, "lives on after its run", _lives_on),
    (25, "held", lambda s: setattr(s.run, "held", True)),
    (7, "open upstreams", lambda s: setattr(s.blocked, "open_upstreams", 1)),
    (7, "upstreams are not done", _ready_too_soon),
    (19, "idle in a run that ends", _idle_while_cancelled),
    (19, "not told to stop", _not_told_to_stop),
    (3, "active without a live attempt", _end_attempt),
    (3, "fence", lambda s: setattr(s.attempt, "fence", 2)),
    (3, "a live attempt of a task not active", _of_another_task),
    (3, "fences and attempts differ", lambda s: setattr(s.ready, "fence", 1)),
    (3, "two live attempts", _twin),
    (8, "infrastructure budget", lambda s: setattr(s.active, "infra_failures", 9)),
    (8, "to the user", lambda s: _attempts(s.ready, 10**6)),
    (29, "queue ticket", lambda s: setattr(s.ready, "queue_seq", 0)),
    (29, "in no queue", lambda s: s.state.queues.clear()),
    (22, "waiting", lambda s: setattr(s.state, "queued", 5)),
    (5, "a result without an outcome", lambda s: setattr(s.active, "result", PayloadRef("d", 1, True))),
    (9, "memory reserved", lambda s: setattr(s.agent, "memory_reserved", 0)),
    (9, "cpu reserved", lambda s: setattr(s.agent, "cpu_reserved", 2.0)),
    (9, "more memory than it offers", lambda s: setattr(s.agent, "memory_bytes", 1)),
    (9, "more cores than it offers", lambda s: setattr(s.agent, "cpu", 0.0)),
    (9, "more attempts than slots", lambda s: setattr(s.agent, "slots", 0)),
    (9, "unknown attempt", _unknown),
    (9, "gone and still counted", lambda s: setattr(s.attempt, "gone", True)),
    (9, "not at its agent", _orphan),
    (18, "live attempts", _down_with_work),
    (20, "work left", lambda s: s.drained.builds.update(s.state.builds)),
    (10, "open for work", lambda s: setattr(s.agent, "state", AgentState.SYNCING)),
    (10, "open without credit", lambda s: setattr(s.agent, "attempts_sent", 4)),
    (29, "image at hand", lambda s: s.agent.image_keys.clear()),
    (29, "closed agent is up for choice", lambda s: s.state.woken_agents.update({"agt_2": None})),
    (25, "still here", lambda s: setattr(next(iter(s.state.builds.values())), "state", ImageBuildState.LOST)),
    (25, "queue", lambda s: setattr(next(iter(s.state.builds.values())), "state", ImageBuildState.QUEUED)),
    (25, "not at its agent", lambda s: s.agent.builds.clear()),
    (25, "live builds", lambda s: setattr(s.building, "state", ImageState.FAILED)),
]


@pytest.mark.parametrize(("number", "text", "spoil"), SPOILED, ids=[f"{n} {text}" for n, text, _ in SPOILED])
def test_a_state_that_must_not_be_is_told(
    scene: Scene, number: int, text: str, spoil: Callable[[Scene], object]
) -> None:
    spoil(scene)
    with pytest.raises(InvariantViolation, match=rf"^invariant {number}: .*{text}"):
        validate(scene.state)


def _lost(scene: Scene) -> None:
    scene.attempt.state = AttemptState.LOST
    scene.attempt.cause = Cause(CauseKind.LEASE_LOST, "too early")
    scene.agent.state = AgentState.DOWN


def _given_to_the_drained(scene: Scene) -> None:
    scene.state.attempts["att_new"] = replace(scene.attempt, attempt_id="att_new", agent_id="agt_2")


def _back_after_its_end(scene: Scene) -> None:
    run = scene.state.runs.pop(1)
    attempts, scene.state.attempts = scene.state.attempts, {}
    scene.cluster.history.observe(scene.state, [], START)
    scene.state.runs[1], scene.state.attempts = run, attempts


def _second_outcome(scene: Scene) -> None:
    scene.ready.state = TaskState.FAILED
    scene.cluster.history.observe(scene.state, [], START)
    scene.ready.state = TaskState.SUCCEEDED


def _attempt_after_cancel(scene: Scene) -> None:
    scene.run.state = RunState.CANCELLING
    scene.cluster.history.observe(scene.state, [], START)
    scene.ready.attempts += 1


def _backwards(scene: Scene) -> None:
    scene.attempt.state = AttemptState.RUNNING
    scene.cluster.history.observe(scene.state, [], START)
    scene.attempt.state = AttemptState.ACCEPTED


def _other_answer(scene: Scene) -> None:
    kept = scene.state.remembered["alice", "k"]
    assert isinstance(kept.reply, StartReply)
    kept.reply = replace(kept.reply, run_id=99)


REMEMBERED: list[tuple[int, Callable[[Scene], object]]] = [
    (2, _backwards),
    (3, lambda s: setattr(s.active, "fence", 0)),
    (5, _second_outcome),
    (11, lambda s: setattr(s.agent, "epoch", 0)),
    (18, _lost),
    (19, _attempt_after_cancel),
    (20, _given_to_the_drained),
    (24, _other_answer),
    (26, _back_after_its_end),
]


@pytest.mark.parametrize(("number", "spoil"), REMEMBERED, ids=[str(number) for number, _ in REMEMBERED])
def test_a_step_that_must_not_be_is_told(scene: Scene, number: int, spoil: Callable[[Scene], object]) -> None:
    spoil(scene)
    with pytest.raises(InvariantViolation, match=rf"^invariant {number}: "):
        scene.cluster.history.observe(scene.state, [], START)


@pytest.mark.parametrize("what", ["base", "fell"])
def test_frames_on_a_wrong_base_are_told(what: str) -> None:
    history, state, now = History(), State(CoreSettings(), "test"), Instant(1, 1)
    history.observe(state, [Desired("a", 1, True, 0, 5, (), (), ())], now)
    second = Desired("a", 1, what == "fell", 4, 5 if what == "fell" else 6, (), (), ())
    with pytest.raises(InvariantViolation, match="invariant 12"):
        history.observe(state, [second], now)


def _node() -> NodeState:
    """A node with an attempt that runs and a build whose end is on its way."""
    state = NodeState(slots=2, connected=True)
    state.attempts["a"] = AttemptRecord("a", 1, Phase.RUNNING, handed_over=True)
    state.outbox.put(BuildReport("b", "key", BuildState.READY, 1))
    node_invariants.validate(state)
    return state


def _two_ends(state: NodeState) -> None:
    state.outbox.put(BuildReport("b", "key", BuildState.READY, 1))


def _stopped_too_soon(state: NodeState) -> None:
    state.attempts["a"].stop_sent = True
    state.attempts["a"].handed_over = False


NODE: list[tuple[str, Callable[[NodeState], object]]] = [
    ("contiguous", lambda s: setattr(s.outbox, "next_seq", 7)),
    ("has no number", lambda s: setattr(s.outbox, "sent", 2)),
    ("at most one outcome", _two_ends),
    ("after the end", lambda s: s.outbox.put(BuildReport("b", "key", BuildState.BUILDING, 1))),
    ("exactly until it is acknowledged", lambda s: setattr(s.attempts["a"], "phase", Phase.DONE)),
    ("keeps no secrets", lambda s: setattr(s.attempts["a"], "spec", "token")),
    ("outcome waits", lambda s: setattr(s.attempts["a"], "phase", Phase.ENDED)),
    ("follows the order", _stopped_too_soon),
    ("within the slots", lambda s: setattr(s, "attempt_limit", 3)),
    ("without a session", lambda s: (setattr(s, "connected", False), setattr(s, "synced", True))),
]


@pytest.mark.parametrize(("text", "spoil"), NODE, ids=[text for text, _ in NODE])
def test_a_node_that_must_not_be_is_told(text: str, spoil: Callable[[NodeState], object]) -> None:
    state = _node()
    spoil(state)
    with pytest.raises(AssertionError, match=text):
        node_invariants.validate(state)


def test_an_end_told_twice_is_told() -> None:
    state = _node()
    for _ in range(2):
        state.outbox.put(NodeReport("a", 1, NodeAttemptState.SUCCEEDED, 1))
    with pytest.raises(AssertionError, match="at most one outcome"):
        node_invariants.validate(state)
