"""Runs, details, logs and results (section 8)."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import Resources, Service, Workflow
from datatailr.errors import ResultLoadError
from datatailr.scheduler._run_views import RunCache, run_entry
from datatailr.scheduler._times import local_time, microseconds

SOURCE = """
from datatailr import task

@task()
def load():
    return [1, 2]

@task()
def broken(values):
    raise ValueError("broken")

@task(memory="256m", cpu=1)
def after(values):
    return values

@task()
def nothing():
    return None

def serve(port):
    pass
"""
RUN_KEYS = {
    *("run_id", "job_name", "state", "job_version", "original_run_id", "partial_rerun", "cost"),
    *("submit_time", "start_provisioning_time", "start_time", "end_time", "scheduled_time"),
    "tried_to_start_time",
}
DETAIL_KEYS = (RUN_KEYS - {"job_name"}) | {"name", "tasks"}
TASK_KEYS = {
    *("cost", "end_time", "scheduled_time", "start_provisioning_time", "start_time", "state", "submit_time"),
    *("tried_to_start_time", "name", "id", "dependencies", "resources"),
}


@pytest.fixture
def code(package: Builder) -> Any:
    return package("flow_code.py", SOURCE)


@pytest.fixture
def flow(code: Any, platform: FakePlatform) -> Workflow:
    """Run 1: load completed, broken failed, after and nothing in between."""
    with Workflow("My Flow") as made:
        first = code.load()
        code.after(code.broken(first))
        code.nothing()
        code.after(first).alias("independent")
        made.set_autorun(False)
    made.run()
    platform.execute(1)
    return made


@pytest.mark.clause("B143", "B144", "B162")
def test_runs(flow: Workflow, platform: FakePlatform) -> None:
    flow.start()
    runs = flow.runs()
    assert [run["run_id"] for run in runs] == [2, 1]
    assert all(set(run) == RUN_KEYS for run in runs)
    assert runs[1]["job_name"] == "my-flow"
    assert (runs[1]["state"], runs[0]["state"]) == ("failed", "pending")
    assert (runs[1]["job_version"], runs[1]["original_run_id"], runs[1]["partial_rerun"]) == (1, -1, False)
    assert runs[1]["cost"] == 0.5
    not_computed = run_entry({**platform.list_runs("my-flow", "dev")[0], "cost": None})["cost"]
    assert isinstance(not_computed, float)
    assert not_computed == 0
    assert Workflow("My Flow", environment="pre").runs() == []


@pytest.mark.clause("B147")
def test_times_are_naive_and_local(flow: Workflow, platform: FakePlatform) -> None:
    flow.start()
    pending, ended = flow.runs()
    start = ended["start_time"]
    assert start.tzinfo is None
    assert round(start.timestamp() * 1e6) == platform.all_runs[1].times["start_time"]
    assert pending["start_time"] is None
    assert ended["scheduled_time"] is None


@pytest.mark.clause("B147", "B145")
def test_times_in_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        count = 1_780_000_000_123_456
        shown = local_time(count)
        assert shown is not None
        assert shown == datetime.fromtimestamp(count // 10**6).replace(microsecond=123_456)
        assert shown != datetime.fromtimestamp(count // 10**6, timezone.utc).replace(
            tzinfo=None, microsecond=123_456
        )
        assert microseconds(shown, field="x") == count
        aware = shown.astimezone(timezone.utc)
        assert microseconds(aware, field="x") == count
    finally:
        monkeypatch.undo()
        time.tzset()
    assert local_time(None) is None
    assert local_time(0) is None


@pytest.mark.clause("B145")
def test_bounds_of_runs(flow: Workflow, platform: FakePlatform) -> None:
    flow.start()
    platform.execute(2)
    second, first = flow.runs()
    moment = second["start_time"]
    assert [run["run_id"] for run in flow.runs(start_time=moment)] == [2]
    assert [run["run_id"] for run in flow.runs(end_time=first["start_time"])] == [1]
    assert flow.runs(start_time=moment + timedelta(microseconds=1)) == []
    aware = moment.astimezone(timezone(timedelta(hours=5)))
    assert [run["run_id"] for run in flow.runs(start_time=aware)] == [2]
    with pytest.raises(TypeError, match="start_time"):
        flow.runs(start_time="today")  # type: ignore[arg-type]


@pytest.mark.clause("B146")
def test_answers_are_cached_for_a_second(
    flow: Workflow, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("datatailr.scheduler._run_views.time.monotonic", lambda: clock[0])
    platform.calls.clear()
    flow.runs()[0]["state"] = "changed by the caller"
    clock[0] += 0.99
    assert flow.runs()[0]["state"] == "failed"
    assert platform.calls == ["list_runs"]
    flow.runs(start_time=datetime(2020, 1, 1))
    assert len(platform.calls) == 2
    flow.runs(refresh=True)
    assert len(platform.calls) == 3
    clock[0] += 1.0
    flow.runs()
    assert len(platform.calls) == 4
    cache = RunCache()
    cache.put(("x",), [])
    cache.clear()
    assert cache.get(("x",)) is None


@pytest.mark.clause("B146")
def test_a_started_run_is_seen_at_once(flow: Workflow) -> None:
    assert len(flow.runs()) == 1
    flow.start()
    assert len(flow.runs()) == 2


@pytest.mark.clause("B148", "B149", "B110")
def test_run_details(flow: Workflow) -> None:
    details = flow.run_details(1)
    assert set(details) == DETAIL_KEYS
    assert (details["name"], details["run_id"], details["state"]) == ("My Flow", 1, "failed")
    tasks = details["tasks"]
    assert all(set(entry) == TASK_KEYS for entry in tasks)
    assert [entry["id"] for entry in tasks] == [0, 1, 2, 3, 4]
    assert [entry["name"] for entry in tasks] == ["load", "broken", "after", "nothing", "independent"]
    assert [entry["dependencies"] for entry in tasks] == [[], [0], [1], [], [0]]
    assert tasks[2]["resources"] == Resources("256m", 1.0)
    states = [entry["state"] for entry in tasks]
    assert states == ["completed", "failed", "did_not_run", "completed", "completed"]


@pytest.mark.clause("B148")
def test_details_of_a_service(code: Any, platform: FakePlatform) -> None:
    service = Service("Svc", code.serve)
    service.run()
    details = service.run_details(1)
    assert set(details) == DETAIL_KEYS
    assert details["tasks"] == []
    assert service.result(1) is None
    assert service.__resolve_task_id__("x", 5) is None
    with pytest.raises(ValueError, match="no workflow"):
        service.__enrich_task_runs__([], 1)


@pytest.mark.clause("B151")
def test_tasks_that_did_not_run(flow: Workflow) -> None:
    entry = flow.run_details(1)["tasks"][2]
    assert (entry["state"], entry["cost"], entry["tried_to_start_time"]) == ("did_not_run", 0, 0)
    assert [value for key, value in entry.items() if key.endswith("_time") and "tried" not in key] == [
        None
    ] * 5


@pytest.mark.clause("B150", "B155", "B159")
def test_details_come_from_the_version_that_ran(flow: Workflow, code: Any, platform: FakePlatform) -> None:
    with Workflow("My Flow") as redefined:
        code.nothing().alias("zero")
        code.load().alias("changed").set_resources(memory="9g")
        redefined.set_autorun(False)
    redefined.save()
    details = redefined.run_details(1)
    assert [entry["name"] for entry in details["tasks"]][:2] == ["load", "broken"]
    assert details["tasks"][0]["resources"] == Resources("128m", 0.25)
    assert redefined.result(1, "load") == [1, 2]
    assert "ran load" in redefined.logs(1, "load")
    platform.forget_version("my-flow", 1)
    gone = redefined.run_details(1)["tasks"]
    assert [entry["name"] for entry in gone][:2] == ["zero", "changed"]
    assert {(tuple(entry["dependencies"]), entry["resources"]) for entry in gone} == {((), None)}
    assert redefined.result(1, "zero") == [1, 2]


@pytest.mark.clause("B152")
def test_unknown_runs(flow: Workflow, code: Any) -> None:
    Service("Svc", code.serve).run()
    elsewhere = Workflow(flow.name, environment="pre")
    for use in (elsewhere.run_details, elsewhere.logs):
        with pytest.raises(ValueError, match="no run 1 in pre"):
            use(1)
    with pytest.raises(ValueError, match="no run one in dev"):
        flow.run_details("one")
    for unknown in (99, 2):
        with pytest.raises(ValueError, match=f"no run {unknown}"):
            flow.run_details(unknown)
        with pytest.raises(ValueError, match=f"no run {unknown}"):
            flow.logs(unknown)


@pytest.mark.clause("B153")
def test_enriching_changes_and_returns_the_list(flow: Workflow, code: Any) -> None:
    entries: list[dict[str, Any]] = [{"id": 1, "state": "completed"}]
    assert flow.__enrich_task_runs__(entries, 1) is entries
    assert [entry["id"] for entry in entries] == [0, 1, 2, 3, 4]
    assert entries[1]["name"] == "broken"
    assert entries[0]["state"] == "did_not_run"
    with pytest.raises(ValueError, match="'Svc' is no workflow"):
        Service("Svc", code.serve).__enrich_task_runs__(entries, 1)


@pytest.mark.clause("B154")
def test_resolving_task_ids(flow: Workflow) -> None:
    assert flow.__resolve_task_id__("broken") == 1
    assert flow.__resolve_task_id__("nobody", "77") == 77
    assert flow.__resolve_task_id__(None) is None
    with pytest.raises(ValueError, match="'nobody'"):
        flow.__resolve_task_id__("nobody")


@pytest.mark.clause("B155", "B156", "B157")
def test_logs(flow: Workflow, platform: FakePlatform) -> None:
    assert flow.logs(1, "load") == "ran load\nsecond line\n"
    assert flow.logs(1, "load", lines=1) == "second line\n"
    assert "broken" in flow.logs(1, "broken", stderr=True)
    assert flow.logs(1, "broken") == ""
    assert flow.logs(1, "after") == ""
    assert flow.logs(1, "broken", task_id=0) == flow.logs(1, task_id=0) == "ran load\nsecond line\n"
    assert flow.logs(1) == "run 1 failed\n"
    with pytest.raises(ValueError, match="'nobody'"):
        flow.logs(1, "nobody")
    with pytest.raises(ValueError, match="no task 77"):
        flow.logs(1, task_id=77)


@pytest.mark.clause("B155")
def test_logs_of_a_service_ignore_the_task(code: Any, platform: FakePlatform) -> None:
    service = Service("Svc", code.serve)
    service.run()
    assert service.logs(1, "whatever") == "run 1 pending\n"


@pytest.mark.clause("B159", "B160", "B161")
def test_results(flow: Workflow, platform: FakePlatform) -> None:
    assert flow.result(1, "load") == flow.result("1", task_id=0) == [1, 2]
    assert flow.result(1, "broken", task_id=0) == [1, 2]
    for name in ("broken", "after", "nothing"):
        assert flow.result(1, name) is None
    assert flow.result(1) is None
    assert flow.result(99, "load") is None
    assert flow.result(1, task_id=77) is None
    with pytest.raises(ValueError, match="'nobody'"):
        flow.result(1, "nobody")
    flow.start()
    assert flow.result(2, "load") is None
    platform.all_runs[1].state = "expired"
    assert flow.result(1, "load") is None


@pytest.mark.clause("B159")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cnot_installed_anywhere\nThing\n.", "needs the module 'not_installed_anywhere'"),
        (b"cdatatailr\nNothingLikeThis\n.", "NothingLikeThis"),
    ],
    ids=["module", "class"],
)
def test_a_result_that_cannot_be_loaded_here_says_what_it_lacks(
    flow: Workflow, platform: FakePlatform, data: bytes, words: str
) -> None:
    platform.all_runs[1].tasks[0].result = data
    with pytest.raises(ResultLoadError, match=words) as caught:
        flow.result(1, "load")
    assert "task 0 in run 1 of" in str(caught.value) and "hint:" in str(caught.value)
