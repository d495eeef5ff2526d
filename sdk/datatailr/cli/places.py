"""Where `datatailr up` keeps things, and what it leaves for `down` and `status`.

DIR/controlplane/    the control plane's own data directory, with its tokens
DIR/agent/           the agent's own data directory
DIR/logs/            controlplane.log, agent.log: what the processes say of themselves
DIR/run/             ready files of the two processes
DIR/up.lock          locked while an `up` lives
DIR/up.json          who that is and what it started
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatailr._files import user_folder, write_private
from datatailr.runner import procs


class UpError(Exception):
    """`up` cannot go on; the text is for the user, `code` the exit code."""

    def __init__(self, text: str, *, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_DATA_HOME/opentailr`, `~/.local/share/opentailr` when the variable is not set."""
    return user_folder("XDG_DATA_HOME", ".local/share", environ)


@dataclass(frozen=True)
class Places:
    """The paths below one data directory."""

    root: Path

    @property
    def controlplane(self) -> Path:
        """Data of the control plane."""
        return self.root / "controlplane"

    @property
    def agent(self) -> Path:
        """Data of the agent."""
        return self.root / "agent"

    @property
    def state_file(self) -> Path:
        """Who is `up` here."""
        return self.root / "up.json"

    @property
    def admin_token(self) -> Path:
        """The administrator's token."""
        return self.controlplane / "admin.token"

    @property
    def agent_token(self) -> Path:
        """The token that lets the agent join."""
        return self.controlplane / "agent.token"

    def log(self, name: str) -> Path:
        """Log of one of the processes."""
        return self.root / "logs" / f"{name}.log"

    def ready(self, name: str) -> Path:
        """Ready file of one of the processes."""
        return self.root / "run" / f"{name}.json"

    def make(self) -> None:
        """Make the directories.

        Raises:
            UpError: one cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

            for path in (self.log("x").parent, self.ready("x").parent):
                path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UpError(
                f"the data directory {self.root} cannot be used: {error.strerror}; "
                "give one that you can write to with --data-dir",
                code=2,
            ) from None

    def lock(self) -> int:
        """Own the directory until the returned descriptor is closed.

        Raises:
            UpError: another `up` owns it.
        """
        descriptor = os.open(self.root / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = self.holder()
            process = f"process {holder['pid']}" if holder is not None else "another process"
            raise UpError(
                f"the data directory {self.root} is in use by {process}; stop it with "
                f"`datatailr down --data-dir {self.root}`, or give another --data-dir",
                code=3,
            ) from None

        return descriptor

    def holder(self) -> dict[str, Any] | None:
        """What the living `up` of this directory wrote of itself; None when none lives.

        A process that merely has the same number is told apart by the time of its start.
        """
        state = read_json(self.state_file)

        if state is None or not is_process(state.get("pid"), state.get("started")):
            return None

        return state


def is_process(pid: object, started: object) -> bool:
    """Whether the process of this number and start time (of `own_start`) still lives."""
    if not isinstance(pid, int) or not isinstance(started, str):
        return False

    found = procs.stat(pid)
    return found is not None and found.state not in "ZX" and started == _start(found)


def start_of(pid: int) -> str:
    """What names, with its number, a process for good; empty when it is gone."""
    found = procs.stat(pid)
    return "" if found is None else _start(found)


def _start(found: procs.Stat) -> str:
    return f"{procs.boot_id()}/{found.started}"


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when there is none, or not a whole one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

    return document if isinstance(document, dict) else None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file whole, readable by its owner only, then move it to its place.

    Raises:
        UpError: the file cannot be written.
    """
    try:
        write_private(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UpError(f"cannot write {path}: {error.strerror}", code=2) from None
