"""One server process that `datatailr up` keeps running."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from datatailr.cli.places import read_json
from datatailr.runner import procs

CONFIGURATION_CODES: Final = frozenset({2, 3, 4})
"""Exit codes after which a new start would end the same way: bad configuration, data directory
in use, data of a newer version."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 10.0
_STEADY: Final = 30.0
"""Seconds of life after which the next death counts as the first."""

_LOG_LIMIT: Final = 10 * 1024 * 1024
"""A log above this many bytes is put aside as NAME.log.1 before a start."""


class Child:
    """A process, its log and its ready file, over any number of starts.

    Args:
        name: `controlplane` or `agent`.
        command: Makes the command line for each start.
        log: File that its output is appended to.
        ready: File that it writes once it serves, with its `pid` in it.
        orphaned: Signal that it gets when `up` dies without a word.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        *,
        log: Path,
        ready: Path,
        orphaned: int = signal.SIGTERM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._orphaned = orphaned
        self.log = log
        self._command = command
        self._ready = ready
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        self._started_at = 0.0
        self._deaths = 0
        self.restart_at = 0.0
        """When it is due again after a death, in seconds of the clock."""

    @property
    def pid(self) -> int:
        """Number of the present process; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def age(self) -> float:
        """Seconds since the last start."""
        return self._clock() - self._started_at

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches `up` alone."""
        self._ready.unlink(missing_ok=True)
        self._put_log_aside()
        parent = os.getpid()

        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(
                list(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with(parent, self._orphaned),
            )

        self._started_at = self._clock()

    def ready_document(self) -> dict[str, Any] | None:
        """What the present process wrote once it was ready; None before."""
        document = read_json(self._ready)
        return document if document is not None and document.get("pid") == self.pid else None

    def exit_code(self) -> int | None:
        """Code of the present process if it has ended, negative for a signal; None while it lives."""
        return self._process.poll() if self._process is not None else None

    def plan_restart(self) -> float:
        """Count a death; returns the seconds to wait before the next start."""
        self._deaths = 1 if self.age > _STEADY else self._deaths + 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self._deaths - 1))
        self.restart_at = self._clock() + pause
        self._process = None
        return pause

    def last_words(self, lines: int = 1) -> str:
        """The end of what the last started process wrote."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_begin, size - 16_384))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""

        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    def terminate(self, seconds: float) -> bool:
        """Ask it to end; after `seconds` it is killed. True when it ended by itself."""
        process = self._process

        if process is None:
            return True

        if process.poll() is None:
            process.terminate()

        try:
            process.wait(max(0.05, seconds))
        except subprocess.TimeoutExpired:
            procs.send_group(process.pid, signal.SIGKILL)
            process.wait()
            return False

        return True

    def _put_log_aside(self) -> None:
        try:
            if self.log.stat().st_size > _LOG_LIMIT:
                os.replace(self.log, self.log.with_suffix(".log.1"))
        except FileNotFoundError:
            return


def module_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs a module with this interpreter.

    The present directory must not be on its path: a file there could shadow a module of ours.
    """
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", module, *arguments]


def sweep(directory: Path, seconds: float) -> int:
    """Kill every process of this user that was started with a file below `directory`, and all below it.

    The agent ends its keepers itself; this is for an agent that was killed or hung. Returns how
    many processes there were.
    """
    deadline = time.monotonic() + seconds
    killed: set[int] = set()

    while found := [pid for pid in procs.descendants(_started_below(directory)) if _lives(pid)]:
        for pid in found:
            procs.send(pid, signal.SIGKILL)

        killed.update(found)

        if time.monotonic() > deadline:
            break

        # Nothing reports the end of a process that is not our child.
        time.sleep(0.02)

    return len(killed)


def _started_below(directory: Path) -> list[int]:
    prefix = os.fsencode(str(directory)) + b"/"
    own = os.getpid()
    found = []

    for pid in procs.all_pids():
        try:
            if pid == own or os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue

            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                arguments = stream.read().split(b"\0")
        except OSError:
            continue

        # The keeper's way of being started: a script of the runner with a file of the agent's.
        if any(argument.startswith(prefix) for argument in arguments) and b"keeper" in arguments:
            found.append(pid)

    return found


def _lives(pid: int) -> bool:
    found = procs.stat(pid)
    return found is not None and found.state not in "ZX"


def _end_with(parent: int, number: int) -> Callable[[], None]:
    """What a child does before its program starts: end when `parent` ends, however that happens."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(1, ctypes.c_ulong(number), 0, 0, 0)  # PR_SET_PDEATHSIG

        if os.getppid() != parent:
            os._exit(1)

    return prepare
