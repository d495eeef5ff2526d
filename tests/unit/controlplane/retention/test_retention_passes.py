"""Which runs, logs, builds, nodes and images go, and which never; nothing is left half removed."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path
from typing import Any

import pytest
from cp_engine import FakeAgent, until
from retention_world import DAY, Place, one_pass, with_retention

from opentailr_controlplane import retention as module
from opentailr_controlplane.core.commands import EnsureImage, Rerun, SetNodeSchedulable, StartVersion
from opentailr_controlplane.core.errors import CoreError, FailedPrecondition, NotFound
from opentailr_controlplane.core.values import Recipe
from opentailr_controlplane.logstore import Stream
from opentailr_controlplane.retention import Held, Retention
from opentailr_controlplane.store import retention as store
from opentailr_controlplane.store import schema


async def test_old_runs_go_whole_and_the_newest_of_a_job_stays(place: Place) -> None:
    await place.save()
    runs = [await place.run() for _ in range(4)]
    for run_id in runs:
        place.age(run_id, 31)
    await place.save(name="other")
    young = await place.run("other")
    retention = await one_pass(place)
    assert place.runs() == [runs[-1], young]
    assert [place.trace_of(run_id) for run_id in runs[:-1]] == [{}, {}, {}]
    assert retention.removed["runs"] == 3 and retention.last_pass > 0
    assert place.trace_of(young)["logs"] == 5, "a run that is kept has all its logs"


async def test_more_runs_than_the_count_go_the_oldest_first(place: Place) -> None:
    await place.save()
    await place.save(name="other")
    runs = [await place.run() for _ in range(5)]
    other = [await place.run("other") for _ in range(2)]
    await one_pass(place, runs=["dev=30d,2"])
    assert place.runs() == [*runs[-2:], *other]
    await one_pass(place, runs=["dev=forever,0"])
    assert place.runs() == [*runs[-2:], *other]


async def test_rules_are_those_of_the_environment(place: Place) -> None:
    await place.save()
    runs = [await place.run() for _ in range(3)]
    for run_id in runs:
        place.age(run_id, 31)
    place.write("UPDATE runs SET environment = 3 WHERE run_id = ?", runs[0])
    await one_pass(place)
    assert place.runs() == [runs[0], runs[2]], "prod keeps its runs for 180 days"


async def test_an_active_run_is_never_removed(place: Place) -> None:
    await place.save()
    place.agent.outcome = lambda order: None
    await place.engine.execute(StartVersion("alice", "flow"))
    await until(lambda: bool(place.agent.running))
    retention = place.retention()
    assert await retention._retire([1]) is False
    await retention.close()
    assert place.runs() == [1] and place.engine.run_active(1)


@pytest.mark.clause("B127", "B129", "B131")
async def test_the_first_run_of_a_chain_stays_while_a_rerun_of_it_does(place: Place) -> None:
    await place.save()
    first = await place.run()
    second = await place.rerun(first)
    third = await place.rerun(second)
    last = await place.run()
    for run_id in (first, second, third):
        place.age(run_id, 31)
    place.age(third, 1)
    await one_pass(place)
    assert place.runs() == [first, third, last], "the one between is needed by nobody"
    fourth = await place.rerun(third)
    assert place.rows("SELECT original_run_id FROM runs WHERE run_id = ?", fourth) == [(first,)]
    digests = place.rows("SELECT result_digest FROM run_tasks WHERE run_id = ? ORDER BY task_id", fourth)
    assert all(digest for (digest,) in digests)
    found = await place.store.read_payloads([digest for (digest,) in digests])
    assert len(found) == len(set(digests)), "results that were taken over are there"
    for run_id in (third, fourth):
        place.age(run_id, 31)
    await one_pass(place)
    await one_pass(place)
    assert place.runs() == [first, last, fourth], "the newest of the job, and the first of its chain"


@pytest.mark.clause("B132")
async def test_a_removed_run_is_unknown_to_a_rerun(place: Place) -> None:
    await place.save()
    first, _ = await place.run(), await place.run()
    place.age(first, 31)
    await one_pass(place)
    with pytest.raises(NotFound, match=f"no run {first}"):
        await place.engine.execute(Rerun("alice", first))


@pytest.mark.clause("B131", "B132")
async def test_a_rerun_that_was_read_before_the_removal_is_refused_not_made_of_nothing(place: Place) -> None:
    await place.save()
    first, _ = await place.run(), await place.run()
    place.age(first, 31)
    read, go_on, reads = asyncio.Event(), asyncio.Event(), []
    true_read = place.store.read_prior

    async def slow_read(run_id: int) -> Any:
        prior = await true_read(run_id)
        reads.append(prior.state)
        read.set()
        await go_on.wait()
        return prior

    place.store.read_prior = slow_read  # type: ignore[method-assign]
    rerun = asyncio.create_task(place.engine.execute(Rerun("alice", first)))
    await read.wait()
    await one_pass(place)
    go_on.set()
    with pytest.raises(NotFound):
        await rerun
    assert len(reads) == 2 and reads[0] is not None and reads[1] is None


async def test_parts_stay_until_a_reader_of_the_run_is_through(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READERS_NEED", 3600.0)
    await place.save()
    first, _ = await place.run(), await place.run()
    place.age(first, 31)
    assert place.reads is not None

    async def passes(retention: Retention) -> None:
        await retention.run_once()
        assert await place.reads.run(first) is None  # type: ignore[union-attr]
        left = place.trace_of(first)
        assert left["run_tasks"] == 2 and left["attempts"] == 2 and left["logs"] == 5
        await retention.run_once()
        assert place.trace_of(first) == left
        monkeypatch.setattr(module, "READERS_NEED", 0.0)
        await retention.run_once()

    await with_retention(place, passes)
    assert place.trace_of(first) == {}


async def test_logs_go_before_their_runs_and_say_so(place: Place) -> None:
    await place.save()
    runs = [await place.run() for _ in range(3)]
    for run_id in runs[:2]:
        place.age(run_id, 15)
    retention = await one_pass(place)
    assert place.runs() == runs and retention.removed["logs"] == 2
    assert place.reads is not None
    assert [await place.reads.logs_removed(run_id) for run_id in runs] == [True, True, False]
    assert [place.trace_of(run_id).get("logs", 0) for run_id in runs] == [0, 0, 5]
    again = await one_pass(place)
    assert again.removed["logs"] == 0, "they are not looked at again and again"


async def test_a_log_that_goes_while_it_is_read_is_an_error_not_an_end(place: Place) -> None:
    from opentailr_controlplane.services.logfollow import follow_log

    async def over() -> bool:
        return True

    await place.logs.append("att_x", Stream.STDOUT, offset=0, data=b"a" * 600_000)
    following = follow_log(place.logs, "att_x", Stream.STDOUT, 0, over=over)
    assert (await anext(following))[0] == 0
    await place.logs.remove(["att_x"])
    with pytest.raises(FailedPrecondition) as caught:
        async for _ in following:
            pass
    assert caught.value.reason == "log_expired"
    assert (await place.logs.extent("att_x", Stream.STDOUT)).size == 0
    assert place.log_files() == set()


async def test_builds_that_no_image_names_go_with_their_logs(place: Place) -> None:
    await place.save()
    await place.run()
    (build_id,) = place.rows("SELECT build_id FROM builds")[0]
    place.write(
        "INSERT INTO builds SELECT 'bld_old', image_key, state, agent_id, create_time, start_time, 1, "
        "cause_kind, cause_message FROM builds"
    )
    await place.write_log("bld_old")
    await place.write_log(build_id)
    retention = await one_pass(place)
    assert place.rows("SELECT build_id FROM builds") == [(build_id,)] and retention.removed["builds"] == 1
    assert place.log_files() >= {f"{build_id}.out"} and "bld_old.out" not in place.log_files()


async def test_images_that_no_version_uses_go(place: Place) -> None:
    await place.save()
    await place.run()
    await place.engine.execute(EnsureImage("alice", Recipe("3.11", "numpy", "", "")))
    await until(lambda: len(place.rows("SELECT 1 FROM images WHERE state = 3")) == 2)
    for image in place.engine._state.images.values():
        image.end_time = 1
    retention = await one_pass(place)
    assert retention.removed["images"] == 1
    assert place.rows("SELECT image_key FROM images") == [(key,) for key in place.engine._state.images]
    await place.run()


async def test_nodes_not_heard_of_for_long_go_with_what_they_took_along(place: Place) -> None:
    await place.save()
    await place.run()
    other = FakeAgent(place.engine, "agt_2", outcome=lambda order: None)
    await other.connect()
    drained = FakeAgent(place.engine, "agt_3")
    await drained.connect()
    await place.engine.execute(SetNodeSchedulable("alice", "agt_3", False))
    state = place.engine._state
    place.agent.outcome = lambda order: None
    await place.engine.execute(StartVersion("alice", "flow"))
    await until(lambda: bool(other.running or place.agent.running))
    for agent in (other, drained):
        await agent.leave()
        record = state.agents[agent.agent_id]
        from opentailr_controlplane.core.commands import AgentBye

        await place.engine.post(AgentBye(agent.agent_id, record.epoch, False))
        await until(lambda record=record: record.state.name == "DOWN")  # type: ignore[misc]
        record.last_heard -= 31 * DAY * 1_000_000
    await one_pass(place)
    assert set(state.agents) == {"agt_1", "agt_3"}
    assert place.rows("SELECT agent_id FROM agents ORDER BY 1") == [("agt_1",), ("agt_3",)]
    assert all(attempt.agent_id != "agt_2" for attempt in state.attempts.values())
    loaded = await place.store.load(place.engine.settings, place.engine._clock.now())
    assert loaded is not None and set(loaded.agents) == {"agt_1", "agt_3"}


async def test_nothing_is_removed_while_a_backup_is_made(place: Place) -> None:
    await place.save()
    first, _ = await place.run(), await place.run()
    place.age(first, 31)
    with (place.folder / "backup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(Held):
            await one_pass(place)
        with pytest.raises(Held):
            await with_retention(place, lambda retention: retention.sweep())
    assert len(place.runs()) == 2
    await one_pass(place)
    assert len(place.runs()) == 1


class Crash(Exception):
    """The process dies here."""


STEPS = 12
"""Steps of the pass that the test below breaks off."""


@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_a_crash_at_any_step_leaves_nothing_behind(place: Place, step: int) -> None:
    await place.save()
    runs = [await place.run() for _ in range(3)]
    place.age(runs[0], 31)
    place.age(runs[1], 15)
    kept = place.trace_of(runs[2])
    broken = place.retention()
    steps = 0

    def count(function: Any, *, after: bool) -> Any:
        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step and not after:
                raise Crash
            result = await function(*arguments, **options)
            if steps == step and after:
                raise Crash
            return result

        return counted

    after = step % 2 == 0
    place.logs.remove, remove = count(place.logs.remove, after=after), place.logs.remove  # type: ignore[method-assign]
    place.store.maintain, maintain = count(place.store.maintain, after=after), place.store.maintain  # type: ignore[method-assign]
    place.engine.execute, execute = count(place.engine.execute, after=after), place.engine.execute  # type: ignore[method-assign]
    crashed = False
    try:
        await broken.run_once()
    except Crash:
        crashed = True
    await broken.close()
    assert crashed == (0 < step <= steps), f"there are {steps} steps"
    place.logs.remove, place.store.maintain, place.engine.execute = remove, maintain, execute  # type: ignore[method-assign]
    await one_pass(place)
    assert place.runs() == runs[1:]
    assert place.trace_of(runs[0]) == {}
    assert "logs" not in place.trace_of(runs[1])
    assert place.trace_of(runs[2]) == kept
    assert place.rows("SELECT run_id, complete FROM removed_logs") == [(runs[1], 1)]
    digests = {row[0] for row in place.rows("SELECT result_digest FROM run_tasks UNION "
                                            "SELECT arguments_digest FROM definition_tasks")}  # fmt: skip
    assert {row[0] for row in place.rows("SELECT digest FROM payloads")} <= digests


async def test_the_crash_test_reaches_every_step(place: Place) -> None:
    """The number of steps of the pass above is within its range."""
    await place.save()
    runs = [await place.run() for _ in range(3)]
    place.age(runs[0], 31)
    place.age(runs[1], 15)
    done: list[str] = []
    for owner, name in ((place.logs, "remove"), (place.store, "maintain"), (place.engine, "execute")):
        function = getattr(owner, name)

        async def counted(
            *arguments: Any, _function: Any = function, _name: str = name, **options: Any
        ) -> Any:
            done.append(_name)
            return await _function(*arguments, **options)

        setattr(owner, name, counted)
    await one_pass(place)
    assert {"remove", "maintain", "execute"} == set(done) and len(done) == STEPS


def test_every_table_has_a_rule() -> None:
    without = [table.name for table in schema.metadata.sorted_tables if not store.rule_of(table)]
    assert not without, f"name the rule by which these stay bounded in store/retention.py: {without}"
    unknown = set(store.RULES) - {table.name for table in schema.metadata.sorted_tables}
    assert not unknown


def test_every_rule_is_documented() -> None:
    page = (Path(__file__).parents[4] / "docs" / "design" / "retention.md").read_text(encoding="utf-8")
    for table in schema.metadata.sorted_tables:
        assert f"| `{table.name}` | {store.rule_of(table)} |" in page, table.name


async def test_a_defect_or_a_refusal_does_not_end_the_work(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_AFTER", 0.0)
    monkeypatch.setattr(module, "EVERY", 0.001)
    await place.save()
    first, _ = await place.run(), await place.run()
    place.age(first, 31)
    failures: list[Exception] = [CoreError("x", "refused"), RuntimeError("a defect"), OSError(28, "full")]
    execute = place.engine.execute

    async def failing(command: Any) -> Any:
        if failures:
            raise failures.pop()
        return await execute(command)

    place.engine.execute = failing  # type: ignore[method-assign]
    retention = place.retention()
    retention.start()
    await until(lambda: retention.last_pass > 0)
    await retention.close()
    assert place.trace_of(first) == {}
