"""A real platform, a real user's project: what the end-to-end tests and the slow tests share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from datatailr import Workflow
from datatailr.errors import TaskError
from datatailr.scheduler import Job

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FINISHED = frozenset({"completed", "failed", "failed_after", "out_of_memory", "stopped", "expired"})
START_SECONDS = 60.0
STOP_SECONDS = 10.0
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "SSL_CERT_FILE", "PIP_INDEX_URL", "UV_INDEX_URL")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

T = TypeVar("T")


def eventually(
    probe: Callable[[], T | None], *, seconds: float = 30.0, what: str = "the condition", pause: float = 0.03
) -> T:
    """The first truthy answer of the probe; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; the last answer was {answer!r}")
        time.sleep(pause)


def base_environment(home: Path) -> dict[str, str]:
    """The environment of a clean shell: nothing of this process, configuration files in `home`."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment.update(
        XDG_CONFIG_HOME=str(home / "config"),
        XDG_DATA_HOME=str(home / "data"),
        NO_COLOR="1",
        PYTHONDONTWRITEBYTECODE="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
    )
    return environment


def process_alive(pid: int) -> bool:
    """Whether a process of this id exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def processes_of(folder: Path) -> dict[int, str]:
    """Live processes that have to do with a folder: by command line, directory, environment or open files.

    Neither descent nor a marker variable would do: keepers detach themselves and user processes
    get an environment of their own.
    """
    needle = str(folder)
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if not command:
                continue
            links = [os.readlink(entry / "cwd")]
            links += [os.readlink(handle) for handle in (entry / "fd").iterdir()]
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            if needle in command or needle in environment or any(needle in link for link in links):
                found[int(entry.name)] = command
    return found


@dataclass
class Platform:
    """A running `datatailr up`; see `Platform.start`."""

    folder: Path
    """Holds the data directory `data`, the ready file and what `up` printed."""
    process: subprocess.Popen[bytes]
    runtime: str
    ready: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls, folder: Path, *, runtime: str = "process", environment: Mapping[str, str] | None = None
    ) -> Platform:
        """Starts `datatailr up` on free ports with data below `folder` and waits until it is ready."""
        folder.mkdir(parents=True, exist_ok=True)
        ready_file = folder / "ready.json"
        ready_file.unlink(missing_ok=True)
        with (folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                up_command(folder, runtime=runtime),
                env={**base_environment(folder), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        platform = cls(folder, process, runtime)
        try:
            platform.refresh()
        except BaseException:
            platform.kill()
            raise
        return platform

    def refresh(self, *, seconds: float = START_SECONDS) -> None:
        """Reads the ready file, waiting for it."""

        def read() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"`datatailr up` ended with {self.process.returncode}:\n{self.output()}")
            with contextlib.suppress(FileNotFoundError):
                answer: dict[str, Any] = json.loads((self.folder / "ready.json").read_text(encoding="utf-8"))
                return answer
            return None

        self.ready = eventually(read, seconds=seconds, what="the ready file")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return str(self.ready["grpc"])

    @property
    def token(self) -> str:
        """The administrator's token."""
        return str(self.ready["token"])

    def client_environment(self) -> dict[str, str]:
        """The environment of a user's shell that knows this platform by the two variables."""
        return {
            **base_environment(self.folder / "user"),
            "DATATAILR_ADDRESS": self.address,
            "DATATAILR_TOKEN": self.token,
        }

    def output(self) -> str:
        """What `up` printed, and the ends of the logs of its children."""
        texts = [(self.folder / "up.log").read_text(encoding="utf-8", errors="replace")]
        for path in sorted((self.data / "logs").glob("*.log")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
            texts.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(texts)

    def stop(self) -> float:
        """Ends it by SIGTERM; the seconds that took. Fails when it takes too long or leaves a process."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            left = processes_of(self.folder)
            self.kill()
            raise AssertionError(f"up did not end within {STOP_SECONDS} s of SIGTERM: {left}") from None
        took = time.monotonic() - began
        left = processes_of(self.folder)
        if left:
            self.kill()
            raise AssertionError(f"up left processes behind: {left}")
        assert self.process.returncode == 0, self.output()
        return took

    def kill(self) -> None:
        """Ends whatever is there, hard; for the clean-up after a failed test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in processes_of(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def dt(self, *arguments: str, code: int | None = 0, seconds: float = 60) -> Ran:
        """Runs `dt` as a user would."""
        command = [str(BIN / "dt"), *arguments]
        return run_command(command, self.client_environment(), code=code, seconds=seconds)


def up_command(folder: Path, *, runtime: str = "process", name: str = "ready.json") -> list[str]:
    """The command line of `up` with free ports and data below the folder."""
    ports = ["--grpc-port", "0", "--http-port", "0"]
    files = ["--data-dir", str(folder / "data"), "--ready-file", str(folder / name)]
    return [str(BIN / "datatailr"), "up", *files, *ports, "--runtime", runtime]


@dataclass(frozen=True)
class Ran:
    """A program that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output, decoded."""
        return json.loads(self.out)

    def last(self) -> Any:
        """The last line of its standard output, decoded."""
        return json.loads(self.out.strip().splitlines()[-1])


def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    code: int | None = 0,
    seconds: float = 60,
) -> Ran:
    """Runs a program to its end; fails unless it exits with `code` (None: whatever)."""
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        text=True,
        errors="replace",
    )
    ran = Ran(done.returncode, ANSI.sub("", done.stdout), ANSI.sub("", done.stderr))
    if code is not None and ran.code != code:
        streams = f"--- stdout\n{ran.out}\n--- stderr\n{ran.err}"
        raise AssertionError(f"{command} exited with {ran.code}\n{streams}")
    return ran


@dataclass
class Project:
    """A user's scratch folder, outside git, with one package `shop`."""

    folder: Path
    platform: Platform
    name: str
    """Display name of the workflow of this test; `@NAME@` in sources stands for it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the user's shell beside the usual ones."""

    def write(self, path: str, source: str) -> Path:
        """Writes a file of the project; indentation common to all lines goes."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = textwrap.dedent(source).lstrip("\n").replace("@NAME@", self.name)
        target.write_text(text, encoding="utf-8")
        package = target.parent
        if package != self.folder and target.suffix == ".py":
            (package / "__init__.py").touch()
        return target

    def python(self, path: str, *, code: int | None = 0, seconds: float = 60) -> Ran:
        """Runs a script of the project as its user would."""
        environment = {**self.platform.client_environment(), **self.environment}
        command = [sys.executable, str(self.folder / path)]
        return run_command(command, environment, cwd=self.folder, code=code, seconds=seconds)

    def script(self, source: str, *, code: int | None = 0, seconds: float = 60) -> Ran:
        """Writes `deploy.py` and runs it."""
        self.write("deploy.py", source)
        return self.python("deploy.py", code=code, seconds=seconds)

    def deploy(self, source: str) -> Flow:
        """Writes `shop/flow.py` with a workflow `flow`, and calls it in a process of its own."""
        self.write("shop/flow.py", source)
        ran = self.script("from shop.flow import flow\n\nflow()\n")
        assert "ERROR" not in ran.err, ran.err
        return self.flow

    @property
    def flow(self) -> Flow:
        """The workflow of this project on the platform."""
        return Flow(self.name, self.platform)

    def assert_never_saved(self) -> None:
        """Fails when the platform knows the workflow in any version."""
        try:
            found = Job.__get_existing__(self.name, "dev")
        except TaskError:
            return
        raise AssertionError(f"{self.name} was saved: {found}")

    def run(self, source: str, *, state: str = "completed", seconds: float = 45) -> FinishedRun:
        """Deploys `shop/flow.py` and waits for the run, which must end in the state."""
        return self.deploy(source).wait(state=state, seconds=seconds)


@dataclass(frozen=True)
class Flow:
    """A workflow on the platform, asked through the SDK of this process."""

    name: str
    platform: Platform

    @property
    def job(self) -> Workflow:
        """The latest version, loaded anew."""
        return Workflow(name=self.name, get_existing=True)

    def run_ids(self) -> list[int]:
        """Ids of the runs, newest first."""
        return [run["run_id"] for run in self.job.runs(refresh=True)]

    def wait(
        self, run_id: int | None = None, *, state: str | None = "completed", seconds: float = 45
    ) -> FinishedRun:
        """Waits until a run, the newest by default, has ended, and checks how."""
        job = self.job
        if run_id is None:
            runs = eventually(lambda: job.runs(refresh=True), what=f"a run of {self.name}")
            run_id = int(runs[0]["run_id"])

        def ended() -> dict[str, Any] | None:
            details: dict[str, Any] = job.run_details(run_id)
            return details if details["state"] in FINISHED else None

        try:
            details = eventually(ended, seconds=seconds, what=f"the end of run {run_id} of {self.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{job.run_details(run_id)}\n{self.platform.output()}") from None
        finished = FinishedRun(job, run_id, details, self)
        if state is not None:
            assert details["state"] == state, finished.describe()
        return finished


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended."""

    job: Workflow
    id: int
    details: dict[str, Any]
    flow: Flow

    @property
    def states(self) -> dict[str, str]:
        """State by task name."""
        return {entry["name"]: entry["state"] for entry in self.details["tasks"]}

    def entry(self, task: str) -> dict[str, Any]:
        """The task's entry of the details."""
        return next(entry for entry in self.details["tasks"] if entry["name"] == task)

    def result(self, task: str) -> Any:
        """What the task returned."""
        return self.job.result(self.id, task_name=task)

    def out(self, task: str) -> str:
        """The task's output without the marks around it."""
        return without_marks(self.job.logs(self.id, task_name=task))

    def err(self, task: str) -> str:
        """The same of its error output."""
        return without_marks(self.job.logs(self.id, task_name=task, stderr=True))

    def message(self, task: str) -> str:
        """The platform's one-line reason why the task failed."""
        return task_messages(self.id)[self.entry(task)["id"]]

    def describe(self) -> str:
        """Everything that helps to understand a failed test."""
        texts = [f"run {self.id} of {self.flow.name} is {self.details['state']}: {self.states}"]
        for task, state in self.states.items():
            if state not in {"completed", "did_not_run"}:
                texts.append(f"--- {task}\n{self.job.logs(self.id, task_name=task, stderr=True, lines=40)}")
        return "\n".join([*texts, self.flow.platform.output()])


def task_messages(run_id: int) -> dict[int, str]:
    """The error messages of the tasks of a run, by task id."""
    from datatailr.scheduler._platform import get_platform

    platform = get_platform()
    assert platform is not None
    tasks = platform.list_run_tasks(run_id)
    return {int(task["child_number"]): task["error_message"] or "" for task in tasks}


def without_marks(text: str) -> str:
    """A log without the lines that the platform puts around the user's output (clause B267)."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("====== DT USER LOGS"))


@contextlib.contextmanager
def client_variables(platform: Platform) -> Iterator[None]:
    """Lets the SDK of this process speak to the platform."""
    wanted = {
        "DATATAILR_ADDRESS": platform.address,
        "DATATAILR_TOKEN": platform.token,
        "XDG_CONFIG_HOME": str(platform.folder / "user" / "config"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
