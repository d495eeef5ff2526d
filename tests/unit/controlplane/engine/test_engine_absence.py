"""A control plane that was away itself: stopped, paused, or held by its disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from cp_engine import FailingStore, FakeAgent, FixedIds, RealClock, run_flow, until
from cp_world import task

from opentailr_controlplane.core.commands import SetNodeSchedulable
from opentailr_controlplane.core.effects import Dismiss
from opentailr_controlplane.core.values import SECOND, AttemptState, Instant
from opentailr_controlplane.engine import Engine

PAUSE = 60 * SECOND


class PausedClock(RealClock):
    """The machine's clocks, with pauses that nobody noticed while they lasted."""

    def __init__(self) -> None:
        self.paused = 0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.wall + self.paused, now.mono + self.paused)


@pytest.fixture
def clock() -> PausedClock:
    return PausedClock()


@pytest.fixture
async def engine(store: FailingStore, clock: PausedClock) -> AsyncIterator[Engine]:
    made = Engine(store, clock=clock, ids=FixedIds())
    await made.start()
    yield made
    store.gate.set()
    await made.close()


async def running(engine: Engine, *, count: int) -> FakeAgent:
    """An agent with this many attempts that go on."""
    agent = FakeAgent(engine, outcome=lambda order: None)
    await agent.connect()
    await run_flow(engine, *(task(number) for number in range(count)))
    await until(lambda: len(agent.running) == count)
    return agent


async def another_round(engine: Engine) -> None:
    await engine.execute(SetNodeSchedulable("alice", "agt_1", True, ""))


def assert_nothing_lost(engine: Engine, agent: FakeAgent) -> None:
    assert not any(isinstance(effect, Dismiss) for effect in agent.effects)
    assert {attempt.state for attempt in engine._state.attempts.values()} == {AttemptState.ASSIGNED}


async def test_a_pause_of_the_process_loses_no_attempt(engine: Engine, clock: PausedClock) -> None:
    agent = await running(engine, count=2)
    clock.paused += PAUSE
    await another_round(engine)
    await another_round(engine)
    assert_nothing_lost(engine, agent)
    await agent.leave()


async def test_a_disk_that_hangs_loses_no_attempt(
    engine: Engine, clock: PausedClock, store: FailingStore
) -> None:
    agent = await running(engine, count=2)
    before = engine.stats.events
    store.gate.clear()
    held = asyncio.create_task(run_flow(engine, task(0)))
    await until(lambda: engine.stats.events > before)
    # The loop itself goes on while the disk hangs.
    clock.paused += PAUSE
    engine._attendance._seen = clock.now().mono
    store.gate.set()
    await held
    await another_round(engine)
    assert_nothing_lost(engine, agent)
    await agent.leave()


async def test_silence_without_a_pause_ends_the_lease(engine: Engine, clock: PausedClock) -> None:
    agent = await running(engine, count=1)

    # Beyond the grace after the start, and the lease.
    for _ in range(16):
        clock.paused += 3 * SECOND
        engine._attendance._seen = clock.now().mono
        await another_round(engine)

    assert any(isinstance(effect, Dismiss) for effect in agent.effects)
    await agent.leave()
