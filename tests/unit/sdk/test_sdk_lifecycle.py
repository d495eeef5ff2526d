"""Save, start, stop, load, promote, rerun (section 7)."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import ACL, App, Environment, Image, Resources, Schedule, Service, User, Workflow
from datatailr.errors import ConflictError, TaskError, UnavailableError
from datatailr.scheduler import Job, JobType, set_allow_unsafe_scheduling

SOURCE = """
from datatailr import task

@task()
def load():
    return [1, 2]

@task()
def total(values):
    if FAIL:
        raise ValueError("broken")
    return sum(values)

FAIL = False

def serve(port):
    pass

def other(port):
    pass
"""


@pytest.fixture
def code(package: Builder) -> Any:
    return package("code_.py", SOURCE)


def make(code: Any, name: str = "My Flow", **options: Any) -> Workflow:
    with Workflow(name, **options) as flow:
        code.total(code.load())
        flow.set_autorun(False)
    return flow


@pytest.mark.clause("B95", "B96", "B5", "B98", "B99")
def test_saving_gives_versions(code: Any, platform: FakePlatform) -> None:
    flow = make(code)
    before = flow.id
    done, message = flow.save()
    assert done is True
    assert isinstance(message, str)
    assert (flow.version, flow.state) == (1, "building")
    assert flow.id == "job-my-flow-dev" != before
    assert isinstance(flow.create_time, datetime)
    flow.save()
    assert flow.version == 2
    again = make(code)
    again.save()
    assert (again.version, again.id) == (3, flow.id)


@pytest.mark.clause("B95")
def test_platform_errors_are_pairs(code: Any, platform: FakePlatform, capsys: Any) -> None:
    flow = make(code)
    with platform.failing(UnavailableError("nobody answers")):
        for use in (
            flow.save,
            flow.run,
            flow.start,
            flow.stop,
            flow.remove,
            flow.promote,
            lambda: flow.rerun(1),
        ):
            done, message = use()
            assert done is False
            assert "nobody answers" in message
            assert "'My Flow'" in message
            error = capsys.readouterr()
            assert "ERROR" in error.err
            assert message in error.err
            assert error.out == ""


@pytest.mark.clause("B97")
def test_the_line_after_success(
    code: Any, platform: FakePlatform, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.public_url = "https://dt.example/"
    make(code).run()
    line = capsys.readouterr().out
    assert "https://dt.example/job-details/my-flow/batch/dev/1?tab=definition" in line
    assert line.startswith("\x1b[32mWorkflow")
    assert line.count("\n") == 1
    Service("My Svc", code.serve).save()
    assert "Service 'My Svc'" in capsys.readouterr().out
    monkeypatch.setattr("datatailr.logging._NO_COLOR", True)
    make(code).save()
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.clause("B101")
def test_a_name_belongs_to_one_type(code: Any, platform: FakePlatform) -> None:
    make(code, "Same").save()
    done, message = Service("same", code.serve).save()
    assert not done
    assert "batch" in message


@pytest.mark.clause("B102", "B100")
def test_run_starts_exactly_the_saved_version(code: Any, platform: FakePlatform, capsys: Any) -> None:
    flow = make(code)
    real = platform.wait_for_image

    def somebody_saves_meanwhile(key: str, **options: Any) -> None:
        make(code).save()
        real(key, **options)

    platform.wait_for_image = somebody_saves_meanwhile  # type: ignore[method-assign]
    assert flow.run()[0]
    assert platform.all_runs[1].version.number == 1
    assert platform.latest("my-flow").number == 2
    assert "building image-1" in capsys.readouterr().err


@pytest.mark.clause("B100", "B102")
def test_a_failed_build_is_told(code: Any, platform: FakePlatform) -> None:
    platform.broken_images.add("image-1")
    done, message = make(code).run()
    assert not done
    assert "nonsense" in message
    assert "image of version 1" in message
    assert platform.all_runs == {}


@pytest.mark.clause("B103", "B104", "B106")
def test_start(code: Any, platform: FakePlatform) -> None:
    flow = make(code, schedule=Schedule(at_hours=[1]))
    done, message = flow.start()
    assert not done
    assert "my-flow" in message
    flow.save()
    done, message = flow.start()
    assert done
    assert "is on its schedule" in message
    assert (flow.state, platform.all_runs) == ("scheduled", {})
    plain = make(code, "Plain")
    plain.save()
    plain.save()
    calls = len(platform.calls)
    Workflow("PLAIN").start()
    assert platform.calls[calls:] == ["start_job"]
    assert platform.all_runs[1].version.number == 2


@pytest.mark.clause("B112", "B113", "B116")
def test_get_existing_loads_the_definition(code: Any, platform: FakePlatform) -> None:
    schedule = Schedule(at_hours=[1], timezone="Europe/Paris")
    flow = make(
        code,
        schedule=schedule,
        resources=Resources("1g", 2),
        env_vars={"A": 1},
        fail_after="1h",
        expire_after="2h",
        python_requirements=["numpy"],
        run_as="alice",
        acl=ACL.from_stored({"read": [42]}),
    )
    flow.tasks[1].alias("sum").set_resources(memory="64m", cpu=3)
    flow.save()
    flow.save()
    for name in ("My Flow", "my-flow"):
        loaded = Workflow(name, get_existing=True)
        assert (loaded.name, loaded.environment, loaded.type) == (
            "My Flow",
            Environment.DEV,
            JobType.WORKFLOW,
        )
        assert (loaded.id, loaded.version, loaded.state) == (flow.id, 2, "building")
        assert loaded.create_time == flow.create_time
        assert loaded.run_as == User("alice")
        assert loaded.resources == Resources("1024m", 2.0)
        assert loaded.schedule == schedule
        assert (loaded.fail_after, loaded.expire_after) == (timedelta(hours=1), timedelta(hours=2))
        assert loaded.image == flow.image
        assert loaded.acl == ACL.from_stored({"read": [42]})
    tasks = [(t.name, t.id, t.translate_dependencies(), t.resources, t.env_vars) for t in loaded.tasks]
    assert tasks == [
        ("load", 0, set(), Resources("1024m", 2.0), {"A": "1"}),
        ("sum", 1, {0}, Resources("64m", 3.0), {"A": "1"}),
    ]
    assert str(loaded.tasks[1].entrypoint) == "code_:total"
    assert Workflow("my flow", get_existing=True, version=1).version == 1


@pytest.mark.clause("B112", "B180")
def test_arguments_override_what_is_loaded(code: Any, platform: FakePlatform) -> None:
    options: dict[str, Any] = {"env_vars": {"A": 1}, "python_requirements": ["a"], "python_version": "3.11"}
    Service("Svc", code.serve, resources=Resources("2g", 3), app_section="Old", **options).save()
    same = Service("Svc", None, get_existing=True)
    assert str(same.entrypoint) == "code_:serve"
    assert same.env_vars == {"A": "1"}
    assert (same.resources, same.app_section) == (Resources("2048m", 3.0), "Old")
    assert same.image.python_version == "3.11"
    changed = Service(
        "Svc",
        code.other,
        get_existing=True,
        resources=Resources("1g", 1),
        env_vars={"B": 2},
        python_version="3.13",
        app_section="New",
    )
    assert changed.app_section == "New"
    assert str(changed.entrypoint) == "code_:other"
    assert changed.resources == Resources("1g", 1)
    assert changed.env_vars == {"B": 2}
    assert changed.image.python_version == "3.13"
    assert changed.image.python_requirements == "a"
    assert changed.save()[0]
    assert (changed.version, changed.id) == (2, same.id)


@pytest.mark.clause("B112")
def test_resources_override_when_they_differ_from_the_default_of_the_class(
    code: Any, platform: FakePlatform
) -> None:
    make(code, resources=Resources("1g", 2)).save()
    assert Workflow("My Flow", get_existing=True).resources == Resources("1024m", 2.0)
    # the default of a workflow is None, so these are a wish
    assert Workflow("My Flow", get_existing=True, resources=Resources()).resources == Resources()


@pytest.mark.clause("B180")
def test_an_image_is_used_as_it_is(code: Any) -> None:
    image = Image(python_version="3.11", path_to_repo="/elsewhere", path_to_module="other")
    job = Service("Svc", code.serve, image=image, python_version="3.14", python_requirements="ignored")
    assert job.image is image
    assert (image.python_version, image.python_requirements) == ("3.11", "")
    # only what is empty is filled
    assert (image.path_to_repo, image.path_to_module) == ("/elsewhere", "other")
    filled = Service("Svc", code.serve, image=Image()).image
    assert filled.path_to_repo == str(Path(code.__file__).parents[1])
    assert filled.path_to_module == Path(code.__file__).parent.name


@pytest.mark.clause("B113")
def test_saving_a_loaded_job_keeps_its_code(code: Any, platform: FakePlatform) -> None:
    make(code).run()
    files = platform.latest("my-flow").files
    Path(code.__file__).write_text("raise RuntimeError('edited')\n")
    loaded = Workflow("my flow", get_existing=True, env_vars={"NEW": 1})
    assert loaded.save()[0]
    assert loaded.version == 2
    assert platform.latest("my-flow").files == files
    assert platform.latest("my-flow").arguments == platform.versions["my-flow", "dev"][1].arguments
    assert loaded.run()[0]
    assert loaded.versions() == [1, 2, 3]
    platform.execute(2)
    assert loaded.result(2, "total") == 3


@pytest.mark.clause("B114")
def test_loading_what_is_not_there(code: Any, platform: FakePlatform) -> None:
    with pytest.raises(TaskError, match=r"'Nobody' in pre"):
        Workflow("Nobody", environment="pre", get_existing=True)
    make(code).save()
    with pytest.raises(TaskError, match="version 9"):
        Workflow("My Flow", get_existing=True, version=9)
    with (
        platform.failing(ConflictError("my-flow and my.flow")),
        pytest.raises(TaskError, match=r"several jobs fit 'My Flow' in dev: my-flow and my\.flow"),
    ):
        Workflow("My Flow", get_existing=True)


@pytest.mark.clause("B115")
def test_a_version_needs_get_existing(code: Any) -> None:
    for kind in (App, Service):
        with pytest.raises(ValueError, match="get_existing"):
            kind("x", code.serve, version=1)
    for other in (Workflow, Job):
        with pytest.raises(ValueError, match="get_existing"):
            other("x", version=1)


@pytest.mark.clause("B117", "B270")
def test_the_definition_as_a_dict(code: Any, platform: FakePlatform) -> None:
    make(code).save()
    found = Job.__get_existing__("My Flow", Environment.DEV)
    assert (found["name"], found["version"], found["type"]) == ("my-flow", 1, "batch")
    assert "children_full" not in found
    full = Workflow.__get_existing__("my-flow", "dev", version=1, get_tasks=True)
    assert [child["name"] for child in full["children_full"]] == ["load", "total"]


@pytest.mark.clause("B134")
def test_from_dict() -> None:
    described = {
        "display_name": "Svc",
        "name": "svc",
        "environment": "pre",
        "type": "service",
        "image": {"python_version": "3.12"},
        "run_as": "alice",
        "memory": 1 << 30,
        "num_cpus": 2,
        "state": "running",
        "create_time": 1_780_000_000_000_001,
        "version": 4,
        "id": 17,
    }
    job = Job("x")
    job.from_dict(described)
    assert (job.name, job.environment, job.type) == ("Svc", Environment.PRE, JobType.SERVICE)
    assert (job.version, job.id, job.state) == (4, "17", "running")
    assert job.create_time is not None
    assert job.create_time.microsecond == 1
    assert job.resources == Resources("1024m", 2.0)
    for key in described:
        with pytest.raises(ValueError, match=key):
            job.from_dict({name: value for name, value in described.items() if name != key})


@pytest.mark.clause("B118")
def test_versions(code: Any, platform: FakePlatform) -> None:
    subprocess.run(["git", "init", "-q"], cwd=Path(code.__file__).parent, check=True)
    commit_all(Path(code.__file__).parent)
    flow = make(code)
    assert flow.versions() == []
    set_allow_unsafe_scheduling(True)
    try:
        for _ in range(3):
            flow.save()
    finally:
        set_allow_unsafe_scheduling(False)
    assert flow.promote("dev", 2)[0]
    assert flow.versions() == [1, 2, 3]
    assert flow.versions("pre") == [2]
    assert flow.versions(Environment.PROD) == []


def commit_all(directory: Path) -> None:
    subprocess.run(["git", "add", "-A"], cwd=directory, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "-qm", "x"], cwd=directory, check=True)


@pytest.fixture
def verified(code: Any, platform: FakePlatform) -> Workflow:
    """A workflow with versions 1 and 2 in dev that can be promoted."""
    flow = make(code)
    flow.save()
    flow.save()
    for version in platform.versions["my-flow", "dev"].values():
        version.verified = True
    return flow


@pytest.mark.clause("B119", "B122", "B123")
def test_promote_one_environment(verified: Workflow, platform: FakePlatform) -> None:
    done, message = verified.promote(Environment.DEV)
    assert done
    assert "version 2" in message
    assert verified.versions("pre") == [2]
    assert verified.promote("dev", version=1)[0]
    assert verified.versions("pre") == [1, 2]
    assert verified.promote("dev", version="1")[0]
    assert verified.promote("pre", version=1)[0]
    assert verified.versions("prod") == [1]
    assert platform.all_runs == {}
    assert "wait_for_image" not in platform.calls


@pytest.mark.clause("B120")
def test_promote_everywhere_moves_each_version_one_step(verified: Workflow, platform: FakePlatform) -> None:
    assert verified.promote()[0]
    assert (verified.versions("pre"), verified.versions("prod")) == ([2], [])
    assert verified.promote()[0]
    assert verified.versions("prod") == [2]
    for source in ("dev", "pre"):
        del platform.versions["my-flow", source]
    done, message = verified.promote()
    assert not done
    assert "no version that could be moved" in message
    done, message = Workflow("Nobody").promote()
    assert not done
    assert "Nobody" in message or "nobody" in message


@pytest.mark.clause("B121", "B167")
def test_promotion_that_is_refused(verified: Workflow, code: Any, platform: FakePlatform) -> None:
    assert verified.promote("prod")[0] is False
    assert verified.promote("dev", 9)[0] is False
    make(code, "Dirty").save()
    done, message = Workflow("Dirty").promote("dev")
    assert not done
    assert "unverified" in message
    with pytest.raises(ValueError, match="moon"):
        verified.promote("moon")


@pytest.mark.clause("B124", "B125")
def test_stop_and_remove(code: Any, platform: FakePlatform) -> None:
    flow = make(code)
    flow.run()
    flow.run()
    done, message = flow.stop()
    assert done
    assert "1, 2" in message
    assert [run["state"] for run in flow.runs(refresh=True)] == ["stopped", "stopped"]
    assert flow.stop()[0]
    # what runs in one environment is no concern of the other's
    flow.start()
    elsewhere = Workflow("My Flow", environment="pre")
    platform.versions["my-flow", "pre"] = dict(platform.versions["my-flow", "dev"])
    assert "none was active" in elsewhere.stop()[1]
    assert flow.stop()[1].startswith("stopped runs 3 ")
    planned = make(code, "Planned", schedule=Schedule(at_hours=[1]))
    planned.run()
    planned.stop()
    assert platform.latest("planned").state == "ready"
    assert flow.remove(all_versions=False)[0]
    assert flow.versions() == [1]
    assert flow.remove()[0]
    assert flow.versions() == []
    assert flow.remove()[0] is False


@pytest.fixture
def failed(code: Any, platform: FakePlatform) -> Workflow:
    """A workflow whose run 1 completed `load` and failed in `total`."""
    flow = make(code)
    flow.run()
    code.FAIL = True
    platform.execute(1)
    code.FAIL = False
    return flow


@pytest.mark.clause("B126", "B127", "B129", "B131", "B151", "B110")
def test_a_partial_rerun(failed: Workflow, platform: FakePlatform) -> None:
    assert [entry["state"] for entry in failed.run_details(1)["tasks"]] == ["completed", "failed"]
    done, message = failed.rerun(1)
    assert done
    assert "run 2" in message
    platform.execute(2)
    details = failed.run_details(2)
    assert (details["original_run_id"], details["partial_rerun"]) == (1, True)
    assert [entry["state"] for entry in details["tasks"]] == ["did_not_run", "completed"]
    assert failed.result(2, "load") == [1, 2]
    assert failed.result(2, "total") == 3
    assert failed.result(1, "total") is None
    first = failed.runs(refresh=True)[-1]
    assert (first["original_run_id"], first["partial_rerun"]) == (-1, False)
    failed.save()
    failed.rerun("2", version="1")
    latest = failed.runs(refresh=True)[0]
    assert (latest["original_run_id"], latest["job_version"]) == (1, 1)
    failed.rerun(1)
    assert failed.runs(refresh=True)[0]["job_version"] == 2


@pytest.mark.clause("B128")
def test_a_full_rerun(failed: Workflow, platform: FakePlatform) -> None:
    assert failed.rerun(1, full=True)[0]
    platform.execute(2)
    details = failed.run_details(2)
    assert details["partial_rerun"] is False
    assert [entry["state"] for entry in details["tasks"]] == ["completed", "completed"]


@pytest.mark.clause("B132", "B133")
def test_reruns_that_are_refused_and_commands(failed: Workflow, code: Any, platform: FakePlatform) -> None:
    assert failed.rerun(99)[0] is False
    assert failed.rerun("no number")[0] is False
    done, message = Service("Svc", code.serve).__run_command__("rerun", 1)
    assert not done
    assert "no workflow" in message
    failed.run()
    done, message = failed.rerun(2)
    assert not done
    assert "pending" in message
    with pytest.raises(ValueError, match="run_id"):
        failed.__run_command__("rerun")
    assert failed.__run_command__("rerun", 1)[0]
    assert failed.__run_command__("rerun", run_id=1, full=True)[0]
    assert failed.__run_command__("save")[0]
    assert failed.__run_command__("start")[0]
    done, message = failed.__run_command__("dance")
    assert not done
    assert "'dance'" in message
    service = Service("Svc", code.serve)
    service.save()
    assert service.__run_command__("rerun", 1)[0] is False


@pytest.mark.clause("B57a")
def test_saving_beyond_dev(code: Any, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    done, message = make(code, environment="pre").save()
    assert not done
    assert "deploy to dev and promote" in message
    subprocess.run(["git", "init", "-q"], cwd=Path(code.__file__).parent, check=True)
    commit_all(Path(code.__file__).parent)
    monkeypatch.setenv("DATATAILR_ALLOW_UNSAFE_SCHEDULING", "true")
    assert make(code, environment="PRE").save()[0]
    assert platform.latest("my-flow", "pre").number == 1
    platform.may_promote = False
    assert not make(code, environment="pre").save()[0]


@pytest.mark.clause("B94")
def test_an_unknown_predecessor_is_refused(code: Any, platform: FakePlatform) -> None:
    done, message = make(code, schedule=Schedule(run_after_job_name="nobody")).save()
    assert not done
    assert "nobody" in message


@pytest.mark.clause("B75")
def test_a_subclass_can_extend_the_schedule_arguments(code: Any, platform: FakePlatform) -> None:
    class Special(Workflow):
        def get_schedule_args(self) -> dict[str, Any]:
            return {**super().get_schedule_args(), "priority": "high"}

    with Special("Special", schedule=Schedule(at_hours=[1], timezone="UTC")) as flow:
        code.load()
        flow.set_autorun(False)
    flow.save()
    schedule = platform.latest("special").definition.schedule
    assert schedule is not None
    assert schedule.fields == {"at_hours": "1", "timezone": "UTC", "priority": "high"}
    assert (schedule.cron, schedule.timezone) == ("0 0 1 * * *", "UTC")


@pytest.mark.clause("B180")
def test_a_given_image_is_used_as_it_is(code: Any, tmp_path: Path) -> None:
    image = Image(python_version="3.11", python_requirements=["x"])
    job = Service("Svc", code.serve, image=image, python_version="3.13", python_requirements=["y"])
    assert job.image is image
    assert (image.python_version, image.python_requirements) == ("3.11", "x")
    assert (image.path_to_repo, image.path_to_module) == (str(tmp_path), "project")


def test_ls(code: Any, platform: FakePlatform) -> None:
    make(code).save()
    Service("Svc", code.serve).save()
    assert [job["name"] for job in Job.ls()] == ["my-flow", "svc"]
    assert [job["name"] for job in Service.ls("dev")] == ["svc"]
    assert Workflow.ls(environment="prod") == []
