"""Why tasks stopped and wait: produced for real, and read in every place where it is told."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_harness import BIN, FinishedRun, Flow, Platform, Project, client_variables, eventually

from datatailr.scheduler._platform import get_platform

ENDINGS = """
    import os
    import signal
    import sys
    import time

    from datatailr import task, workflow


    @task()
    def raises():
        raise ValueError("no vat for 7 items")


    @task()
    def exits():
        sys.exit(3)


    @task()
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


    @task(memory="64m")
    def greedy():
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1024)) * 4096)


    @task()
    def odd():
        return lambda: 1


    @task()
    def after(value):
        return value


    @workflow(name="@NAME@")
    def flow():
        after(raises())
        exits()
        killed()
        greedy()
        odd()
"""


@dataclass
class Story:
    """A run that has ended, as every interface tells it."""

    run: dict[str, Any]
    """`run` of the JSON of `dt job get`."""
    plain: str
    watch: str
    hints: str
    log: str
    tasks: dict[str, Any]
    """As the SDK knows them, by name."""

    @classmethod
    def of(cls, platform: Platform, flow: Flow, run_id: int, *, code: int = 6) -> Story:
        name = flow.job.to_dict()["name"]
        [job] = platform.dt("job", "get", name, "-j", "-i", str(run_id)).json()
        watched = platform.dt("job", "watch", name, "-i", str(run_id), code=code)
        api = get_platform()
        assert api is not None
        return cls(
            job["run"],
            platform.dt("job", "get", name, "-i", str(run_id)).out,
            watched.out,
            watched.err,
            platform.dt("log", "read", name, "-i", str(run_id), "-l", "200").out,
            {task["name"]: task for task in api.list_run_tasks(run_id)},
        )

    def task(self, name: str) -> dict[str, Any]:
        return next(task for task in self.run["tasks"] if task["name"] == name)

    def told(self, name: str, kind: str, label: str, **fields: Any) -> None:
        """Fails unless all of them tell this cause of a task, with these fields."""
        task = self.task(name)
        ends = [task["cause"], self.tasks[name]["cause"]]
        ends += [task["attempts"][-1]["cause"]] if task["attempts"] else []
        for cause in ends:
            assert cause["kind"] == kind and cause["message"] and cause["hint"], cause
            assert {key: cause.get(key) for key in fields} == fields
        row = next(line for line in self.plain.splitlines() if line.startswith(f"{name} "))
        assert label in row, self.plain
        line = next(line for line in self.watch.splitlines() if f"  task {name} (" in line)
        assert f"({label})" in line, self.watch
        entry = next(
            line for line in self.log.splitlines() if f" task {name} " in line and f"({kind})" in line
        )
        assert task["cause"]["message"].splitlines()[0][:80] in entry


@pytest.fixture(scope="module")
def endings(module_project: Project) -> Story:
    with client_variables(module_project.platform):
        run: FinishedRun = module_project.run(ENDINGS, state="failed")
        return Story.of(module_project.platform, module_project.flow, run.id)


@pytest.mark.clause("B110")
@pytest.mark.parametrize(
    ("task", "kind", "label", "fields"),
    [
        ("exits", "exit_code", "exit code 3", {"exit_code": 3}),
        ("killed", "signal", "signal SIGKILL", {"signal": 9, "signal_name": "SIGKILL"}),
        ("raises", "exception", "exception", {"message": "ValueError: no vat for 7 items"}),
        ("odd", "result", "result", {}),
        ("after", "upstream", "upstream raises", {"task": "raises"}),
    ],
)
def test_ends_of_user_code(endings: Story, task: str, kind: str, label: str, fields: dict[str, Any]) -> None:
    endings.told(task, kind, label, **fields)


@pytest.mark.clause("B65a", "B110")
def test_out_of_memory_tells_limit_and_peak(endings: Story) -> None:
    cause = endings.task("greedy")["cause"]
    assert cause["kind"] == "out_of_memory" and cause["memory_limit_bytes"] == 64 << 20
    peak = f"{cause['peak_memory_bytes'] / (1 << 20):.0f} MiB"
    assert cause["peak_memory_bytes"] > 64 << 20
    endings.told("greedy", "out_of_memory", f"out of memory, {peak} of 64 MiB")


@pytest.mark.clause("B156")
def test_what_did_not_run_stands_before_the_end_of_the_run(endings: Story) -> None:
    lines = endings.log.splitlines()
    assert " failed " in lines[-1] and "run " in lines[-1]
    skipped = next(number for number, line in enumerate(lines) if "task after did not run" in line)
    assert skipped < len(lines) - 1
    assert lines[skipped][:24] <= lines[-1][:24]


def test_the_run_names_the_task_that_failed_first(endings: Story) -> None:
    cause = endings.run["cause"]
    assert cause["task"] in endings.tasks and cause["message"].startswith(f"Task {cause['task']!r}: ")
    assert "hint: " in endings.hints and f"dt job rerun {endings.run['run_id']}" in endings.hints


@pytest.mark.clause("B184")
def test_a_module_that_cannot_be_imported(project: Project) -> None:
    run = project.run(
        """
        import os

        from datatailr import task, workflow

        if "DATATAILR_JOB_TYPE" in os.environ:
            import nothing_of_this_name


        @task()
        def work():
            return 1


        @workflow(name="@NAME@")
        def flow():
            work()
        """,
        state="failed",
    )
    story = Story.of(project.platform, project.flow, run.id)
    story.told("work", "import", "import")
    assert "nothing_of_this_name" in story.plain


SLEEPS = """
    import time

    from datatailr import task, workflow


    @task()
    def sleeps():
        print("awake", flush=True)
        time.sleep(300)


    @task()
    def after(value):
        return value


    @workflow(name="@NAME@"@OPTIONS@)
    def flow():
        after(sleeps())
"""


def running(flow: Flow, task: str = "sleeps") -> int:
    """Waits until a task of the newest run runs; the run's number."""
    job = flow.job
    run_id = eventually(lambda: flow.run_ids()[:1], what="a run")[0]

    def begun() -> bool:
        entries = job.run_details(run_id)["tasks"]
        return any(entry["name"] == task and entry["state"] == "running" for entry in entries)

    eventually(begun, what=f"the start of {task}")
    return run_id


@pytest.mark.clause("B124")
def test_a_stop_names_who_asked_for_it(project: Project) -> None:
    flow = project.deploy(SLEEPS.replace("@OPTIONS@", ""))
    run_id = running(flow)
    api = get_platform()
    assert api is not None
    waiting = {task["name"]: task["waiting_for"] for task in api.list_run_tasks(run_id)}
    assert waiting == {"sleeps": [], "after": ["Waits for 'sleeps'."]}
    assert "Waits for 'sleeps'." in project.platform.dt("job", "get", flow.job.to_dict()["name"]).out
    project.platform.dt("job", "stop", "-b", str(run_id))
    flow.wait(run_id, state="stopped")
    story = Story.of(project.platform, flow, run_id)
    user = story.task("sleeps")["cause"]["user"]
    assert user and story.run["cause"]["user"] == user
    for task in ("sleeps", "after"):
        story.told(task, "stopped", f"stopped by {user}", user=user)
    assert f"the run was asked to stop: Stopped by {user}." in story.log
    assert f"because: Stopped by {user}." in story.watch


@pytest.mark.clause("B108")
def test_fail_after_tells_the_limit(project: Project) -> None:
    run = project.run(SLEEPS.replace("@OPTIONS@", ', fail_after="1s"'), state="failed_after")
    story = Story.of(project.platform, project.flow, run.id)
    for task in ("sleeps", "after"):
        story.told(task, "fail_after", "fail after", time_limit=1_000_000)


@pytest.mark.clause("B100")
def test_a_failed_build_is_told_in_the_call_and_in_the_run(project: Project) -> None:
    project.write(
        "shop/tasks.py",
        """
        from datatailr import task


        @task()
        def work():
            return 1
        """,
    )
    ran = project.script(
        """
        import json

        from datatailr import Image, Workflow
        from shop.tasks import work

        image = Image(python_requirements=["./no-such-file.whl"])
        with Workflow(name="@NAME@", image=image) as flow:
            work()
            flow.set_autorun(False)
        # A run that is started while the build goes on waits for it.
        print(json.dumps([flow.save(), flow.start(), flow.run()]))
        """,
        code=None,
    )
    saved, started, called = ran.last()
    assert saved[0] is True and started[0] is True, ran.err
    assert called[0] is False and "could not be built (bld_" in called[1] and "no-such-file" in called[1]
    run = project.flow.wait(state="failed")
    story = Story.of(project.platform, project.flow, run.id)
    build = story.task("work")["cause"]["build_id"]
    assert build.startswith("bld_")
    story.told("work", "build_failed", f"build failed, {build}", build_id=build)
    assert story.run["cause"]["build_id"] == build


KEEPER = """
    import os
    import signal
    import time
    from pathlib import Path

    from datatailr import task, workflow


    def keeper():
        pid = os.getppid()
        while b"keeper" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid


    @task()
    def unlucky(folder):
        mark, go = Path(folder) / "mark", Path(folder) / "go"
        if not mark.exists():
            mark.touch()
            while not go.exists():
                time.sleep(0.05)
            os.kill(keeper(), signal.SIGKILL)
            time.sleep(60)
        return "well"


    @workflow(name="@NAME@")
    def flow():
        unlucky("@FOLDER@")
"""


def test_a_killed_keeper_is_told_at_once_and_kept(project: Project, tmp_path: Path) -> None:
    flow = project.deploy(KEEPER.replace("@FOLDER@", str(tmp_path)))
    name = flow.job.to_dict()["name"]
    with subprocess.Popen(
        [str(BIN / "dt"), "job", "watch", name],
        env=project.platform.client_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        out = watch.stdout.readline()
        # Somebody follows it now.
        (tmp_path / "go").touch()
        out += watch.stdout.read()
    assert watch.returncode == 0, out
    node = project.platform.dt("node", "ls", "-j").json()[0]["name"]
    run = flow.wait()
    assert run.result("unlucky") == "well"
    story = Story.of(project.platform, flow, run.id, code=0)
    first, second = story.task("unlucky")["attempts"]
    assert first["cause"]["kind"] == "lost_by_runtime" and first["cause"]["node"] == node
    assert (first["attempt"], second["attempt"], second["state"]) == (1, 2, "completed")
    assert second["cause"] is None and story.task("unlucky")["cause"] is None
    assert f"(node {node}), trying again 2 of 4" in out
    assert "(lost_by_runtime), trying again 2 of 4" in story.log


@pytest.mark.clause("B107")
def test_a_task_that_waits_for_room_names_who_has_it(project: Project, tmp_path: Path) -> None:
    node = project.platform.dt("node", "ls", "-j").json()[0]
    flow = project.deploy(
        """
        import time
        from pathlib import Path

        from datatailr import task, workflow


        @task(memory="@MEMORY@m")
        def hog(name):
            while not Path("@GO@").exists():
                time.sleep(0.05)
            return name


        @workflow(name="@NAME@")
        def flow():
            hog("a").alias("a")
            hog("b").alias("b")
        """.replace("@MEMORY@", str(node["memory"] // (1 << 20))).replace("@GO@", str(tmp_path / "go"))
    )
    api = get_platform()
    assert api is not None
    run_id = eventually(lambda: flow.run_ids()[:1], what="a run")[0]

    def reason() -> str:
        tasks = api.list_run_tasks(run_id)
        states = sorted(task["state"] for task in tasks)
        waits = [task["waiting_for"] for task in tasks if task["state"] == "pending"]
        return str(waits[0][0]) if states == ["pending", "running"] else ""

    text = eventually(reason, what="a task that waits beside one that runs")
    assert text.startswith("All nodes are busy (it asks for ") and f"of run {run_id}" in text
    assert node["name"] in text and ("'a'" in text or "'b'" in text)
    assert text in project.platform.dt("job", "get", flow.job.to_dict()["name"]).out
    with subprocess.Popen(
        [str(BIN / "dt"), "job", "watch", flow.job.to_dict()["name"]],
        env=project.platform.client_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        line = next(line for line in watch.stdout if "waiting: " in line)
        (tmp_path / "go").touch()
        watch.stdout.read()
    assert text in line
    assert flow.wait(run_id).states == {"a": "completed", "b": "completed"}
