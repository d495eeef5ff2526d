"""Large things: many tasks, much output, big arguments, hungry tasks, requirements that do not exist."""

from __future__ import annotations

import time

import pytest
from e2e_harness import Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_ten_thousand_tasks(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        from datatailr import task, workflow


        @task(memory="16m", cpu=0.1)
        def leaf(number):
            return number


        @task()
        def total(numbers):
            return sum(numbers), len(numbers)


        @workflow(name="@NAME@")
        def flow():
            total([leaf(number) for number in range(9_999)])
        """,
    )
    began = time.monotonic()
    project.script("from shop.flow import flow\n\nflow()\n", seconds=120)
    saved = time.monotonic() - began
    run = project.flow.wait(seconds=400)
    assert run.result("total") == (sum(range(9_999)), 9_999)
    assert set(run.states.values()) == {"completed"} and len(run.states) == 10_000
    assert run.result("leaf-1234") == 1234
    assert saved < 60, f"saving and starting took {saved:.1f} s"


def test_two_hundred_megabytes_of_output(project: Project) -> None:
    run = project.run(
        """
        from datatailr import task, workflow


        @task()
        def chatty():
            line = "x" * 99
            for number in range(2_000_000):
                print(line)
            print("the last line")
            return "done"


        @workflow(name="@NAME@")
        def flow():
            chatty()
        """,
        seconds=240,
    )
    assert run.result("chatty") == "done"
    job = run.job

    def tail() -> list[str]:
        began = time.monotonic()
        lines = str(job.logs(run.id, task_name="chatty", lines=3)).splitlines()
        assert time.monotonic() - began < 5
        return lines if lines and "END" in lines[-1] else []

    lines = eventually(tail, seconds=60, what="the whole log")
    assert lines[:2] == ["x" * 99, "the last line"]
    whole = str(job.logs(run.id, task_name="chatty", lines=10**7))
    assert whole.count("\n") >= 2_000_002 and len(whole) > 200_000_000


def test_a_hundred_megabyte_argument(project: Project) -> None:
    run = project.run(
        """
        import hashlib
        import random

        from datatailr import task, workflow


        @task(memory="1g")
        def digest(data):
            return hashlib.sha256(data).hexdigest(), len(data)


        @task(memory="1g")
        def copy(data):
            return data


        @workflow(name="@NAME@")
        def flow():
            data = random.Random(7).randbytes(100_000_000)
            digest(data).alias("of the argument")
            digest(copy(data)).alias("of the result")
        """,
        seconds=120,
    )
    import hashlib
    import random

    data = random.Random(7).randbytes(100_000_000)
    wanted = (hashlib.sha256(data).hexdigest(), len(data))
    assert run.result("of the argument") == wanted
    assert run.result("of the result") == wanted
    assert run.result("copy") == data


@pytest.mark.clause("B175", "B100")
def test_a_requirement_that_does_not_exist(project: Project) -> None:
    source = """
        from datatailr import task, workflow


        @task()
        def one():
            return 1


        @workflow(name="@NAME@", python_requirements=[{requirement}])
        def flow():
            one()
    """
    project.write("shop/flow.py", source.format(requirement='"no-such-package-on-earth-7461==1.0"'))
    ran = project.script("from shop.flow import flow\n\nprint(flow())\n", seconds=180)
    assert "None" in ran.out
    assert "ERROR" in ran.err and "no-such-package-on-earth-7461" in ran.err
    assert "Traceback" not in ran.err
    job = project.flow.job
    assert job.state == "failed"
    assert [entry["state"] for entry in job.runs(refresh=True)] in ([], ["failed"])
    run = project.run(source.format(requirement=""))
    assert run.result("one") == 1


@pytest.mark.clause("B65a", "B234")
def test_numpy_beyond_its_memory(project: Project) -> None:
    run = project.run(
        """
        from datatailr import task, workflow


        @task(memory="200m")
        def modest():
            import numpy

            return float(numpy.ones(1_000_000).sum())


        @task(memory="200m")
        def greedy():
            import numpy

            return [float(numpy.ones(10_000_000 * size).sum()) for size in range(1, 40)]


        @workflow(name="@NAME@", python_requirements="numpy")
        def flow():
            modest()
            greedy()
        """,
        state="out_of_memory",
        seconds=240,
    )
    assert run.states == {"modest": "completed", "greedy": "out_of_memory"}
    assert run.result("modest") == 1_000_000.0
    assert "200" in run.message("greedy")
