"""Both cores against one another: the real control plane's and the real agents', with frames between them.

What lies between is the smallest that tells them apart: streams in order that may be cut at either end, a
journal that survives, processes that outlive their agent, and a clock. Every choice is an action, so that a
history is a list of actions, drawn at random or explored one and all.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, cast

from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.invariants import validate as validate_node
from opentailr_agent.core.machine import step as node_step
from opentailr_agent.core.model import AttemptRecord, NodeState, Phase, StoredResult
from opentailr_agent.core.model import BuildState as NodeBuild
from opentailr_agent.core.model import Cause as NodeCause
from opentailr_agent.core.model import CauseKind as NodeCauseKind
from opentailr_agent.core.outbox import Entry
from opentailr_agent.ports import Adopted, EndState, Outcome
from opentailr_controlplane.core import effects as fx
from opentailr_controlplane.core.batch import collect
from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentEvent,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    CancelRun,
    Command,
    InventoryEntry,
    SaveVersion,
    SessionClosed,
    SetNodeSchedulable,
    StartVersion,
    Tick,
)
from opentailr_controlplane.core.invariants import History, validate
from opentailr_controlplane.core.machine import finish, step
from opentailr_controlplane.core.model import Run, State
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    Instant,
    TaskState,
)

from .cluster import START
from .reborn import reborn
from .sides import Link, Node, assigned, shown, told
from .workloads import GIB, definition

Action = tuple[Any, ...]


class Joint:
    """A control plane and some agents."""

    def __init__(self, *, nodes: int = 2, slots: int = 1, settings: CoreSettings | None = None) -> None:
        self.settings = settings or CoreSettings(infra_budget=2, infra_backoff=SECOND)
        self.now: Instant = START
        self.state = State(self.settings, "test")
        self.history = History()
        self.links: list[Link] = []
        self.greeting: Link | None = None
        self.runs: list[Run] = []
        self.nodes = [
            Node(f"agt_{number}", slots, NodeState(slots=slots, build_slots=1)) for number in range(nodes)
        ]
        for node in self.nodes:
            self.feed(node, ev.Recovered({}))

    def copy(self) -> bytes:
        """The whole world, to go on from later with `restore`."""
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def restore(data: bytes) -> Joint:
        """A world as it was."""
        return cast(Joint, pickle.loads(data))

    # ------------------------------------------------------------------ the control plane

    def command(self, event: Command | AgentEvent | Tick) -> Any:
        """One step and its commit; the effects go onto their streams."""
        before = set(self.state.runs)
        reply = step(self.state, event, self.now)
        self._commit()
        self.runs += [run for key, run in self.state.runs.items() if key not in before]
        return reply

    def _commit(self) -> None:
        finish(self.state, self.now)
        collect(self.state)
        effects, self.state.effects = self.state.effects.items, fx.Effects()
        validate(self.state)
        self.history.observe(self.state, effects, self.now)
        for effect in effects:
            for link in self.links:
                # The epoch is told to the stream by the answer to its Hello, which is in this commit.
                if isinstance(effect, fx.Welcome) and link is self.greeting:
                    link.epoch = effect.epoch
                if link.agent_id == effect.agent_id and link.epoch == effect.epoch and link.open:
                    link.down.append(effect)
                    if isinstance(effect, fx.Dismiss):
                        link.open = False

    def begin(self, graph: tuple[tuple[int, ...], ...], *, requirements: str = "") -> None:
        """Saves and starts a workflow."""
        self.command(SaveVersion("alice", definition(graph, requirements=requirements, memory=GIB)))
        self.command(StartVersion("alice", "flow"))

    # ------------------------------------------------------------------ a node

    def feed(self, node: Node, event: ev.Event) -> None:
        """One event of the agent's core: journal first, then the actions."""
        out = node_step(node.core, event, self.now.wall)
        for effect in out:
            match effect:
                case do.SaveAttempt():
                    node.attempts[effect.attempt_id] = (effect.fence, effect.phase)
                case do.DropAttempt():
                    node.attempts.pop(effect.attempt_id, None)
                case do.SaveReport():
                    node.reports[effect.entry.seq] = effect.entry
                    node.next_seq = effect.entry.seq + 1
                case do.DropReports():
                    known = self.state.agents[node.agent_id]
                    if known.journal_id == f"{node.agent_id}/{node.journal}":
                        assert effect.seq <= known.acked_seq, "a report was dropped before its commit"
                    node.reports = {seq: entry for seq, entry in node.reports.items() if seq > effect.seq}
                case do.SaveRevision():
                    node.revision = effect.revision
                case _:
                    pass
        for effect in out:
            self._act(node, effect)
        validate_node(node.core)

    def _act(self, node: Node, effect: do.Effect) -> None:
        link = node.link
        match effect:
            case do.Start():
                node.starts[effect.attempt_id] = node.starts.get(effect.attempt_id, 0) + 1
                assert node.starts[effect.attempt_id] == 1, f"{effect.attempt_id} was started twice"
                node.work.append(effect)
            case do.Stop():
                if effect.attempt_id in node.processes:
                    self._end(node, effect.attempt_id, EndState.STOPPED)
            case do.SendApplied() if link is not None:
                link.up.append(("applied", effect.revision, effect.need_full))
            case do.SendCredit() if link is not None:
                link.up.append(("credit", effect.attempt_limit, effect.build_limit))
            case do.SendReports() if link is not None:
                link.up.append(("report", tuple(effect.entries)))
            case do.Prepare() | do.StoreResult() | do.FinishLogs() | do.Remove() | do.Build():
                node.work.append(effect)
            case do.CancelPreparation():
                node.work = [
                    item
                    for item in node.work
                    if not (isinstance(item, do.Prepare) and item.attempt_id == effect.attempt_id)
                ]
            case do.CancelBuild():
                node.work = [
                    item
                    for item in node.work
                    if not (isinstance(item, do.Build) and item.build_id == effect.build_id)
                ]
            case _:
                pass

    def _end(self, node: Node, key: str, end: EndState) -> None:
        node.processes.discard(key)
        result = b"r" if end is EndState.SUCCEEDED else None
        node.outcomes[key] = Outcome(key, end, result=result, exit_code=0 if result else 1)
        node.work.append(cast(do.Action, ("ended", key)))

    # ------------------------------------------------------------------ what may happen next

    def actions(self) -> Iterator[Action]:
        """Every step of this moment; the same world gives the same ones in the same order."""
        for number, node in enumerate(self.nodes):
            if node.link is None:
                yield ("dial", number)
            elif node.link.down:
                yield ("down", number)
            if node.core.outbox.waiting and node.core.connected:
                yield ("flush", number)
            if node.work:
                yield ("work", number)
            for key in sorted(node.processes):
                yield ("end", number, key)
        for number, link in enumerate(self.links):
            if link.open and link.up:
                yield ("up", number)
            if not link.alive and link.open:
                yield ("close", number)

    def faults(self) -> Iterator[Action]:
        """Everything that may go wrong, and what people may ask for, at this moment."""
        for number, node in enumerate(self.nodes):
            if node.link is not None:
                yield ("cut", number)
                yield ("silence", number)
            yield ("crash", number)
            yield ("reboot", number)
            if node.processes:
                yield ("keeper", number)
            if node.work:
                match node.work[0]:
                    case do.Start():
                        yield ("refuse", number)
                    case do.Prepare():
                        yield ("unready", number)
                    case do.Build():
                        yield ("unbuilt", number)
                    case _:
                        pass
        yield ("restart",)
        for run_id in sorted(self.state.runs):
            yield ("cancel", run_id)
        for agent in self.state.agents.values():
            yield ("drain", agent.agent_id, not agent.schedulable)

    def act(self, action: Action) -> None:
        """Carries out one of `actions` or `faults`, and checks what only both sides together can show."""
        getattr(self, f"_do_{action[0]}")(*action[1:])
        self.links = [link for link in self.links if link.open or link.alive]
        self.check()

    # Streams.

    def _do_dial(self, number: int) -> None:
        node = self.nodes[number]
        inventory = tuple(
            InventoryEntry(record.attempt_id, record.fence, shown(record))
            for record in node.core.attempts.values()
            if record.phase < Phase.ACKNOWLEDGED
        )
        hello = AgentHello(
            node.agent_id, node.agent_id, "boot", f"{node.agent_id}/{node.journal}", 8 * GIB, 8.0, node.slots,
            inventory=inventory, last_epoch=node.epoch,
        )  # fmt: skip
        node.link = Link(node.agent_id, [hello])
        self.links.append(node.link)

    def _do_up(self, number: int) -> None:
        link = self.links[number]
        frame = link.up.pop(0)
        if isinstance(frame, AgentHello):
            self.greeting = link
            self.command(frame)
            self.greeting = None
            return
        kind, *rest = frame
        if kind == "applied":
            self.command(AgentApplied(link.agent_id, link.epoch, *rest))
        elif kind == "credit":
            self.command(AgentCredit(link.agent_id, link.epoch, *rest))
        else:
            entries = tuple(told(entry) for entry in rest[0])
            self.command(AgentReport(link.agent_id, link.epoch, entries))

    def _do_close(self, number: int) -> None:
        """The control plane sees that the other end is gone; what was under way is lost."""
        link = self.links[number]
        link.open = False
        link.up.clear()
        if link.epoch:
            self.command(SessionClosed(link.agent_id, link.epoch))

    def _do_down(self, number: int) -> None:
        node = self.nodes[number]
        assert node.link is not None
        effect = node.link.down.pop(0)
        match effect:
            case fx.Welcome():
                kinds = {
                    kind: frozenset(key for key, verdict in effect.verdicts if verdict is kind)
                    for kind in fx.VerdictKind
                }
                node.epoch = effect.epoch
                keep, stop, forget = (kinds[kind] for kind in fx.VerdictKind)
                self.feed(node, ev.Welcomed(keep, stop, forget, effect.acked_seq))
            case fx.Desired():
                self.feed(node, assigned(effect))
            case fx.Acknowledge():
                self.feed(node, ev.Acknowledged(effect.report_seq))
            case fx.Dismiss():
                self._do_cut(number)
            case _:
                pass

    def _do_cut(self, number: int) -> None:
        """The agent sees the end of its stream; the other side may yet read what was sent."""
        node = self.nodes[number]
        assert node.link is not None
        node.link.alive = False
        node.link.down.clear()
        node.link = None
        if node.core.connected:
            self.feed(node, ev.Disconnected())

    # Work of a node.

    def _do_flush(self, number: int) -> None:
        self.feed(self.nodes[number], ev.FlushDue())

    def _do_work(self, number: int) -> None:
        node = self.nodes[number]
        item: Any = node.work.pop(0)
        match item:
            case do.Prepare():
                self.feed(node, ev.Prepared(item.attempt_id))
            case do.Start():
                node.processes.add(item.attempt_id)
                self.feed(node, ev.HandedOver(item.attempt_id))
                if item.attempt_id in node.processes:
                    self.feed(node, ev.ProcessStarted(item.attempt_id, self.now.wall))
            case do.StoreResult():
                self.feed(node, ev.ResultStored(item.attempt_id, StoredResult(1, digest="d" * 64)))
            case do.FinishLogs():
                self.feed(node, ev.LogsShipped(item.log_id))
            case do.Remove():
                self.feed(node, ev.Removed(item.attempt_id))
            case do.Build():
                self.feed(node, ev.BuildEnded(item.build_id, NodeBuild.READY))
            case ("ended", key) if key in node.outcomes:
                self.feed(node, ev.ProcessEnded(node.outcomes[key]))
            case _:
                pass

    def _do_end(self, number: int, key: str) -> None:
        self._end(self.nodes[number], key, EndState.SUCCEEDED)

    # Faults.

    def _do_refuse(self, number: int) -> None:
        node = self.nodes[number]
        item = cast(do.Start, node.work.pop(0))
        self.feed(node, ev.StartFailed(item.attempt_id, "no room"))

    def _do_unready(self, number: int) -> None:
        node = self.nodes[number]
        item = cast(do.Prepare, node.work.pop(0))
        self.feed(node, ev.PrepareFailed(item.attempt_id, NodeCause(NodeCauseKind.NODE_FAULT, "no disk")))

    def _do_unbuilt(self, number: int) -> None:
        node = self.nodes[number]
        item = cast(do.Build, node.work.pop(0))
        cause = NodeCause(NodeCauseKind.NODE_FAULT, "no network")
        self.feed(node, ev.BuildEnded(item.build_id, NodeBuild.FAILED, cause))

    def _do_keeper(self, number: int) -> None:
        node = self.nodes[number]
        for key in sorted(node.processes):
            self._end(node, key, EndState.LOST)

    def _do_crash(self, number: int) -> None:
        """The agent's process is killed and begins again; the machine's other processes go on."""
        self._begin_again(self.nodes[number], rebooted=False)

    def _do_reboot(self, number: int) -> None:
        node = self.nodes[number]
        node.processes.clear()
        node.outcomes.clear()
        node.journal += 1
        renumbered = enumerate((node.reports[seq].report for seq in sorted(node.reports)), 1)
        node.reports = {seq: Entry(seq, report) for seq, report in renumbered}
        node.next_seq = len(node.reports) + 1
        self._begin_again(node, rebooted=True)

    def _begin_again(self, node: Node, *, rebooted: bool) -> None:
        if node.link is not None:
            node.link.alive = False
            node.link.down.clear()
            node.link = None
        started = {item.attempt_id for item in node.work if isinstance(item, do.Start)}
        node.work.clear()
        node.core = core = NodeState(slots=node.slots, build_slots=1)
        for key, (fence, phase) in node.attempts.items():
            core.attempts[key] = AttemptRecord(key, fence, phase)
        core.outbox.entries.extend(node.reports[seq] for seq in sorted(node.reports))
        core.outbox.next_seq = node.next_seq
        core.outbox.restart()
        core.revision = node.revision
        node.epoch = 0
        for entry in core.outbox.entries:
            record = core.attempts.get(entry.report.subject)
            if record is not None:
                record.told = max(record.told, int(entry.report.state))
        found = {key: Adopted(key, running=True) for key in node.processes}
        found |= {key: Adopted(key, running=False, outcome=outcome) for key, outcome in node.outcomes.items()}
        assert not started & set(found), "an order that was not carried out has no process"
        self.feed(node, ev.Recovered(found, rebooted=rebooted))

    def _do_restart(self) -> None:
        """The control plane is killed and begins again; all streams end."""
        self.state = reborn(self.state, self.now)
        self.history.revisions.clear()
        for number, node in enumerate(self.nodes):
            if node.link is not None:
                self._do_cut(number)
        self.links.clear()
        self._commit()

    def _do_cancel(self, run_id: int) -> None:
        self.command(CancelRun("bob", run_id))

    def _do_drain(self, agent_id: str, schedulable: bool) -> None:
        self.command(SetNodeSchedulable("admin", agent_id, schedulable))

    def _do_silence(self, number: int) -> None:
        """Time goes on until the lease of one agent is over; all others are heard."""
        for _ in range(5):
            self.advance(5, silent=self.nodes[number].agent_id)

    def advance(self, seconds: int, *, silent: str = "") -> None:
        """Time goes on; who has a session is heard, and what is due happens."""
        self.now = Instant(self.now.wall + seconds * SECOND, self.now.mono + seconds * SECOND)
        for link in self.links:
            if link.open and link.alive and link.epoch and link.agent_id != silent:
                self.command(AgentHeartbeat(link.agent_id, link.epoch, 1, self.now.mono))
        self.command(Tick())

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Rules about both sides at once."""
        for node in self.nodes:
            assert node.core.live_attempts <= node.slots, f"{node.agent_id} has more than it offers (10)"
            link, known = node.link, self.state.agents.get(node.agent_id)
            if link is None or known is None or link.epoch != known.epoch or link.up or link.down:
                continue
            if not (node.core.synced and link.open):
                continue
            where = f"{node.agent_id} in a quiet session"
            assert node.core.revision == known.revision, f"{where}: revisions differ (12)"
            assert node.core.desired == set(known.attempts) | set(known.builds), f"{where}: sets differ (12)"
            sent, received = known.attempts_sent, node.core.received_attempts
            assert sent == received, f"{where}: {sent} attempts sent, {received} received (10)"
            sent, received = known.builds_sent, node.core.received_builds
            assert sent == received, f"{where}: {sent} builds sent, {received} received (10)"
            for attempt in known.attempts.values():
                record = node.core.attempts[attempt.attempt_id]
                over = record.phase >= Phase.ACKNOWLEDGED
                assert not over or attempt.state.terminal, f"{attempt.attempt_id}: its end was not heard (4)"
        for run in self.runs:
            for task in run.tasks.values():
                if task.state is TaskState.SUCCEEDED:
                    ends = [node.outcomes.get(task.attempt_id) for node in self.nodes]
                    assert any(end and end.state is EndState.SUCCEEDED for end in ends) or not any(ends)

    def settle(self) -> None:
        """Faults stop: everything ends and nothing is left over on either side (29 to 31)."""
        for agent_id in list(self.state.agents):
            self._do_drain(agent_id, True)
        for _ in range(60):
            for _ in range(400):
                action = next(self.actions(), None)
                if action is None:
                    break
                self.act(action)
            else:
                raise AssertionError("there is always one thing more to do")
            quiet = not (self.state.runs or self.state.attempts or self.state.builds)
            if quiet and all(not node.core.attempts and not node.core.outbox.entries for node in self.nodes):
                break
            self.advance(1)
        state = self.state
        assert not state.runs, f"never ends: {[(r.state.name, r.tasks) for r in state.runs.values()]}"
        assert not state.attempts and not state.builds, f"left behind: {state.attempts} {state.builds}"
        for node in self.nodes:
            assert not node.core.attempts and not node.processes, f"{node.agent_id}: {node.core.attempts}"
            assert not node.core.outbox.entries, f"{node.agent_id}: something is not acknowledged"
