"""Values on their way from the call to the task, from task to task, and back to the user."""

from __future__ import annotations

import pytest
from e2e_harness import FinishedRun, Project, client_variables

SHAPES = """
    from datatailr import task, workflow


    @task()
    def number(value):
        return value


    @task()
    def many(*values, **named):
        return {"values": values, "named": named}


    @task()
    def shape(value):
        return value


    @task()
    def add(left, right, extra=100):
        return left + right + extra


    @task()
    def same(left, right):
        return left is right, left == right


    @workflow(name="@NAME@")
    def flow():
        one = number(1).alias("one")
        two = number(2).alias("two")
        shape([one, two]).alias("list")
        shape((one, "plain", two)).alias("tuple")
        shape({one, two}).alias("set")
        shape({"first": one, "second": two}).alias("dict")
        shape({"deep": [({"x": [one]},), [[two]]]}).alias("nested")
        many(one, 7, two, colour="red", count=two).alias("variadic")
        add(one, one).alias("twice")
        add(right=two, left=5, extra=0).alias("keywords")
        shape("one").alias("text like a task")
        same(one, one).alias("same")
        shape([one, one, {"again": one}]).alias("repeated")
        shape([1.5, None, True, b"\\x00\\xff", "é日本", 10**40, {"k": (1, 2)}]).alias("plain values")
"""
EXPECTED = {
    "list": [1, 2],
    "tuple": (1, "plain", 2),
    "set": {1, 2},
    "dict": {"first": 1, "second": 2},
    "nested": {"deep": [({"x": [1]},), [[2]]]},
    "variadic": {"values": (1, 7, 2), "named": {"colour": "red", "count": 2}},
    "twice": 102,
    "keywords": 7,
    "text like a task": "one",
    "repeated": [1, 1, {"again": 1}],
    "plain values": [1.5, None, True, b"\x00\xff", "é日本", 10**40, {"k": (1, 2)}],
}


@pytest.fixture(scope="module")
def shapes(module_project: Project) -> FinishedRun:
    with client_variables(module_project.platform):
        return module_project.run(SHAPES)


@pytest.mark.clause("B43", "B159", "B20")
@pytest.mark.parametrize("task", [name for name in EXPECTED if name not in {"twice", "repeated"}])
def test_containers_arrive_with_results_in_place(shapes: FinishedRun, client: None, task: str) -> None:
    result = shapes.result(task)
    assert result == EXPECTED[task]
    assert type(result) is type(EXPECTED[task])


@pytest.mark.clause("B21")
@pytest.mark.parametrize("task", ["twice", "repeated"])
def test_one_task_may_be_passed_several_times(shapes: FinishedRun, client: None, task: str) -> None:
    assert shapes.result(task) == EXPECTED[task]
    assert shapes.result("same") == (True, True)


@pytest.mark.clause("B22", "B149")
def test_dependencies_follow_the_data(shapes: FinishedRun, client: None) -> None:
    assert shapes.entry("nested")["dependencies"] == [0, 1]
    assert shapes.entry("twice")["dependencies"] == [0]
    assert shapes.entry("text like a task")["dependencies"] == []


@pytest.mark.clause("B44")
def test_classes_of_the_script_come_back(project: Project) -> None:
    ran = project.script(
        """
        import json
        import time
        from dataclasses import dataclass

        from datatailr import Workflow, task, workflow


        @dataclass
        class Point:
            x: int
            y: int


        def double(point):
            return Point(point.x * 2, point.y * 2)


        @task()
        def apply(function, point):
            assert isinstance(point, Point), type(point)
            return function(point)


        @task()
        def norm(point):
            return Point.__module__, point.x + point.y


        @workflow(name="@NAME@")
        def flow():
            norm(apply(double, Point(1, 2)))


        if __name__ == "__main__":
            flow()
            job = Workflow(name="@NAME@", get_existing=True)
            run_id = job.runs(refresh=True)[0]["run_id"]
            deadline = time.monotonic() + 30
            while job.run_details(run_id)["end_time"] is None and time.monotonic() < deadline:
                time.sleep(0.05)
            point = job.result(run_id, task_name="apply")
            print(job.logs(run_id, task_name="apply", stderr=True))
            norm = job.result(run_id, task_name="norm")
            print(json.dumps([point.x, point.y, norm, isinstance(point, Point)]))
        """
    )
    assert ran.last() == [2, 4, ["deploy", 6], True]


@pytest.mark.clause("B44")
def test_an_argument_that_cannot_be_pickled_is_refused_by_name(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        import threading

        from datatailr import task, workflow


        @task()
        def train(sizes, model):
            return 1


        @workflow(name="@NAME@")
        def flow():
            train([1], {"lock": threading.Lock()}).alias("train model")
        """,
    )
    ran = project.script("from shop.flow import flow\n\nprint(flow())\n")
    assert "None" in ran.out
    assert "train model" in ran.err and "model" in ran.err and "lock" in ran.err
    assert "Traceback" not in ran.err
    project.assert_never_saved()


@pytest.mark.clause("B44", "B110")
def test_a_result_that_cannot_be_pickled_fails_its_task(project: Project) -> None:
    run = project.run(
        """
        import threading

        from datatailr import task, workflow


        @task()
        def locks():
            return {"lock": threading.Lock()}


        @task()
        def after(value):
            return value


        @workflow(name="@NAME@")
        def flow():
            after(locks())
        """,
        state="failed",
    )
    assert run.states == {"locks": "failed", "after": "did_not_run"}
    assert "locks" in run.message("locks") and "pickle" in run.message("locks")
    assert run.result("locks") is None


@pytest.mark.clause("B40", "B41", "B42")
def test_platform_parameters(project: Project) -> None:
    run = project.run(
        """
        import os

        from datatailr import task, workflow


        @task()
        def plain(rundate, scheduled_time, started_at, batch_name, job_name, value=3):
            names = ("RUNDATE", "SCHEDULED_TIME", "STARTED_AT", "BATCH_NAME", "JOB_NAME")
            variables = [os.environ["DATATAILR_BATCH_ARG_" + name] for name in names]
            return [rundate, scheduled_time, started_at, batch_name, job_name], variables, value


        @task()
        def mixed(rundate, *args):
            return rundate, args


        @workflow(name="@NAME@")
        def flow():
            plain(4).alias("with parameters")
            mixed(1, "a")
        """
    )
    from datetime import datetime, timezone

    given, variables, value = run.result("with parameters")
    assert given == variables and value == 4
    submitted = run.details["submit_time"].astimezone(timezone.utc)
    assert given[0] == submitted.date().isoformat()
    scheduled, started = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in given[1:3])
    assert scheduled.utcoffset() == started.utcoffset() == timezone.utc.utcoffset(None)
    assert abs((scheduled - submitted).total_seconds()) < 0.001
    assert submitted <= started
    internal = run.job.to_dict()["name"]
    assert given[3:] == [internal, f"{internal}-0"]
    assert run.result("mixed") == (given[0], (1, "a"))


@pytest.mark.clause("B46", "B56")
def test_arguments_of_the_workflow_are_fixed_at_the_call(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        from datatailr import task, workflow


        @task()
        def square(value):
            return value * value


        @task()
        def total(values):
            return sum(values)


        @workflow(name="@NAME@")
        def flow(count, negative=False):
            values = [square(number) for number in range(count)]
            if negative:
                values.append(-1)
            total(values)
        """,
    )
    project.script("from shop.flow import flow\n\nflow(4, negative=True, fail_after='1h')\n")
    run = project.flow.wait()
    assert run.result("total") == 0 + 1 + 4 + 9 - 1
    assert run.job.to_dict()["fail_after"] == 3_600_000_000
