"""Knows the truth of the simulated world and compares what both sides believe with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from opentailr_agent.core import effects as do
from opentailr_agent.core import invariants as agent_invariants
from opentailr_agent.core.model import AttemptReport, Phase
from opentailr_controlplane.core import invariants
from opentailr_controlplane.core.batch import WriteBatch
from opentailr_controlplane.core.commands import AgentCredit, AgentEvent
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.effects import Acknowledge, Desired, Effect
from opentailr_controlplane.core.model import State
from opentailr_controlplane.core.values import AgentState, BuildState, CauseKind, Instant
from opentailr_controlplane.core.values import AttemptState as A
from opentailr_controlplane.store import loader

from .keepers import Proc, result_of
from .network import DOWN
from .rows import LEASE, RECOVERY, SLACK, USER_CAUSES, Rows

if TYPE_CHECKING:
    from .node import Node
    from .world import World

DEFECTS = ("work failed", "a step failed", "a report is left out", "the state cannot be read")
"""Words of log lines that no fault of the world excuses."""

SAMPLE = 0.04
"""Share of the commits after which the whole state is validated, and compared with the store."""


class Oracle:
    """Hears of everything that truly happens; `violations` holds what must not have happened."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.over = False
        """The world has ended; what unwinds it is not judged."""
        self.rows = Rows(self)
        self.history = invariants.History()
        self.procs: dict[str, Proc] = {}
        self.later: list[tuple[tuple[int, int], str, str]] = []
        self.counts: Counter[str] = Counter()
        self.moves: set[tuple[str, str, str]] = set()
        self.digest = hashlib.blake2b(digest_size=16)
        self.lines: list[str] | None = None
        self._ordered: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        self._signs: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=32))
        self._epochs: dict[str, int] = defaultdict(int)
        self._given: set[tuple[str, int]] = set()
        self._credit: dict[tuple[str, int], int] = defaultdict(int)
        self._sent: dict[tuple[str, int], int] = defaultdict(int)
        self._sets: dict[str, dict[int, frozenset[str]]] = defaultdict(dict)
        self._phases: dict[tuple[str, str], Phase] = {}
        self._told: set[tuple[str, int]] = set()
        self._durable: dict[tuple[str, int], int] = {}
        self._built: Counter[str] = Counter()
        self._now = Instant(0, 0)
        self.log_mark = 0.0

    def fail(self, text: str) -> None:
        """Something must not have happened; the world stops."""
        if not self.over:
            self.violations.append(f"{text} [{self.world.loop.now:.3f}]")
            self.world.loop.stopping = True

    def _demand(self, holds: bool, number: int, text: str) -> None:
        if not holds:
            self.fail(f"invariant {number}: {text}")

    def alarm(self, level: str, event: dict[str, Any]) -> None:
        """A program logged an error; those that tell of a mistake of ours count."""
        words = str(event.get("event", ""))
        self.counts[f"error: {words}"] += 1
        if words.startswith(DEFECTS):
            self.fail(f"defect: {words}: {event.get('exc_info')!r} {event.get('subject', '')}")

    def trace(self, kind: str, *about: Any) -> None:
        """Something that two runs of one seed must have in common."""
        if self.over:
            return
        line = f"{self.world.loop.now:.6f} {kind} {' '.join(map(str, about))}"
        self.digest.update(line.encode())
        self.counts[kind] += 1
        if self.lines is not None:
            self.lines.append(line)

    # ------------------------------------------------------------------ the control plane

    def committed(self, batch: WriteBatch) -> None:
        """A transaction is on disk; whether anybody will ever know is another matter."""
        self.trace("commit", len(batch.attempts), len(batch.tasks), len(batch.runs))
        self.rows.committed(batch)
        for key, old, new in self.later:
            ended = self.rows.attempts[old].state >= A.SUCCEEDED
            self._demand(ended, 3, f"task {key}: {old} and {new} are both live")
        self.later.clear()

    def released(
        self, state: State, done: list[Any], effects: list[Effect], batch: WriteBatch | None, now: Instant
    ) -> None:
        """The engine lets out what a commit made."""
        for effect in effects:
            if isinstance(effect, Desired):
                agent = state.agents[effect.agent_id]
                self._sets[effect.agent_id][effect.revision] = frozenset(agent.attempts) | frozenset(
                    agent.builds
                )
                for order in effect.attempts:
                    known = self.rows.attempts.get(order.attempt_id)
                    self._demand(known is not None, 1, f"{order.attempt_id} leaves before it is on disk")
            elif isinstance(effect, Acknowledge):
                row = self.rows.agents.get(effect.agent_id)
                self._demand(
                    row is not None and row.acked_seq >= effect.report_seq,
                    13,
                    f"{effect.agent_id}: report {effect.report_seq} acknowledged before the commit",
                )
        if batch is not None:
            for row in batch.attempts:
                if row.state == A.ASSIGNED and row.attempt_id in state.attempts:
                    found = state.agents[row.agent_id].state
                    self._demand(
                        found
                        in (AgentState.READY, AgentState.SUSPECT, AgentState.SYNCING, AgentState.DRAINING)
                        and (row.assigned_time != self._wall(now) or found is AgentState.READY),
                        10,
                        f"{row.attempt_id} given to a node that is {found.name}",
                    )
        if self.world.check_chance.random() < SAMPLE:
            self.validate(state, now)

    @staticmethod
    def _wall(now: Instant) -> int:
        return now.wall

    def validate(self, state: State, now: Instant) -> None:
        """The core's own invariants, and the state against the store (invariant 1)."""
        try:
            invariants.validate(state)
        except AssertionError as error:
            self.fail(f"core: {error}")
        except Exception as error:
            self.fail(f"core: {error!r}")
        loaded = loader.load(self.world.platform.database, state.settings, now)
        assert loaded is not None
        mine, stored = durable_view(state), durable_view(loaded)
        for part, value in mine.items():
            if value != stored[part]:
                self.fail(
                    f"invariant 1: {part} in memory is not the stored one: {_difference(value, stored[part])}"
                )

    def restarting(self, now: Instant) -> None:
        """A control plane begins: what it heard before counts no more."""
        self.world.platform.started_at = self.world.loop.now

    def heard(self, agent_id: str) -> None:
        """A sign of life came in."""
        self._heard[agent_id] = self.world.loop.now
        self._signs[agent_id].append(self.world.loop.now)

    def epoch_given(self, agent_id: str, epoch: int) -> None:
        """A session was opened."""
        self._demand((agent_id, epoch) not in self._given, 11, f"{agent_id}: epoch {epoch} a second time")
        self._given.add((agent_id, epoch))
        self._epochs[agent_id] = max(epoch, self._epochs[agent_id])

    def credited(self, event: AgentCredit) -> None:
        """Credit came in."""
        key = (event.agent_id, event.epoch)
        self._credit[key] = max(self._credit[key], event.attempt_limit)

    def assigned(self, row: Any) -> None:
        """A new attempt is on disk."""
        self.trace("assign", row.attempt_id, row.agent_id)
        key = (row.agent_id, self.rows.agents[row.agent_id].epoch)
        self._sent[key] += 1
        self._demand(
            self._sent[key] <= self._credit[key],
            10,
            f"{row.attempt_id}: {self._sent[key]} sent in session {key}, credit {self._credit[key]}",
        )

    def before_step(self, state: State, event: Any) -> Callable[[], None] | None:
        """A frame of an older session must change nothing (invariant 11)."""
        if not isinstance(event, AgentEvent) or not hasattr(event, "epoch"):
            return None
        agent = state.agents.get(event.agent_id)
        if agent is None or event.epoch >= max(agent.epoch, self._epochs[event.agent_id]):
            return None
        before = _signature(state, agent)

        def judge() -> None:
            words = f"{event.agent_id}: {type(event).__name__} of epoch {event.epoch} is obeyed"
            self._demand(_signature(state, agent) == before, 11, words)

        self.counts["stale frames"] += 1
        return judge

    def moved(self, machine: str, source: str, target: str) -> None:
        """A transition of the control plane's core."""
        self.moves.add((machine, source, target))

    # ------------------------------------------------------------------ ends and results

    def judge_end(self, row: Any) -> None:
        """An attempt's committed end against what truly became of its process."""
        about = f"{row.attempt_id} ({A(row.state).name}, cause {row.cause_kind})"
        proc = self.procs.get(row.attempt_id)
        node = self.world.node_of(row.agent_id)
        self.trace("end", row.attempt_id, row.state, row.cause_kind)
        self.counts[f"end: {A(row.state).name}, cause {CauseKind(row.cause_kind).name}"] += 1
        if proc is not None:
            self._demand(proc.machine == node.name, 4, f"{about}: ran on {proc.machine}")
        if row.state == A.WITHDRAWN:
            return
        if row.state == A.LOST and row.cause_kind == CauseKind.LEASE_LOST:
            self._judge_lease(row, about)
            return
        self._demand(proc is None or not proc.alive, 4, f"{about}: its process lives")
        wanted = {A.SUCCEEDED: "ok", A.OUT_OF_MEMORY: "oom"}.get(A(row.state))
        if row.state == A.FAILED and row.cause_kind in USER_CAUSES - {CauseKind.RESULT}:
            wanted = "fail"
        if wanted is not None:
            self._demand(
                proc is not None and proc.end == wanted, 4, f"{about}: the truth is {proc and proc.end!r}"
            )
        if row.state == A.REJECTED:
            self._demand(proc is None, 4, f"{about}: was started")
        if row.state == A.CANCELLED:
            self._demand(bool(row.stop_wanted), 19, f"{about}: nobody asked for it")
            self._demand(
                proc is None or proc.end in ("stopped", "lost"), 4, f"{about}: it was {proc and proc.end}"
            )
        if row.cause_kind == CauseKind.LOST_BY_RUNTIME:
            self._demand(
                proc is None or proc.end == "lost", 32, f"{about}: the truth is {proc and proc.end!r}"
            )
        if row.cause_kind == CauseKind.NODE_RESTARTED:
            self._demand(node.boot > 1, 32, f"{about}: the node never restarted")

    def _judge_lease(self, row: Any, about: str) -> None:
        now, platform = self.world.loop.now, self.world.platform
        # It was decided some moments before it was on disk; what came in meanwhile came too late.
        signs = [-1e9, *(at for at in self._signs[row.agent_id] if at < now), now]
        silent = max(after - before for before, after in pairwise(signs) if after > now - 10)
        self._demand(silent >= LEASE * SLACK, 18, f"{about}: heard {silent:.1f} s ago")
        since = now - max(platform.started_at, self.world.resumed_at)
        self._demand(since >= RECOVERY * SLACK, 18, f"{about}: {since:.1f} s after the start")

    def expected(self, run_id: int, task_id: int) -> bytes:
        """What a task returns if it returns."""
        definition = self.rows.definitions[self.rows.run_definition[run_id]]
        return self._expected(definition, task_id, {})

    def _expected(self, definition: Any, task_id: int, known: dict[int, bytes]) -> bytes:
        if task_id not in known:
            task = definition.tasks[task_id]
            inputs = {one: self._expected(definition, one, known) for one in task.depends_on}
            module, _, function = task.entrypoint.partition(":")
            large = self.world.behaviours[module, function].large
            known[task_id] = result_of(module, function, inputs, large=large)
        return known[task_id]

    def judge_result(self, row: Any) -> None:
        """A committed result is there, whole, and what the function returned."""
        about = f"task {(row.run_id, row.task_id)}"
        digest = hashlib.sha256(self.expected(row.run_id, row.task_id)).hexdigest()
        self._demand(row.result_digest == digest, 5, f"{about}: not its result")
        there = row.result_digest in (self.rows.payloads if row.result_inline else self.world.objects)
        self._demand(there, 6, f"{about}: its result is not in the store")

    # ------------------------------------------------------------------ processes

    def memory_of(self, attempt_id: str) -> int:
        """What the attempt reserved."""
        row = self.rows.attempts.get(attempt_id)
        return row.memory_bytes if row is not None else 0

    def ordered(self, attempt_id: str, machine: str) -> None:
        """An agent asks its runtime to start an attempt."""
        earlier = self._ordered.get(attempt_id)
        self._demand(earlier is None, 15, f"{attempt_id} ordered on {machine}, before on {earlier}")
        self._ordered[attempt_id] = machine
        phase = self._phases.get((machine, attempt_id))
        self._demand(
            phase is Phase.STARTING, 15, f"{attempt_id} started without a journalled intent ({phase})"
        )

    def launched(self, proc: Proc) -> None:
        """A process exists."""
        self.trace("launch", proc.attempt_id, proc.machine)
        self._demand(proc.attempt_id not in self.procs, 15, f"{proc.attempt_id}: a second process")
        self.procs[proc.attempt_id] = proc
        row = self.rows.attempts.get(proc.attempt_id)
        self._demand(row is not None, 1, f"{proc.attempt_id}: a process of an attempt that is not on disk")
        if row is None:
            return
        node = self.world.node_of(row.agent_id)
        self._demand(node.name == proc.machine, 15, f"{proc.attempt_id}: runs on {proc.machine}")
        alive = [one for one in node.keepers.procs.values() if one.alive]
        memory = sum(one.memory_bytes for one in alive)
        self._demand(memory <= node.memory, 9, f"{node.name}: processes use {memory} of {node.memory}")
        self._demand(
            len(alive) <= node.slots, 9, f"{node.name}: {len(alive)} processes on {node.slots} slots"
        )
        for task_id, path in proc.order.inputs.items():
            right = path.read_bytes() == self.expected(row.run_id, task_id)
            self._demand(right, 7, f"{proc.attempt_id}: input {task_id} is not the outcome of its task")

    def ended(self, proc: Proc) -> None:
        """A process is gone."""
        self.trace("gone", proc.attempt_id)

    def building(self, build_id: str, machine: str) -> None:
        """An environment is being built."""
        self.trace("build", build_id, machine)
        row = self.rows.builds.get(build_id)
        if row is not None:
            # One that was given up with its node may go on there.
            over = row.state in (BuildState.READY, BuildState.FAILED)
            self._demand(not over, 25, f"{build_id} is built after its end")

    # ------------------------------------------------------------------ agents

    def journalled(self, node: Node, effects: list[Any]) -> None:
        """A commit of an agent's journal."""
        assert node.journal is not None
        for effect in effects:
            if isinstance(effect, do.SaveAttempt):
                key = (node.name, effect.attempt_id)
                before = self._phases.get(key, Phase.ACCEPTED)
                self._demand(
                    effect.phase >= before, 2, f"{effect.attempt_id}: journal back to {effect.phase.name}"
                )
                self._phases[key] = effect.phase
            elif isinstance(effect, do.SaveReport):
                report = effect.entry.report
                if isinstance(report, AttemptReport):
                    self._told.add((report.attempt_id, int(report.state)))
            elif isinstance(effect, do.DropReports):
                journal_id = node.journal.opened.journal_id
                acked = self.rows.acked[node.agent_id, journal_id]
                self._demand(
                    acked >= effect.seq,
                    13,
                    f"{node.name} forgets reports up to {effect.seq}, durable is {acked}",
                )

    def lost_journal(self, node: Node) -> None:
        """The machine crashed: what was journalled last may be gone."""
        for key in [key for key in self._phases if key[0] == node.name]:
            del self._phases[key]

    def agent_turned(self, node: Node) -> None:
        """An agent has taken what had gathered."""
        supervisor = node.supervisor
        if supervisor is None:
            return
        state = supervisor.state
        try:
            agent_invariants.validate(state)
        except AssertionError as error:
            self.fail(f"agent core: {error}")
        if state.synced:
            wanted = self._sets[node.agent_id].get(state.revision)
            self._demand(
                wanted is not None and wanted == state.desired,
                12,
                f"{node.name}: its set at {state.revision} differs: "
                f"{sorted((wanted or frozenset()) ^ state.desired)}",
            )
        box = state.outbox
        bound = box.window + 2 * (node.slots + len(state.attempts)) + 8
        self._demand(
            len(box.entries) + len(box.waiting) <= bound, 22, f"{node.name}: outbox of {len(box.entries)}"
        )
        self._judge_view(node)

    def _judge_view(self, node: Node) -> None:
        """The agent's lease ends before the control plane's (1.5)."""
        session, process = node.session, node.process
        if session is None or process is None or not session.active:
            return
        ends = process.true(session.lease.until)
        latest = self._heard.get(node.agent_id, 0.0) + session.lease.ttl
        self._demand(
            ends <= latest + 0.002 * session.lease.ttl,
            18,
            f"{node.name}: believes its lease until {ends:.3f}, the control plane until {latest:.3f}",
        )

    # ------------------------------------------------------------------ frames

    def frame(self, direction: int, agent: str, method: str, message: Any) -> None:
        """A message was taken by its receiver."""
        kind = message.WhichOneof("frame") if method == "Connect" else method
        self.trace("frame", direction, agent, kind, message.ByteSize())
        if method == "AppendLogs" and direction == DOWN:
            self._durable_offset(message)
        elif kind == "report":
            for entry in message.report.entries:
                if entry.WhichOneof("subject") == "attempt" and entry.attempt.state >= A.SUCCEEDED:
                    told = (entry.attempt.attempt_id, int(entry.attempt.state))
                    self._demand(told in self._told, 13, f"{told} reported before it is in the journal")

    def _durable_offset(self, answer: Any) -> None:
        key = (answer.log_id, answer.stream)
        if answer.refused:
            return
        before = self._durable.get(key, 0)
        self._demand(
            answer.durable_offset >= before, 21, f"log {key}: durable {before}, now {answer.durable_offset}"
        )
        self._durable[key] = max(before, answer.durable_offset)

    @property
    def durable_offsets(self) -> dict[tuple[str, int], int]:
        """What agents were told is safe, by log and stream."""
        return self._durable


def _signature(state: State, agent: Any) -> tuple[Any, ...]:
    dirty = state.dirty
    return (
        len(state.effects.items),
        len(dirty.attempts),
        len(dirty.tasks),
        len(dirty.agents),
        agent.attempt_limit,
        agent.build_limit,
        agent.state,
        agent.acked_seq,
        agent.pressure,
        agent.lease_start,
    )


def _difference(mine: Any, stored: Any) -> str:
    if isinstance(mine, dict) and isinstance(stored, dict):
        for key in [*mine, *stored]:
            if mine.get(key) != stored.get(key):
                return f"{key}: {_difference(mine.get(key), stored.get(key))}"
    return f"{str(mine)[:300]} != {str(stored)[:300]}"
