"""Queues and caches of the control plane: what happens when they are full."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cp_engine import FailingStore, FixedIds, RealClock
from cp_world import definition, task

from opentailr_controlplane import engine as engine_module
from opentailr_controlplane import engine_views, http, logstore, quarantine
from opentailr_controlplane.core.commands import AgentReport, AttemptReport, SaveVersion
from opentailr_controlplane.core.errors import ResourceExhausted
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import AttemptState
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.engine_views import PayloadCache
from opentailr_controlplane.logstore import FileLogStore, Stream
from opentailr_controlplane.objects import FileObjectStore
from opentailr_controlplane.ports import Resync, RunChange
from opentailr_controlplane.quarantine import Quarantine
from opentailr_controlplane.services.follow import Merge
from opentailr_controlplane.store import reads as reads_module
from opentailr_controlplane.store.reads import Reads
from opentailr_controlplane.subscriptions import Hub


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FailingStore]:
    made = FailingStore(tmp_path / "state.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def engine(store: FailingStore) -> AsyncIterator[Engine]:
    made = Engine(store, clock=RealClock(), ids=FixedIds(), settings=CoreSettings(idempotency_limit=3))
    await made.start()
    yield made
    store.gate.set()
    await made.close()


def save(number: int, *, key: str = "") -> SaveVersion:
    return SaveVersion(
        "alice", definition(task(0), name=f"flow-{number}"), idempotency_key=key, request_digest=key
    )


async def test_a_full_queue_refuses_people_and_slows_agents(
    engine: Engine, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "QUEUE_LIMIT", 3)
    store.gate.clear()
    first = asyncio.create_task(engine.execute(save(0)))

    async with asyncio.timeout(10):
        # One round is on its way to the disk; the next ones wait in the queue.
        while engine.metrics()["queue_length"] or not engine._state.jobs:
            await asyncio.sleep(0)

        waiting = [asyncio.create_task(engine.execute(save(number))) for number in range(1, 4)]

        while engine.metrics()["queue_length"] < 3:
            await asyncio.sleep(0)

        with pytest.raises(ResourceExhausted) as caught:
            await engine.execute(save(4))

        assert caught.value.reason == "queue_full"
        posting = asyncio.create_task(engine.post(AgentReport("agt_1", 1, ())))

        for _ in range(50):
            await asyncio.sleep(0)

        assert not posting.done(), "an agent is read no further"
        assert engine.metrics()["queue_length"] == 3
        store.gate.set()
        await asyncio.gather(first, *waiting, posting)


async def test_plans_at_hand_stay_few(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PLAN_CACHE", 4)
    monkeypatch.setattr(engine_module, "PLAN_CACHE_TASKS", 6)

    for number in range(6):
        tasks = [task(place) for place in range(1 + number % 4)]
        await engine.execute(SaveVersion("alice", definition(*tasks, name=f"flow-{number}")))
        plans = engine._state.plans.values()
        assert len(plans) <= 4
        assert sum(len(plan.tasks) for plan in plans) <= 6


async def test_answers_to_repeated_requests_stay_few(engine: Engine, store: FailingStore) -> None:
    for number in range(8):
        await engine.execute(save(number, key=f"key {number}"))

    assert [key for _, key in engine._state.remembered] == ["key 5", "key 6", "key 7"]
    assert store._writer is not None
    assert store._writer.execute("SELECT count(*) FROM idempotency").fetchone() == (3,)


async def test_owners_of_logs_at_hand_stay_few(
    engine: Engine, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_views, "OWNERS_KEPT", 3)

    async def owner(log_id: str) -> str:
        return "agt_1"

    monkeypatch.setattr(store, "log_owner", owner)

    for number in range(9):
        assert await engine.owns_log("agt_1", f"att_{number}")

    assert list(engine._owners) == ["att_6", "att_7", "att_8"]


def test_payloads_at_hand_stay_within_their_bytes() -> None:
    cache = PayloadCache(1000)

    for number in range(10):
        cache.put({f"{number}": bytes(300)})

    assert [number for number in range(10) if cache.get(f"{number}") is not None] == [7, 8, 9]
    cache.put({"large": bytes(5000)})
    assert cache.get("large") is None


async def test_a_slow_follower_is_told_to_read_again() -> None:
    subscription = Hub().subscribe(None, None, 3)

    for number in range(9):
        subscription.put(RunChange(number, None, (), False))

    found = []

    while subscription._queue:
        found.append(await anext(subscription))

    assert isinstance(found[0], Resync)
    assert len(found) <= 3
    assert isinstance(found[-1], RunChange) and found[-1].run_id == 8


async def test_producers_wait_for_a_slow_reader() -> None:
    made = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal made

        for number in range(100):
            made += 1
            yield number

    async with Merge[int](maxsize=4) as merged:
        merged.add(numbers())

        for _ in range(50):
            await asyncio.sleep(0)

        assert made == 5
        assert [number async for number in merged.items()] == list(range(100))


def test_suspects_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_LIMIT", 5)
    kept = Quarantine()

    for number in range(20):
        entry = AttemptReport(number, "att_1", 1, AttemptState.RUNNING, 0)
        kept.condemn(AgentReport("agt_1", 1, (entry,)))

    assert len(kept._marks) == 5


def test_browsers_signed_in_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_SESSIONS", 3)
    sessions = http._Sessions()
    words = [sessions.open(object()) for _ in range(6)]  # type: ignore[arg-type]
    assert [sessions.find(word) is not None for word in words] == [False] * 3 + [True] * 3


async def test_definitions_at_hand_for_readers_stay_few(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "_DEFINITIONS_KEPT", 2)
    monkeypatch.setattr(reads_module, "_GRAPHS_KEPT", 2)

    for number in range(5):
        await engine.execute(SaveVersion("alice", definition(task(0), name=f"flow-{number}")))

    reads = Reads(tmp_path / "state.db")

    try:
        assert set(await reads.definitions(range(1, 6))) == set(range(1, 6))

        for number in range(1, 6):
            assert len(await reads.graph(number)) == 1

        assert list(reads._definitions) == list(reads._graphs) == [4, 5]
    finally:
        await reads.close()


async def test_logs_at_hand_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logstore, "_KEEP_KNOWN", 16)
    logs = FileLogStore(tmp_path / "logs")

    for number in range(100):
        await logs.extent(f"att_{number}", Stream.STDOUT)
        assert len(logs._logs) <= 17

    await logs.close()


def test_uploads_that_were_cut_are_removed_after_a_day(tmp_path: Path) -> None:
    FileObjectStore(tmp_path / "objects").close()
    old, young = (tmp_path / "objects" / "partial" / f"{name * 64}.part" for name in "ab")

    for path, age in ((old, 90_000), (young, 80_000)):
        path.write_bytes(b"part")
        os.utime(path, (time.time() - age,) * 2)

    FileObjectStore(tmp_path / "objects").close()
    assert not old.exists()
    assert young.exists()


async def test_a_flood_is_committed_in_rounds(
    engine: Engine, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "ROUND_LIMIT", 4)
    await asyncio.gather(*(engine.execute(save(number)) for number in range(20)))
    assert max(len(batch.versions) for batch in store.commits) <= 4
    assert sum(len(batch.versions) for batch in store.commits) == 20
