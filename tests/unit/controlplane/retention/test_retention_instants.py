"""Instant versions leave after their runs, with all that they consist of, and nothing else does."""

from __future__ import annotations

import time

import pytest
from cp_engine import until
from cp_world import definition, task
from retention_world import Place, one_pass

from opentailr_controlplane.core.commands import Rerun, RerunReply, SaveReply, SaveVersion, StartVersion
from opentailr_controlplane.core.errors import CoreError


async def instant(place: Place) -> int:
    """A finished instant run; returns its number."""
    saved = await place.engine.execute(SaveVersion("alice", definition(task(0), task(1, 0)), instant=True))
    assert isinstance(saved, SaveReply)
    reply = await place.engine.execute(StartVersion("alice", "flow", version=saved.version))
    run_id = reply.run_id  # type: ignore[union-attr]
    await until(lambda: not place.engine.run_active(run_id))
    return int(run_id)


def make_old(place: Place, days: float = 40) -> None:
    """Lets all instant versions and all runs be of some days ago."""
    then = int((time.time() - days * 86_400) * 1e6)
    place.write("UPDATE versions SET create_time = ? WHERE instant", then)
    place.write("UPDATE runs SET end_time = ?", then)


def counts(place: Place) -> dict[str, int]:
    tables = ("versions", "definitions", "definition_tasks", "runs")
    return {name: place.rows(f"SELECT count(*) FROM {name}")[0][0] for name in tables}


@pytest.mark.clause("B55")
async def test_they_leave_with_the_last_of_their_runs(place: Place) -> None:
    await place.save()
    runs = [await instant(place) for _ in range(3)]
    last = await place.run()
    assert counts(place) == {"versions": 4, "definitions": 4, "definition_tasks": 8, "runs": 4}
    make_old(place)
    await one_pass(place)
    assert place.runs() == [last]
    assert counts(place)["versions"] == 4, "a reader of the run may be looking at its definition"
    retention = await one_pass(place)
    assert counts(place) == {"versions": 1, "definitions": 1, "definition_tasks": 2, "runs": 1}
    assert retention.removed["instants"] == 3
    with pytest.raises(CoreError):
        await place.engine.execute(Rerun("alice", runs[0]))
    await place.run()
    kept = place.rows("SELECT version, instant FROM versions")
    assert kept == [(1, 0)], "the saved version is there and still runs"


@pytest.mark.clause("B98")
async def test_their_numbers_are_not_given_again(place: Place) -> None:
    await instant(place)
    await instant(place)
    await place.save()
    await place.run()
    make_old(place)
    for _ in range(2):
        await one_pass(place)
    assert place.rows("SELECT version FROM versions") == [(3,)]
    await place.save()
    assert place.rows("SELECT version FROM versions ORDER BY version") == [(3,), (4,)]


async def test_young_ones_and_those_of_active_runs_stay(place: Place) -> None:
    await place.save()
    run_id = await instant(place)
    newest = await place.run()
    assert newest > run_id
    place.write("UPDATE runs SET end_time = 1 WHERE run_id = ?", run_id)
    for _ in range(2):
        await one_pass(place)
    assert place.runs() == [newest]
    assert counts(place)["versions"] == 2, "it may be about to be started"

    place.agent.outcome = lambda order: None
    await place.engine.execute(StartVersion("alice", "flow", version=2))
    await until(lambda: bool(place.agent.running))
    make_old(place)
    for _ in range(2):
        await one_pass(place)
    assert counts(place)["versions"] == 2


async def test_a_rerun_keeps_the_version_it_needs(place: Place) -> None:
    await place.save()
    first = await instant(place)
    reply = await place.engine.execute(Rerun("alice", first, full=True))
    assert isinstance(reply, RerunReply)
    await until(lambda: not place.engine.run_active(reply.run_id))
    await place.run()
    make_old(place)
    place.write("UPDATE runs SET end_time = ? WHERE run_id = ?", int(time.time() * 1e6), reply.run_id)
    for _ in range(2):
        await one_pass(place)
    assert counts(place)["versions"] == 2
    assert (await place.rerun(reply.run_id, full=True)) > reply.run_id


async def test_memory_and_store_agree_on_what_is_left(place: Place) -> None:
    await place.save()
    await instant(place)
    await place.run()
    make_old(place)
    for _ in range(2):
        await one_pass(place)
    (job,) = place.engine.jobs()
    assert set(job.versions) == {1}
    assert place.rows("SELECT definition_id FROM versions") == place.rows(
        "SELECT definition_id FROM definitions"
    )
