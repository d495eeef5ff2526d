"""Random histories of the core: any command and frame at any time, stale and impossible ones included."""

from __future__ import annotations

import copy

from cp_world import GIB, World, task
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from opentailr_controlplane.core.commands import (
    AgentBye,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    CancelRun,
    EnsureImage,
    InventoryEntry,
    Promote,
    Remove,
    Rerun,
    Restore,
    SetNodeSchedulable,
    StartVersion,
    StopJob,
)
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.errors import CoreError
from opentailr_controlplane.core.model import NeedsPrior, PriorRun, PriorTask, Run
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    Cause,
    CauseKind,
    ImageState,
    Payload,
    Recipe,
)

AGENTS = ("agt_1", "agt_2")
NAMES = ("flow", "other")
GRAPHS = ((), ((0,),), ((0,), (0,)), ((0,), (1,)), ((), (0, 1)))
TERMINAL = [state for state in AttemptState if state.terminal]


class CoreMachine(RuleBasedStateMachine):
    """Rules over a world; `World` checks the invariants after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CoreSettings(infra_budget=1, placement_age=5 * SECOND))
        self.ended: dict[int, Run] = {}
        self.old: list[AgentReport] = []

    def try_do(self, event: object) -> object:
        """A refused command must change nothing that is kept."""
        before = copy.deepcopy(durable_view(self.world.state))
        active = dict(self.world.state.runs)
        try:
            return self.world.do(event)  # type: ignore[arg-type]
        except (CoreError, NeedsPrior):
            assert durable_view(self.world.state) == before
            return None
        finally:
            self.ended.update(
                {run_id: run for run_id, run in active.items() if run_id not in self.world.state.runs}
            )

    # ---------------------------------------------------------------- people

    @rule(
        name=st.sampled_from(NAMES),
        graph=st.sampled_from(GRAPHS),
        memory=st.sampled_from([GIB // 4, GIB, 3 * GIB]),
        requirements=st.sampled_from(["", "numpy"]),
        fail_after=st.sampled_from([0, 0, 4 * SECOND]),
        expire_after=st.sampled_from([0, 3 * SECOND]),
        start=st.booleans(),
    )
    def save(
        self, name: str, graph: tuple[tuple[int, ...], ...], memory: int, requirements: str,
        fail_after: int, expire_after: int, start: bool,
    ) -> None:  # fmt: skip
        tasks = [task(0, memory=memory), *(task(i, *ups) for i, ups in enumerate(graph, 1))]
        tasks = [task(t.task_id, *(u for u in t.depends_on if u < t.task_id), memory=memory) for t in tasks]
        self.world.save(
            *tasks, name=name, requirements=requirements, fail_after=fail_after, expire_after=expire_after
        )
        if start:
            self.start(name)

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        if len(self.world.state.runs) < 6:
            self.try_do(StartVersion("alice", name))

    @rule(name=st.sampled_from(NAMES), full=st.booleans(), data=st.data())
    @precondition(lambda self: self.ended)
    def rerun(self, name: str, full: bool, data: st.DataObject) -> None:
        run = self.ended[data.draw(st.sampled_from(sorted(self.ended)))]
        self.world.state.priors[run.run_id] = PriorRun(
            run.run_id, run.job_id, run.plan.definition.name, int(run.environment), run.state,
            run.original_run_id,
            {
                i: PriorTask(i, run.plan.tasks[i].name, run.plan.tasks[i].depends_on, t.state, t.result, "1")
                for i, t in run.tasks.items()
            },
        )  # fmt: skip
        self.try_do(Rerun("alice", run.run_id, full=full, name=name))

    @rule(data=st.data())
    @precondition(lambda self: self.world.state.runs)
    def cancel(self, data: st.DataObject) -> None:
        self.try_do(CancelRun("bob", data.draw(st.sampled_from(sorted(self.world.state.runs)))))

    @rule(
        name=st.sampled_from(NAMES), what=st.sampled_from(["stop", "remove", "latest", "restore", "promote"])
    )
    def job(self, name: str, what: str) -> None:
        commands = {
            "stop": StopJob("bob", name),
            "remove": Remove("bob", name),
            "latest": Remove("bob", name, all_versions=False),
            "restore": Restore("bob", name),
            "promote": Promote("bob", name),
        }
        self.try_do(commands[what])

    @rule(requirements=st.sampled_from(["", "numpy"]))
    def ensure(self, requirements: str) -> None:
        self.try_do(EnsureImage("alice", Recipe("3.11", requirements)))

    @rule(agent=st.sampled_from(AGENTS), schedulable=st.booleans())
    def drain(self, agent: str, schedulable: bool) -> None:
        self.try_do(SetNodeSchedulable("admin", agent, schedulable))

    # ---------------------------------------------------------------- agents

    @rule(
        agent=st.sampled_from(AGENTS),
        journal=st.sampled_from(["j1", "j1", "j1", "j2"]),
        keeps=st.sampled_from(["all", "all", "none", "ended"]),
        memory=st.sampled_from([2 * GIB, 4 * GIB]),
        only_hello=st.booleans(),
    )
    def join(self, agent: str, journal: str, keeps: str, memory: int, only_hello: bool) -> None:
        known = self.world.state.agents.get(agent)
        state = AttemptState.FAILED if keeps == "ended" else AttemptState.RUNNING
        inventory = tuple(
            InventoryEntry(attempt.attempt_id, attempt.fence, state)
            for attempt in (known.attempts.values() if known and keeps != "none" else ())
        )
        join = self.world.hello if only_hello else self.world.join
        join(agent, journal=journal, inventory=inventory, memory=memory, slots=3)

    @rule(
        agent=st.sampled_from(AGENTS), how=st.sampled_from(["beat", "pressed", "cut", "apply", "bye", "stay"])
    )
    def frame(self, agent: str, how: str) -> None:
        known = self.world.state.agents.get(agent)
        if known is None:
            return
        if how == "beat":
            self.world.beat(agent)
        elif how == "pressed":
            self.world.beat(agent, "disk is full")
        elif how == "cut":
            self.world.cut(agent)
        elif how == "apply":
            self.world.apply(agent)
        else:
            self.try_do(AgentBye(agent, known.epoch, how == "stay"))

    @rule(
        data=st.data(),
        state=st.one_of(st.sampled_from(AttemptState), st.sampled_from(TERMINAL)),
        kind=st.sampled_from(CauseKind),
        wrong=st.sampled_from(["", "", "", "", "fence", "agent"]),
        present=st.sampled_from([True, True, False]),
    )
    @precondition(lambda self: self.world.state.attempts)
    def report(
        self, data: st.DataObject, state: AttemptState, kind: CauseKind, wrong: str, present: bool
    ) -> None:
        attempt = self.world.state.attempts[data.draw(st.sampled_from(sorted(self.world.state.attempts)))]
        sender = attempt.agent_id
        if wrong == "agent":
            sender = next(agent for agent in AGENTS if agent != sender)
        if sender not in self.world.state.agents:
            return
        self.world.seqs[sender] = self.world.seqs.get(sender, 0) + 1
        entry = AttemptReport(
            self.world.seqs[sender],
            attempt.attempt_id,
            attempt.fence + (wrong == "fence"),
            state,
            cause=Cause(kind, "because") if kind else None,
            result=Payload("d" * 64, 1, b"1") if state is AttemptState.SUCCEEDED else None,
            result_present=present,
        )
        event = AgentReport(sender, self.world.state.agents[sender].epoch, (entry,))
        self.old.append(event)
        self.try_do(event)

    @rule(data=st.data())
    @precondition(lambda self: self.old)
    def repeat(self, data: st.DataObject) -> None:
        """Delivering it again leads to the same state (invariant 14)."""
        event = data.draw(st.sampled_from(self.old[-5:]))
        agent = self.world.state.agents[event.agent_id]
        if event.epoch == agent.epoch and event.entries[0].report_seq > agent.acked_seq:
            return
        before = copy.deepcopy(durable_view(self.world.state))
        self.world.do(event)
        assert durable_view(self.world.state) == before

    @rule(
        data=st.data(),
        state=st.sampled_from([ImageState.BUILDING, ImageState.READY, ImageState.READY, ImageState.FAILED]),
        kind=st.sampled_from([CauseKind.BUILD_FAILED, CauseKind.NODE_FAULT]),
    )
    @precondition(lambda self: any(build.agent_id for build in self.world.state.builds.values()))
    def build(self, data: st.DataObject, state: ImageState, kind: CauseKind) -> None:
        ids = sorted(b.build_id for b in self.world.state.builds.values() if b.agent_id)
        build = self.world.state.builds[data.draw(st.sampled_from(ids))]
        sender = build.agent_id
        self.world.seqs[sender] = self.world.seqs.get(sender, 0) + 1
        cause = Cause(kind, "no") if state is ImageState.FAILED else None
        entry = BuildReport(self.world.seqs[sender], build.build_id, build.image_key, state, cause=cause)
        self.try_do(AgentReport(sender, self.world.state.agents[sender].epoch, (entry,)))

    @rule(outcome=st.sampled_from([AttemptState.RUNNING, AttemptState.SUCCEEDED, AttemptState.CANCELLED]))
    def work(self, outcome: AttemptState) -> None:
        """The usual course: nodes come, builds succeed, attempts go on."""
        for agent in AGENTS:
            known = self.world.state.agents.get(agent)
            if known is None or not known.state.connected:
                self.join(agent, "j1", "all", 4 * GIB, False)
        for _ in range(3):
            for build in list(self.world.state.builds.values()):
                if build.agent_id:
                    self.world.seqs[build.agent_id] = self.world.seqs.get(build.agent_id, 0) + 1
                    seq = self.world.seqs[build.agent_id]
                    entry = BuildReport(seq, build.build_id, build.image_key, ImageState.READY)
                    epoch = self.world.state.agents[build.agent_id].epoch
                    self.try_do(AgentReport(build.agent_id, epoch, (entry,)))
            for attempt in list(self.world.state.attempts.values()):
                if not attempt.state.terminal and self.world.state.agents[attempt.agent_id].state.connected:
                    active = dict(self.world.state.runs)
                    self.world.report(attempt, outcome, result=b"1")
                    gone = set(active) - set(self.world.state.runs)
                    self.ended.update({run_id: active[run_id] for run_id in gone})

    @rule(seconds=st.sampled_from([0.5, 2, 5, 14, 21]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def bad_hello(self) -> None:
        self.try_do(AgentHello("", "", "", "", 0, 0, 0))
