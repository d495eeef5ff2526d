"""A backup made in the middle of work, everything destroyed, and the platform brought back from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from e2e_harness import (
    BIN,
    Flow,
    Platform,
    Project,
    Ran,
    base_environment,
    client_variables,
    eventually,
    run_command,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FIFTY = """
    import pathlib
    import time

    from datatailr import task, workflow

    FOLDER = pathlib.Path({folder!r})


    @task(memory="16m", cpu=2)
    def step(number):
        for line in range(200):
            print(f"{{number}} line {{line}} " + "x" * 100, flush=True)
            time.sleep(0.005)
        while number >= 30 and not (FOLDER.parent / "go").exists():
            time.sleep(0.02)
        with open(FOLDER / f"{{number}}", "a") as visits:
            visits.write("x")
        return list(range(number, number + 20_000))


    @task(memory="200m", cpu=0.1)
    def total(parts):
        return [part[0] for part in parts]


    @workflow(name="@NAME@")
    def flow():
        total([step(number) for number in range(50)])
"""

BEFORE = """
    from datatailr import task, workflow


    @task(memory="32m", cpu=0.1)
    def tell(number):
        print("told before the backup", number)
        return {"kept": list(range(30_000)), "number": number}


    @workflow(name="before")
    def flow(number=1):
        tell(number)
"""


def datatailr(platform: Platform, *arguments: str, code: int = 0) -> Ran:
    command = [str(BIN / "datatailr"), *arguments, "--data-dir", str(platform.data)]
    return run_command(command, platform.client_environment(), code=code, seconds=120)


def lines_of(number: int) -> str:
    return "".join(f"{number} line {line} {'x' * 100}\n" for line in range(200))


def begin_fifty(project: Project, folder: Path) -> tuple[Flow, int]:
    folder.mkdir()
    flow = project.deploy(FIFTY.format(folder=str(folder)))
    run_id = flow.run_ids()[0]
    eventually(lambda: len(list(folder.iterdir())) >= 8, seconds=60, what="some finished tasks")
    return flow, run_id


def a_finished_flow(project: Project) -> tuple[Flow, int, dict[str, object], str]:
    earlier = Project(project.folder.with_name("earlier"), project.platform, "before")
    finished = earlier.run(BEFORE)
    return earlier.flow, finished.id, finished.result("tell"), finished.out("tell")


def check_finished(flow: Flow, run_id: int, result: object, out: str) -> None:
    """A run from before the backup is there in all its parts, and its job can be called."""
    job = flow.job
    assert job.run_details(run_id)["state"] == "completed"
    assert job.result(run_id, task_name="tell") == result
    assert out in job.logs(run_id, task_name="tell")
    assert f"run {run_id} completed" in job.logs(run_id)
    assert job.start()[0] is True
    assert flow.wait().result("tell") == result


def test_a_platform_destroyed_in_the_middle_of_a_run_comes_back(
    project: Project, platform: Platform, tmp_path: Path
) -> None:
    earlier, first, result, out = a_finished_flow(project)
    flow, run_id = begin_fifty(project, tmp_path / "visits")
    backup = tmp_path / "backup"
    said = datatailr(platform, "backup", str(backup))
    assert "(1 active)" in said.out and said.err == ""
    manifest = json.loads((backup / "manifest.json").read_text())
    assert manifest["counts"]["active_runs"] == 1 and manifest["format"] == 1
    secrets = [path for path in (backup / "files").iterdir() if path.read_text().strip() == platform.token]
    assert len(secrets) == 1 and stat.S_IMODE(secrets[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700

    (tmp_path / "go").touch()
    finished_then = {path.name for path in (tmp_path / "visits").iterdir()}
    platform.kill()
    shutil.rmtree(platform.data)
    said = datatailr(platform, "restore", str(backup))
    assert f"{manifest['counts']['runs']} runs (1 active)" in said.out
    for name in ("admin.token", "agent.token", "run.key", "run.key.earlier", "state.db"):
        assert stat.S_IMODE((platform.data / "controlplane" / name).stat().st_mode) == 0o600, name

    again = Platform.start(platform.folder)
    try:
        assert (again.token, again.address) == (platform.token, platform.address)
        with client_variables(again):
            run = flow.wait(run_id, seconds=150)
            assert run.result("total") == list(range(50))
            for number in range(50):
                name = f"step-{number}" if number else "step"
                assert run.out(name) == lines_of(number), f"the log of {name}"
            check_finished(earlier, first, result, out)
            assert max(flow.run_ids()) < 1000 <= max(earlier.run_ids())
        visits = {path.name: len(path.read_text()) for path in (tmp_path / "visits").iterdir()}
        assert set(visits) == {str(number) for number in range(50)}
        twice = {name for name, count in visits.items() if count > 1}
        assert len(finished_then - twice) >= 4, "what the backup knew to be finished did not run again"
        again.stop()
    finally:
        again.kill()


def test_an_older_state_under_a_living_node(project: Project, platform: Platform, tmp_path: Path) -> None:
    """The node keeps its journal and remembers more than the restored state: nothing of it mixes."""
    earlier, first, result, out = a_finished_flow(project)
    flow, run_id = begin_fifty(project, tmp_path / "visits")
    backup = tmp_path / "backup"
    datatailr(platform, "backup", str(backup))
    (tmp_path / "go").touch()
    flow.wait(run_id, seconds=100)
    later = Project(tmp_path / "later", platform, "later")
    lost = later.run(BEFORE.replace("before", "later"))
    assert lost.id > run_id
    for name in ("up", "controlplane", "agent"):
        pid = platform.process.pid if name == "up" else int(platform.ready[f"{name}_pid"])
        os.kill(pid, signal.SIGKILL)
    platform.process.wait()

    refused = eventually(
        lambda: run if (run := try_restore(platform, backup)).code == 1 else None,
        what="the refusal of a place that is not empty",
    )
    assert "not empty" in refused.err and "--force" in refused.err
    said = datatailr(platform, "restore", str(backup), "--force")
    aside = Path(said.out.splitlines()[-1].partition(" is in ")[2])
    assert (aside / "state.db").is_file()

    again = Platform.start(platform.folder)
    try:
        with client_variables(again):
            run = flow.wait(run_id, seconds=150)
            assert run.result("total") == list(range(50))
            for number in range(0, 50, 7):
                assert run.out(f"step-{number}" if number else "step") == lines_of(number)
            check_finished(earlier, first, result, out)
            numbers = {*flow.run_ids(), *earlier.run_ids()}
            assert lost.id not in numbers, "a run that was lost is not there, and its number not given again"
        again.stop()
    finally:
        again.kill()


def try_restore(platform: Platform, backup: Path) -> Ran:
    command = [str(BIN / "datatailr"), "restore", str(backup), "--data-dir", str(platform.data)]
    return run_command(command, platform.client_environment(), code=None, seconds=60)


def test_a_running_platform_is_not_restored(platform: Platform, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    datatailr(platform, "backup", str(backup))
    refused = try_restore(platform, backup)
    assert refused.code == 3 and "datatailr down" in refused.err
    said = datatailr(platform, "restore", str(backup), "--force", code=3)
    assert "up` runs" in said.err


def test_rules_of_retention_reach_the_control_plane(tmp_path: Path) -> None:
    command = [str(BIN / "datatailr"), "up", "--data-dir", str(tmp_path / "data"), "--grpc-port", "0"]
    environment = base_environment(tmp_path)
    refused = run_command([*command, "--retain", "dev=soon"], environment, code=2, seconds=60)
    assert "--retain 'dev=soon': 'soon' is no age" in refused.err
    refused = run_command([*command, "--retain-logs", "test=1d"], environment, code=2, seconds=60)
    assert "--retain-logs 'test=1d': begin with dev=, pre= or prod=" in refused.err


def test_work_goes_on_while_a_backup_is_made(project: Project, platform: Platform, tmp_path: Path) -> None:
    """Runs go on being started; the longest start beside a backup and without one are told, not judged."""
    flow, _ = begin_fifty(project, tmp_path / "visits")
    backup = tmp_path / "backup"
    longest: dict[str, list[float]] = {"alone": [], "beside a backup": []}
    moment, done = "alone", threading.Event()

    def ask() -> None:
        job = flow.job
        while not done.is_set():
            begun, when = time.monotonic(), moment
            assert job.start()[0] is True
            longest[when].append(time.monotonic() - begun)
            time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        eventually(lambda: len(longest["alone"]) >= 20, seconds=60, what="starts without a backup")
        moment = "beside a backup"
        for _ in range(3):
            datatailr(platform, "backup", str(backup))
    finally:
        done.set()
        asking.join()
    for when, pauses in longest.items():
        assert pauses, f"nothing was started {when}"
        print(f"longest start of a run {when}: {max(pauses) * 1000:.0f} ms of {len(pauses)}")
    first = json.loads((backup / "manifest.json").read_text())
    again = json.loads(datatailr(platform, "backup", str(backup), "--json").out)
    assert again["copied"] < again["counts"]["objects"] + again["counts"]["logs"]
    assert again["created"] > first["created"]


def test_a_backup_on_top_of_one_that_was_killed(project: Project, platform: Platform, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    earlier, first, result, out = a_finished_flow(project)
    datatailr(platform, "backup", str(backup))
    before = (backup / "manifest.json").read_bytes()
    for number in range(12):
        killed_backup(platform, backup, after=0.15 + 0.05 * number)
        assert (backup / "manifest.json").is_file()
    if (backup / "manifest.json").read_bytes() == before:
        datatailr(platform, "backup", str(backup))
    platform.stop()
    shutil.rmtree(platform.data)
    datatailr(platform, "restore", str(backup))
    again = Platform.start(platform.folder)
    try:
        with client_variables(again):
            check_finished(earlier, first, result, out)
        again.stop()
    finally:
        again.kill()


def killed_backup(platform: Platform, backup: Path, *, after: float) -> None:
    import subprocess

    command = [
        *(str(BIN / "python"), "-m", "opentailr_controlplane", "backup", str(backup)),
        *("--data-dir", str(platform.data / "controlplane")),
    ]
    process = subprocess.Popen(
        command, env=platform.client_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    timer = threading.Timer(after, partial(process.send_signal, signal.SIGKILL))
    timer.start()
    process.wait()
    timer.join()
