"""What a finished run says about itself: details, logs and results."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from e2e_harness import FinishedRun, Project, client_variables, eventually, without_marks

from datatailr import Resources

SOURCE = """
    import os
    import subprocess
    import sys

    from datatailr import task, workflow


    @task(memory="256m", cpu=0.5)
    def talk(lines):
        for number in range(lines):
            print(f"line {number}")
        sys.stderr.write("to stderr é\\n")
        return {"lines": lines}


    @task()
    def low_level(before):
        os.write(1, b"raw bytes \\xff\\xfe end\\n")
        subprocess.run(["sh", "-c", "echo from a child; echo child error >&2"], check=True)
        print("no newline at the end", end="")


    @task()
    def silent(before):
        return None


    @workflow(name="@NAME@")
    def flow():
        first = talk(50)
        low_level(first).alias("low level")
        silent(first)
"""
RUN_KEYS = {
    "run_id", "job_name", "state", "job_version", "original_run_id", "partial_rerun", "cost", "submit_time",
    "start_provisioning_time", "start_time", "end_time", "scheduled_time", "tried_to_start_time",
}  # fmt: skip
DETAIL_KEYS = {
    "cost", "end_time", "job_version", "original_run_id", "partial_rerun", "scheduled_time",
    "start_provisioning_time", "start_time", "state", "submit_time", "tried_to_start_time", "name", "run_id",
    "tasks",
}  # fmt: skip
TASK_KEYS = {
    "cost", "end_time", "scheduled_time", "start_provisioning_time", "start_time", "state", "submit_time",
    "tried_to_start_time", "name", "id", "dependencies", "resources",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(module_project: Project) -> FinishedRun:
    with client_variables(module_project.platform):
        return module_project.run(SOURCE)


@pytest.mark.clause("B143", "B144", "B147", "B162")
def test_runs_have_exactly_the_documented_keys(run: FinishedRun, client: None) -> None:
    runs = run.job.runs(refresh=True)
    assert [entry["run_id"] for entry in runs] == [run.id]
    entry = runs[0]
    assert set(entry) == RUN_KEYS
    assert type(entry["run_id"]) is int and type(entry["job_version"]) is int
    assert type(entry["tried_to_start_time"]) is int
    assert entry["job_name"] == run.job.to_dict()["name"] and entry["state"] == "completed"
    assert entry["original_run_id"] == -1 and entry["partial_rerun"] is False
    assert isinstance(entry["cost"], float) and entry["cost"] >= 0
    assert entry["scheduled_time"] is None
    for key in ("submit_time", "start_time", "end_time"):
        assert isinstance(entry[key], datetime) and entry[key].tzinfo is None, key
    assert timedelta(0) <= datetime.now() - entry["end_time"] < timedelta(minutes=5)
    assert entry["submit_time"] <= entry["start_time"] <= entry["end_time"]


@pytest.mark.clause("B145")
def test_runs_are_bounded_by_their_start(run: FinishedRun, client: None) -> None:
    start = run.details["start_time"]
    assert run.job.runs(start_time=start, end_time=start)
    assert not run.job.runs(start_time=start + timedelta(microseconds=1))
    assert not run.job.runs(end_time=start - timedelta(microseconds=1))
    assert run.job.runs(start_time=start.astimezone())


@pytest.mark.clause("B148", "B149", "B150")
def test_details_have_exactly_the_documented_keys(run: FinishedRun, client: None) -> None:
    details = run.job.run_details(run.id)
    assert set(details) == DETAIL_KEYS
    assert details["name"] == run.job.name and details["run_id"] == run.id
    assert [entry["id"] for entry in details["tasks"]] == [0, 1, 2]
    assert [entry["name"] for entry in details["tasks"]] == ["talk", "low level", "silent"]
    for entry in details["tasks"]:
        assert set(entry) == TASK_KEYS
        assert entry["state"] == "completed"
        assert entry["submit_time"] <= entry["start_time"] <= entry["end_time"] <= details["end_time"]
        assert entry["start_time"].tzinfo is None
    assert details["tasks"][1]["dependencies"] == [0]
    assert details["tasks"][0]["resources"] == Resources(memory="256m", cpu=0.5)
    assert details["tasks"][1]["start_time"] >= details["tasks"][0]["end_time"]


@pytest.mark.clause("B152", "B160", "B161")
def test_unknown_runs_and_tasks(run: FinishedRun, client: None) -> None:
    with pytest.raises(ValueError, match="987654321"):
        run.job.run_details(987654321)
    assert run.job.result(987654321, task_name="talk") is None
    with pytest.raises(ValueError, match="nobody"):
        run.job.result(run.id, task_name="nobody")
    with pytest.raises(ValueError, match="nobody"):
        run.job.logs(run.id, task_name="nobody")
    assert run.job.result(run.id, task_id=77) is None
    assert run.job.result(run.id) is None


@pytest.mark.clause("B154", "B155", "B159")
def test_results_by_name_and_by_id(run: FinishedRun, client: None) -> None:
    assert run.job.result(run.id, task_name="talk") == {"lines": 50}
    assert run.job.result(str(run.id), task_id=0) == {"lines": 50}
    assert run.job.result(run.id, task_name="low level", task_id=0) == {"lines": 50}
    assert run.job.result(run.id, task_name="silent") is None


@pytest.mark.clause("B155", "B267")
def test_logs_are_whole_and_marked(run: FinishedRun, client: None) -> None:
    text = run.job.logs(run.id, task_name="talk")
    lines = text.splitlines()
    begin, end = (f"====== DT USER LOGS {word} ======" for word in ("START", "END"))
    assert lines[0] == begin and lines[-1] == end
    assert lines[1:-1] == [f"line {number}" for number in range(50)]
    assert run.job.logs(run.id, task_name="talk", stderr=True).splitlines() == [begin, "to stderr é", end]


@pytest.mark.clause("B155")
def test_the_tail_of_a_log(run: FinishedRun, client: None) -> None:
    whole = run.job.logs(run.id, task_name="talk").splitlines()
    assert run.job.logs(run.id, task_name="talk", lines=7).splitlines() == whole[-7:]
    assert run.job.logs(run.id, task_id=0, lines=1).splitlines() == whole[-1:]


@pytest.mark.clause("B155")
def test_output_of_every_kind_is_kept(run: FinishedRun, client: None) -> None:
    out = run.out("low level")
    assert "raw bytes " in out and " end\n" in out
    assert "from a child\n" in out
    assert out.rstrip("\n").endswith("no newline at the end")
    assert run.err("low level") == "child error\n"


@pytest.mark.clause("B156")
def test_the_log_of_the_run_itself_tells_its_progress(run: FinishedRun, client: None) -> None:
    assert isinstance(run.job.logs(run.id), str)


@pytest.mark.clause("B158")
def test_output_is_visible_while_the_task_runs(project: Project, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flow = project.deploy(
        f"""
        import pathlib
        import sys
        import time

        from datatailr import task, workflow


        @task()
        def wait():
            print("half a line", end="")
            print("and a whole one")
            sys.stderr.write("error so far\\n")
            deadline = time.monotonic() + 60
            while not pathlib.Path({str(gate)!r}).exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            return "done"


        @workflow(name="@NAME@")
        def flow():
            wait()
        """
    )
    job = flow.job
    run_id = eventually(flow.run_ids, what="a run")[0]
    eventually(lambda: "and a whole one" in job.logs(run_id, task_name="wait"), what="the output")
    eventually(
        lambda: without_marks(job.logs(run_id, task_name="wait", stderr=True)) == "error so far\n",
        what="stderr",
    )
    details = job.run_details(run_id)
    assert details["state"] == "running" and details["end_time"] is None
    assert details["tasks"][0]["state"] == "running" and details["tasks"][0]["end_time"] is None
    assert job.result(run_id, task_name="wait") is None
    gate.touch()
    assert flow.wait(run_id).result("wait") == "done"


@pytest.mark.clause("B226", "B227", "B228", "B229")
def test_environment_of_a_task(project: Project) -> None:
    run = project.run(
        """
        import os
        import sys

        from datatailr import task, workflow


        @task()
        def look():
            return dict(os.environ), os.getcwd(), sys.executable, sys.stdin.read()


        VARIABLES = {"COLOUR": "red", "COUNT": 3, "FLAG": True, "DATATAILR_JOB_TYPE": "mine"}


        @workflow(name="@NAME@", env_vars=VARIABLES)
        def flow():
            look().update_env_vars({"COLOUR": "blue"})
            look().alias("second")
        """
    )
    variables, _, _, stdin = run.result("look")
    definition = run.job.to_dict()
    internal = definition["name"]
    assert stdin == ""
    assert (variables["COLOUR"], variables["COUNT"], variables["FLAG"]) == ("blue", "3", "True")
    assert run.result("second")[0]["COLOUR"] == "red"
    expected = {
        "DATATAILR_JOB_TYPE": "batch",
        "DATATAILR_JOB_NAME": f"{internal}-0",
        "DATATAILR_JOB_ENVIRONMENT": "dev",
        "DATATAILR_USER": definition["run_as"],
        "DATATAILR_BATCH_RUN_ID": str(run.id),
        "DATATAILR_BATCH_ID": str(run.job.id),
        "DATATAILR_BATCH_ENTRYPOINT": "shop.flow:look",
        "DATATAILR_JOB_ID": "0",
        "DATATAILR_BATCH_VERSION": "1",
        "DATATAILR_BATCH_CHILD_NUMBER": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "UTF-8",
    }
    assert {name: variables.get(name) for name in expected} == expected
    for name in (
        "DATATAILR_DOMAIN",
        "DATATAILR_GROUP",
        "DATATAILR_UID",
        "DATATAILR_GID",
        "PATH",
        "PYTHONPATH",
    ):
        assert name in variables, name
    assert variables["DATATAILR_UID"] == str(os.getuid())
    assert not [name for name in variables if name.startswith("DATATAILR_JOB_ENV_")]


@pytest.mark.clause("B226")
def test_nothing_of_the_users_shell_or_of_the_server_leaks(project: Project) -> None:
    project.environment["SECRET_OF_THE_SHELL"] = "hunter2"
    run = project.run(
        """
        import os

        from datatailr import task, workflow


        @task()
        def look():
            return dict(os.environ)


        @workflow(name="@NAME@")
        def flow():
            look()
        """
    )
    variables = run.result("look")
    assert "SECRET_OF_THE_SHELL" not in variables
    assert project.platform.token not in variables.values()


@pytest.mark.clause("B230")
def test_variables_of_services_are_not_given_to_tasks(project: Project) -> None:
    run = project.run(
        """
        import os

        from datatailr import task, workflow


        @task()
        def look():
            return sorted(os.environ)


        @workflow(name="@NAME@")
        def flow():
            look()
        """
    )
    assert not {"DATATAILR_SERVICE_PORT", "EXCEL_HOST", "DATATAILR_FRAMEWORK"} & set(run.result("look"))


@pytest.mark.clause("B14")
def test_a_task_called_inside_a_task_is_a_plain_function(project: Project) -> None:
    run = project.run(
        """
        from datatailr import task, workflow


        @task()
        def scale(value, factor=10):
            return value * factor


        @task()
        def outer(value, factor):
            return [scale(1), scale(value=2, factor=factor), scale(3, factor=5)]


        @workflow(name="@NAME@")
        def flow():
            outer(99, 7)
            scale(4)
        """
    )
    assert run.result("outer") == [10, 14, 15]
    assert run.result("scale") == 40
