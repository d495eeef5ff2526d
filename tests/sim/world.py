"""One simulated world: `simulate(seed)` lets it live, break, heal and settle, and judges it."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from time import process_time
from typing import Any
from unittest import mock

import structlog

from opentailr_agent import inventory
from opentailr_agent.core import attempts as agent_attempts
from opentailr_agent.core import machine as agent_machine
from opentailr_agent.logs import shipper
from opentailr_controlplane import logstore
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.store import sqlite as store_sqlite

from .endings import judge
from .faults import Faults, Plan, plan_of
from .keepers import Behaviour
from .loop import SimLoop
from .network import Network
from .node import GIB, Node, Watch
from .oracle import Oracle
from .platform import Platform
from .workload import Workload

SETTLE = 400.0
"""Seconds after the healing in which everything must have come to rest."""


@dataclass(slots=True)
class Result:
    """What became of a seed."""

    seed: int
    plan: Plan
    violations: list[str]
    digest: str
    handles: int
    seconds: float
    """Of a core's time."""
    simulated: float
    counts: Counter[str]
    moves: set[tuple[str, str, str]]
    lines: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing happened that must not."""
        return not self.violations


class World:
    """Everything there is."""

    def __init__(self, seed: int, arena: Path) -> None:
        self.chance = random.Random(f"world {seed}")
        self.check_chance = random.Random(f"checks {seed}")
        self.plan = plan_of(seed)
        self.arena = arena
        self.folder = arena / "nodes"
        self.settings = CoreSettings()
        self.loop = SimLoop(random.Random(f"loop {seed}"), shuffle=self.plan.shuffle)
        self.behaviours: dict[tuple[str, str], Behaviour] = {}
        self.objects: dict[str, bytes] = {}
        self.resumed_at = 0.0
        self.oracle = Oracle(self)
        self.faults = Faults(self, random.Random(f"faults {seed}"))
        self.network = Network(self.loop, self.oracle.frame, window=self.plan.window)
        self.platform = Platform(self)
        self.nodes = [
            Node(self, number, memory=self.chance.choice((2, 4)) * GIB, slots=self.chance.choice((2, 4, 8)))
            for number in range(1, self.plan.nodes + 1)
        ]
        self.workload = Workload(self, random.Random(f"work {seed}"))
        self._nodes = {node.agent_id: node for node in self.nodes}

    def node_of(self, agent_id: str) -> Node:
        """The machine of an agent."""
        return self._nodes[agent_id]

    def serving(self) -> bool:
        """True while the control plane would answer."""
        return self.platform.serving()

    def live(self) -> None:
        """From the first start to the rest at the end."""
        self.loop.call_soon(self._begin)
        self.loop.run(until=self.plan.phase + 1.0)
        end = self.loop.now + SETTLE
        while not self.loop.stopping and self.loop.now < end:
            self.loop.run(until=self.loop.now + 2.0)
            self._defects()
            if self.faults.over and self._settled() == "":
                break
        else:
            if not self.loop.stopping:
                self.oracle.fail(f"invariants 30 and 31: nothing moves on: {self._settled()}")
        if not self.loop.stopping:
            judge(self)

    def _begin(self) -> None:
        self.platform.start()
        for node in self.nodes:
            self.loop.world_call(node.chance.random(), node.start)
        self.workload.begin()
        self.loop.world_task(self.faults.run())

    def _defects(self) -> None:
        for words in (*self.loop.errors, *self.network.defects, *self.workload.errors()):
            self.oracle.fail(f"defect: {words}")

    def _settled(self) -> str:
        """What is not at rest yet."""
        if not self.workload.done:
            return "people wait"
        engine = self.platform.engine
        if engine is None or engine._state.runs or engine._queue:
            return f"runs {sorted(engine._state.runs) if engine else 'no engine'}"
        for node in self.nodes:
            supervisor, logs = node.supervisor, node.shipper
            if supervisor is None or logs is None or not supervisor.state.synced:
                return f"{node.name} is not in session"
            state = supervisor.state
            if state.attempts or state.builds or state.outbox.entries or state.outbox.waiting:
                phases = {key: record.phase.name for key, record in state.attempts.items()}
                return f"{node.name} has {phases} {list(state.builds)} {len(state.outbox.entries)} reports"
            if logs._logs:
                return f"{node.name} ships {sorted(logs._logs)}"
            if node.keepers.procs:
                return f"{node.name} keeps {sorted(node.keepers.procs)}"
            agent = engine._state.agents.get(node.agent_id)
            if agent is None or agent.attempts or agent.builds or agent.state.name != "READY":
                return f"{node.name} is {agent.state.name if agent else 'unknown'} to the control plane"
        return ""


@cache
def _arena() -> Path:
    """A folder in memory that all worlds of this process share, one after the other."""
    base = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="opentailr-sim-", dir=base if base.is_dir() else None))
    # Not `atexit`: workers of a process pool end without it.
    Finalize(None, shutil.rmtree, args=(path,), kwargs={"ignore_errors": True}, exitpriority=1)
    return path


def _clean(arena: Path) -> None:
    shutil.rmtree(arena / "nodes", ignore_errors=True)
    (arena / "nodes").mkdir()
    logs = arena / "logs"
    if logs.is_dir():
        for shard in logs.iterdir():
            for path in shard.iterdir():
                path.unlink()


@contextmanager
def _surroundings(world: World) -> Iterator[None]:
    """Time, chance and disks of the world in place of the machine's."""
    write, sync_all = store_sqlite.write, logstore.sync_all

    def observed_write(connection: Any, batch: Any) -> None:
        write(connection, batch)
        connection.world.oracle.committed(batch)

    def observed_sync(logs: list[Any]) -> Any:
        failed = sync_all(logs)
        world.platform.synced_now([log.path for place, log in enumerate(logs) if place not in failed])
        return failed

    def observed_advance(advance: Any) -> Any:
        def wrapped(record: Any, phase: Any) -> None:
            before = record.phase
            advance(record, phase)
            world.oracle.moves.add(("phase", before.name, phase.name))

        return wrapped

    def alarm(_: Any, level: str, event: dict[str, Any]) -> dict[str, Any]:
        world.oracle.alarm(level, event)
        raise structlog.DropEvent

    kept = structlog.get_config()
    randomness = random.getstate()
    with ExitStack() as stack:
        for target, name, value in (
            (store_sqlite, "write", observed_write),
            (logstore, "sync_all", observed_sync),
            (shipper, "FolderWatch", Watch),
            (inventory, "free_memory", lambda: 8 * GIB),
            (agent_attempts, "advance", observed_advance(agent_attempts.advance)),
            (agent_machine, "advance", observed_advance(agent_machine.advance)),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        structlog.configure(
            processors=[alarm],
            wrapper_class=structlog.make_filtering_bound_logger(40),
            cache_logger_on_first_use=False,
        )
        random.seed(world.check_chance.random())
        try:
            yield
        finally:
            world.platform.kill()
            for node in world.nodes:
                node.kill()
            _take_apart(world)
            structlog.configure(**kept)
            random.setstate(randomness)


def _take_apart(world: World) -> None:
    """Lets everything unwind, killed processes too, now that what they do matters to nobody."""
    world.oracle.over = True
    world.loop.unwind()
    world.__dict__.clear()


def simulate(seed: int, *, lines: bool = False) -> Result:
    """Lets the world of a seed live."""
    began = process_time()
    arena = _arena()
    _clean(arena)
    world = World(seed, arena)
    oracle, loop = world.oracle, world.loop
    if lines:
        oracle.lines = []
    plan = world.plan
    with _surroundings(world):
        world.live()
        now = loop.now
    return Result(
        seed,
        plan,
        oracle.violations,
        oracle.digest.hexdigest(),
        loop.handles,
        process_time() - began,
        now,
        oracle.counts,
        oracle.moves,
        oracle.lines or [],
    )
