"""The control plane's core on a real store, watched from outside.

`Cluster` does what the engine does: steps, then one commit that is written by the real writer, then the
effects. It can fail a commit, restart from the store at any time, and set the clock. What it remembers comes
from rows and frames alone, so it does not believe the state that it judges.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field

from opentailr_controlplane.core import fleet
from opentailr_controlplane.core.batch import WriteBatch, collect
from opentailr_controlplane.core.commands import (
    AgentEvent,
    AgentHeartbeat,
    AgentHello,
    Command,
    Reply,
    Tick,
)
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.effects import Desired, Effect, Effects, Welcome
from opentailr_controlplane.core.invariants import History, validate
from opentailr_controlplane.core.machine import finish, step
from opentailr_controlplane.core.model import NeedsPlan, NeedsPrior, State
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AgentState,
    AttemptState,
    CauseKind,
    Instant,
    RunState,
    TaskState,
)
from opentailr_controlplane.store import loader, schema
from opentailr_controlplane.store.writer import write

START = Instant(1_700_000_000 * SECOND, 1_000 * SECOND)

Edge = tuple[str, str, str]


@dataclass
class Session:
    """What an ideal agent would know of its session from the frames alone."""

    epoch: int
    revision: int = 0
    attempts: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """Fence and whether it is to stop, by id."""
    builds: set[str] = field(default_factory=set)
    given: int = 0
    """New attempts since the full set; credit counts from it."""
    limit: int = 0


class Cluster:
    """One control plane without agents: those are played by whoever holds it."""

    def __init__(self, settings: CoreSettings | None = None, *, compare_every: int = 1) -> None:
        self.settings = settings or CoreSettings()
        self.now = START
        self.seen: Counter[Edge] = Counter()
        self.connection = _database()
        self.state = State(self.settings, "test")
        self.state.dirty.counters = True
        self.state.observer = self._observe
        self.history = History()
        self.sessions: dict[str, Session] = {}
        self.heard: dict[str, int] = {}
        self.floor = 0
        self.run_ends: dict[int, int] = {}
        self.task_ends: dict[tuple[int, int], tuple[object, ...]] = {}
        self.attempt_ends: dict[str, int] = {}
        self.judged: set[str] = set()
        self.effects: list[Effect] = []
        self.commits = 0
        self.compare_every = compare_every
        self.commit()

    def close(self) -> None:
        """Closes the store."""
        self.connection.close()

    def _observe(self, machine: str, source: str, target: str) -> None:
        self.seen[machine, source, target] += 1

    # ------------------------------------------------------------------ the engine's part

    def step(self, event: Command | AgentEvent | Tick) -> Reply | int | None:
        """One step; what it needs from the store is loaded as the engine does."""
        while True:
            try:
                reply = step(self.state, event, self.now)
                break
            except NeedsPlan as need:
                plan = loader.read_plan(self.connection, need.definition_id)
                assert plan is not None
                self.state.plans[need.definition_id] = plan
            except NeedsPrior as need:
                if self.state.dirty:
                    # A run that ended in this very round is read after its commit.
                    self.commit()
                self.state.priors[need.run_id] = loader.read_prior(self.connection, need.run_id)
        self.state.priors.clear()
        if isinstance(event, AgentHello):
            assert isinstance(reply, int)
            self.heard[event.agent_id] = self.now.mono
            self.sessions[event.agent_id] = Session(reply)
        elif isinstance(event, AgentHeartbeat):
            agent = self.state.agents.get(event.agent_id)
            if agent is not None and agent.epoch == event.epoch and agent.state.connected:
                received = min(event.received, self.now.mono)
                self.heard[event.agent_id] = max(self.heard.get(event.agent_id, 0), received)
        elif isinstance(event, Tick) and event.late:
            self.floor = self.now.mono + self.settings.recovery_grace
        return reply

    def do(self, event: Command | AgentEvent | Tick) -> Reply | int | None:
        """One step and its commit."""
        try:
            return self.step(event)
        finally:
            self.commit()

    def commit(self) -> None:
        """Ends the round: everything is written, every check is made, then the effects are out."""
        finish(self.state, self.now)
        batch = collect(self.state)
        if batch is not None:
            write(self.connection, batch)
            self._watch_rows(batch)
        self.effects, self.state.effects = self.state.effects.items, Effects()
        validate(self.state)
        self.history.observe(self.state, self.effects, self.now)
        self._watch_assignments()
        self._watch_losses()
        self._watch_frames()
        self.commits += 1
        if self.commits % self.compare_every == 0:
            self.loaded()

    def loaded(self) -> State:
        """What a restart would find, which must be what is in memory (invariant 1)."""
        loaded = loader.load(self.connection, self.settings, self.now)
        assert loaded is not None
        fleet.recover(loaded, self.now)
        validate(loaded)
        before, after = durable_view(self.state), durable_view(loaded)
        for part, value in before.items():
            assert after[part] == value, f"{part} differs after a restart"
        return loaded

    def restart(self) -> None:
        """The process dies after a commit and begins again."""
        self.state.dirty.counters = True
        self.commit()
        self._begin(self.loaded())

    def rollback(self) -> None:
        """The commit of this round fails: nothing of it is on disk, and nothing of it was sent."""
        loaded = loader.load(self.connection, self.settings, self.now)
        assert loaded is not None
        fleet.recover(loaded, self.now)
        self._begin(loaded)
        # Epochs that were given in the failed round were told to nobody.
        self.history.epochs = {key: agent.epoch for key, agent in loaded.agents.items()}

    def _begin(self, state: State) -> None:
        self.state = state
        self.state.observer = self._observe
        self.sessions.clear()
        self.history.revisions.clear()
        self.floor = self.now.mono + self.settings.recovery_grace
        self.commit()

    def set_clock(self, *, wall: int = 0, mono: int = 0) -> None:
        """The clocks go on, or the wall clock is set."""
        assert mono >= 0
        self.now = Instant(self.now.wall + wall, self.now.mono + mono)

    # ------------------------------------------------------------------ the watch

    def _watch_rows(self, batch: WriteBatch) -> None:
        """What has ended stays as it ended (invariants 2, 5, 26), judged by what reaches the disk."""
        for row in batch.attempts:
            end = self.attempt_ends.get(row.attempt_id)
            assert end in (None, row.state), f"{row.attempt_id} ended as {end} and as {row.state}"
            if row.state >= AttemptState.SUCCEEDED:
                self.attempt_ends[row.attempt_id] = row.state
        for task in batch.tasks:
            if task.state >= TaskState.SUCCEEDED:
                end_of_task = (task.state, task.result_digest, task.fence, task.attempts)
                key = (task.run_id, task.task_id)
                assert self.task_ends.setdefault(key, end_of_task) == end_of_task, f"task {key}"
        for run in batch.runs:
            if run.state >= RunState.SUCCEEDED:
                assert self.run_ends.setdefault(run.run_id, run.state) == run.state, f"run {run.run_id}"
        for run_id in batch.expired_runs:
            assert self.run_ends.get(run_id) == RunState.SUCCEEDED, f"run {run_id} expired"
            self.run_ends[run_id] = RunState.EXPIRED
        for run_id in batch.new_runs:
            assert run_id not in self.run_ends or run_id in {row.run_id for row in batch.runs}

    def _watch_assignments(self) -> None:
        fresh = self.fresh()
        for attempt in self.state.attempts.values():
            if attempt.attempt_id in fresh:
                agent = self.state.agents[attempt.agent_id]
                assert agent.state is AgentState.READY, f"{attempt.attempt_id} given to {agent.state.name}"
                assert agent.schedulable, f"{attempt.attempt_id} given to a drained node (invariant 20)"
                assert agent.attempts_sent <= agent.attempt_limit, f"{agent.agent_id}: beyond its credit"

    def fresh(self) -> set[str]:
        """Attempts that the last frames brought for the first time."""
        return {
            order.attempt_id
            for effect in self.effects
            if isinstance(effect, Desired) and not effect.full
            for order in effect.attempts
            if not order.stop and order.attempt_id not in self.sessions[effect.agent_id].attempts
        }

    def _watch_losses(self) -> None:
        """No attempt is lost to a lease before TTL and grace have passed (invariant 18)."""
        for attempt in self.state.attempts.values():
            cause = attempt.cause
            if attempt.state is not AttemptState.LOST or cause is None or attempt.attempt_id in self.judged:
                continue
            self.judged.add(attempt.attempt_id)
            if cause.kind is CauseKind.LEASE_LOST:
                span = self.settings.lease_ttl + self.settings.lease_grace
                earliest = max(self.heard.get(attempt.agent_id, 0) + span, self.floor)
                assert self.now.mono >= earliest, f"{attempt.attempt_id} was lost too early"

    def _watch_frames(self) -> None:
        """The frames alone lead an ideal agent to exactly the control plane's set (invariants 10, 12)."""
        for effect in self.effects:
            session = self.sessions.get(effect.agent_id)
            if session is None or session.epoch != effect.epoch:
                continue
            if isinstance(effect, Welcome):
                assert not session.revision, "the welcome comes first"
            elif isinstance(effect, Desired):
                self._take(session, effect)
        for agent in self.state.agents.values():
            session = self.sessions.get(agent.agent_id)
            if session is None or session.epoch != agent.epoch or not agent.state.connected:
                continue
            wanted = {
                key: (attempt.fence, attempt.stop_wanted or attempt.state.terminal)
                for key, attempt in agent.attempts.items()
            }
            assert session.revision == agent.revision, f"{agent.agent_id}: revision"
            assert session.attempts == wanted, f"{agent.agent_id}: the frames and the set differ"
            assert session.builds == set(agent.builds), f"{agent.agent_id}: builds"

    def _take(self, session: Session, effect: Desired) -> None:
        assert effect.full or effect.base == session.revision, "a difference to another base"
        assert effect.full or session.revision, "a difference before the full set"
        assert effect.revision > session.revision
        if effect.full:
            session.attempts.clear()
            session.builds.clear()
        for key in effect.removed:
            session.attempts.pop(key, None)
            session.builds.discard(key)
        session.attempts |= {order.attempt_id: (order.fence, order.stop) for order in effect.attempts}
        session.builds |= {order.build_id for order in effect.builds}
        session.revision = effect.revision


def _database() -> sqlite3.Connection:
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    connection = sqlite3.connect(":memory:", isolation_level=None)
    for table in schema.metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))  # type: ignore[no-untyped-call]
    return connection
