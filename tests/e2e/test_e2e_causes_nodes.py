"""Ends that are the platform's doing, produced with two real nodes that are killed, drained and broken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e_harness import (
    BIN,
    Flow,
    Platform,
    Project,
    base_environment,
    client_variables,
    eventually,
    process_alive,
    processes_of,
)

pytestmark = pytest.mark.slow

TASK = """
    import os
    import time
    from pathlib import Path

    from datatailr import task, workflow


    @task()
    def work(folder):
        # The first try waits until it is let go; a later one is done at once.
        mark = Path(folder) / "begun"
        if mark.exists():
            return "second"
        mark.write_text(str(os.getpid()))
        while not (Path(folder) / "go").exists():
            time.sleep(0.05)
        return "first"


    @workflow(name="@NAME@")
    def flow():
        work("@FOLDER@")
"""


@dataclass
class Fleet:
    """A control plane and nodes, each a process of its own."""

    folder: Path
    platform: Platform
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path) -> Fleet:
        ready = folder / "cp.json"
        process = _spawn(
            folder,
            "cp",
            *("opentailr_controlplane", "--data-dir", str(folder / "cp"), "--ready-file", str(ready)),
            *("--grpc-port", "0", "--agent-port", "0", "--http-port", "0"),
        )
        platform = Platform(folder, process, "process")
        try:
            platform.ready = _ready(ready)
        except BaseException:
            platform.kill()
            raise
        return cls(folder, platform)

    def join(self, name: str) -> None:
        """Starts a node, or starts it again on what it left behind."""
        ready = self.folder / f"{name}.json"
        ready.unlink(missing_ok=True)
        self.nodes[name] = _spawn(
            self.folder,
            name,
            *("opentailr_agent", "--data-dir", str(self.folder / name), "--ready-file", str(ready)),
            *("--address", self.platform.ready["agent_grpc"], "--name", name, "--memory", "1g"),
            *("--token-file", str(self.folder / "cp" / "agent.token"), "--stop-attempts-on-exit"),
        )
        _ready(ready)

    def only(self, *names: str) -> None:
        """Has these nodes and no others, whatever an earlier test left."""
        for name in set(self.nodes) - set(names):
            self.end(name, signal.SIGTERM)
        for name in names:
            if name not in self.nodes:
                self.join(name)

    def end(self, name: str, number: signal.Signals) -> None:
        """Ends a node's agent and nothing else."""
        process = self.nodes.pop(name)
        process.send_signal(number)
        process.wait(20)

    def kill_keepers(self, name: str) -> None:
        """Ends what a node left running."""
        for pid in processes_of(self.folder / name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not processes_of(self.folder / name), what=f"the end of all of {name}")

    def stop(self) -> None:
        for name in list(self.nodes):
            self.end(name, signal.SIGTERM)
        self.platform.process.send_signal(signal.SIGTERM)
        self.platform.process.wait(20)


def _spawn(folder: Path, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=base_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ready(path: Path) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return answer
        return None

    return eventually(read, seconds=60, what=f"{path.name}")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    running = Fleet.start(tmp_path_factory.mktemp("fleet"))
    try:
        # The environment is built here, so that no test waits for it on a node that it took away.
        running.only("n1")
        folder = tmp_path_factory.mktemp("first")
        (folder / "go").touch()
        with client_variables(running.platform):
            project = Project(folder / "project", running.platform, "causes first")
            assert project.deploy(TASK.replace("@FOLDER@", str(folder))).wait().result("work") == "first"
        yield running
        running.stop()
    finally:
        running.platform.kill()


@dataclass
class Watched:
    """A run of `TASK` whose first try has begun and which somebody follows."""

    flow: Flow
    name: str
    folder: Path
    watch: subprocess.Popen[str]
    pid: int
    """Of the first try."""

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def lines(self) -> str:
        """All that was followed, to the end."""
        out, _ = self.watch.communicate(timeout=90)
        assert self.watch.returncode == 0, out
        return out

    def attempts(self) -> list[dict[str, Any]]:
        [job] = self.flow.platform.dt("job", "get", self.name, "-j", "-i", "latest").json()
        [task] = job["run"]["tasks"]
        attempts: list[dict[str, Any]] = task["attempts"]
        return attempts

    def plain(self) -> str:
        return self.flow.platform.dt("job", "get", self.name).out

    def log(self) -> str:
        return self.flow.platform.dt("log", "read", self.name, "-l", "100").out


@contextlib.contextmanager
def begun(fleet: Fleet, folder: Path, name: str) -> Iterator[Watched]:
    """Starts a run of `TASK` and waits until its first try has begun."""
    folder.mkdir(parents=True)
    with client_variables(fleet.platform):
        flow = Project(folder / "project", fleet.platform, name).deploy(TASK.replace("@FOLDER@", str(folder)))
        internal = flow.job.to_dict()["name"]
        mark = folder / "begun"
        eventually(lambda: mark.exists() and mark.read_text(), seconds=60, what="the first try")
        with subprocess.Popen(
            [str(BIN / "dt"), "job", "watch", internal],
            env=fleet.platform.client_environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            yield Watched(flow, internal, folder, watch, int(mark.read_text()))


@pytest.mark.clause("B107", "B110")
def test_a_lost_node_is_told_at_once_and_its_late_result_is_evidence(fleet: Fleet, tmp_path: Path) -> None:
    fleet.only("n1")
    with begun(fleet, tmp_path / "lost", "causes lost node") as run:
        fleet.join("n2")
        fleet.end("n1", signal.SIGKILL)
        out = run.lines()
        # 20 s after the last heartbeat, or at the end of the grace after a start of the control plane.
        lost = re.search(
            r"task work \(0\): lost node n1 \(no heartbeat for (\d+) s\), trying again 2 of 4", out
        )
        assert lost is not None and int(lost[1]) >= 20, out
        first, second = run.attempts()
        assert (first["state"], first["node"], first["late"]) == ("lost", "n1", None)
        cause = first["cause"]
        assert (cause["kind"], cause["node"]) == ("lease_lost", "n1")
        assert first["start_time"] <= cause["since"] < first["end_time"]
        assert (second["state"], second["node"], second["attempt"]) == ("completed", "n2", 2)
        # Its keeper went on without it: the function returns, and the agent finds the outcome.
        run.let_go()
        eventually(lambda: not process_alive(run.pid), what="the end of the first try")
        fleet.join("n1")
        late = eventually(lambda: run.attempts()[0]["late"], what="the late outcome")
        assert late["state"] == "completed" and late["heard_time"] > second["end_time"]
        assert [attempt["state"] for attempt in run.attempts()] == ["lost", "completed"]
        assert run.flow.wait().result("work") == "second"
        assert "lease lost: Lost node n1" in run.plain()
        assert f"({late['state']}: its node said so too late" in run.plain()
        assert "(lease_lost), trying again 2 of 4" in run.log()


@pytest.mark.clause("B110")
def test_a_drained_node_is_charged_to_nobody(fleet: Fleet, tmp_path: Path) -> None:
    fleet.only("n1", "n2")
    with begun(fleet, tmp_path / "drained", "causes drained node") as run:
        node = str(run.attempts()[0]["node"])
        fleet.end(node, signal.SIGTERM)
        out = run.lines()
        assert f"(node {node}), trying again\n" in out
        first, second = run.attempts()
        assert (first["cause"]["kind"], first["cause"]["node"]) == ("node_drained", node)
        assert (second["state"], second["node"] == node) == ("completed", False)
        assert "node drained: " in run.plain() and "(node_drained), trying again\n" in run.log()
    fleet.join(node)


def test_a_node_that_forgot_is_told_as_restarted(fleet: Fleet, tmp_path: Path) -> None:
    fleet.only("n1", "n2")
    with begun(fleet, tmp_path / "restarted", "causes restarted node") as run:
        node = str(run.attempts()[0]["node"])
        fleet.end(node, signal.SIGKILL)
        fleet.kill_keepers(node)
        for path in (fleet.folder / node).glob("journal.db*"):
            path.unlink()
        fleet.join(node)
        assert "restarted while it ran, trying again 2 of 4" in run.lines()
        first = run.attempts()[0]
        assert (first["state"], first["cause"]["kind"]) == ("lost", "node_restarted")
        assert first["cause"]["node"] == node
        assert "node restarted: " in run.plain()


def test_a_broken_node_is_told_as_faulty(fleet: Fleet, tmp_path: Path) -> None:
    fleet.only("n1", "n2")
    for name in list(fleet.nodes):
        folder = fleet.folder / name / "attempts"
        eventually(lambda folder=folder: not any(folder.iterdir()), what="an idle node")  # type: ignore[misc]
        shutil.rmtree(folder)
        folder.write_text("no folder")
    folder = tmp_path / "faulty"
    folder.mkdir()
    (folder / "go").touch()
    with client_variables(fleet.platform):
        project = Project(folder / "project", fleet.platform, "causes faulty node")
        flow = project.deploy(TASK.replace("@FOLDER@", str(folder)))
        name = flow.job.to_dict()["name"]

        def tried() -> list[dict[str, Any]]:
            [job] = fleet.platform.dt("job", "get", name, "-j", "-i", "latest").json()
            attempts: list[dict[str, Any]] = job["run"]["tasks"][0]["attempts"]
            return [attempt for attempt in attempts if attempt["cause"]]

        tries = eventually(tried, what="a try that its node could not start", pause=0.2)
        for path in fleet.folder.glob("n*/attempts"):
            path.unlink()
            path.mkdir()
        assert tries[0]["state"] == "rejected" and tries[0]["cause"]["kind"] == "node_fault"
        assert tries[0]["cause"]["node"] == tries[0]["node"]
        assert flow.wait().result("work") == "first"
        assert "node fault: the node could not prepare the task" in fleet.platform.dt("job", "get", name).out


@pytest.mark.clause("B107")
def test_nobody_is_there_says_who_was_last(fleet: Fleet, tmp_path: Path) -> None:
    fleet.only()
    folder = tmp_path / "nobody"
    folder.mkdir()
    (folder / "go").touch()
    with client_variables(fleet.platform):
        flow = Project(folder / "project", fleet.platform, "causes nobody there").deploy(
            TASK.replace("@FOLDER@", str(folder))
        )
        name = flow.job.to_dict()["name"]
        text = fleet.platform.dt("job", "get", name).out
        assert "no node is connected" in text.lower(), text
        fleet.join("n1")
        assert flow.wait().result("work") == "first"
