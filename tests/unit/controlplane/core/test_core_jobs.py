"""Definitions, versions, images, promotion, removal, repeated requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cp_world import GIB, World, definition, task

from opentailr_controlplane.core.commands import (
    EnsureImage,
    Promote,
    Remove,
    Rerun,
    Restore,
    SaveVersion,
    StartVersion,
    StopJob,
)
from opentailr_controlplane.core.definition import MAX_TASKS, check_definition, image_key
from opentailr_controlplane.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from opentailr_controlplane.core.model import NeedsPrior, PriorRun
from opentailr_controlplane.core.people import version_state
from opentailr_controlplane.core.values import (
    Acl,
    Bundle,
    CauseKind,
    Environment,
    ImageState,
    JobType,
    PeopleState,
    Recipe,
    Resources,
    RunState,
    TaskState,
)

BAD = [
    ("name", {"name": "My Flow"}),
    ("name", {"name": "a--b"}),
    ("display_name", {"display_name": "line\nbreak"}),
    ("run_as", {"run_as": ""}),
    ("image.python_version", {"recipe": Recipe("2.7")}),
    ("bundle.digest", {"bundle": Bundle("zz", 1, "pkg")}),
    ("bundle.directory", {"bundle": Bundle("b" * 64, 1, "../up")}),
    ("resources.memory", {"resources": Resources("0", 0)}),
    ("resources.cpu", {"resources": Resources("1m", 1, float("nan"))}),
    ("fail_after", {"fail_after": -1}),
    ("tasks", {"tasks": ()}),
    ("tasks[1].id", {"tasks": (task(0), replace(task(0), name="b"))}),
    ("tasks[1].name", {"tasks": (task(0), replace(task(1), name="task 0"))}),
    ("tasks[0].name", {"tasks": (replace(task(0), name="a\x00b"),)}),
    ("tasks[0].entrypoint", {"tasks": (replace(task(0), entrypoint=""),)}),
    ("tasks[0].depends_on", {"tasks": (task(0, 7),)}),
    ("tasks", {"tasks": (task(0, 2), task(1, 0), task(2, 1))}),
    ("tasks[0].env[0].name", {"tasks": (replace(task(0), env=(("A=B", "1"),)),)}),
    ("tasks", {"tasks": tuple(task(i) for i in range(MAX_TASKS + 1))}),
    ("tasks", {"type": JobType.APP}),
]


@pytest.mark.parametrize(("field", "change"), BAD)
def test_a_bad_definition_is_refused_whole_and_names_the_field(
    world: World, field: str, change: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        world.do(SaveVersion("alice", replace(definition(task(0)), **change)))  # type: ignore[arg-type]
    assert caught.value.field == field and caught.value.hint
    assert not world.state.jobs and not world.batches


def test_a_cycle_is_shown() -> None:
    with pytest.raises(InvalidArgument, match="task 1 -> task 2 -> task 0 -> task 1"):
        check_definition(definition(task(0, 2), task(1, 0), task(2, 1), task(3)))


@pytest.mark.clause("B26")
def test_a_task_that_depends_on_itself_depends_on_nothing(world: World) -> None:
    assert check_definition(definition(task(0, 0))).tasks[0].depends_on == ()


def test_names_in_any_script_are_fine() -> None:
    names = ["日本 語", 'quote\'s "x"', "slash/b\\c", "émoji 🎉", "؋ עברית"]
    check_definition(definition(*(replace(task(i), name=name) for i, name in enumerate(names))))


@pytest.mark.clause("B98", "B99", "B5")
def test_each_save_makes_the_next_version_of_the_same_job(world: World) -> None:
    first = world.do(SaveVersion("alice", definition(task(0))))
    second = world.do(SaveVersion("alice", definition(task(0))))
    assert (first.version, second.version) == (1, 2)  # type: ignore[union-attr]
    assert first.job_id == second.job_id  # type: ignore[union-attr]
    world.do(Remove("alice", "flow", all_versions=False))
    assert world.save(task(0)) == 3, "numbers are never reused"


@pytest.mark.clause("B101")
def test_another_type_under_the_same_name_fails(world: World) -> None:
    world.save(task(0))
    with pytest.raises(FailedPrecondition) as caught:
        world.do(SaveVersion("alice", definition(job_type=JobType.APP)))
    assert caught.value.reason == "job_type_clash"


@pytest.mark.clause("B240")
def test_a_version_without_acl_keeps_the_jobs(world: World) -> None:
    world.do(SaveVersion("alice", definition(task(0)), default_acl=Acl(read=(1,))))
    world.do(SaveVersion("alice", definition(task(0)), acl=Acl(read=(2,)), default_acl=Acl(read=(1,))))
    world.do(SaveVersion("alice", definition(task(0)), default_acl=Acl(read=(1,))))
    (job,) = world.state.jobs.values()
    assert job.acl == Acl(read=(2,))


def test_equal_requests_with_one_key_are_one_request(world: World) -> None:
    command = SaveVersion("alice", definition(task(0)), idempotency_key="k", request_digest="d")
    assert world.do(command) == world.do(command)
    (job,) = world.state.jobs.values()
    assert len(job.versions) == 1
    with pytest.raises(AlreadyExists):
        world.do(replace(command, request_digest="other"))
    world.pass_time(24 * 3600 + 1)
    assert world.do(command).version == 2  # type: ignore[union-attr]


# ------------------------------------------------------------------ images


@pytest.mark.clause("B100", "B102")
def test_a_version_is_created_built_ready_and_its_run_waits(world: World) -> None:
    world.save(task(0))
    (job,) = world.state.jobs.values()
    image = world.state.images[job.versions[1].image_key]
    states = [version_state(job, job.versions[1], image)]
    run = world.start()
    world.join()
    assert run.tasks[0].state is TaskState.READY, "the image is not there"
    world.build(ImageState.BUILDING)
    states.append(version_state(job, job.versions[1], image))
    world.build()
    states.append(version_state(job, job.versions[1], image))
    assert states == [PeopleState.CREATED, PeopleState.BUILDING, PeopleState.READY]
    assert run.tasks[0].state is TaskState.ACTIVE


def test_equal_recipes_build_once(world: World) -> None:
    world.join()
    world.save(task(0), name="a")
    world.save(task(0), name="b", bundle="c" * 64)
    assert len(world.state.builds) == 1
    world.build()
    world.save(task(0), name="c")
    assert not world.state.builds


def test_a_post_script_makes_the_code_part_of_the_image() -> None:
    plain, post = Recipe("3.11", "numpy"), Recipe("3.11", "numpy", "", "make")
    one, two = Bundle("1" * 64, 1, "p"), Bundle("2" * 64, 1, "p")
    assert image_key(plain, one) == image_key(plain, two) == image_key(Recipe("3.11", "\n numpy \n"), None)
    assert image_key(post, one) != image_key(post, two)


def test_a_failed_build_fails_waiting_runs_and_a_save_tries_again(world: World) -> None:
    world.join()
    world.save(task(0), task(1, 0))
    run = world.start()
    world.build(ImageState.FAILED, CauseKind.BUILD_FAILED)
    assert run.state is RunState.FAILED
    assert run.cause is not None and run.cause.kind is CauseKind.BUILD_FAILED and "pip" in run.cause.message
    with pytest.raises(FailedPrecondition, match="pip said no"):
        world.do(StartVersion("alice", "flow"))
    world.save(task(0))
    world.build()
    assert world.start().tasks[0].state is TaskState.ACTIVE


def test_a_build_that_the_platform_loses_is_made_again_within_a_budget(world: World) -> None:
    world.join()
    world.save(task(0))
    for _ in range(3):
        world.build(ImageState.FAILED, CauseKind.NODE_FAULT)
        assert len(world.state.builds) == 1
    world.build(ImageState.FAILED, CauseKind.NODE_FAULT)
    (image,) = world.state.images.values()
    assert image.state is ImageState.FAILED and not world.state.builds


@pytest.mark.clause("B174")
def test_a_pre_script_is_refused_where_no_node_allows_it(world: World) -> None:
    world.join()
    with pytest.raises(FailedPrecondition, match="allow") as caught:
        world.save(task(0), pre="apt-get install x")
    assert "--allow-pre-scripts" in caught.value.hint
    world.join("agt_2", pre=True)
    world.save(task(0), pre="apt-get install x")
    (build,) = world.state.builds.values()
    assert build.agent_id == "agt_2"


def test_ensure_image_answers_the_same_build(world: World) -> None:
    first = world.do(EnsureImage("alice", Recipe("3.12")))
    second = world.do(EnsureImage("alice", Recipe("3.12")))
    assert first == second and first.state is ImageState.QUEUED  # type: ignore[union-attr]
    with pytest.raises(InvalidArgument, match="post script"):
        world.do(EnsureImage("alice", Recipe("3.12", build_script_post="make")))


# ------------------------------------------------------------------ start


@pytest.mark.clause("B104", "B106")
def test_start_takes_the_latest_version_and_fails_without_any(world: World) -> None:
    with pytest.raises(NotFound):
        world.do(StartVersion("alice", "flow"))
    world.save(task(0))
    world.save(task(0))
    assert world.do(StartVersion("alice", "flow")).version == 2  # type: ignore[union-attr]
    assert world.do(StartVersion("alice", "flow", version=1)).version == 1  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        world.do(StartVersion("alice", "flow", version=9))


@pytest.mark.clause("B103", "B105", "B124")
def test_a_schedule_is_entered_once_and_left_by_stop(world: World) -> None:
    world.save(task(0), schedule="0 0 8 * * *")
    reply = world.do(StartVersion("alice", "flow"))
    assert (reply.run_id, reply.state) == (0, PeopleState.SCHEDULED)  # type: ignore[union-attr]
    with pytest.raises(FailedPrecondition, match="schedule"):
        world.do(StartVersion("alice", "flow"))
    world.do(StopJob("alice", "flow"))
    assert world.do(StartVersion("alice", "flow")).state is PeopleState.SCHEDULED  # type: ignore[union-attr]


@pytest.mark.clause("B103", "B269")
def test_a_scheduled_version_runs_now_when_told(world: World) -> None:
    world.save(task(0), schedule="0 0 8 * * *")
    reply = world.do(StartVersion("alice", "flow", now=True))
    assert reply.run_id and reply.state is not PeopleState.SCHEDULED  # type: ignore[union-attr]
    assert world.do(StartVersion("alice", "flow")).state is PeopleState.SCHEDULED  # type: ignore[union-attr]
    assert world.do(StartVersion("alice", "flow", now=True)).run_id  # type: ignore[union-attr]
    with pytest.raises(FailedPrecondition, match="schedule"):
        world.do(StartVersion("alice", "flow"))


@pytest.mark.clause("B105")
def test_a_workflow_starts_again_while_it_runs(world: World) -> None:
    first = world.ready(task(0))
    second = world.start()
    assert first.run_id != second.run_id and len(world.state.runs) == 2


def test_a_start_without_nodes_says_so(world: World) -> None:
    world.save(task(0, memory=GIB))
    assert "No node" in world.do(StartVersion("alice", "flow")).notices[0]  # type: ignore[union-attr]


def test_a_run_date_must_be_a_date(world: World) -> None:
    world.save(task(0))
    with pytest.raises(InvalidArgument) as caught:
        world.do(StartVersion("alice", "flow", run_date="tomorrow"))
    assert caught.value.field == "run_date"


# ------------------------------------------------------------------ promotion


def job(world: World, environment: Environment) -> object:
    return world.state.jobs[world.state.job_names["flow", environment]]


@pytest.mark.clause("B119", "B122", "B123")
def test_promotion_copies_image_and_number_and_starts_nothing(world: World) -> None:
    world.save(task(0))
    world.save(task(0))
    reply = world.do(Promote("alice", "flow", Environment.DEV))
    assert reply.moves == ("flow version 2: dev to pre",)  # type: ignore[union-attr]
    source, target = job(world, Environment.DEV), job(world, Environment.PRE)
    assert target.versions[2].image_key == source.versions[2].image_key  # type: ignore[attr-defined]
    assert target.versions[2].definition_id == source.versions[2].definition_id  # type: ignore[attr-defined]
    assert not world.state.runs and len(world.state.builds) == 1
    before = dict(target.versions)  # type: ignore[attr-defined]
    world.do(Promote("alice", "flow", Environment.DEV))
    assert dict(target.versions) == before  # type: ignore[attr-defined]


@pytest.mark.clause("B120")
def test_promotion_of_all_moves_each_one_step(world: World) -> None:
    world.save(task(0))
    world.do(Promote("alice", "flow"))
    world.save(task(0))
    reply = world.do(Promote("alice", "flow"))
    assert reply.moves == (  # type: ignore[union-attr]
        "flow version 1: pre to prod",
        "flow version 2: dev to pre",
    )
    with pytest.raises(NotFound):
        world.do(Promote("alice", "unknown"))


@pytest.mark.clause("B121")
def test_promotions_that_cannot_be(world: World) -> None:
    world.save(task(0), verified=False)
    with pytest.raises(FailedPrecondition, match="verified"):
        world.do(Promote("alice", "flow", Environment.DEV))
    with pytest.raises(FailedPrecondition, match="last"):
        world.do(Promote("alice", "flow", Environment.PROD))
    with pytest.raises(NotFound):
        world.do(Promote("alice", "flow", Environment.DEV, 7))


@pytest.mark.clause("B125")
def test_remove_stops_and_hides_and_restore_brings_back(world: World) -> None:
    run = world.ready(task(0))
    world.save(task(0))
    assert world.do(Remove("alice", "flow", all_versions=False)).versions == (2,)  # type: ignore[union-attr]
    assert run.state is RunState.QUEUED, "version 1 goes on"
    assert world.do(StartVersion("alice", "flow")).version == 1  # type: ignore[union-attr]
    assert world.do(Remove("alice", "flow")).versions == (1,)  # type: ignore[union-attr]
    assert run.state is RunState.CANCELLING
    with pytest.raises(NotFound):
        world.do(StartVersion("alice", "flow"))
    assert world.do(Restore("alice", "flow", version=2)).versions == (2,)  # type: ignore[union-attr]
    assert world.do(Restore("alice", "flow")).versions == (1,)  # type: ignore[union-attr]


@pytest.mark.clause("B125", "B269")
def test_one_version_can_be_removed(world: World) -> None:
    for _ in range(3):
        world.save(task(0))
    assert world.do(Remove("alice", "flow", all_versions=False, version=2)).versions == (2,)  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        world.do(Remove("alice", "flow", all_versions=False, version=2))
    assert world.do(Remove("alice", "flow")).versions == (1, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("job_type", [JobType.APP, JobType.SERVICE, JobType.EXCEL])
def test_other_types_are_saved_and_not_started(world: World, job_type: JobType) -> None:
    assert world.save(job_type=job_type) == 1
    with pytest.raises(FailedPrecondition) as caught:
        world.do(StartVersion("alice", "flow"))
    assert caught.value.reason == "job_type_not_supported"


@pytest.mark.clause("B57a")
def test_a_save_beyond_dev_needs_a_verified_repository() -> None:
    world = World()
    for environment in (Environment.PRE, Environment.PROD):
        with pytest.raises(FailedPrecondition, match="deploy to dev and promote"):
            world.save(task(0), environment=environment, verified=False)
    assert not world.state.jobs
    assert world.save(task(0), environment=Environment.PROD) == 1
    assert world.save(task(0), verified=False) == 1


@pytest.mark.clause("B127", "B132")
def test_a_rerun_waits_for_the_end_that_is_being_committed() -> None:
    """The run is no longer active here, but what was read of it is older than its end."""
    world = World()
    world.save(task(0))
    stale = PriorRun(1, "job_test_1", "flow", Environment.DEV, RunState.RUNNING, -1, {})
    world.state.priors[1] = stale
    with pytest.raises(NeedsPrior):
        world.do(Rerun("alice", 1))
    world.state.priors[1] = replace(stale, state=RunState.FAILED)
    with pytest.raises(FailedPrecondition, match="'task 0' differs"):
        world.do(Rerun("alice", 1))
