"""Client and `dt` against the real control plane, without an agent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from datatailr.client import queries, transfers, watching
from datatailr.client.connection import Connection, RetryPolicy
from datatailr.client.platform import GrpcPlatform
from datatailr.errors import ConflictError, NotFoundError, UnauthenticatedError
from datatailr.scheduler._platform import (
    CodeOrigin,
    ImageRecipe,
    JobDefinition,
    ResourceRequest,
    ScheduleRequest,
    TaskDefinition,
)

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="servers need Python 3.11")

RESOURCES = ResourceRequest("128m", 128 << 20, 0.25, True)
SECONDS = 30.0


class ControlPlane:
    """A control plane as a process of its own, that can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ready = root / "ready.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.ready.unlink(missing_ok=True)
        ports = [flag for name in ("grpc", "agent", "http") for flag in (f"--{name}-port", "0")]
        command = [sys.executable, "-m", "opentailr_controlplane", *ports]

        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.root / "data"), "--ready-file", str(self.ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        deadline = time.monotonic() + SECONDS

        while not self.ready.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, (
                self.root / "log"
            ).read_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(SECONDS)

    @property
    def about(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.ready.read_text())
        return document


@pytest.fixture(scope="module")
def controlplane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    served = ControlPlane(tmp_path_factory.mktemp("controlplane"))
    served.start()
    yield served
    served.stop()


@pytest.fixture
def connection(controlplane: ControlPlane) -> Iterator[Connection]:
    about = controlplane.about
    connection = Connection(about["grpc"], about["token"], retry=RetryPolicy(longest_pause=0.5))
    yield connection
    connection.close()


@pytest.fixture
def platform(connection: Connection) -> GrpcPlatform:
    return GrpcPlatform(connection)


@dataclass(frozen=True)
class MemoryBundle:
    content: bytes = field(default=b"not looked into", repr=False)
    directory: str = "pkg"
    top_level: bool = True

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def size(self) -> int:
        return len(self.content)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def definition(name: str, number: int = 2, *, argument: bytes = b"x", **changes: Any) -> JobDefinition:
    tasks = [
        TaskDefinition(task_id, f"task {task_id}", "pkg:f", RESOURCES, (0,) if task_id else (), (), argument)
        for task_id in range(number)
    ]
    standard: dict[str, Any] = {
        "name": name,
        "display_name": name.title(),
        "environment": "dev",
        "type": "batch",
        "resources": RESOURCES,
        "image": ImageRecipe("3.11", ""),
        "origin": CodeOrigin(path_to_module="pkg"),
        "document": {},
        "bundle": MemoryBundle(),
        "tasks": tasks,
    }
    return JobDefinition(**(standard | changes))


def dt(controlplane: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
    about = controlplane.about
    environ = {**os.environ, "DATATAILR_ADDRESS": about["grpc"], "DATATAILR_TOKEN": about["token"]}
    return subprocess.run(
        [sys.executable, "-m", "datatailr.cli.dt", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.clause("B98", "B99", "B118")
def test_saving_twice_makes_two_versions(platform: GrpcPlatform) -> None:
    saved = [platform.save_job(definition("twice")).version for _ in range(2)]
    assert saved == [1, 2]
    assert platform.list_versions("twice", environment="dev") == [1, 2]
    assert platform.list_versions("nothing") == []


@pytest.mark.clause("B117", "B270")
def test_what_was_saved_comes_back(platform: GrpcPlatform) -> None:
    schedule = ScheduleRequest("0 9 * * *", "Europe/Berlin", fields={"at_hours": "9", "every_minute": 5})
    platform.save_job(definition("there-and-back", schedule=schedule, fail_after=5_000_000))
    answer = platform.get_job("There-And-Back", "dev", with_tasks=True)
    assert (answer["name"], answer["type"], answer["version"]) == ("there-and-back", "batch", 1)
    assert (answer["schedule"], answer["fail_after"]) == ("0 9 * * *", 5_000_000)
    assert answer["schedule_args"] == {"at_hours": "9", "every_minute": 5}
    assert [task["name"] for task in answer["children_full"]] == ["task 0", "task 1"]
    assert answer["children_full"][1]["depends_on"] == [0]
    assert answer["memory"] == 128 << 20


@pytest.mark.clause("B113")
def test_a_loaded_version_is_saved_again_without_its_code(platform: GrpcPlatform) -> None:
    platform.save_job(definition("again", argument=b"A" * 100_000))
    tasks = [TaskDefinition(task_id, f"task {task_id}", "pkg:f", RESOURCES) for task_id in range(2)]
    saved = platform.save_job(definition("again", bundle=None, tasks=tasks, base_version=1))
    assert saved.version == 2


def test_ten_thousand_tasks_travel_as_one_object(platform: GrpcPlatform, connection: Connection) -> None:
    platform.save_job(definition("wide", 10_000, argument=b"y" * 400))
    answer = platform.get_job("wide", "dev", with_tasks=True)
    assert len(answer["children_full"]) == 10_000
    run = platform.start_job("wide", "dev")
    assert run.run_id is not None

    for watched in watching.watch_run(connection, run.run_id):
        assert len(watched.tasks) == 10_000
        break

    platform.stop_job("wide", "dev")


@pytest.mark.clause("B106")
def test_what_does_not_exist_is_refused(platform: GrpcPlatform) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        platform.start_job("nothing", "dev")

    with pytest.raises(NotFoundError):
        platform.get_run(10**9)

    assert platform.get_result(10**9, 0) is None


@pytest.mark.clause("B101")
def test_a_name_of_another_type_is_refused(platform: GrpcPlatform) -> None:
    platform.save_job(definition("typed"))

    with pytest.raises(ConflictError, match="typed"):
        platform.save_job(definition("typed", type="service", entrypoint="pkg:f", tasks=()))


def test_a_wrong_token_is_refused(controlplane: ControlPlane) -> None:
    connection = Connection(controlplane.about["grpc"], "wrong")

    with pytest.raises(UnauthenticatedError, match="does not accept the token"):
        queries.caller(connection)

    connection.close()


def test_objects_go_there_and_back(connection: Connection) -> None:
    content = os.urandom(3 << 20)
    digest = hashlib.sha256(content).hexdigest()
    assert transfers.upload_all(connection, [transfers.upload_of(content)]) == len(content)
    assert transfers.upload_all(connection, [transfers.upload_of(content)]) == 0

    with transfers.download(connection, digest) as stream:
        assert stream.read() == content

    empty = hashlib.sha256(b"").hexdigest()
    transfers.upload_all(connection, [transfers.upload_of(b"")])

    with transfers.download(connection, empty) as stream:
        assert stream.read() == b""


def test_dt_tells_the_life_of_a_run(controlplane: ControlPlane, platform: GrpcPlatform) -> None:
    platform.save_job(definition("told"))
    started = json.loads(dt(controlplane, "job", "start", "told", "-j").stdout)
    [entry] = started["pending"] + started["running"]
    run_id = str(entry["RunId"])
    [run] = json.loads(dt(controlplane, "job", "runs", "told", "-j").stdout)
    assert (run["run_id"], run["state"]) == (entry["RunId"], "pending")
    assert "no node" in dt(controlplane, "job", "runs", "told").stdout.lower()
    assert dt(controlplane, "job", "stop", "told").stdout == f"told in dev: stopping run {run_id}\n"
    watched = dt(controlplane, "job", "watch", "told", "-i", run_id)
    assert watched.returncode == 6
    assert f"run {run_id} of told (version 1): stopped after" in watched.stdout
    assert f"run {run_id} of told" in dt(controlplane, "log", "read", "told").stdout
    assert dt(controlplane, "job", "rm", "-a", "told").returncode == 0
    assert dt(controlplane, "job", "get", "told").returncode == 4
    assert dt(controlplane, "job", "restore", "told").stdout == "told in dev: restored version 1\n"


def test_following_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    served = ControlPlane(tmp_path)
    served.start()
    about = served.about
    connection = Connection(about["grpc"], about["token"], patience=SECONDS)
    platform = GrpcPlatform(connection)
    cut = threading.Event()
    states: list[str] = []
    failures: list[BaseException] = []

    try:
        platform.save_job(definition("survivor"))
        run_id = platform.start_job("survivor", "dev").run_id
        assert run_id is not None
        begun = threading.Event()

        def follow() -> None:
            try:
                for watched in watching.watch_run(connection, run_id, on_cut=cut.set):
                    states.append(watched.state)
                    begun.set()
            except BaseException as error:
                failures.append(error)

        follower = threading.Thread(target=follow)
        follower.start()
        assert begun.wait(SECONDS)
        served.stop(signal.SIGKILL)
        assert cut.wait(SECONDS)
        served.start()
        assert served.about["grpc"] == about["grpc"]
        assert platform.stop_job("survivor", "dev") == [run_id]
        follower.join(SECONDS)
        assert not follower.is_alive() and failures == []
        assert (states[0], states[-1]) == ("pending", "stopped")
    finally:
        served.stop()
        connection.close()
