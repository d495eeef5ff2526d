"""A small world around the core for tests: a clock, fake agents, and `validate` after each step."""

from __future__ import annotations

from opentailr_controlplane.core.batch import WriteBatch, collect
from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentEvent,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    Command,
    InventoryEntry,
    Reply,
    SaveVersion,
    SessionClosed,
    StartVersion,
    Tick,
)
from opentailr_controlplane.core.effects import Desired, Effect, Effects
from opentailr_controlplane.core.invariants import History, validate
from opentailr_controlplane.core.machine import finish, step
from opentailr_controlplane.core.model import Attempt, Run, State
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    Bundle,
    Cause,
    CauseKind,
    Environment,
    ImageState,
    Instant,
    JobDefinition,
    JobType,
    Payload,
    Recipe,
    Resources,
    Schedule,
    TaskDefinition,
)

GIB = 1 << 30
START = Instant(1_700_000_000 * SECOND, 1_000 * SECOND)


def task(task_id: int, *depends_on: int, memory: int = GIB // 8, cpu: float = 0.25) -> TaskDefinition:
    """A task named after its id."""
    resources = Resources(f"{memory}b", memory, cpu)
    return TaskDefinition(task_id, f"task {task_id}", "pkg.mod:function", resources, tuple(depends_on))


def definition(
    *tasks: TaskDefinition,
    name: str = "flow",
    environment: Environment = Environment.DEV,
    requirements: str = "",
    pre: str = "",
    post: str = "",
    fail_after: int = 0,
    expire_after: int = 0,
    verified: bool = True,
    schedule: str = "",
    job_type: JobType = JobType.BATCH,
    bundle: str = "b" * 64,
) -> JobDefinition:
    """A definition that is fine unless told otherwise."""
    return JobDefinition(
        name,
        name.title(),
        environment,
        job_type,
        "alice",
        Resources(),
        Recipe("3.11", requirements, pre, post),
        Bundle(bundle, 10, "pkg"),
        entrypoint="" if job_type is JobType.BATCH else "pkg.mod:serve",
        tasks=tasks if tasks or job_type is not JobType.BATCH else (task(0),),
        schedule=Schedule(cron=schedule),
        fail_after=fail_after,
        expire_after=expire_after,
        repository_verified=verified,
    )


class World:
    """The core with a clock of its own; every step is followed by all invariants."""

    def __init__(self, settings: CoreSettings | None = None) -> None:
        self.state = State(settings or CoreSettings(), "test")
        self.now = START
        self.history = History()
        self.effects: list[Effect] = []
        self.batches: list[WriteBatch] = []
        self.seen: set[tuple[str, str, str]] = set()
        self.state.observer = lambda *edge: self.seen.add(edge)
        self.seqs: dict[str, int] = {}

    def do(self, event: Command | AgentEvent | Tick) -> Reply | int | None:
        """One step, one commit."""
        try:
            reply = step(self.state, event, self.now)
        finally:
            self._commit()
        return reply

    def _commit(self) -> None:
        finish(self.state, self.now)
        batch = collect(self.state)
        if batch is not None:
            self.batches.append(batch)
        self.effects, self.state.effects = self.state.effects.items, Effects()
        validate(self.state)
        self.history.observe(self.state, self.effects, self.now)

    def pass_time(self, seconds: float) -> None:
        """Time goes on and whatever is due happens."""
        delta = round(seconds * SECOND)
        self.now = Instant(self.now.wall + delta, self.now.mono + delta)
        self.do(Tick())

    # ------------------------------------------------------------------ people

    def save(self, *tasks: TaskDefinition, **options: object) -> int:
        """Saves a version and returns its number."""
        reply = self.do(SaveVersion("alice", definition(*tasks, **options)))  # type: ignore[arg-type]
        return reply.version  # type: ignore[union-attr, return-value]

    def start(self, version: int = 0, name: str = "flow") -> Run:
        """Starts a version and returns the run, which must not have ended at once."""
        reply = self.do(StartVersion("alice", name, Environment.DEV, version))
        return self.state.runs[reply.run_id]  # type: ignore[union-attr]

    # ------------------------------------------------------------------ agents

    def join(
        self,
        agent_id: str = "agt_1",
        *,
        memory: int = 8 * GIB,
        cpu: float = 16,
        slots: int = 64,
        credit: int = 100,
        builds: int = 4,
        journal: str = "journal-1",
        inventory: tuple[InventoryEntry, ...] = (),
        images: tuple[str, ...] = (),
        pre: bool = False,
    ) -> int:
        """An agent connects, applies its full set and gives credit; answers the epoch."""
        epoch = self.hello(
            agent_id, memory=memory, cpu=cpu, slots=slots, journal=journal, inventory=inventory,
            images=images, pre=pre,
        )  # fmt: skip
        self.apply(agent_id)
        self.do(AgentCredit(agent_id, epoch, credit, builds))
        return epoch

    def hello(
        self,
        agent_id: str = "agt_1",
        *,
        memory: int = 8 * GIB,
        cpu: float = 16,
        slots: int = 64,
        journal: str = "journal-1",
        inventory: tuple[InventoryEntry, ...] = (),
        images: tuple[str, ...] = (),
        pre: bool = False,
    ) -> int:
        """Only the first frame."""
        agent = self.state.agents.get(agent_id)
        if agent is None or agent.journal_id != journal:
            self.seqs[agent_id] = 0
        epoch = self.do(
            AgentHello(
                agent_id, f"node {agent_id}", "boot", journal, memory, cpu, slots, image_keys=images,
                inventory=inventory, allows_pre_scripts=pre,
            )
        )  # fmt: skip
        assert isinstance(epoch, int)
        return epoch

    def apply(self, agent_id: str = "agt_1") -> None:
        """The agent's journal reflects its full set."""
        agent = self.state.agents[agent_id]
        self.do(AgentApplied(agent_id, agent.epoch, agent.full_revision))

    def beat(self, agent_id: str = "agt_1", pressure: str = "") -> None:
        """A heartbeat."""
        agent = self.state.agents[agent_id]
        self.do(AgentHeartbeat(agent_id, agent.epoch, 1, self.now.mono, pressure))

    def cut(self, agent_id: str = "agt_1") -> None:
        """The stream breaks."""
        self.do(SessionClosed(agent_id, self.state.agents[agent_id].epoch))

    def report(
        self,
        attempt: Attempt,
        state: AttemptState,
        *,
        kind: CauseKind | None = None,
        fence: int | None = None,
        agent_id: str | None = None,
        result: bytes | None = None,
        present: bool = True,
        started: bool = False,
    ) -> None:
        """The attempt's agent, or another one, reports it."""
        sender = agent_id or attempt.agent_id
        self.seqs[sender] = self.seqs.get(sender, 0) + 1
        payload = Payload(f"{result.hex():0>64}", len(result), result) if result is not None else None
        entry = AttemptReport(
            self.seqs[sender],
            attempt.attempt_id,
            attempt.fence if fence is None else fence,
            state,
            cause=Cause(kind, "because", "trace", 3) if kind is not None else None,
            started_at=self.now.wall if started else 0,
            result=payload,
            result_present=present,
        )
        self.do(AgentReport(sender, self.state.agents[sender].epoch, (entry,)))

    def build(self, state: ImageState = ImageState.READY, kind: CauseKind | None = None) -> None:
        """The only live build's agent reports it."""
        (build,) = self.state.builds.values()
        sender = build.agent_id
        self.seqs[sender] = self.seqs.get(sender, 0) + 1
        cause = Cause(kind, "pip said no") if kind is not None else None
        entry = BuildReport(self.seqs[sender], build.build_id, build.image_key, state, cause=cause)
        self.do(AgentReport(sender, self.state.agents[sender].epoch, (entry,)))

    def ready(self, *tasks: TaskDefinition, **options: object) -> Run:
        """An agent, an image and a started run."""
        if not self.state.agents:
            self.join()
        self.save(*tasks, **options)
        if self.state.builds:
            self.build()
        return self.start()

    def attempt(self, run: Run, task_id: int = 0) -> Attempt:
        """The live attempt of a task."""
        return self.state.attempts[run.tasks[task_id].attempt_id]

    def desired(self, agent_id: str = "agt_1") -> list[Desired]:
        """Desired sets sent by the last step."""
        return [e for e in self.effects if isinstance(e, Desired) and e.agent_id == agent_id]
