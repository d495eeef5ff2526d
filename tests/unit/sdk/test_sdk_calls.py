"""Calling workflows (section 3), with and without a platform."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import App, ExcelAddin, Image, Resources, Schedule, Service, Workflow
from datatailr.errors import UnavailableError
from datatailr.runner import state as runner_state
from datatailr.scheduler import EntryPoint, Job, JobType

FLOWS = """
from datatailr import task, workflow, Schedule, Resources

SEEN = []

@task()
def double(x):
    SEEN.append(x)
    return 2 * x

@task()
def total(*values):
    SEEN.append(values)
    return sum(values)

@workflow(python_version="3.11", env_vars={"A": 1, "B": 2})
def my_cool_flow(n=2, schedule_text="x"):
    total(*[double(i) for i in range(n)])

@workflow(name="Daily", schedule=Schedule(at_hours=[1]))
def daily():
    double(1)

@workflow()
def broken():
    double(1)
    raise KeyError("body")

@workflow()
def empty():
    pass

def start(port):
    pass
"""


@pytest.fixture
def flows(package: Builder) -> Any:
    return package("flows.py", FLOWS)


@pytest.mark.clause("B4", "B57")
def test_name_and_environment_of_a_decorated_workflow(flows: Any) -> None:
    document = json.loads(flows.my_cool_flow(to_json=True))
    assert document["display_name"] == "My Cool Flow"
    assert document["name"] == "my-cool-flow"
    assert document["environment"] == "dev"
    assert json.loads(flows.daily(to_json=True))["display_name"] == "Daily"


@pytest.mark.clause("B48", "B97")
def test_a_call_saves_prints_and_starts(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    assert flows.my_cool_flow() is None
    assert platform.calls == ["save_job", "wait_for_image", "start_job"]
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    assert "Workflow" in output.out
    assert "my-cool-flow" in output.out
    platform.execute(1)
    assert platform.all_runs[1].state == "completed"
    assert flows.SEEN == [0, 1, (0, 2)]


@pytest.mark.clause("B46")
def test_arguments_and_loops_are_fixed_at_the_call(flows: Any, platform: FakePlatform) -> None:
    flows.my_cool_flow(4)
    assert len(platform.latest("my-cool-flow").definition.tasks) == 5
    flows.my_cool_flow(n=1)
    assert len(platform.latest("my-cool-flow").definition.tasks) == 2
    platform.execute(1)
    assert flows.SEEN[-1] == (0, 2, 4, 6)


@pytest.mark.clause("B49")
def test_a_refused_call_is_logged_and_returns_none(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    with platform.failing(UnavailableError("nobody answers")):
        assert flows.my_cool_flow() is None
    output = capsys.readouterr()
    assert output.out == ""
    assert "ERROR" in output.err
    assert "nobody answers" in output.err
    with platform.failing(UnavailableError("nobody answers")):
        frame = inspect.currentframe()
        assert frame is not None
        line = frame.f_lineno + 1
        Workflow("x").stop()
    # the line of the user's own code, not one of this package
    assert f"[Line {line}]: stop of 'x' failed" in capsys.readouterr().err


@pytest.mark.clause("B53")
def test_to_json_sends_nothing(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    text = flows.my_cool_flow(to_json=True, save_only=True, local_run=True)
    assert json.loads(text)["jobs"][0]["name"] == "double"
    assert platform.calls == []
    assert flows.SEEN == []
    assert capsys.readouterr().out == ""


@pytest.mark.clause("B54")
def test_save_only(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    assert flows.my_cool_flow(save_only=True) is None
    assert platform.calls == ["save_job"]
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 1
    assert "'My Cool Flow'" in output
    assert "saved" in output
    flows.my_cool_flow(save_only=True, local_run=True)
    assert platform.calls == ["save_job", "save_job"]
    assert platform.all_runs == {}
    assert flows.SEEN == []


@pytest.mark.clause("B56")
def test_keywords_of_the_call_override_the_decorator(flows: Any) -> None:
    changed = json.loads(
        flows.my_cool_flow(
            to_json=True,
            n=1,
            schedule=Schedule(at_hours=[5]),
            run_as="bob",
            resources=Resources("1g", 2),
            python_version="3.12",
            python_requirements=["a", "b"],
            build_script_pre="pre",
            build_script_post="post",
            env_vars={"C": 3},
            fail_after="1h",
            expire_after="2h",
        )
    )
    assert changed["schedule"] == "0 0 5 * * *"
    assert changed["run_as"] == "bob"
    assert (changed["memory"], changed["num_cpus"]) == ("1g", 2)
    assert changed["image"]["python_version"] == "3.12"
    assert changed["image"]["python_requirements"] == "a\nb"
    assert changed["image"]["build_script_pre"] == "pre"
    assert changed["image"]["build_script_post"] == "post"
    assert changed["jobs"][0]["env"] == [{"DATATAILR_JOB_ENV_C": "3"}]
    assert (changed["fail_after"], changed["expire_after"]) == (3600000000, 7200000000)
    assert len(changed["jobs"]) == 2
    kept = json.loads(flows.my_cool_flow(to_json=True, python_version="", env_vars={}, image=None))
    assert kept["image"]["python_version"] == "3.11"
    assert len(kept["jobs"][0]["env"]) == 2
    own = json.loads(flows.my_cool_flow(to_json=True, image=Image(python_version="3.10")))
    assert own["image"]["python_version"] == "3.10"


@pytest.mark.clause("B58")
def test_a_body_that_raises_sends_nothing(flows: Any, platform: FakePlatform) -> None:
    with pytest.raises(KeyError, match="body"):
        flows.broken()
    with pytest.raises(KeyError), Workflow("x"):
        flows.double(1)
        raise KeyError
    assert platform.calls == []


@pytest.mark.clause("B59")
def test_the_context_manager_deploys(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    with Workflow("Empty"):
        pass
    with Workflow("Kept") as kept:
        flows.double(1)
        kept.set_autorun(False)
    assert platform.calls == []
    # neither is a mistake that would have to be told
    assert capsys.readouterr() == ("", "")
    with Workflow("Sent") as sent:
        flows.double(1)
    assert platform.calls == ["save_job", "wait_for_image", "start_job"]
    assert sent.version == 1


@pytest.mark.clause("B47")
def test_a_workflow_without_tasks(flows: Any, platform: FakePlatform, capsys: Any) -> None:
    assert json.loads(flows.empty(to_json=True))["jobs"] == []
    for use in (Workflow("Empty").save, Workflow("Empty").run):
        done, message = use()
        assert not done
        assert "no tasks" in message
    assert platform.calls == []


@pytest.mark.clause("B60", "B60a")
def test_nothing_is_deployed_while_the_platform_imports(
    flows: Any, platform: FakePlatform, capsys: Any
) -> None:
    job = Service("Svc", flows.start, python_requirements="")
    with runner_state.importing():
        assert flows.my_cool_flow() is None
        assert flows.my_cool_flow(local_run=True) is None
        # the body is not even evaluated: it may be slow, or need what is not there
        assert flows.my_cool_flow("no number", to_json=True) is None
        for use in (job.run, job.save, job.start):
            assert use() == (True, "")
        with Workflow("Block"):
            flows.double(1)
    assert platform.calls == []
    assert flows.SEEN == []
    assert capsys.readouterr() == ("", "")
    flows.my_cool_flow()
    assert job.run()[0]
    assert platform.calls.count("start_job") == 2


ENDS_WITH_RUN = """
from datatailr import Service

def start(port):
    pass

svc = Service("Self", start)
OUTCOME = svc.run()
"""


@pytest.mark.clause("B60a", "B194")
def test_a_file_that_ends_with_run_does_not_deploy_itself(package: Builder, platform: FakePlatform) -> None:
    package("helper.py", "def f():\n    import selfmade\n    return selfmade.OUTCOME\n")
    with runner_state.importing():
        module = package("selfmade.py", ENDS_WITH_RUN)
    assert module.OUTCOME == (True, "")
    assert platform.calls == []


@pytest.mark.clause("B60")
def test_a_task_may_launch_a_workflow(flows: Any, platform: FakePlatform, monkeypatch: Any) -> None:
    monkeypatch.setenv("DATATAILR_RUNNER", "1")
    with runner_state.task_scope("flows:double"):
        flows.my_cool_flow()
    assert platform.calls == ["save_job", "wait_for_image", "start_job"]


@pytest.mark.clause("B60a")
def test_a_streamlit_script_does_not_deploy_itself(
    package: Builder, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    from datatailr import App
    def main(): pass
    def press(): return OWN.run()
    OWN = App("My App", main, framework="streamlit")
    OTHER = App("Other", main, framework="streamlit")
    FIRST, SECOND = OWN.run(), OTHER.save()
    """
    monkeypatch.setenv("DATATAILR_RUNNER", "1")
    monkeypatch.setenv("DATATAILR_JOB_TYPE", "app")
    monkeypatch.setenv("DATATAILR_JOB_NAME", "my-app")
    monkeypatch.setenv("DATATAILR_JOB_ENVIRONMENT", "dev")
    # the script's top level runs again for each visitor, which is no import by the platform
    runner_state.enter_platform_process()
    try:
        module = package("dashboard.py", source)
        assert module.FIRST == (True, "")
        assert module.SECOND[0]
        assert module.SECOND[1] != ""
        assert platform.calls == ["save_job"]
        assert module.press()[1] != ""
        assert platform.calls[1:] == ["save_job", "start_job"]
    finally:
        runner_state._switches.runner_pid = None


@pytest.mark.clause("B61")
def test_without_a_platform_a_call_runs_locally(flows: Any, capsys: Any) -> None:
    assert flows.my_cool_flow() is None
    assert flows.SEEN == [0, 1, (0, 2)]
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 1
    assert "No platform" in output
    with pytest.raises(ValueError, match="schedule"):
        flows.daily()


@pytest.mark.clause("B61")
def test_without_a_platform_saving_fails(flows: Any, capsys: Any) -> None:
    with Workflow("x") as flow:
        flows.double(1)
        flow.set_autorun(False)
    done, message = flow.save()
    assert not done
    assert "DATATAILR_ADDRESS" in message
    assert flows.my_cool_flow(save_only=True) is None
    assert "ERROR" in capsys.readouterr().err
    assert flows.SEEN == []


@pytest.mark.clause("B61")
def test_without_a_platform_other_jobs_raise(flows: Any) -> None:
    jobs: list[Job] = [
        App("a", flows.start),
        Service("s", flows.start),
        ExcelAddin("e", flows.start),
        Job("j", type="app", entrypoint=EntryPoint(JobType.APP, flows.start)),
    ]
    for job in jobs:
        for command in ("run", "save", "start"):
            with pytest.raises(NotImplementedError):
                job.__run_command__(command)
        with pytest.raises(NotImplementedError):
            job.__run_command__("rerun", 1)


@pytest.mark.clause("B43", "B45")
def test_arguments_belong_to_the_saved_version(flows: Any, platform: FakePlatform) -> None:
    values = [1]
    with Workflow("Kept") as flow:
        flows.total(values, [])
        flow.set_autorun(False)
    flow.save()
    values.append(2)
    flow.save()
    first, second = (platform.versions["kept", "dev"][number] for number in (1, 2))
    assert first.arguments[0] != second.arguments[0]
    platform.start_job("kept", "dev", version=1)
    flows.SEEN.clear()
    platform.execute(1)
    assert flows.SEEN == [([1], [])]


@pytest.mark.clause("B44")
def test_an_argument_that_cannot_be_pickled_fails_the_save(
    flows: Any, platform: FakePlatform, capsys: Any
) -> None:
    with Workflow("Locked") as flow:
        flows.double(open(os.devnull))  # noqa: SIM115
        flow.set_autorun(False)
    try:
        for use in (flow.save, flow.run):
            done, message = use()
            assert not done
            assert "argument 'x' of task 'double': " in message
        assert platform.calls == []
    finally:
        flow.tasks[0].args["x"].close()
