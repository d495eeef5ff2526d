"""The engine: nothing leaves before its commit, and nothing that jobs or disks do ends the loop."""

from __future__ import annotations

import asyncio

import pytest
from cp_engine import FailingStore, FakeAgent, FixedIds, RealClock, run_flow, until
from cp_world import definition, task

from opentailr_controlplane.core import fleet
from opentailr_controlplane.core.commands import (
    CancelRun,
    EnsureImage,
    Rerun,
    RerunReply,
    SaveReply,
    SaveVersion,
    StartVersion,
)
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.errors import InvalidArgument, NotFound, ResourceExhausted
from opentailr_controlplane.core.model import Attempt
from opentailr_controlplane.core.values import AttemptState, Recipe, RunState
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.ports import ImageChange, Resync, RunChange


async def test_a_workflow_runs_to_its_end(engine: Engine, store: FailingStore) -> None:
    agent = FakeAgent(engine)
    await agent.connect()
    run_id = await run_flow(engine, task(0), task(1, 0), task(2, 0))
    await until(lambda: not engine.run_active(run_id))
    prior = await store.read_prior(run_id)
    assert prior.state is RunState.SUCCEEDED
    await until(lambda: agent.acknowledged() == agent.seq)
    assert (await engine.payloads(["c" * 64, "0" * 64])) == {"c" * 64: b"abc"}
    await agent.leave()


async def test_nothing_leaves_before_the_commit(engine: Engine, store: FailingStore) -> None:
    agent = FakeAgent(engine, outcome=lambda order: None)
    await agent.connect()
    await engine.execute(SaveVersion("alice", definition(task(0))))
    await until(lambda: 0 < agent.seq == agent.acknowledged())
    follower = engine.subscribe()
    seen = len(agent.effects)
    store.gate.clear()
    pending = asyncio.create_task(engine.execute(StartVersion("alice", "flow")))
    await until(lambda: engine.metrics()["attempts_live"] == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not pending.done() and len(agent.effects) == seen
    change = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    assert not change.done()
    store.gate.set()
    await pending
    assert isinstance(await change, RunChange)
    await until(lambda: len(agent.running) == 1)
    await follower.aclose()
    await agent.leave()


async def test_a_full_disk_takes_memory_back_and_refuses_until_it_heals(
    engine: Engine, store: FailingStore
) -> None:
    agent = FakeAgent(engine, outcome=lambda order: None)
    await agent.connect()
    await engine.execute(SaveVersion("alice", definition(task(0))))
    await until(lambda: 0 < agent.seq == agent.acknowledged())
    follower = engine.subscribe()
    before = durable_view(engine._state)
    store.full = True
    with pytest.raises(ResourceExhausted) as caught:
        await engine.execute(StartVersion("alice", "flow"))
    assert caught.value.reason == "disk_full"
    await until(lambda: bool(agent.closed))
    await until(lambda: durable_view(engine._state) == before)
    assert not engine.run_active(1)
    with pytest.raises(ResourceExhausted):
        await engine.execute(SaveVersion("alice", definition(task(0))))
    assert not engine.healthy
    store.full = False
    await until(lambda: engine.healthy)
    reply = await engine.execute(SaveVersion("alice", definition(task(0))))
    assert isinstance(reply, SaveReply) and reply.version == 2
    assert isinstance(await anext(follower), Resync)
    await follower.aclose()
    await agent.leave()
    again = FakeAgent(engine)
    await again.connect()
    await until(lambda: engine.metrics()["sessions"] == 1)
    await again.leave()


async def test_a_report_that_breaks_the_step_is_isolated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the reports and all commands go on; the agent reconnects."""
    genuine = fleet.mark_started

    def explode(state: object, run: object, task_: object, attempt: Attempt, *rest: object) -> None:
        if attempt.task_id == 1:
            raise ZeroDivisionError("a defect")
        genuine(state, run, task_, attempt, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fleet, "mark_started", explode)
    agent = FakeAgent(engine)
    await agent.connect()
    run_id = await run_flow(engine, task(0), task(1), task(2))
    for _ in range(2):
        await until(lambda: bool(agent.closed) and engine.healthy)
        await agent.leave()
        agent.closed.clear()
        agent.seq = 1
        await agent.connect()
    await until(lambda: len(engine._state.attempts) == 1)
    assert engine.run_active(run_id)
    reply = await engine.execute(SaveVersion("alice", definition(task(0), name="other")))
    assert isinstance(reply, SaveReply)
    await agent.leave()


async def test_a_bad_definition_is_refused_before_anything_is_written(
    engine: Engine, store: FailingStore
) -> None:
    written = len(store.commits)
    with pytest.raises(InvalidArgument, match="circle"):
        await engine.execute(SaveVersion("alice", definition(task(0, 1), task(1, 0))))
    big = [task(i) for i in range(300)]
    with pytest.raises(InvalidArgument, match="circle"):
        await engine.execute(SaveVersion("alice", definition(task(300, 301), task(301, 300), *big)))
    assert len(store.commits) == written and not engine.jobs()


async def test_a_restart_goes_on_where_it_was(engine: Engine, store: FailingStore) -> None:
    agent = FakeAgent(engine, outcome=lambda order: None)
    await agent.connect()
    run_id = await run_flow(engine, task(0), task(1, 0))
    await until(lambda: len(agent.running) == 1)
    before = durable_view(engine._state)
    await agent.leave()
    successor = Engine(store, clock=RealClock(), ids=FixedIds())
    await successor.start()
    assert durable_view(successor._state) == before
    agent.engine = successor
    agent.outcome = lambda order: AttemptState.SUCCEEDED
    await agent.connect()
    await until(lambda: not successor.run_active(run_id))
    prior = await store.read_prior(run_id)
    assert prior.state is RunState.SUCCEEDED
    await agent.leave()
    await successor.close()


@pytest.mark.clause("B127", "B132")
async def test_a_rerun_reads_the_finished_run_from_the_store(engine: Engine, store: FailingStore) -> None:
    agent = FakeAgent(engine, outcome=lambda o: AttemptState.FAILED if o.task_id else AttemptState.SUCCEEDED)
    await agent.connect()
    run_id = await run_flow(engine, task(0), task(1, 0))
    await until(lambda: not engine.run_active(run_id))
    agent.outcome = lambda order: AttemptState.SUCCEEDED
    reply = await engine.execute(Rerun("alice", run_id))
    assert isinstance(reply, RerunReply)
    await until(lambda: not engine.run_active(reply.run_id))
    prior = await store.read_prior(reply.run_id)
    assert prior.state is RunState.SUCCEEDED and prior.original_run_id == run_id
    assert [t.state.name for t in prior.tasks.values()] == ["CACHED", "SUCCEEDED"]
    with pytest.raises(NotFound):
        await engine.execute(Rerun("alice", 99))
    await agent.leave()


async def test_a_version_is_started_long_after_its_plan_left_memory(engine: Engine) -> None:
    await engine.execute(SaveVersion("alice", definition(task(0), task(1, 0))))
    engine._state.plans.clear()
    await engine.execute(StartVersion("alice", "flow"))
    assert len(engine._state.runs[1].tasks) == 2
    await engine.execute(CancelRun("alice", 1))
    assert not engine.run_active(1)


async def test_a_slow_follower_hears_resync(engine: Engine) -> None:
    follower = engine.subscribe(maxsize=2)
    of_image = engine.subscribe(image_key="f" * 64)
    for version in range(3):
        await engine.execute(EnsureImage("alice", Recipe("3.11", f"package=={version}")))
    assert isinstance(await anext(follower), Resync)
    await engine.execute(EnsureImage("alice", Recipe("3.12")))
    assert isinstance(await anext(follower), ImageChange)
    await follower.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(follower)
    await of_image.aclose()
    assert engine.metrics()["subscriptions"] == 0


async def test_owners_of_logs(engine: Engine) -> None:
    agent = FakeAgent(engine)
    await agent.connect()
    run_id = await run_flow(engine)
    await until(lambda: not engine.run_active(run_id))
    log_id = f"att_test_{run_id}_0_1"
    assert await engine.owns_log("agt_1", log_id)
    assert not await engine.owns_log("agt_2", log_id)
    assert not await engine.owns_log("agt_1", "att_unknown")
    await agent.leave()


async def test_commands_of_a_closing_engine_are_refused(store: FailingStore) -> None:
    engine = Engine(store, clock=RealClock(), ids=FixedIds())
    await engine.start()
    await engine.close()
    from opentailr_controlplane.core.errors import Unavailable

    with pytest.raises(Unavailable):
        await engine.execute(StartVersion("alice", "flow"))
