"""Versions, starts, stops, edits, reruns, promotion and removal."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from e2e_harness import Project, eventually, run_command

from datatailr import Environment, Workflow
from datatailr.errors import TaskError
from datatailr.scheduler import Job

SIMPLE = """
    from datatailr import task, workflow


    @task()
    def answer(value):
        return value + {increment}


    @workflow(name="@NAME@")
    def flow(value=1):
        answer(value)
"""


def simple(increment: int = 1) -> str:
    return SIMPLE.format(increment=increment)


@pytest.mark.clause("B98", "B99", "B118", "B48", "B97")
def test_each_call_saves_a_new_version(project: Project) -> None:
    project.write("shop/flow.py", simple())
    for expected in (1, 2, 3):
        ran = project.script("from shop.flow import flow\n\nprint(repr(flow()))\n")
        assert ran.out.strip().splitlines()[-1] == "None"
        assert "Workflow" in ran.out and "lifecycle-each-call-saves-a-new-version" in ran.out
        assert project.flow.job.versions() == list(range(1, expected + 1))
    job = project.flow.job
    assert job.versions(Environment.DEV) == [1, 2, 3] and job.versions("pre") == []
    eventually(lambda: all(entry["end_time"] for entry in job.runs(refresh=True)), what="the end of all runs")
    assert sorted(entry["job_version"] for entry in job.runs(refresh=True)) == [1, 2, 3]


@pytest.mark.clause("B118")
def test_versions_of_a_job_that_was_never_saved(project: Project) -> None:
    project.write("shop/flow.py", simple())
    ran = project.script(
        """
        import json

        from datatailr import Workflow
        from shop.flow import answer

        with Workflow(name="@NAME@") as wf:
            answer(1)
            wf.set_autorun(False)
        print(json.dumps([wf.versions(), wf.start()[0]]))
        """
    )
    assert ran.last() == [[], False]


@pytest.mark.clause("B188", "B150", "B157")
def test_an_edit_runs_and_the_past_stays(project: Project) -> None:
    first = project.run(simple(1))
    second = project.run(simple(40).replace("answer", "reply"))
    assert second.result("reply") == 41
    assert list(second.states) == ["reply"]
    job = project.flow.job
    assert [entry["name"] for entry in job.run_details(first.id)["tasks"]] == ["answer"]
    assert job.result(first.id, task_id=0) == 2
    assert "DT USER LOGS START" in job.logs(first.id, task_id=0)


@pytest.mark.clause("B54", "B98")
def test_save_only(project: Project) -> None:
    project.write("shop/flow.py", simple())
    ran = project.script("from shop.flow import flow\n\nassert flow(save_only=True) is None\n")
    assert len([line for line in ran.out.splitlines() if project.name in line]) == 1
    job = project.flow.job
    assert job.versions() == [1] and job.runs(refresh=True) == []
    assert job.start()[0] is True
    assert project.flow.wait().result("answer") == 2


@pytest.mark.clause("B53")
def test_to_json_sends_nothing(project: Project) -> None:
    project.write("shop/flow.py", simple())
    ran = project.script("from shop.flow import flow\n\nprint(flow(5, to_json=True))\n")
    document = json.loads(ran.out)
    assert document["display_name"] == project.name
    assert [entry["entrypoint"] for entry in document["jobs"]] == ["shop.flow:answer"]
    project.assert_never_saved()


@pytest.mark.clause("B50", "B43")
def test_local_and_remote_runs_agree(project: Project) -> None:
    source = """
        import json

        from datatailr import task, workflow


        @task()
        def numbers(count):
            return list(range(count))


        @task()
        def mean(values, weights=None):
            return sum(values) / len(values)


        @task()
        def show(results):
            print(json.dumps(results))


        @workflow(name="@NAME@")
        def flow():
            values = numbers(10)
            show({"mean": mean(values), "twice": [values, values], "text": "numbers"})
    """
    run = project.run(source)
    local = project.script("from shop.flow import flow\n\nassert flow(local_run=True) is None\n")
    assert project.flow.run_ids() == [run.id]
    wanted = {"mean": 4.5, "twice": [list(range(10))] * 2, "text": "numbers"}
    assert json.loads(run.out("show")) == wanted
    assert wanted in [json.loads(line) for line in local.out.splitlines() if line.startswith("{")]


@pytest.mark.clause("B102", "B104", "B105", "B124", "B95")
def test_start_and_stop(project: Project, tmp_path: Path) -> None:
    project.write(
        "shop/flow.py",
        """
        import time

        from datatailr import task, workflow


        @task()
        def rest():
            time.sleep(300)


        @task()
        def after(value):
            return value


        @workflow(name="@NAME@")
        def flow():
            after(rest())
        """,
    )
    project.script("from shop.flow import flow\n\nflow()\n")
    job = project.flow.job
    assert job.start()[0] is True
    runs = eventually(lambda: ids if len(ids := project.flow.run_ids()) == 2 else [], what="two runs")
    for run_id in runs:
        eventually(partial(first_task_runs, job, run_id), what="a running task")
    assert job.stop()[0] is True
    for run_id in runs:
        run = project.flow.wait(run_id, state="stopped", seconds=15)
        assert run.states == {"rest": "stopped", "after": "did_not_run"}
        assert run.result("rest") is None


def first_task_runs(job: Workflow, run_id: int) -> bool:
    return bool(job.run_details(run_id)["tasks"][0]["state"] == "running")


@pytest.mark.clause("B106", "B95")
def test_a_job_that_was_never_saved_cannot_be_started(project: Project) -> None:
    project.write("shop/flow.py", simple())
    ran = project.script(
        """
        import json

        from datatailr import Workflow
        from shop.flow import answer

        with Workflow(name="@NAME@") as wf:
            answer(1)
            wf.set_autorun(False)
        print(json.dumps(wf.start()))
        """
    )
    success, message = ran.last()
    assert success is False and "lifecycle-a-job-that-was-never-saved" in message
    assert message in ran.err


@pytest.mark.clause("B103", "B124")
def test_a_scheduled_workflow_waits_for_its_schedule(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        from datatailr import Schedule, task, workflow


        @task()
        def answer():
            return 1


        @workflow(name="@NAME@", schedule=Schedule(at_hours=[3], day_of_month=29, in_month=["Feb"]))
        def flow():
            answer()
        """,
    )
    project.script("from shop.flow import flow\n\nflow()\n")
    job = project.flow.job
    assert job.state == "scheduled"
    assert job.runs(refresh=True) == []
    assert job.start()[0] is False
    assert job.stop()[0] is True
    assert project.flow.job.state != "scheduled"


@pytest.mark.clause("B112", "B113", "B116", "B117")
def test_an_existing_job_is_loaded(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        from datatailr import Resources, task, workflow


        @task(memory="300m", cpu=0.5)
        def first():
            return 20


        @task()
        def second(value):
            return value + 1


        BIG = Resources(memory="150m", cpu=2)


        @workflow(name="@NAME@", env_vars={"A": 1}, fail_after="2h", resources=BIG)
        def flow():
            second(first()).alias("the second")
        """,
    )
    project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    saved = json.loads(project.script("from shop.flow import flow\n\nprint(flow(to_json=True))\n").out)
    for name in (project.name, saved["name"]):
        job = Workflow(name=name, get_existing=True)
        assert job.name == project.name and job.version == 1 and job.environment == Environment.DEV
        assert job.fail_after is not None and job.state in {"ready", "building", "created"}
        loaded = job.to_dict()
        assert loaded["name"] == saved["name"] and loaded["fail_after"] == saved["fail_after"]
        for loaded_task, saved_task in zip(loaded["jobs"], saved["jobs"], strict=True):
            for key in ("name", "child_number", "entrypoint", "depends_on", "env", "num_cpus", "memory"):
                assert loaded_task[key] == saved_task[key], key
    document = Job.__get_existing__(project.name, "dev", get_tasks=True)
    assert [child["name"] for child in document["children_full"]] == ["first", "the second"]
    assert "children_full" not in Job.__get_existing__(project.name, "dev")
    job = project.flow.job
    assert job.run()[0] is True
    run = project.flow.wait()
    assert run.details["job_version"] == 2 and run.result("the second") == 21


@pytest.mark.clause("B114", "B115")
def test_what_does_not_exist_is_named(project: Project) -> None:
    with pytest.raises(TaskError, match=r"(?s)no such thing.*dev|dev.*no such thing"):
        Workflow(name="no such thing", get_existing=True)
    project.write("shop/flow.py", simple())
    project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    with pytest.raises(TaskError, match="17"):
        Workflow(name=project.name, get_existing=True, version=17)
    with pytest.raises(ValueError, match="get_existing"):
        Workflow(name=project.name, version=1)


COUNTED = """
    import os
    import pathlib

    from datatailr import task, workflow

    FOLDER = pathlib.Path({folder!r})


    def visit(name):
        with open(FOLDER / name, "a") as stream:
            stream.write("x")


    @task()
    def good():
        visit("good")
        return "from the first run" if not (FOLDER / "repaired").exists() else "from a later run"


    @task()
    def shaky(value):
        visit("shaky")
        if not (FOLDER / "repaired").exists():
            raise RuntimeError("not yet")
        names = ("PARTIAL_RERUN", "ORIGINAL_RUN_ID")
        return value, [os.environ.get("DATATAILR_BATCH_ARG_" + name) for name in names]


    @task()
    def last(value):
        visit("last")
        return value


    @workflow(name="@NAME@")
    def flow():
        last(shaky(good()))
"""


@pytest.mark.clause("B126", "B127", "B128", "B129", "B130", "B131", "B132", "B151")
def test_reruns(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    first = project.run(COUNTED.format(folder=str(folder)), state="failed")
    assert first.states == {"good": "completed", "shaky": "failed", "last": "did_not_run"}
    (folder / "repaired").touch()
    job = first.job

    assert job.rerun(first.id)[0] is True
    repaired = project.flow.wait(max(project.flow.run_ids()))
    assert repaired.id > first.id
    assert repaired.details["original_run_id"] == first.id and repaired.details["partial_rerun"] is True
    assert repaired.states == {"good": "did_not_run", "shaky": "completed", "last": "completed"}
    assert {path.name: len(path.read_text()) for path in folder.iterdir()} == {
        "good": 1, "shaky": 2, "last": 1, "repaired": 0,
    }  # fmt: skip
    assert repaired.result("good") == "from the first run"
    assert repaired.result("last") == ("from the first run", ["true", str(first.id)])
    assert job.result(first.id, task_name="shaky") is None

    assert job.rerun(repaired.id, full=True)[0] is True
    full = project.flow.wait(max(project.flow.run_ids()))
    assert full.details["original_run_id"] == first.id and full.details["partial_rerun"] is False
    assert set(full.states.values()) == {"completed"}
    assert full.result("last")[0] == "from a later run"
    assert job.result(repaired.id, task_name="good") == "from the first run"

    success, message = job.rerun(987654321)
    assert success is False and "987654321" in message


@pytest.mark.clause("B133")
def test_commands_of_a_job(project: Project) -> None:
    run = project.run(simple())
    assert run.job.__run_command__("dance")[0] is False
    with pytest.raises(ValueError):
        run.job.__run_command__("rerun")


def git(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]
    run_command(["git", *identity, *arguments], environment, cwd=folder)


@pytest.mark.clause("B119", "B120", "B121", "B122", "B123", "B163", "B167")
def test_promotion_of_a_verified_version(project: Project, tmp_path: Path) -> None:
    environment = project.platform.client_environment()
    project.write("shop/flow.py", simple())
    project.write("deploy.py", "from shop.flow import flow\n\nflow()\n")
    remote = tmp_path / "remote.git"
    git(tmp_path, environment, "init", "--bare", str(remote))
    for arguments in (
        ["init"], ["add", "."], ["commit", "-m", "First"], ["remote", "add", "origin", str(remote)],
        ["push", "-u", "origin", "main"],
    ):  # fmt: skip
        git(project.folder, environment, *arguments)
    project.python("deploy.py")
    dev = project.flow.wait()
    image = dev.job.to_dict()["image"]
    assert image["branch_name"] == "main" and len(image["commit_hash"]) == 40

    success, message = dev.job.promote(from_environment=Environment.DEV)
    assert success, message
    assert dev.job.versions("pre") == [1] and dev.job.versions() == [1]
    again, message = dev.job.promote(from_environment="dev", version=1)
    assert again and dev.job.versions("pre") == [1], message
    pre = Workflow(name=project.name, environment="pre", get_existing=True)
    assert pre.runs(refresh=True) == []
    assert pre.start()[0] is True
    started = eventually(lambda: pre.runs(refresh=True), what="a run in pre")[0]["run_id"]
    eventually(lambda: pre.run_details(started)["state"] == "completed", what="its end")
    assert pre.result(started, task_name="answer") == 2

    assert dev.job.promote()[0] is True
    assert dev.job.versions("prod") == [1]
    assert dev.job.promote(from_environment="prod")[0] is False
    assert dev.job.promote(from_environment="dev", version=9)[0] is False

    project.write("shop/flow.py", simple(5))
    project.python("deploy.py")
    dirty = project.flow.job
    assert dirty.to_dict()["image"]["commit_hash"] == "unknown"
    success, message = dirty.promote(from_environment="dev", version=2)
    assert success is False and "2" in message
    assert dirty.versions("pre") == [1]


@pytest.mark.clause("B125", "B104", "B98")
def test_removal(project: Project) -> None:
    project.write("shop/flow.py", simple())
    for _ in range(3):
        project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    job = project.flow.job
    assert job.remove(all_versions=False)[0] is True
    assert project.flow.job.version == 2
    assert project.flow.job.versions() == [1, 2]
    project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    assert project.flow.job.version == 4
    assert project.flow.job.remove()[0] is True
    with pytest.raises(TaskError):
        Workflow(name=project.name, get_existing=True)
    assert job.start()[0] is False


@pytest.mark.clause("B101")
def test_a_name_keeps_its_type(project: Project) -> None:
    project.write("shop/flow.py", simple())
    project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    project.write("shop/service.py", "def serve(port):\n    raise SystemExit(0)\n")
    ran = project.script(
        """
        import json

        from datatailr import Service
        from shop.service import serve

        print(json.dumps(Service(name="@NAME@", entrypoint=serve).save()))
        """
    )
    success, message = ran.last()
    assert success is False and "lifecycle" in message
    assert project.flow.job.versions() == [1]


@pytest.mark.clause("B60", "B60a", "B233")
def test_a_task_launches_another_workflow(project: Project) -> None:
    run = project.run(
        """
        from datatailr import task, workflow


        @task()
        def leaf(value):
            return value * 2


        @workflow(name="@NAME@ inner")
        def inner(value):
            leaf(value)


        @task()
        def launch():
            return inner(21)


        @workflow(name="@NAME@")
        def flow():
            launch()


        inner(1000, save_only=True)
        """
    )
    assert run.result("launch") is None
    inner = Workflow(name=f"{project.name} inner", get_existing=True)
    runs = inner.runs(refresh=True)
    assert len(runs) == 1, "the call at module level must not run in a task's process"
    assert sorted(inner.versions()) == [1, 2]
    eventually(lambda: inner.run_details(runs[0]["run_id"])["state"] == "completed", what="the inner run")
    assert inner.result(runs[0]["run_id"], task_name="leaf") == 42
