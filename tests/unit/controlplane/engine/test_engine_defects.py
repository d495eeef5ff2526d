"""The loop survives defects wherever they show: in time, in a step, after the steps, in the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cp_engine import FailingStore, FakeAgent, FixedIds, RealClock, run_flow, until
from cp_world import definition, task

from opentailr_controlplane import engine as engine_module
from opentailr_controlplane.core.batch import WriteBatch
from opentailr_controlplane.core.commands import AgentCredit, Command, SaveReply, SaveVersion, Tick
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.errors import Unavailable
from opentailr_controlplane.core.model import State
from opentailr_controlplane.core.values import Instant
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.engine_queue import Item, take_apart


def save(name: str) -> SaveVersion:
    return SaveVersion("alice", definition(task(0), name=name))


async def save_together(engine: Engine, *names: str) -> dict[str, Any]:
    """All in one round: what each got, the reply or the error."""
    answers = await asyncio.gather(*(engine.execute(save(name)) for name in names), return_exceptions=True)
    return dict(zip(names, answers, strict=True))


def named(batch: WriteBatch) -> set[str]:
    return {checked.definition.name for checked in batch.definitions.values()}


def break_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = engine_module.finish

    def finish(state: State, now: Instant) -> None:
        if any(checked.definition.name == "bad" for checked in state.dirty.definitions.values()):
            raise ZeroDivisionError("a defect after the steps")
        genuine(state, now)

    monkeypatch.setattr(engine_module, "finish", finish)


def break_step(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = engine_module.step

    def step(state: State, event: Any, now: Instant) -> Any:
        reply = genuine(state, event, now)
        if isinstance(event, SaveVersion) and event.definition.name == "bad":
            raise ZeroDivisionError("a defect in a step")
        return reply

    monkeypatch.setattr(engine_module, "step", step)


def break_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = FailingStore.commit

    async def commit(store: FailingStore, batch: WriteBatch) -> None:
        if "bad" in named(batch):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        await genuine(store, batch)

    monkeypatch.setattr(FailingStore, "commit", commit)


@pytest.mark.parametrize("defect", [break_step, break_finish, break_commit])
async def test_a_command_that_breaks_its_round_is_refused_and_the_others_go_on(
    engine: Engine, store: FailingStore, monkeypatch: pytest.MonkeyPatch, defect: Callable[..., None]
) -> None:
    defect(monkeypatch)
    answers = await save_together(engine, "one", "bad", "two")
    assert isinstance(answers["bad"], Unavailable) and answers["bad"].reason == "internal_error"
    assert [answers[name].version for name in ("one", "two")] == [1, 1]
    assert sorted(job.name for job in engine.jobs()) == ["one", "two"]
    assert [named(batch) for batch in store.commits if batch.definitions].count({"one"}) <= 1
    reply = await engine.execute(save("one"))
    assert isinstance(reply, SaveReply) and reply.version == 2
    monkeypatch.undo()
    successor = Engine(store, clock=RealClock(), ids=FixedIds())
    await successor.start()
    assert durable_view(successor._state) == durable_view(engine._state)
    await successor.close()


async def test_a_defect_of_time_refuses_what_waits_and_passes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = engine_module.step
    failing = True

    def step(state: State, event: Any, now: Instant) -> Any:
        if failing and isinstance(event, Tick):
            raise ZeroDivisionError("a defect of time")
        return genuine(state, event, now)

    monkeypatch.setattr(engine_module, "step", step)
    answers = await save_together(engine, "one", "two")
    assert {answer.reason for answer in answers.values()} == {"internal_error"}
    failing = False
    assert isinstance(await engine.execute(save("one")), SaveReply)
    agent = FakeAgent(engine)
    await agent.connect()
    run_id = await run_flow(engine)
    await until(lambda: not engine.run_active(run_id))
    await agent.leave()


def test_equal_events_of_a_round_are_told_apart() -> None:
    """Nothing that was stepped before the culprit, or waits for something loaded, is carried out twice."""
    credit = AgentCredit("agt_1", 1, 8, 1)
    commands: list[Command] = [save("one"), save("two"), save("three")]
    first, one, loading, culprit, three = (
        Item(event) for event in (credit, commands[0], commands[1], credit, commands[2])
    )
    items = [first, one, loading, culprit, three]
    broken = take_apart(items, [first, one], 3)
    assert broken.culprit is culprit
    assert broken.again == [one, three]
    unknown = take_apart(items, [first, one, culprit, three], len(items))
    assert unknown.culprit is None and unknown.again == [one, three]
    assert take_apart([one], [], -1).culprit is one
    assert take_apart([loading], [], 1).culprit is None
