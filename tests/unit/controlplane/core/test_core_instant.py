"""Instant versions: made for one run, in no list (B55)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cp_world import World, definition, task

from opentailr_controlplane.core.commands import (
    Promote,
    Remove,
    Rerun,
    Restore,
    SaveVersion,
    StartVersion,
)
from opentailr_controlplane.core.errors import FailedPrecondition, InvalidArgument, NotFound
from opentailr_controlplane.core.model import PriorRun
from opentailr_controlplane.core.values import (
    Acl,
    AttemptState,
    Environment,
    ImageState,
    JobType,
    RunState,
    Schedule,
)

pytestmark = pytest.mark.clause("B55")
DEV = Environment.DEV


def instant(world: World, **options: object) -> int:
    reply = world.do(
        SaveVersion(
            "alice",
            replace(definition(task(0)), **options),  # type: ignore[arg-type]
            acl=Acl(read=(9,)),
            default_acl=Acl(read=(1,)),
            instant=True,
        )
    )
    return reply.version  # type: ignore[union-attr, return-value]


def test_it_is_never_the_latest_and_changes_nothing_of_the_job() -> None:
    world = World()
    world.save(task(0))
    (job,) = world.state.jobs.values()
    before = (job.display_name, job.acl)
    number = instant(world, display_name="F-L-O-W")
    assert number == 2
    assert (job.display_name, job.acl) == before
    assert job.latest() is job.versions[1]
    assert job.listed() == [1]
    assert world.save(task(0)) == 3
    assert job.listed() == [1, 3]


def test_its_number_starts_it_and_nothing_else_does() -> None:
    world = World()
    number = instant(world)
    world.join()
    world.build(ImageState.READY)
    with pytest.raises(NotFound, match="not removed"):
        world.do(StartVersion("alice", "flow", DEV))
    assert world.start(number).version == number


def test_it_cannot_be_promoted() -> None:
    world = World()
    world.save(task(0))
    number = instant(world)
    for source in (DEV, None):
        with pytest.raises(FailedPrecondition) as refused:
            world.do(Promote("alice", "flow", source, number))
        assert refused.value.reason == "version_instant"


def test_removal_and_restoring_tell_of_saved_versions_only() -> None:
    world = World()
    world.save(task(0))
    instant(world)
    (job,) = world.state.jobs.values()
    assert world.do(Remove("alice", "flow", DEV)).versions == (1,)  # type: ignore[union-attr]
    assert all(version.removed for version in job.versions.values())
    assert world.do(Restore("alice", "flow", DEV)).versions == (1,)  # type: ignore[union-attr]
    assert job.listed() == [1]


def test_only_workflows_in_dev_without_a_schedule() -> None:
    world = World()
    refused: list[tuple[str, dict[str, object]]] = [
        ("instant", {"environment": Environment.PRE}),
        ("instant", {"type": JobType.SERVICE, "entrypoint": "m:f", "tasks": ()}),
        ("definition.schedule", {"schedule": Schedule("0 0 * * * *")}),
    ]
    for field, options in refused:
        made = replace(definition(task(0)), **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument) as error:
            world.do(SaveVersion("alice", made, instant=True))
        assert error.value.field == field
    assert not world.state.jobs


@pytest.mark.clause("B126")
def test_a_rerun_of_an_instant_run_has_its_code_unless_a_version_is_given() -> None:
    world = World()
    number = instant(world)
    saved = world.save(task(0))
    world.join()
    world.build(ImageState.READY)
    run = world.start(number)
    world.report(world.attempt(run), AttemptState.SUCCEEDED, result=b"1")
    ended = PriorRun(run.run_id, run.job_id, "flow", DEV, RunState.SUCCEEDED, -1, {}, number)
    for asked, expected in ((0, number), (saved, saved)):
        world.state.priors[run.run_id] = ended
        reply = world.do(Rerun("alice", run.run_id, version=asked, full=True))
        assert reply.version == expected  # type: ignore[union-attr]
