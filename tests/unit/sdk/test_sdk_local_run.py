"""Local runs, plain calls, platform parameters."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from datatailr import Resources, Schedule, Workflow, task, workflow
from datatailr.errors import ArgumentPickleError, ResultPickleError, TaskError
from datatailr.scheduler._arguments import platform_values

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


class Pair:
    def __init__(self, left: int, right: int) -> None:
        self.left, self.right = left, right

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pair) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@task()
def number(value: int) -> int:
    SEEN.append(("number", value))
    return value


@task()
def show(*values: Any, **named: Any) -> Any:
    SEEN.append((values, named))
    return values


@task()
def add(a: int, b: int) -> int:
    SEEN.append((a, b))
    return a + b


@task()
def nested(value: int) -> int:
    return add(value, 1)


@task()
def fails() -> None:
    raise LookupError("gone")


@task()
def variables() -> dict[str, str]:
    SEEN.append({name: value for name, value in os.environ.items() if name.startswith("DATATAILR_")})
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("KEPT", None)
    return {}


@task()
def platform_parameters(
    rundate: str, scheduled_time: str, started_at: str, batch_name: str, job_name: str, *rest: Any
) -> None:
    SEEN.append((rundate, scheduled_time, started_at, batch_name, job_name, rest))


@task()
def mutates(values: list[int]) -> None:
    values.append(1)
    SEEN.append(list(values))


@task()
def lock() -> Any:
    return threading.Lock()


@task()
def positional(a: int, /, b: int, *, c: int) -> None:
    SEEN.append((a, b, c))


@pytest.mark.clause("B50", "B43")
def test_results_take_the_place_of_tasks() -> None:
    @workflow()
    def flow() -> None:
        one, two = number(1), number(2)
        show([one, (two, {one})], {"k": [two]}, text="number-1", pair=Pair(3, 4), more=frozenset([two]))

    assert flow(local_run=True) is None
    expected = (([1, (2, {1})], {"k": [2]}), {"text": "number-1", "pair": Pair(3, 4), "more": frozenset([2])})
    assert SEEN[-1] == expected


@pytest.mark.clause("B21")
def test_the_same_task_twice() -> None:
    @workflow()
    def flow() -> None:
        one = number(20)
        add(one, one)

    flow(local_run=True)
    assert SEEN[-1] == (20, 20)


@pytest.mark.clause("B14", "B15", "B13")
def test_plain_calls_in_and_after_a_local_run() -> None:
    @workflow()
    def flow() -> None:
        add(100, 200)
        show(nested(5))

    assert add(1, 2) == 3
    flow(local_run=True)
    assert SEEN[-1] == ((6,), {})
    assert add(1, 2) == 3
    assert SEEN[-1] == (1, 2)
    with pytest.raises(TypeError):
        add()  # type: ignore[call-arg]


@pytest.mark.clause("B14")
def test_a_task_run_inside_a_block_stays_plain() -> None:
    flow = Workflow("x")
    flow.set_autorun(False)
    with flow:
        made: Any = nested(5)
        assert made.run() == 6
    assert len(flow.tasks) == 1


@pytest.mark.clause("B50")
def test_order_of_a_local_run() -> None:
    flow = Workflow("x", local_run=True)
    with flow:
        a: Any = number(0)
        b: Any = number(1)
        c: Any = number(2)
        d: Any = number(3)
        a << d
        c << b
    assert SEEN == [("number", 1), ("number", 3), ("number", 0), ("number", 2)]
    assert flow.run() == (True, "")


@pytest.mark.clause("B50", "B140")
def test_the_first_failure_reaches_the_caller() -> None:
    flow = Workflow("x")
    flow.set_autorun(False)
    with flow:
        bad: Any = fails()
        later: Any = number(1)
        bad >> later
    flow.set_local_run(True)
    with pytest.raises(LookupError, match="gone"):
        flow.run()
    assert SEEN == []


@pytest.mark.clause("B50")
def test_arguments_are_replayed_through_pickling() -> None:
    shared = [0]

    @workflow()
    def flow() -> None:
        mutates(shared)
        mutates(shared)

    flow(local_run=True)
    assert SEEN == [[0, 1], [0, 1]]
    assert shared == [0]


@pytest.mark.clause("B44")
def test_what_cannot_be_pickled_is_named() -> None:
    @workflow()
    def argument() -> None:
        show(model=Box(Holder()))

    with pytest.raises(
        ArgumentPickleError, match=r"argument 'model' of task 'show': model\.content\.parts\['inner'\]\[1\]: "
    ):
        argument(local_run=True)

    @workflow()
    def result() -> None:
        lock()

    with pytest.raises(ResultPickleError, match="result of task 'lock', a lock"):
        result(local_run=True)


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


class Holder:
    def __init__(self) -> None:
        self.parts = {"inner": [1, threading.Lock()]}


@pytest.mark.clause("B51")
def test_no_local_run_with_a_schedule() -> None:
    @workflow(schedule=Schedule(at_hours=[1]))
    def planned() -> None:
        number(1)

    @workflow()
    def plain() -> None:
        number(1)

    with pytest.raises(ValueError, match="schedule"):
        planned(local_run=True)
    with pytest.raises(ValueError, match="schedule"):
        plain(local_run=True, schedule=Schedule(at_hours=[1]))
    with pytest.raises(ValueError, match="schedule"):
        Workflow("x", schedule=Schedule(at_hours=[1])).set_local_run(True)
    assert SEEN == []


@pytest.mark.clause("B52")
def test_a_local_run_needs_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "osuser")
    flow = Workflow("x", local_run=True)
    with flow:
        number(1)
    assert flow.to_dict()["run_as"] == "osuser"


@pytest.mark.clause("B15", "B231")
def test_variables_during_and_after_a_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "yes")
    before = dict(os.environ)
    flow = Workflow("My Flow", local_run=True, env_vars={"A": 1})
    with flow:
        variables()
        variables()
    assert dict(os.environ) == before
    first, second = SEEN
    assert (first["DATATAILR_JOB_ID"], second["DATATAILR_JOB_ID"]) == ("0", "1")
    assert (first["DATATAILR_JOB_NAME"], second["DATATAILR_JOB_NAME"]) == ("my-flow-0", "my-flow-1")
    assert first["DATATAILR_BATCH_ID"] == flow.id
    assert first["DATATAILR_BATCH_RUN_ID"] == second["DATATAILR_BATCH_RUN_ID"]
    assert len(first["DATATAILR_BATCH_RUN_ID"]) == 8
    int(first["DATATAILR_BATCH_RUN_ID"], 16)


@pytest.mark.clause("B41", "B40")
def test_platform_parameters_of_a_local_run() -> None:
    before = datetime.now(timezone.utc)
    with Workflow("My Flow", local_run=True):
        platform_parameters(7)  # type: ignore[call-arg,arg-type]
    rundate, scheduled, started, batch, job, rest = SEEN[0]
    after = datetime.now(timezone.utc)
    assert rundate == datetime.fromisoformat(scheduled).date().isoformat()
    assert before <= datetime.fromisoformat(scheduled) <= datetime.fromisoformat(started) <= after
    assert datetime.fromisoformat(started).utcoffset() == timezone.utc.utcoffset(None)
    assert (batch, job, rest) == ("my-flow", "my-flow-0", (7,))


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose date is often not that of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.clause("B41")
@pytest.mark.usefixtures("in_tokyo")
def test_the_run_date_is_that_of_the_submission_in_utc() -> None:
    submitted = datetime(2026, 1, 2, 6, 30, tzinfo=timezone(timedelta(hours=9)))
    values = platform_values(
        batch_name="flow", job_name="flow-0", submitted=submitted, started=submitted + timedelta(days=3)
    )
    assert values == {
        "rundate": "2026-01-01",
        "scheduled_time": "2026-01-01T21:30:00+00:00",
        "started_at": "2026-01-04T21:30:00+00:00",
        "batch_name": "flow",
        "job_name": "flow-0",
    }


@pytest.mark.clause("B42")
def test_variables_set_the_platform_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATATAILR_BATCH_ARG_RUNDATE", "2026-04-09")
    monkeypatch.setenv("RUNDATE", "wrong")
    monkeypatch.setenv("JOB_NAME", "wrong")
    with Workflow("My Flow", local_run=True):
        platform_parameters()  # type: ignore[call-arg]
    assert SEEN[0][0] == "2026-04-09"
    assert SEEN[0][4] == "my-flow-0"
    platform_parameters("2020-01-01", "a", "b", "c", "d")
    assert SEEN[1][:5] == ("2020-01-01", "a", "b", "c", "d")
    platform_parameters(scheduled_time="a", started_at="b", batch_name="c", job_name="d")  # type: ignore[call-arg]
    assert SEEN[2][0] == "2026-04-09"


@pytest.mark.clause("B140", "B141")
def test_running_task_by_task() -> None:
    flow = Workflow("x")
    flow.set_autorun(False)
    with flow:
        one: Any = number(1)
        total: Any = add(one, 5)
    with pytest.raises(TaskError, match="needs the result of 'number'"):
        total.run()
    assert one.run() == 1
    assert total.run() == 6
    flow.set_local_run(True)
    assert flow.run() == (True, "")


@pytest.mark.clause("B17", "B43")
def test_every_kind_of_parameter_comes_back() -> None:
    with Workflow("x", local_run=True):
        positional(number(1), number(2), c=number(3))
    assert SEEN[-1] == (1, 2, 3)


@pytest.mark.clause("B62", "B63")
def test_default_resources_of_a_workflow() -> None:
    assert Workflow("x").resources == Resources("100m", 1)
    assert Workflow("x", resources=Resources("1g", 2)).resources == Resources("1g", 2)
