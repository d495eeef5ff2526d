"""Short stories that random histories tell in the midst of everything else.

Chance alone would need long for what takes several steps in a row: each story goes straight to one place, and
the rules around it see to it that it is never told in the same surroundings twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from opentailr_controlplane.core.commands import (
    AgentReport,
    BuildReport,
    CancelRun,
    Rerun,
    SaveVersion,
    SetNodeSchedulable,
    StartVersion,
)
from opentailr_controlplane.core.model import Attempt
from opentailr_controlplane.core.values import SECOND, AttemptState, Cause, CauseKind, ImageState

from .controlplane_rules import AGENTS, LIVE, TERMINAL, ControlPlaneMachine
from .fair import build_all, greet, settle
from .workloads import GIB, GRAPHS, definition

OUTSIDE = ("silence", "bye", "journal", "forgotten", "cancel", "cancel unheard", "time")
AFTER_DRAIN = ("cut", "bye", "stay", "return", "resume", "half", "half, cut", "half, bye")
BUILT = (ImageState.READY, ImageState.FAILED)
FAULTS = (CauseKind.BUILD_FAILED, CauseKind.NODE_FAULT)
BOTH = (False, True)


class StoryMachine(ControlPlaneMachine):
    """All rules and all stories."""

    def begin(self, roots: int, *, join: bool = False, **options: Any) -> list[Attempt]:
        """A new run whose first tasks were just given to a node; with `join` another waits for them all."""
        self.finish()
        if len(self.cluster.state.runs) > 5:
            settle(self.cluster, AGENTS, self.seq, rounds=20)
        greet(self.cluster, "agt_1")
        known = set(self.cluster.state.attempts)
        graph = ((),) * roots + ((tuple(range(roots)),) if join else ())
        self.submit(SaveVersion("alice", definition(graph, name="story", **options)))
        self.submit(StartVersion("alice", "story"))
        build_all(self.cluster, self.seq)
        return [item for key, item in self.cluster.state.attempts.items() if key not in known]

    def make_room(self) -> None:
        """Everything that goes on ends, and the nodes take work."""
        self.finish()
        for agent in AGENTS:
            if agent in self.cluster.state.agents:
                self.submit(SetNodeSchedulable("admin", agent, True))
        settle(self.cluster, AGENTS, self.seq, rounds=20)

    def tell(
        self, attempts: Iterable[Attempt], states: Iterable[AttemptState], kind: CauseKind | None = None
    ) -> None:
        """Attempts and what their agents say of them, one each."""
        cause = Cause(kind, "because") if kind is not None else None
        for attempt, state in zip(attempts, states):
            agent = self.cluster.state.agents[attempt.agent_id]
            entry = self.entry(agent, attempt, state, cause=cause)
            self.submit(AgentReport(agent.agent_id, agent.epoch, (entry,)))

    def stories(self) -> list[Callable[[], None]]:
        """Each story with each of its choices."""
        told: list[Callable[[], None]] = [partial(self.careers, first) for first in LIVE]
        told += [partial(self.ends_from_outside, how) for how in OUTSIDE]
        told += [partial(self.drained, busy, then) for busy, then in product(BOTH, AFTER_DRAIN)]
        told += [
            partial(self.new_image, began, end, kind, times, graph)
            for began, end, kind, times, graph in product(BOTH, BUILT, FAULTS, (1, 3), GRAPHS[:2])
        ]
        return told + [partial(self.alone, expires, end) for expires, end in product(BOTH, TERMINAL)]

    @initialize(seed=st.integers(0, 1 << 20))
    def opening(self, seed: int) -> None:
        """Every history begins with two stories; a seed, because draws favour the first choices."""
        for story in Random(seed).sample(self.stories(), 2):
            story()

    @rule(first=st.sampled_from(LIVE))
    def careers(self, first: AttemptState) -> None:
        """From one state to each other one; what the table does not have is inert."""
        attempts = self.begin(len(AttemptState))
        if len(attempts) < len(AttemptState):
            # No room among all that went before.
            self.make_room()
            attempts = self.begin(len(AttemptState))
        self.tell(attempts, [first] * len(attempts))
        self.gathered = len(attempts)
        self.tell(attempts, AttemptState)
        self.finish()

    @rule(how=st.sampled_from(["silence", "bye", "journal", "forgotten", "cancel", "cancel unheard", "time"]))
    def ends_from_outside(self, how: str) -> None:
        """Attempts in all states end, or are told to, by something else than their own report."""
        attempts = self.begin(len(LIVE) + 2, join=True, fail_after=SECOND // 3)
        if not attempts:
            return
        self.tell(attempts, LIVE)
        agent = attempts[0].agent_id
        if how == "silence":
            self.leave(agent, "cut")
            self.wait(21.0, False)
            self.wait(21.0, False)
        elif how == "bye":
            self.leave(agent, "bye")
        elif how in ("journal", "forgotten"):
            self.join(agent, "j2" if how == "journal" else "j1", "none", 4 * GIB, 3, True, 0, False)
        else:
            # One waits for its pause, one for a node.
            for other in self.connected():
                self.submit(SetNodeSchedulable("admin", other.agent_id, False))
            last = (AttemptState.FAILED, AttemptState.LOST)
            self.tell(attempts[len(LIVE) :], last, CauseKind.NODE_FAULT)
            if how == "cancel unheard":
                self.leave(agent, "cut")
            if how == "time":
                self.wait(0.4, False)
                self.tell(attempts[2:], [AttemptState.CANCELLED] * 3)
            else:
                self.submit(CancelRun("bob", attempts[0].run_id))
            if how == "cancel":
                self.tell(attempts, [AttemptState.CANCELLED] * len(attempts))

    @rule(busy=st.booleans(), then=st.sampled_from(AFTER_DRAIN))
    def drained(self, busy: bool, then: str) -> None:
        """A node is drained, with work or without, and something happens to it."""
        attempts = self.begin(2)
        if not busy:
            settle(self.cluster, AGENTS, self.seq, rounds=20)
        agent = attempts[0].agent_id if attempts else "agt_1"
        self.submit(SetNodeSchedulable("admin", agent, False))
        self.finish()
        if then == "return":
            self.join(agent, "j1", "all", 4 * GIB, 3, True, 0, False)
        elif then == "resume":
            self.submit(SetNodeSchedulable("admin", agent, True))
        elif then.startswith("half"):
            self.join(agent, "j1", "all", 4 * GIB, 3, False, 0, False)
            if "," in then:
                self.leave(agent, then.partition(", ")[2])
        else:
            self.leave(agent, then)

    @rule(
        began=st.booleans(),
        end=st.sampled_from(BUILT),
        kind=st.sampled_from(FAULTS),
        times=st.integers(1, 3),
        graph=st.sampled_from(GRAPHS),
    )
    def new_image(
        self, began: bool, end: ImageState, kind: CauseKind, times: int, graph: tuple[tuple[int, ...], ...]
    ) -> None:
        """A run waits for an image that nobody has."""
        self.finish()
        greet(self.cluster, "agt_2")
        recipe = f"package=={self.cluster.state.next_build}"
        self.submit(SaveVersion("alice", definition(graph, name="built", requirements=recipe)))
        self.submit(StartVersion("alice", "built"))
        self.finish()
        states = [*([ImageState.BUILDING] if began else []), end]
        for _ in range(times):
            for build in list(self.cluster.state.builds.values()):
                if build.agent_id:
                    agent = self.cluster.state.agents[build.agent_id]
                    entries = tuple(
                        BuildReport(
                            self.seq(agent), build.build_id, build.image_key, state, cause=Cause(kind, "no")
                        )
                        for state in states
                    )
                    self.submit(AgentReport(agent.agent_id, agent.epoch, entries))
        # Saving again asks for a failed image once more.
        self.submit(SaveVersion("alice", definition(graph, name="built", requirements=recipe)))

    @rule(expires=st.booleans(), end=st.sampled_from([AttemptState.SUCCEEDED] * 3 + TERMINAL))
    def alone(self, expires: bool, end: AttemptState) -> None:
        """A run whose tasks all end alike, rerun from what it left."""
        attempts = self.begin(2, expire_after=SECOND if expires else 0)
        self.tell(attempts, [end] * len(attempts))
        self.finish()
        if attempts:
            self.submit(Rerun("alice", attempts[0].run_id))
        if expires:
            self.wait(2.0, False)
