"""Names, environments, sizes, durations, job types, errors."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest

from datatailr import Environment, Resources, Schedule, Workflow, errors, get_dt_env
from datatailr.scheduler import App, Job, JobType
from datatailr.scheduler._durations import duration_microseconds
from datatailr.scheduler._resources import memory_bytes
from datatailr.scheduler.batch import parse_duration
from datatailr.scheduler.utils import normalize_name


@pytest.mark.clause("B1")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("My Flow - ALICE", "my-flow-alice"),
        ("Simple  App", "simple-app"),
        ("a_b", "a-b"),
        ("--x--", "x"),
        ("x.y/z", "x-y-z"),
        ("Ünï code", "n-code"),
        ("ﬁle №5", "file-no5"),
        ("日本", ""),
    ],
)
def test_internal_names(given: str, expected: str) -> None:
    assert normalize_name(given) == expected


@pytest.mark.clause("B2")
def test_a_name_without_letters_is_rejected() -> None:
    with pytest.raises(ValueError, match="日本"):
        Workflow("日本")


@pytest.mark.clause("B3")
def test_display_name_and_internal_name() -> None:
    job = Workflow("My Flow - ALICE")
    assert job.name == "My Flow - ALICE"
    assert job.to_dict()["display_name"] == "My Flow - ALICE"
    assert job.to_dict()["name"] == "my-flow-alice"


@pytest.mark.clause("B5")
def test_an_unsaved_job_has_a_random_id() -> None:
    first, second = Workflow("a"), Workflow("a")
    assert isinstance(first.id, str)
    assert len(first.id) == 36
    assert first.id != second.id


@pytest.mark.clause("B6")
@pytest.mark.parametrize("value", [Environment.PRE, "pre", "PRE", "Pre"])
def test_environments_in_any_form(value: Environment | str) -> None:
    assert Job("x", environment=value).environment is Environment.PRE


@pytest.mark.clause("B6")
def test_environment_none_is_dev_and_others_are_refused() -> None:
    assert Job("x", environment=None).environment is Environment.DEV
    assert list(Environment) == [Environment.DEV, Environment.PRE, Environment.PROD]
    assert Environment.DEV.following is Environment.PRE
    assert Environment.PROD.following is None
    with pytest.raises(ValueError, match="'test'"):
        Job("x", environment="test")


@pytest.mark.clause("B7")
@pytest.mark.parametrize(
    ("text", "count"),
    [("256m", 268435456), ("1g", 2**30), ("2G", 2**31), ("100", 100), ("3k", 3072), ("1T", 2**40), ("7b", 7)],
)
def test_memory_sizes(text: str, count: int) -> None:
    assert memory_bytes(text) == count


@pytest.mark.clause("B7", "B9")
def test_resources_from_platform_answers() -> None:
    assert Resources.from_job_dict({"memory": 268435456, "cpu": 1}) == Resources("256m", 1.0)
    assert (
        repr(Resources.from_job_dict({"memory": 268435456, "num_cpus": 1}))
        == "Resources(memory='256m', cpu=1.0)"
    )
    assert Resources.from_job_dict({"memory": "1g", "cpu": 2}).memory == "1g"
    assert isinstance(Resources.from_job_dict({"cpu": 2}).cpu, float)
    assert Resources.from_job_dict({}) == Resources("128m", 0.25)


@pytest.mark.clause("B8")
@pytest.mark.parametrize("memory", ["", "abc", "0m", "-1m", "1x", "1 g b"])
def test_unreadable_memory_is_found_early(memory: str) -> None:
    job = Workflow("x", resources=Resources(memory=memory))
    with pytest.raises(ValueError, match="memory of job 'x'"):
        job.to_json()


@pytest.mark.clause("B8")
@pytest.mark.parametrize("cpu", [0, -1, "2", True, float("nan"), float("inf")])
def test_unreadable_cpu_is_found_early(cpu: float) -> None:
    with pytest.raises(ValueError, match="cpu of job 'x'"):
        Job("x", resources=Resources(cpu=cpu)).to_dict()


@pytest.mark.clause("B10")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("45m", 2700),
        ("2h 15s", 7215),
        ("2 h 15 s", 7215),
        ("10s", 10),
        (" 10s ", 10),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.clause("B11")
@pytest.mark.parametrize("text", ["", "abc", "90", "1d", "30m 1h", " ", "1h x", "-1h", "1.5h"])
def test_unreadable_durations(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parse_duration(text)
    with pytest.raises(ValueError, match="fail_after"):
        Workflow("x", fail_after=text)


@pytest.mark.clause("B12")
def test_durations_in_json_are_microseconds() -> None:
    found = Workflow("x", fail_after="2h", expire_after=timedelta(hours=1, minutes=30)).to_dict()
    assert (found["fail_after"], found["expire_after"]) == (7200000000, 5400000000)
    empty = Workflow("x").to_dict()
    assert (empty["fail_after"], empty["expire_after"]) == (None, None)
    assert duration_microseconds(timedelta(seconds=1.5), field="x") == 1500000


@pytest.mark.clause("B195")
def test_job_types() -> None:
    assert JobType.from_str(JobType.APP) is JobType.APP
    assert JobType.from_str(None) is JobType.UNKNOWN
    assert JobType.from_str("") is JobType.UNKNOWN
    assert JobType.from_str("SERVICE") is JobType.SERVICE
    assert JobType.from_str("batch") is JobType.WORKFLOW
    assert str(JobType.WORKFLOW) == "batch"
    names = {kind: kind.display_name() for kind in JobType}
    assert names[JobType.BATCH] == names[JobType.WORKFLOW] == "Workflow"
    assert names[JobType.EXCEL] == "Excel Add-in"
    assert names[JobType.WORKSTATION] == "Workstation"
    assert (names[JobType.UNKNOWN], names[JobType.APP], names[JobType.SERVICE]) == ("Job", "App", "Service")
    with pytest.raises(ValueError, match="'cron'"):
        JobType.from_str("cron")


@pytest.mark.clause("B232")
def test_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_dt_env() is Environment.DEV
    monkeypatch.setenv("DATATAILR_JOB_ENVIRONMENT", "prod")
    assert get_dt_env() is Environment.PROD
    monkeypatch.setenv("DATATAILR_JOB_ENVIRONMENT", "moon")
    with pytest.raises(ValueError, match="moon"):
        get_dt_env()


@pytest.mark.clause("B283")
def test_error_tree() -> None:
    assert issubclass(errors.TaskError, errors.DatatailrError)
    assert issubclass(errors.ScheduleError, errors.DatatailrError)
    assert issubclass(errors.EmptyEntrypointBundleError, errors.DatatailrError)
    for kind in (
        errors.DuplicateJobNameError,
        errors.CodePackageMismatchError,
        errors.CyclicDependencyError,
        errors.MissingDagError,
        errors.RepoValidationError,
    ):
        assert issubclass(kind, errors.TaskError)
    raised = errors.DuplicateJobNameError("x")
    assert raised.job_name == "x"
    assert pickle.loads(pickle.dumps(raised)).job_name == "x"


@pytest.mark.clause("B283")
def test_every_error_is_drawn_in_the_tree_and_exported() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert kinds == set(errors.__all__)
    drawing = errors.__doc__ or ""
    assert [name for name in kinds if name not in drawing] == []


@pytest.mark.clause("B284", "B285")
def test_messages_name_field_and_value() -> None:
    with pytest.raises(ValueError, match=r"at_minutes.*61"):
        Schedule(at_minutes=[61])
    with pytest.raises(ValueError, match=r"framework.*'rails'.*streamlit"):
        App("x", test_messages_name_field_and_value, framework="rails")
