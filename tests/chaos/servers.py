"""The programs of a platform as real processes that can be killed, paused and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import facts

T = TypeVar("T")
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "SSL_CERT_FILE", "PIP_INDEX_URL", "UV_INDEX_URL")
READY_SECONDS = 60.0


def eventually(probe: Callable[[], T], *, seconds: float, what: str, pause: float = 0.05) -> T:
    """The first truthy answer of the probe.

    Raises:
        AssertionError: There was none in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; the last answer was {answer!r}")
        time.sleep(pause)


def environment_of(folder: Path) -> dict[str, str]:
    """A clean shell's environment whose temporary files and settings stay below the folder."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    environment.update(
        XDG_CONFIG_HOME=str(folder / "config"),
        XDG_DATA_HOME=str(folder / "share"),
        TMPDIR=str(folder / "tmp"),
        PYTHONDONTWRITEBYTECODE="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
    )
    return environment


class Server:
    """One program with a ready file; control plane or agent.

    Args:
        name: Names its files below `folder`, and itself in reports.
        folder: Of the whole platform.
        command: Makes the command line for each start; the ready file is added.
    """

    def __init__(self, name: str, folder: Path, command: Callable[[], list[str]]) -> None:
        self.name = name
        self.data = folder / name
        self.ready_file = folder / f"{name}.ready.json"
        self.log = folder / f"{name}.log"
        self.started = 0.0
        """Monotonic seconds of the last start."""
        self.exits: list[int] = []
        """Exit codes of ends that nobody asked for."""
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        # The faults run in a thread beside the one that reads figures.
        self._lock = threading.RLock()
        self.paused = False

    @property
    def pid(self) -> int:
        """Of the present process, 0 when there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def running(self) -> bool:
        """Whether the process exists; an end that nobody asked for is noted in `exits`."""
        with self._lock:
            if self._process is not None and (code := self._process.poll()) is not None:
                self.exits.append(code)
                self._process = None
            return self._process is not None

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it is ready."""
        with self._lock:
            assert self._process is None, f"{self.name} runs already"
            self.ready_file.unlink(missing_ok=True)
            command = [*self._command(), "--ready-file", str(self.ready_file)]
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    env=environment_of(self._folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.started = time.monotonic()
        if wait:
            self.wait_ready()

    def wait_ready(self, *, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """The contents of the ready file of the present process."""

        def read() -> dict[str, Any] | None:
            if not self.running:
                raise AssertionError(f"{self.name} ended with {self.exits}:\n{self.last_words()}")
            with contextlib.suppress(FileNotFoundError):
                answer: dict[str, Any] = json.loads(self.ready_file.read_text())
                return answer if answer["pid"] == self.pid else None
            return None

        answer = eventually(read, seconds=seconds, what=f"the ready file of {self.name}")
        assert answer is not None
        return answer

    def kill(self) -> None:
        """kill -9, and reaps it."""
        self._end(signal.SIGKILL)

    def terminate(self, *, seconds: float = 20.0) -> float:
        """SIGTERM; the seconds it took. Anything but exit code 0 is an error."""
        began = time.monotonic()
        code = self._end(signal.SIGTERM, seconds=seconds)
        assert code in (0, None), f"{self.name} ended with {code} on SIGTERM:\n{self.last_words()}"
        return time.monotonic() - began

    def pause(self) -> None:
        """SIGSTOP."""
        with self._lock:
            if self._process is not None:
                self.paused = True
                self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        with self._lock:
            self.paused = False
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)

    def last_words(self, lines: int = 30) -> str:
        """The end of what it wrote."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self, number: signal.Signals, *, seconds: float = 20.0) -> int | None:
        with self._lock:
            process = self._process
            if process is None or not self.running:
                return None
            process.send_signal(number)
            if self.paused:
                self.resume()
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(
                    f"{self.name} did not end within {seconds:g} s of {number.name}:\n{self.last_words()}"
                ) from None
            finally:
                self._process = None
            return code


@dataclass(frozen=True)
class Keeper:
    """A living keeper of an agent."""

    folder: Path
    pid: int
    agent: str
    image: str
    """Key of the image that it serves."""

    def stages(self) -> list[int]:
        """Its prepared interpreters and theirs: processes without an attempt's mark below the keeper."""
        first = facts.children_of(self.pid)
        return first + [pid for stage in first for pid in facts.children_of(stage)]


def keepers_of(agent: Server) -> list[Keeper]:
    """The living keepers of an agent, by what their folders say."""
    found = []
    for path in agent.data.glob("runtime/**/keeper.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(path.read_text())
            stat = facts.stat_of(told["pid"])
            if stat is not None and stat.state not in "ZX" and stat.started == told["started"]:
                found.append(Keeper(path.parent, told["pid"], agent.name, told["image_key"]))
    return found


def module(name: str, *arguments: str) -> list[str]:
    """The command line of a module with this interpreter; the present directory stays off its path."""
    return [sys.executable, "-P", "-m", name, *arguments]
