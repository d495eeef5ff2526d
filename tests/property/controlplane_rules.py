"""Rules for random histories of the control plane's core: any command, frame and fault at any time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentBye,
    AgentCredit,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    CancelRun,
    Command,
    EnsureImage,
    InventoryEntry,
    Promote,
    Remove,
    Reply,
    Rerun,
    Restore,
    SaveVersion,
    SessionClosed,
    SetNodeSchedulable,
    StartVersion,
    StopJob,
    Tick,
)
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.effects import Acknowledge
from opentailr_controlplane.core.errors import AlreadyExists, CoreError
from opentailr_controlplane.core.model import Agent, Attempt
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    Cause,
    CauseKind,
    Environment,
    ImageState,
    Payload,
    Recipe,
)

from .cluster import Cluster
from .fair import settle
from .workloads import GIB, GRAPHS, definition

AGENTS = ("agt_1", "agt_2", "agt_3")
NAMES = ("flow", "other")
HUGE = 1 << 62
LIVE = [state for state in AttemptState if not state.terminal]
TERMINAL = [state for state in AttemptState if state.terminal]
SETTINGS = CoreSettings(infra_budget=1, placement_age=5 * SECOND, idempotency_life=40 * SECOND)
WAITS = (0.0, 0.4, 2.0, 5.0, 14.0, 21.0, 60.0)


class ControlPlaneMachine(RuleBasedStateMachine):
    """`Cluster` checks after each commit; a rule may leave its step for the next one's commit."""

    compare_every = 16

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(SETTINGS, compare_every=self.compare_every)
        self.gathered = 0
        self.seqs: dict[tuple[str, str], int] = {}
        self.past: list[AgentReport] = []
        self.answers: dict[str, tuple[str, Reply, int]] = {}
        self.runs = 0

    # ---------------------------------------------------------------- carrying out

    def submit(self, event: Any) -> Any:
        """Steps; the commit comes at once unless the round gathers more."""
        refusable = isinstance(event, (Command, AgentHello))
        view = durable_view(self.cluster.state) if refusable else None
        reply = None
        try:
            reply = self.cluster.step(event)
        except CoreError as error:
            assert error.message, "a refusal says why"
            assert durable_view(self.cluster.state) == view, "a refused command changed something"
        finally:
            if self.gathered:
                self.gathered -= 1
            if not self.gathered:
                self.cluster.commit()
        return reply

    def finish(self) -> None:
        self.gathered = 0
        self.cluster.commit()

    def seq(self, agent: Agent) -> int:
        """The next number of the agent's journal."""
        key = (agent.agent_id, agent.journal_id)
        self.seqs[key] = max(self.seqs.get(key, 0), agent.acked_seq) + 1
        return self.seqs[key]

    def connected(self) -> list[Agent]:
        return [agent for agent in self.cluster.state.agents.values() if agent.state.connected]

    # ---------------------------------------------------------------- rounds, time and faults

    @rule(count=st.integers(2, 5))
    def gather(self, count: int) -> None:
        """The next steps share one commit."""
        self.gathered = count

    @rule(
        seconds=st.sampled_from(WAITS),
        late=st.sampled_from([False, False, False, True]),
        joined=st.booleans(),
    )
    def wait(self, seconds: float, late: bool, joined: bool = False) -> None:
        """Time goes on; with `joined` what is due then shares its commit with the next step."""
        self.finish()
        delta = round(seconds * SECOND)
        self.cluster.set_clock(wall=delta, mono=delta)
        self.gathered = 2 if joined else 0
        self.submit(Tick(late))

    @rule(seconds=st.sampled_from([-3600, -7, 7, 3600]))
    def set_wall_clock(self, seconds: int) -> None:
        """Somebody sets the clock: no lease may end by it."""
        self.finish()
        self.cluster.set_clock(wall=seconds * SECOND)
        self.submit(Tick())

    @rule(how=st.sampled_from(["clean", "rollback"]))
    def restart(self, how: str) -> None:
        if how == "clean":
            self.finish()
            self.cluster.restart()
        else:
            # Frames and answers of the failed round were never sent.
            self.gathered = 0
            self.cluster.rollback()
            kept = self.cluster.state.remembered
            self.answers = {key: value for key, value in self.answers.items() if ("alice", key) in kept}

    # ---------------------------------------------------------------- people

    @rule(
        name=st.sampled_from(NAMES),
        graph=st.sampled_from(GRAPHS),
        memory=st.sampled_from([GIB // 4, GIB, 3 * GIB]),
        requirements=st.sampled_from(["", "numpy"]),
        pre=st.sampled_from(["", "", "", "apt-get install gcc"]),
        fail_after=st.sampled_from([0, 0, 4 * SECOND]),
        expire_after=st.sampled_from([0, 3 * SECOND]),
        verified=st.sampled_from([True, True, False]),
        schedule=st.sampled_from(["", "", "", "0 0 * * *"]),
        start=st.booleans(),
    )
    def save(self, name: str, start: bool, **options: Any) -> None:
        self.submit(SaveVersion("alice", definition(name=name, **options)))
        if start:
            self.start(name, 0)

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from([0, 0, 1, 2, 99]))
    def start(self, name: str, version: int) -> None:
        if len(self.cluster.state.runs) < 6:
            self.submit(StartVersion("alice", name, Environment.DEV, version))

    @rule(key=st.sampled_from(["k1", "k2"]), digest=st.sampled_from(["d1", "d1", "d2"]))
    def once(self, key: str, digest: str) -> None:
        """Equal key and request: the same answer and no second run (invariant 24)."""
        command = StartVersion("alice", "flow", idempotency_key=key, request_digest=digest)
        before = self.cluster.state.next_run
        known = self.cluster.state.remembered.get(("alice", key))
        if key in self.answers and self.answers[key][2] > self.cluster.now.wall:
            assert known is not None, "an answer was forgotten before its time"
        try:
            reply = self.cluster.do(command)
        except AlreadyExists:
            assert known is not None and known.request_digest != digest
            assert self.cluster.state.next_run == before
            return
        except CoreError:
            return
        assert isinstance(reply, Reply)
        if known is not None:
            assert known.request_digest == digest and reply == known.reply
            assert self.cluster.state.next_run == before
            assert self.answers[key][:2] == (digest, reply), "another answer than the first"
        expire = self.cluster.now.wall + SETTINGS.idempotency_life
        self.answers.setdefault(key, (digest, reply, expire))
        if known is None:
            self.answers[key] = (digest, reply, expire)

    @rule(data=st.data(), full=st.booleans(), version=st.sampled_from([0, 0, 1]))
    @precondition(lambda self: self.cluster.state.next_run > 1)
    def rerun(self, data: st.DataObject, full: bool, version: int) -> None:
        run_id = data.draw(st.integers(1, self.cluster.state.next_run))
        if len(self.cluster.state.runs) < 6:
            self.submit(Rerun("alice", run_id, version, full))

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.state.next_run > 1)
    def cancel(self, data: st.DataObject) -> None:
        active = sorted(self.cluster.state.runs)
        anything = st.integers(0, self.cluster.state.next_run)
        self.submit(CancelRun("bob", data.draw(st.sampled_from(active) | anything if active else anything)))

    @rule(
        name=st.sampled_from(NAMES),
        environment=st.sampled_from([Environment.DEV, Environment.DEV, Environment.PRE, Environment.PROD]),
        version=st.sampled_from([0, 0, 1]),
        what=st.sampled_from(["stop", "stop one", "remove", "latest", "restore", "promote", "promote all"]),
    )
    def job(self, name: str, environment: Environment, version: int, what: str) -> None:
        active = min(self.cluster.state.runs, default=1)
        commands = {
            "stop": StopJob("bob", name, environment),
            "stop one": StopJob("bob", name, environment, active),
            "remove": Remove("bob", name, environment),
            "latest": Remove("bob", name, environment, all_versions=False),
            "restore": Restore("bob", name, environment, version),
            "promote": Promote("bob", name, environment, version),
            "promote all": Promote("bob", name, None, version),
        }
        self.submit(commands[what])

    @rule(requirements=st.sampled_from(["", "numpy"]))
    def ensure(self, requirements: str) -> None:
        self.submit(EnsureImage("alice", Recipe("3.11", requirements)))

    @rule(agent=st.sampled_from((*AGENTS, "nobody")), schedulable=st.booleans())
    def drain(self, agent: str, schedulable: bool) -> None:
        self.submit(SetNodeSchedulable("admin", agent, schedulable))

    # ---------------------------------------------------------------- sessions

    @rule(
        agent=st.sampled_from(AGENTS),
        journal=st.sampled_from(["j1", "j1", "j1", "j2"]),
        keeps=st.sampled_from(["all", "all", "none", "ended", "odd"]),
        memory=st.sampled_from([2 * GIB, 4 * GIB]),
        slots=st.sampled_from([0, 1, 3, 3]),
        ready=st.sampled_from([True, True, True, False]),
        last_epoch=st.sampled_from([0, 0, 7]),
        pre=st.booleans(),
    )
    def join(
        self, agent: str, journal: str, keeps: str, memory: int, slots: int, ready: bool, last_epoch: int,
        pre: bool,
    ) -> None:  # fmt: skip
        epoch = self.submit(
            AgentHello(
                agent, f"node {agent}", "boot", journal, memory, 2.0, slots, image_keys=("at hand",),
                allows_pre_scripts=pre, inventory=self.inventory(agent, keeps), last_epoch=last_epoch,
            )
        )  # fmt: skip
        if ready and epoch is not None:
            self.finish()
            self.submit(AgentApplied(agent, epoch, self.cluster.state.agents[agent].full_revision))
            self.submit(AgentCredit(agent, epoch, slots, 2))

    def inventory(self, agent: str, keeps: str) -> tuple[InventoryEntry, ...]:
        known = self.cluster.state.agents.get(agent)
        own = list(known.attempts.values()) if known is not None and keeps != "none" else []
        told = AttemptState.FAILED if keeps == "ended" else AttemptState.RUNNING
        entries = [InventoryEntry(attempt.attempt_id, attempt.fence, told) for attempt in own]
        if keeps == "odd":
            others = [item for item in self.cluster.state.attempts.values() if item.agent_id != agent]
            entries = [
                *entries,
                *entries[:1],
                *(InventoryEntry(item.attempt_id, item.fence + 1, told) for item in own),
                *(InventoryEntry(item.attempt_id, item.fence, told) for item in others),
                InventoryEntry("att_of_nobody", HUGE, AttemptState.SUCCEEDED),
                InventoryEntry("att_of_nobody_either", -1, AttemptState.ASSIGNED),
            ]
        return tuple(entries)

    @rule(agent=st.sampled_from(AGENTS), how=st.sampled_from(["beat", "pressed", "credit", "apply", "full"]))
    def frame(self, agent: str, how: str) -> None:
        known = self.cluster.state.agents.get(agent)
        if known is None:
            return
        now, epoch = self.cluster.now.mono, known.epoch
        frames = {
            "beat": AgentHeartbeat(agent, epoch, 1, now),
            "pressed": AgentHeartbeat(agent, epoch, 2, now - SECOND, "the disk is full"),
            "credit": AgentCredit(agent, epoch, known.attempts_sent + 2, known.builds_sent + 1),
            "apply": AgentApplied(agent, epoch, known.full_revision),
            "full": AgentApplied(agent, epoch, 0, need_full=True),
        }
        self.submit(frames[how])

    @rule(agent=st.sampled_from(AGENTS), how=st.sampled_from(["cut", "bye", "stay"]))
    def leave(self, agent: str, how: str) -> None:
        known = self.cluster.state.agents.get(agent)
        if known is not None:
            gone = SessionClosed(agent, known.epoch)
            self.submit(gone if how == "cut" else AgentBye(agent, known.epoch, how == "stay"))

    @rule(agent=st.sampled_from((*AGENTS, "nobody")), off=st.sampled_from([-1, 1, HUGE]), data=st.data())
    def stray_frame(self, agent: str, off: int, data: st.DataObject) -> None:
        """A frame of a session that is not the present one changes nothing (invariant 11)."""
        known = self.cluster.state.agents.get(agent)
        epoch = (known.epoch if known is not None else 0) + off
        attempts = sorted(self.cluster.state.attempts)
        key = data.draw(st.sampled_from(attempts)) if attempts else "att_of_nobody"
        frames = [
            AgentHeartbeat(agent, epoch, HUGE, HUGE),
            AgentCredit(agent, epoch, HUGE, HUGE),
            AgentApplied(agent, epoch, HUGE),
            AgentApplied(agent, epoch, HUGE, need_full=True),
            AgentBye(agent, epoch, False),
            SessionClosed(agent, epoch),
            AgentReport(agent, epoch, (AttemptReport(HUGE, key, 1, AttemptState.SUCCEEDED),)),
        ]
        view = durable_view(self.cluster.state)
        told = len(self.cluster.state.effects.items)
        self.cluster.step(data.draw(st.sampled_from(frames)))
        assert durable_view(self.cluster.state) == view
        assert len(self.cluster.state.effects.items) == told

    @rule(what=st.sampled_from(["", "agt"]))
    def bad_hello(self, what: str) -> None:
        self.submit(AgentHello(what, "", "", "", 0, 0, 0))

    # ---------------------------------------------------------------- reports

    def entry(self, agent: Agent, attempt: Attempt, state: AttemptState, **options: Any) -> AttemptReport:
        return AttemptReport(self.seq(agent), attempt.attempt_id, attempt.fence, state, **options)

    @rule(
        data=st.data(),
        state=st.sampled_from(AttemptState) | st.sampled_from(TERMINAL),
        kind=st.sampled_from(CauseKind),
        present=st.sampled_from([True, True, False]),
        odd=st.sampled_from([0, 0, 0, -HUGE, HUGE]),
    )
    @precondition(lambda self: self.cluster.state.attempts)
    def report(
        self, data: st.DataObject, state: AttemptState, kind: CauseKind, present: bool, odd: int
    ) -> None:
        """The owner reports anything."""
        attempts = self.cluster.state.attempts
        attempt = attempts[data.draw(st.sampled_from(sorted(attempts)))]
        agent = self.cluster.state.agents[attempt.agent_id]
        result = Payload("d" * 64, 1, b"1") if state is AttemptState.SUCCEEDED else None
        entry = self.entry(
            agent, attempt, state, cause=Cause(kind, "because", "trace") if kind else None, result=result,
            result_present=present, started_at=odd, ended_at=odd, observed_at=odd, preview="1",
            peak_memory_bytes=abs(odd),
        )  # fmt: skip
        event = AgentReport(agent.agent_id, agent.epoch, (entry,))
        self.past.append(event)
        self.submit(event)

    @rule(data=st.data(), first=st.sampled_from(LIVE), second=st.sampled_from(AttemptState))
    def walk(self, data: st.DataObject, first: AttemptState, second: AttemptState) -> None:
        """A batch that moves an attempt twice; what the table does not have is inert."""
        chosen = [
            attempt
            for attempt in self.cluster.state.attempts.values()
            if attempt.state <= first and self.cluster.state.agents[attempt.agent_id].state.connected
        ]
        if not chosen:
            return
        attempt = data.draw(st.sampled_from(chosen))
        agent = self.cluster.state.agents[attempt.agent_id]
        entries = tuple(self.entry(agent, attempt, state) for state in (first, second))
        self.submit(AgentReport(agent.agent_id, agent.epoch, entries))

    @rule(data=st.data(), wrong=st.sampled_from(["fence", "agent", "id"]), state=st.sampled_from(TERMINAL))
    @precondition(lambda self: self.cluster.state.attempts and self.connected())
    def stale(self, data: st.DataObject, wrong: str, state: AttemptState) -> None:
        """Inert, and acknowledged all the same (invariant 4)."""
        self.finish()
        attempts = self.cluster.state.attempts
        attempt = attempts[data.draw(st.sampled_from(sorted(attempts)))]
        agents = [
            agent for agent in self.connected() if (agent.agent_id != attempt.agent_id) == (wrong == "agent")
        ]
        if not agents:
            return
        agent = data.draw(st.sampled_from(agents))
        seq = self.seq(agent)
        key = f"{attempt.attempt_id}_1" if wrong == "id" else attempt.attempt_id
        fence = attempt.fence + (wrong == "fence")
        cause = Cause(CauseKind.EXCEPTION, "because")
        before = self.inert_view()
        self.submit(
            AgentReport(agent.agent_id, agent.epoch, (AttemptReport(seq, key, fence, state, cause=cause),))
        )
        assert self.inert_view() == before
        assert Acknowledge(agent.agent_id, agent.epoch, seq) in self.cluster.effects

    def inert_view(self) -> dict[str, Any]:
        """The durable state without the numbers of acknowledged reports."""
        view = durable_view(self.cluster.state)
        for agent in view["agents"].values():
            del agent["acked_seq"]
        return view

    @rule(data=st.data())
    @precondition(lambda self: self.past)
    def repeat(self, data: st.DataObject) -> None:
        """Delivering it again leads to the same state (invariant 14)."""
        event = data.draw(st.sampled_from(self.past[-6:]))
        agent = self.cluster.state.agents[event.agent_id]
        if event.epoch == agent.epoch and event.entries[0].report_seq > agent.acked_seq:
            return
        self.finish()
        view = durable_view(self.cluster.state)
        self.submit(event)
        assert durable_view(self.cluster.state) == view

    @rule(
        data=st.data(),
        states=st.lists(st.sampled_from(ImageState), min_size=1, max_size=2),
        kind=st.sampled_from([None, CauseKind.BUILD_FAILED, CauseKind.NODE_FAULT]),
        stranger=st.sampled_from([False, False, False, True]),
    )
    @precondition(lambda self: any(build.agent_id for build in self.cluster.state.builds.values()))
    def build(
        self, data: st.DataObject, states: list[ImageState], kind: CauseKind | None, stranger: bool
    ) -> None:
        builds = [build for build in self.cluster.state.builds.values() if build.agent_id]
        build = data.draw(st.sampled_from(builds))
        agents = [agent for agent in self.connected() if (agent.agent_id != build.agent_id) == stranger]
        if not agents:
            return
        agent = data.draw(st.sampled_from(agents))
        entries = tuple(
            BuildReport(
                self.seq(agent), build.build_id, build.image_key, state,
                cause=Cause(kind, "no") if kind is not None and state is ImageState.FAILED else None,
            )
            for state in states
        )  # fmt: skip
        before = self.inert_view()
        self.submit(AgentReport(agent.agent_id, agent.epoch, entries))
        assert not stranger or self.gathered or self.inert_view() == before

    # ---------------------------------------------------------------- the usual course, and the end

    @rule(rounds=st.integers(1, 3), outcome=st.sampled_from([AttemptState.RUNNING, AttemptState.SUCCEEDED]))
    def work(self, rounds: int, outcome: AttemptState) -> None:
        """Nodes come, builds succeed, attempts go on."""
        self.finish()
        settle(self.cluster, AGENTS, self.seq, rounds=rounds, outcome=outcome)

    def teardown(self) -> None:
        try:
            self.finish()
            for agent in AGENTS:
                if agent in self.cluster.state.agents:
                    self.cluster.do(SetNodeSchedulable("admin", agent, True))
            settle(self.cluster, AGENTS, self.seq, rounds=60)
            state = self.cluster.state
            assert not state.runs, "a run never ends although all is well (liveness)"
            assert not state.attempts and not state.builds and not state.queued
            assert not any(agent.memory_reserved or agent.cpu_reserved for agent in state.agents.values())
            self.cluster.restart()
            self.report_reached()
        finally:
            self.cluster.close()

    def report_reached(self) -> None:
        """For who counts the steps that were reached."""
