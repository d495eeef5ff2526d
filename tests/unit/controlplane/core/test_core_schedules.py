"""Predecessors of schedules, checked at save (B90, B94)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cp_world import World, definition, task

from opentailr_controlplane.core.commands import Remove, SaveVersion, StartVersion
from opentailr_controlplane.core.errors import FailedPrecondition, InvalidArgument
from opentailr_controlplane.core.model import NeedsPlan
from opentailr_controlplane.core.values import Environment, Schedule

pytestmark = pytest.mark.clause("B94")


def save(world: World, name: str, after: str = "", *, by_id: str = "", **options: object) -> int:
    schedule = Schedule(run_after_job_id=by_id, run_after_job_name=after)
    made = replace(definition(task(0), name=name), schedule=schedule, **options)  # type: ignore[arg-type]
    return world.do(SaveVersion("alice", made)).version  # type: ignore[union-attr, return-value]


def test_a_predecessor_that_does_not_exist() -> None:
    world = World()
    for where in ({"after": "load-prices"}, {"by_id": "job_test_9"}):
        with pytest.raises(FailedPrecondition, match="to run after") as refused:
            save(world, "report", **where)  # type: ignore[arg-type]
        assert refused.value.reason == "predecessor_missing"
    assert not world.state.jobs, "nothing is half-saved"


@pytest.mark.clause("B90")
def test_it_is_found_by_id_internal_and_display_name_and_the_id_wins() -> None:
    world = World()
    save(world, "load-prices", display_name="Load Prices")
    (job_id,) = world.state.jobs
    save(world, "one", "load-prices")
    save(world, "two", "Load Prices")
    save(world, "three", "no such job", by_id=job_id)


@pytest.mark.clause("B90")
def test_it_lives_in_the_same_environment_and_is_not_removed() -> None:
    world = World()
    save(world, "load-prices")
    with pytest.raises(FailedPrecondition, match="in pre to run after"):
        save(world, "report", "load-prices", environment=Environment.PRE)
    world.do(Remove("alice", "load-prices", Environment.DEV))
    with pytest.raises(FailedPrecondition, match="in dev to run after"):
        save(world, "report", "load-prices")


def test_a_display_name_of_two_jobs() -> None:
    world = World()
    for name in ("load-1", "load-2"):
        save(world, name, display_name="Load")
    with pytest.raises(InvalidArgument, match="load-1, load-2"):
        save(world, "report", "Load")


def test_a_job_after_itself() -> None:
    world = World()
    save(world, "report")
    with pytest.raises(FailedPrecondition, match="'report' would run after itself: report after report"):
        save(world, "report", "report")


def test_a_chain_back_to_the_job() -> None:
    world = World()
    save(world, "a")
    save(world, "b", "a")
    save(world, "c", "b")
    with pytest.raises(FailedPrecondition, match="a after c after b after a") as refused:
        save(world, "a", "c")
    assert refused.value.reason == "schedule_circle"
    save(world, "b")
    assert save(world, "a", "c") == 2, "the latest version of b waits for nothing any more"


def test_the_version_on_its_schedule_counts_before_a_later_one() -> None:
    world = World()
    save(world, "a")
    save(world, "b", "a")
    world.do(StartVersion("alice", "b", Environment.DEV))
    save(world, "b")
    with pytest.raises(FailedPrecondition, match="a after b after a"):
        save(world, "a", "b")


def test_a_definition_that_is_not_in_memory_is_asked_for() -> None:
    world = World()
    save(world, "a")
    save(world, "b", "a")
    kept = dict(world.state.plans)
    world.state.plans.clear()
    with pytest.raises(NeedsPlan) as needed:
        save(world, "a", "b")
    assert len(world.state.jobs) == 2 and not world.state.dirty
    world.state.plans[needed.value.definition_id] = kept[needed.value.definition_id]
    with pytest.raises(FailedPrecondition, match="after itself"):
        save(world, "a", "b")
