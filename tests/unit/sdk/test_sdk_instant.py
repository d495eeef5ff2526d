"""Instant runs and their handle (B55)."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr.errors import ImageBuildError, NotConfiguredError, UnavailableError
from datatailr.runner import state as runner_state
from datatailr.utils import Environment

pytestmark = pytest.mark.clause("B55")

FLOWS = """
from datatailr import Schedule, task, workflow

@task()
def double(x):
    return 2 * x

@task()
def total(*values):
    return sum(values)

@task()
def broken():
    raise KeyError("inside")

@workflow(python_version="3.11")
def flow(n=2):
    total(*[double(i) for i in range(n)]).alias("sum")

@workflow(python_version="3.11", schedule=Schedule(at_hours=[1]))
def daily():
    double(4)

@workflow(python_version="3.11")
def failing():
    total(broken())

@workflow(python_version="3.11")
def two_ends():
    double(1)
    double(2)

@workflow()
def empty():
    pass
"""


@pytest.fixture
def flows(package: Builder) -> Any:
    return package("flows.py", FLOWS)


def test_it_runs_and_no_version_is_saved(
    flows: Any, platform: FakePlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    flows.flow(save_only=True)
    handle = flows.flow(3, instant_run=True)
    assert "run 1" in capsys.readouterr().out
    assert (handle.run_id, handle.environment) == (1, Environment.DEV)
    assert handle.job_id == platform.latest("flow").job_id
    assert handle.workflow.name == "Flow"
    assert handle.workflow.versions() == [1]
    assert platform.latest("flow").number == 1
    assert handle.status() == "pending"
    platform.execute(1)
    assert handle.wait() == handle.status() == "completed"
    assert handle.task_status() == dict.fromkeys(["double", "double-1", "double-2", "sum"], "completed")
    assert handle.result() == handle.result("sum") == handle.result(task_id=3) == 6
    assert handle.result("double-2") == 4
    assert handle.logs("sum") == "ran total\nsecond line\n"
    assert handle.run_details()["run_id"] == 1
    assert [run["run_id"] for run in handle.workflow.runs()] == [1]


def test_it_waits_for_the_environment_and_needs_no_repository(flows: Any, platform: FakePlatform) -> None:
    handle = flows.flow(instant_run=True)
    assert platform.built == ["image-1"]
    (version,) = platform.versions["flow", "dev"].values()
    assert version.definition.instant and not version.definition.repository_verified
    assert handle.workflow.version == 1


def test_a_schedule_is_left_alone(flows: Any, platform: FakePlatform) -> None:
    flows.daily()
    handle = flows.daily(instant_run=True)
    assert handle.status() == "pending"
    assert platform.latest("daily").state == "scheduled"


def test_a_failure_is_told_and_no_result(flows: Any, platform: FakePlatform) -> None:
    handle = flows.failing(instant_run=True)
    platform.execute(handle.run_id)
    assert handle.wait(timeout=5) == "failed"
    assert handle.task_status() == {"broken": "failed", "total": "did_not_run"}
    assert handle.result() is None
    assert "KeyError" in handle.logs("broken", stderr=True)


def test_waiting_ends_with_the_run_or_in_time(flows: Any, platform: FakePlatform) -> None:
    handle = flows.flow(instant_run=True)
    with pytest.raises(TimeoutError, match=r"still pending after 0\.01 s"):
        handle.wait(timeout=0.01)
    begun = threading.Event()
    answers: list[str] = []

    def wait() -> None:
        begun.set()
        answers.append(handle.wait())

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(5)
    platform.execute(handle.run_id)
    waiting.join(5)
    assert answers == ["completed"]


def test_stop_ends_this_run_only(flows: Any, platform: FakePlatform) -> None:
    first, second = (flows.flow(instant_run=True) for _ in range(2))
    assert first.stop()[0] is True
    assert (first.status(), second.status()) == ("stopped", "pending")
    with platform.failing(UnavailableError("no answer")):
        done, message = second.stop()
    assert not done and message.startswith(f"stopping run {second.run_id} of 'Flow' failed: no answer")


def test_several_last_tasks_must_be_named(flows: Any, platform: FakePlatform) -> None:
    handle = flows.two_ends(instant_run=True)
    platform.execute(handle.run_id)
    with pytest.raises(ValueError, match="'double', 'double-1'"):
        handle.result()
    with pytest.raises(ValueError, match="no task named 'nonsense'"):
        handle.result("nonsense")


def test_it_shows_itself(flows: Any, platform: FakePlatform) -> None:
    handle = flows.flow(1, instant_run=True)
    handle.workflow.name = "<Flow>"
    assert repr(handle) == "<Instant run 1 of '<Flow>' in dev>"
    page = handle._repr_html_()
    assert "run 1 of &lt;Flow&gt;: pending" in page and "<td>sum</td>" not in page.partition("<tr>")[0]
    with platform.failing(UnavailableError("no answer\nhint: x")):
        assert "no answer" in handle._repr_html_()


def test_what_goes_wrong_is_raised(flows: Any, platform: FakePlatform) -> None:
    with pytest.raises(ValueError, match="has no tasks"):
        flows.empty(instant_run=True)
    platform.broken_images.add("image-1")
    with pytest.raises(ImageBuildError):
        flows.flow(instant_run=True)
    with platform.failing(UnavailableError("no answer")), pytest.raises(UnavailableError):
        flows.flow(instant_run=True)
    assert not platform.all_runs


def test_without_a_platform_there_is_no_handle(flows: Any) -> None:
    with pytest.raises(NotConfiguredError, match="no platform is configured"):
        flows.flow(instant_run=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_run": True}, "instant_run and local_run"),
        ({"save_only": True}, "instant_run and save_only"),
        ({"instant_run_mode": "cloudpickle"}, "instant_run_mode is 'cloudpickle'"),
        ({"instant_run_embed": ["helpers"]}, "instant_run_embed is"),
        ({"instant_run_workstation_image": True}, "instant_run_workstation_image is"),
    ],
)
def test_options_that_do_not_fit(
    flows: Any, platform: FakePlatform, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        flows.flow(instant_run=True, **options)
    assert platform.calls == []


@pytest.mark.parametrize("mode", [None, "auto", "Source"])
def test_modes_that_mean_the_same_here(flows: Any, platform: FakePlatform, mode: str | None) -> None:
    assert flows.flow(instant_run=True, instant_run_mode=mode, instant_run_embed=None).run_id == 1


@pytest.mark.clause("B54", "B60")
def test_to_json_wins_and_imports_start_nothing(flows: Any, platform: FakePlatform) -> None:
    assert '"flow"' in flows.flow(instant_run=True, to_json=True)
    with runner_state.importing():
        assert flows.flow(instant_run=True) is None
    assert platform.calls == []
