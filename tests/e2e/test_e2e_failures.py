"""Tasks that fail, misbehave or die: what happens to the run, and what its owner gets to read."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from e2e_harness import FinishedRun, Project, client_variables, eventually, process_alive

TRACEBACK = """
    from shop.pricing import price
    from datatailr import task, workflow


    @task()
    def quote(amounts):
        total = 0
        for amount in amounts:
            total += price(amount)
        return total


    @task()
    def independent():
        return "well"


    @task()
    def second(value):
        return value


    @task()
    def third(value):
        return value


    @workflow(name="@NAME@")
    def flow():
        third(second(quote([2, 1, 0])))
        independent()
"""
PRICING = '''
    class PriceError(Exception):
        """No price."""


    def price(amount):
        try:
            return 10 / amount
        except ZeroDivisionError as error:
            raise PriceError(f"no price for an amount of {amount}") from error
'''


@pytest.fixture(scope="module")
def failed(module_project: Project) -> FinishedRun:
    module_project.write("shop/pricing.py", PRICING)
    with client_variables(module_project.platform):
        return module_project.run(TRACEBACK, state="failed")


@pytest.mark.clause("B110", "B151", "B160")
def test_failure_spreads_only_downstream(failed: FinishedRun, client: None) -> None:
    assert failed.states == {
        "quote": "failed",
        "second": "did_not_run",
        "third": "did_not_run",
        "independent": "completed",
    }
    assert failed.result("independent") == "well"
    assert failed.result("quote") is None and failed.result("second") is None
    skipped = failed.entry("third")
    assert skipped["cost"] == 0 and skipped["tried_to_start_time"] == 0
    times = [key for key in skipped if key.endswith("_time") and key != "tried_to_start_time"]
    assert [skipped[key] for key in times] == [None] * len(times)
    assert skipped["dependencies"] == [1]


@pytest.mark.clause("B267", "B110")
def test_a_remote_traceback_reads_like_a_local_one(failed: FinishedRun, module_project: Project) -> None:
    with client_variables(module_project.platform):
        whole = failed.job.logs(failed.id, task_name="quote", stderr=True)
        text = failed.err("quote")
    local = module_project.script("from shop.flow import quote\n\nquote([2, 1, 0])\n", code=1).err
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[-1] == "shop.pricing.PriceError: no price for an amount of 0"
    assert whole.rstrip().endswith("====== DT USER LOGS END ======")
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', text)
    wanted = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', local)
    short = [(Path(path).name, int(line), function) for path, line, function in frames]
    assert short == [
        ("pricing.py", 7, "price"),
        ("flow.py", 9, "quote"),
        ("pricing.py", 9, "price"),
    ]
    users = [frame for frame in wanted if "/shop/" in frame[0]]
    assert short == [(Path(path).name, int(line), function) for path, line, function in users]
    assert "The above exception was the direct cause" in text
    assert "total += price(amount)" in text and "return 10 / amount" in text
    assert "datatailr/" not in text and "runner" not in text
    assert text.count("Traceback (most recent call last):") == 2


def test_the_reason_of_a_failure_is_one_line(failed: FinishedRun, client: None) -> None:
    assert failed.message("quote").splitlines()[0].endswith("PriceError: no price for an amount of 0")
    assert "quote" in failed.message("second")


ENDINGS = """
    import os
    import signal
    import subprocess
    import sys
    import time

    from datatailr import task, workflow


    @task()
    def exits(code):
        print("before", flush=True)
        sys.exit(code)


    @task()
    def vanishes():
        os._exit(4)


    @task()
    def killed(number):
        os.kill(os.getpid(), number)
        time.sleep(60)


    @task()
    def talks_binary():
        os.write(1, b"\\xff\\xfe\\x00\\x80 not utf-8\\n")
        os.write(2, bytes(range(256)))
        return "binary"


    @task()
    def closes_streams():
        print("last words", flush=True)
        sys.stdout.close()
        os.close(1)
        sys.stderr.close()
        os.close(2)
        return "silent"


    @task()
    def leaves_children():
        children = [subprocess.Popen(["sleep", "300"]).pid]
        children.append(subprocess.Popen(["sleep", "300"], start_new_session=True).pid)
        return children


    @task()
    def in_threads():
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        with ThreadPoolExecutor(4) as threads, ProcessPoolExecutor(2) as processes:
            return list(threads.map(abs, [-1, -2])), list(processes.map(abs, [-3, -4]))


    @workflow(name="@NAME@")
    def flow():
        exits(3).alias("exit 3")
        exits(0).alias("exit 0")
        exits("no money left").alias("exit text")
        vanishes()
        killed(int(signal.SIGKILL)).alias("killed")
        killed(int(signal.SIGSEGV)).alias("crashed")
        talks_binary()
        closes_streams()
        leaves_children()
        in_threads()
"""


@pytest.fixture(scope="module")
def endings(module_project: Project) -> FinishedRun:
    project = Project(
        module_project.folder / "endings", module_project.platform, f"{module_project.name} endings"
    )
    with client_variables(project.platform):
        return project.run(ENDINGS, state="failed")


@pytest.mark.clause("B110")
def test_exit_codes(endings: FinishedRun, client: None) -> None:
    assert endings.states["exit 3"] == "failed" and "3" in endings.message("exit 3")
    assert endings.out("exit 3") == "before\n"
    assert endings.states["exit 0"] == "completed" and endings.result("exit 0") is None
    assert endings.states["exit text"] == "failed" and "no money left" in endings.err("exit text")
    assert endings.states["vanishes"] == "failed" and "4" in endings.message("vanishes")


@pytest.mark.clause("B110")
def test_a_task_that_is_killed_by_a_signal(endings: FinishedRun, client: None) -> None:
    for task, number in (("killed", signal.SIGKILL), ("crashed", signal.SIGSEGV)):
        assert endings.states[task] == "failed"
        message = endings.message(task)
        assert number.name in message or str(int(number)) in message, message


@pytest.mark.clause("B65a", "B234", "B110")
def test_a_task_that_exceeds_its_memory(project: Project) -> None:
    run = project.run(
        """
        import os

        from datatailr import task, workflow


        @task(memory="64m")
        def greedy():
            hoard = []
            while True:
                hoard.append(bytearray(os.urandom(1024)) * 4096)


        @task()
        def after(value):
            return value


        @workflow(name="@NAME@")
        def flow():
            after(greedy())
        """,
        state="out_of_memory",
    )
    assert run.states == {"greedy": "out_of_memory", "after": "did_not_run"}
    assert "64" in run.message("greedy") and "64" in run.err("greedy")
    assert run.result("greedy") is None


def test_output_that_is_not_text(endings: FinishedRun, client: None) -> None:
    assert endings.result("talks_binary") == "binary"
    assert " not utf-8\n" in endings.out("talks_binary")
    assert "ABCDEFG" in endings.err("talks_binary")


def test_streams_that_are_closed(endings: FinishedRun, client: None) -> None:
    assert endings.states["closes_streams"] == "completed"
    assert endings.result("closes_streams") == "silent"
    assert endings.out("closes_streams") == "last words\n"


def test_children_left_behind_are_ended(endings: FinishedRun, client: None) -> None:
    children = endings.result("leaves_children")
    assert len(children) == 2
    eventually(
        lambda: not any(process_alive(pid) for pid in children), seconds=10, what="the end of the children"
    )


def test_pools_inside_a_task(endings: FinishedRun, client: None) -> None:
    assert endings.result("in_threads") == ([1, 2], [3, 4])


@pytest.mark.clause("B65a")
def test_a_default_memory_only_reserves(project: Project) -> None:
    run = project.run(
        """
        import os

        from datatailr import task, workflow


        @task()
        def needs_more_than_the_default():
            block = bytearray(os.urandom(1024)) * (200 * 1024)
            return len(block)


        @workflow(name="@NAME@")
        def flow():
            needs_more_than_the_default()
        """
    )
    assert run.result("needs_more_than_the_default") == 200 * 1024 * 1024


@pytest.mark.clause("B108", "B107")
def test_fail_after(project: Project) -> None:
    run = project.run(
        """
        import os
        import time

        from datatailr import task, workflow


        @task()
        def endless():
            print(os.getpid(), flush=True)
            time.sleep(300)


        @task()
        def after(value):
            return value


        @workflow(name="@NAME@", fail_after="2s")
        def flow():
            after(endless())
        """,
        state="failed_after",
    )
    assert run.states == {"endless": "failed_after", "after": "did_not_run"}
    took = (run.details["end_time"] - run.details["start_time"]).total_seconds()
    assert 2.0 <= took < 10.0
    pid = int(run.out("endless").strip())
    eventually(lambda: not process_alive(pid), seconds=10, what="the end of the process")


@pytest.mark.clause("B111")
def test_independent_tasks_run_at_the_same_time(project: Project, tmp_path: Path) -> None:
    run = project.run(
        f"""
        import os
        import pathlib
        import time

        from datatailr import task, workflow

        FOLDER = pathlib.Path({str(tmp_path)!r})


        @task()
        def meet(mine, theirs):
            (FOLDER / mine).touch()
            deadline = time.monotonic() + 20
            while not (FOLDER / theirs).exists():
                if time.monotonic() > deadline:
                    raise RuntimeError("the other task did not come")
                time.sleep(0.01)
            return os.getpid()


        @task()
        def processes(pids):
            return len(set(pids) | {{os.getpid()}})


        @workflow(name="@NAME@")
        def flow():
            processes([meet("a", "b").alias("a"), meet("b", "a").alias("b")])
        """
    )
    assert run.result("processes") == 3


def test_a_module_with_a_syntax_error(project: Project) -> None:
    project.write("shop/broken.py", "def half(:\n    pass\n")
    run = project.run(
        """
        import os

        from datatailr import task, workflow

        if "DATATAILR_JOB_TYPE" in os.environ:
            from shop import broken


        @task()
        def work():
            return 1


        @workflow(name="@NAME@")
        def flow():
            work()
        """,
        state="failed",
    )
    text = run.err("work")
    assert "SyntaxError" in text and "broken.py" in text and "def half(:" in text
    assert "runner" not in text
    assert "SyntaxError" in run.message("work")


@pytest.mark.clause("B184")
def test_an_import_that_is_missing_on_the_platform(project: Project) -> None:
    project.write("outside.py", "VALUE = 1\n")
    run = project.run(
        """
        import outside
        from datatailr import task, workflow


        @task()
        def work():
            return outside.VALUE


        @workflow(name="@NAME@")
        def flow():
            work()
        """,
        state="failed",
    )
    assert "ModuleNotFoundError: No module named 'outside'" in run.err("work")
    assert "outside" in run.message("work")
    repaired = project.run(
        """
        from datatailr import task, workflow


        @task()
        def work():
            return 2


        @workflow(name="@NAME@")
        def flow():
            work()
        """
    )
    assert repaired.result("work") == 2


@pytest.mark.parametrize("ending", ["raise SystemExit(5)", "os._exit(6)", "os.kill(os.getpid(), 11)"])
def test_a_module_that_ends_the_process_when_imported(project: Project, ending: str) -> None:
    project.name = f"failures import {ending.split('(')[0]}"
    run = project.run(
        f"""
        import os

        from datatailr import task, workflow

        if "DATATAILR_JOB_TYPE" in os.environ:
            {ending}


        @task()
        def work():
            return 1


        @workflow(name="@NAME@")
        def flow():
            work()
        """,
        state="failed",
    )
    assert run.states == {"work": "failed"}
    assert run.message("work")


def test_a_task_larger_than_any_node_waits_and_says_so(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        from datatailr import task, workflow


        @task(memory="900g")
        def huge():
            return 1


        @workflow(name="@NAME@")
        def flow():
            huge()
        """,
    )
    ran = project.script("from shop.flow import flow\n\nflow()\n")
    assert "huge" in ran.err and "900" in ran.err, ran.err
    job = project.flow.job
    run_id = project.flow.run_ids()[0]
    assert job.run_details(run_id)["tasks"][0]["state"] == "pending"
    assert "900" in project.platform.dt("job", "runs", job.to_dict()["name"]).out
    assert job.stop()[0] is True
    assert project.flow.wait(run_id, state="stopped").states == {"huge": "did_not_run"}


@pytest.mark.clause("B169", "B100")
def test_an_interpreter_that_the_host_lacks_is_replaced_and_named(project: Project) -> None:
    run = project.run(
        """
        import sys

        from datatailr import task, workflow


        @task()
        def version():
            return sys.version_info[:2]


        @workflow(name="@NAME@", python_version="3.14")
        def flow():
            version()
        """
    )
    found = run.result("version")
    internal = run.job.to_dict()["name"]
    log = "".join(
        project.platform.dt("job", "get", internal, "--build-logs", stream).out
        for stream in ("stdout", "stderr")
    )
    if found != (3, 14):
        assert "3.14" in log and ".".join(map(str, found)) in log
        assert run.job.to_dict()["image"]["python_version"] == "3.14"
    else:
        assert "3.14" in log
