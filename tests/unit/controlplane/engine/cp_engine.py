"""An engine over a store that can fail, and agents that can misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from cp_world import definition, task

from opentailr_controlplane.core.batch import WriteBatch
from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    InventoryEntry,
    SaveVersion,
    StartReply,
    StartVersion,
)
from opentailr_controlplane.core.effects import Acknowledge, AttemptOrder, Desired, Dismiss, Effect
from opentailr_controlplane.core.values import AttemptState, ImageState, Instant, Payload, TaskDefinition
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.store.errors import StoreFull
from opentailr_controlplane.store.sqlite import SqliteStore


class RealClock:
    def now(self) -> Instant:
        return Instant(time.time_ns() // 1000, time.monotonic_ns() // 1000)


class FixedIds:
    def installation(self) -> str:
        return "test"


class FailingStore(SqliteStore):
    """A real store whose commits can be held or made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.full = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits: list[WriteBatch] = []

    async def commit(self, batch: WriteBatch) -> None:
        await self.gate.wait()
        if self.full:
            raise StoreFull("The database cannot grow: disk I/O")
        await super().commit(batch)
        self.commits.append(batch)


Outcome = Callable[[AttemptOrder], AttemptState | None]


class FakeAgent:
    """Does what it is told at once: `outcome` decides how an attempt ends, None leaves it running."""

    def __init__(self, engine: Engine, agent_id: str = "agt_1", *, outcome: Outcome | None = None) -> None:
        self.engine = engine
        self.agent_id = agent_id
        self.outcome: Outcome = outcome or (lambda order: AttemptState.SUCCEEDED)
        self.seq = 0
        self.epoch = 0
        self.running: dict[str, AttemptOrder] = {}
        self.effects: list[Effect] = []
        self.closed: list[str] = []
        self._inbox: asyncio.Queue[Effect] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def deliver(self, effect: Effect) -> None:
        self.effects.append(effect)
        self._inbox.put_nowait(effect)

    def close(self, reason: str) -> None:
        self.closed.append(reason)

    async def connect(self) -> None:
        self.epoch = await self.engine.hello(
            AgentHello(
                self.agent_id, self.agent_id, "boot", "journal", 8 << 30, 16, 64,
                inventory=tuple(
                    InventoryEntry(order.attempt_id, order.fence, AttemptState.RUNNING)
                    for order in self.running.values()
                ),
            ),
            self,
        )  # fmt: skip
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            effect = await self._inbox.get()
            if not isinstance(effect, Desired):
                if isinstance(effect, Dismiss):
                    return
                continue
            if effect.full:
                await self.engine.post(AgentApplied(self.agent_id, self.epoch, effect.revision))
                await self.engine.post(AgentCredit(self.agent_id, self.epoch, 1_000_000, 1_000))
            await self.obey(effect)

    async def obey(self, desired: Desired) -> None:
        entries: list[AttemptReport | BuildReport] = []
        for build in desired.builds:
            self.seq += 1
            entries.append(BuildReport(self.seq, build.build_id, build.image_key, ImageState.READY))
        for order in desired.attempts:
            state = AttemptState.CANCELLED if order.stop else self.outcome(order)
            if state is None:
                self.running[order.attempt_id] = order
                continue
            self.seq += 1
            self.running.pop(order.attempt_id, None)
            result = Payload("c" * 64, 3, b"abc") if state is AttemptState.SUCCEEDED else None
            entries.append(AttemptReport(self.seq, order.attempt_id, order.fence, state, result=result))
        if entries:
            await self.engine.post(AgentReport(self.agent_id, self.epoch, tuple(entries)))

    def acknowledged(self) -> int:
        return max((e.report_seq for e in self.effects if isinstance(e, Acknowledge)), default=0)

    async def leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for something that other tasks bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.002)


async def run_flow(engine: Engine, *tasks: TaskDefinition) -> int:
    """Saves and starts."""
    await engine.execute(SaveVersion("alice", definition(*(tasks or (task(0),)))))
    reply = await engine.execute(StartVersion("alice", "flow"))
    assert isinstance(reply, StartReply)
    return reply.run_id
