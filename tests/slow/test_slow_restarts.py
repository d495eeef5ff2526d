"""Processes that die and come back in the middle of a run; stops that leave nothing behind."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e_harness import (
    BIN,
    FINISHED,
    Platform,
    Project,
    base_environment,
    client_variables,
    eventually,
    process_alive,
    processes_of,
    run_command,
    up_command,
)

from datatailr.errors import DatatailrError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TWENTY = """
    import pathlib
    import time

    from datatailr import task, workflow

    FOLDER = pathlib.Path({folder!r})


    @task(memory="32m", cpu=0.1)
    def step(number, before):
        with open(FOLDER / f"{{number}}", "a") as visits:
            visits.write("x")
        time.sleep(0.4)
        print("step", number)
        return number + (before or 0)


    @task(memory="32m", cpu=0.1)
    def total(chains):
        return sum(chains)


    @workflow(name="@NAME@")
    def flow():
        ends = []
        for chain in range(4):
            before = None
            for link in range(5):
                before = step(chain * 5 + link, before)
            ends.append(before)
        total(ends)
"""


@pytest.mark.parametrize("victim", ["controlplane_pid", "agent_pid", "both"])
def test_a_run_survives_kill_9(project: Project, platform: Platform, tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    before = dict(platform.ready)
    flow = project.deploy(TWENTY.format(folder=str(folder)))
    run_id = flow.run_ids()[0]
    victims = ["agent_pid", "controlplane_pid"] if victim == "both" else [victim]
    for name in victims:
        begun = len(list(folder.iterdir()))
        eventually(partial(more_files, folder, begun + 3), what="some more tasks")
        kill_and_wait_for_another(platform, name)
    assert (platform.ready["grpc"], platform.ready["token"]) == (before["grpc"], before["token"])
    run = flow.wait(run_id, seconds=60)
    assert run.result("total") == sum(range(20))
    assert set(run.states.values()) == {"completed"}
    visits = {path.name: len(path.read_text()) for path in folder.iterdir()}
    assert visits == {str(number): 1 for number in range(20)}, "each task ran exactly once"
    # Logs travel apart from states: after the kills the last of them may come a little later.
    eventually(lambda: run.out("step-7") == "step 7\n", what="the whole log of step-7")


def more_files(folder: Path, count: int) -> bool:
    return len(list(folder.iterdir())) >= count


def kill_and_wait_for_another(platform: Platform, name: str) -> None:
    """Kills a child of `up` hard and waits until another one has taken its place."""
    pid = int(platform.ready[name])
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        platform.refresh()
        return bool(platform.ready[name] != pid) and process_alive(int(platform.ready[name]))

    eventually(replaced, seconds=30, what=f"another {name}")


SLEEPER = """
    import os
    import subprocess
    import time

    from datatailr import task, workflow


    @task(memory="32m", cpu=0.1)
    def sleeper():
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(os.getpid(), flush=True)
        time.sleep(600)


    @workflow(name="@NAME@")
    def flow():
        for _ in range(3):
            sleeper()
"""


def test_sigterm_with_running_tasks_leaves_no_process(project: Project, platform: Platform) -> None:
    flow = project.deploy(SLEEPER)
    job, run_id = flow.job, flow.run_ids()[0]
    names = ("sleeper", "sleeper-1", "sleeper-2")

    def pids() -> list[int]:
        lines = [job.logs(run_id, task_name=name).splitlines()[-1:] for name in names]
        return [int(line[0]) for line in lines if line and line[0].isdigit()]

    running = eventually(lambda: found if len(found := pids()) == 3 else [], what="three running tasks")
    assert all(process_alive(pid) for pid in running)
    took = platform.stop()
    assert took < 10
    assert not any(process_alive(pid) for pid in running)
    assert not (platform.folder / "ready.json").exists()
    assert processes_of(platform.folder) == {}


def test_a_restart_keeps_ports_and_history(project: Project, platform: Platform, tmp_path: Path) -> None:
    flow = project.deploy(
        """
        from datatailr import task, workflow


        @task()
        def tell():
            print("before the restart")
            return {"kept": list(range(20_000))}


        @workflow(name="@NAME@")
        def flow():
            tell()
        """
    )
    first = flow.wait()
    ready = dict(platform.ready)
    platform.stop()
    again = Platform.start(platform.folder)
    try:
        for key in ("grpc", "http", "token"):
            assert again.ready[key] == ready[key], key
        with client_variables(again):
            job = flow.job
            assert [entry["run_id"] for entry in job.runs(refresh=True)] == [first.id]
            assert job.run_details(first.id) == first.details
            assert job.result(first.id, task_name="tell") == {"kept": list(range(20_000))}
            assert "before the restart\n" in job.logs(first.id, task_name="tell")
            assert job.start()[0] is True
            second = flow.wait()
            assert second.id > first.id and second.result("tell") == first.result("tell")
        again.stop()
    finally:
        again.kill()


def test_a_run_goes_on_after_a_restart_of_up(project: Project, platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    flow = project.deploy(TWENTY.format(folder=str(folder)))
    run_id = flow.run_ids()[0]
    eventually(lambda: len(list(folder.iterdir())) >= 8, what="some finished tasks")
    platform.stop()
    again = Platform.start(platform.folder)
    try:
        with client_variables(again):
            run = flow.wait(run_id, seconds=60)
            assert run.result("total") == sum(range(20))
        again.stop()
    finally:
        again.kill()


def test_two_platforms_on_one_data_directory(project: Project, platform: Platform, tmp_path: Path) -> None:
    ran = run_command(
        up_command(platform.folder, name="second.json"), base_environment(tmp_path), code=None, seconds=30
    )
    assert ran.code != 0 and str(platform.data) in ran.err
    assert len([line for line in ran.err.splitlines() if line.strip()]) <= 3, ran.err
    run = project.run(TWENTY.format(folder=str(tmp_path)))
    assert run.result("total") == sum(range(20))


def test_a_killed_up_can_be_started_again(project: Project, platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    flow = project.deploy(TWENTY.format(folder=str(folder)))
    run_id = flow.run_ids()[0]
    eventually(lambda: len(list(folder.iterdir())) >= 4, what="some finished tasks")
    platform.process.kill()
    platform.process.wait()

    def start() -> Platform | None:
        try:
            return Platform.start(platform.folder)
        except AssertionError:
            return None

    again = eventually(start, seconds=60, what="a platform after the death of the first")
    assert again is not None
    try:
        with client_variables(again):
            assert flow.wait(run_id, seconds=60).result("total") == sum(range(20))
        again.stop()
    finally:
        again.kill()


def test_an_unconfigured_client_says_what_to_do(tmp_path: Path) -> None:
    environment = base_environment(tmp_path)
    ran = run_command([str(BIN / "dt"), "job", "ls"], environment, code=None)
    assert ran.code != 0 and "datatailr up" in ran.err


def state_of(job: Any, run_id: int) -> str:
    """The state of a run, empty while the platform is away."""
    try:
        return str(job.run_details(run_id)["state"])
    except DatatailrError:
        return ""


def test_a_stop_that_was_acknowledged_survives_a_kill(project: Project, platform: Platform) -> None:
    flow = project.deploy(SLEEPER)
    job, run_id = flow.job, flow.run_ids()[0]
    eventually(lambda: job.run_details(run_id)["tasks"][0]["state"] == "running", what="a running task")
    assert job.stop()[0] is True
    os.kill(int(platform.ready["controlplane_pid"]), signal.SIGKILL)
    state = eventually(
        lambda: found if (found := state_of(job, run_id)) in FINISHED else "",
        seconds=40,
        what="the end of the run",
    )
    assert state == "stopped"
