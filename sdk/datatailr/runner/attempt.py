"""The keeper's record of one attempt, and the outcome that it comes to."""

from __future__ import annotations

import base64
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import spools, wire
from .child import END_MARKER, REPORT_FILE, RESULT_FILE
from .memory import Gauge

if TYPE_CHECKING:
    from .pool import Prepared

NONE_RESULT = base64.b64encode(b"\x80\x05N.").decode()
"""Pickle of None: what a process returns that ends well without a word."""


@dataclass(eq=False)
class Attempt:
    """One attempt from its order to its acknowledged end."""

    number: int
    order: wire.Message
    prepared: Prepared | None = None
    """The second stage that forks it, and that is the parent which reaps it."""
    channel: int = -1
    reader: wire.FrameReader = field(default_factory=lambda: wire.FrameReader(wire.MAX_REPORT))
    sent: bool = False
    """A process was asked for; the attempt may run from now on."""
    pid: int = 0
    started_at: float = 0.0
    """Wall clock, for people; 0 until the process has said that it runs."""
    seen_at: float = 0.0
    """Monotonic clock at the start, for the sampler."""
    gauge: Gauge = field(default_factory=lambda: Gauge(0))
    importing: bool = False
    report: wire.Message | None = None
    """The process's own last message."""
    exited: bool = False
    status: int | None = None
    """Wait status of the main process, None when nobody could take it."""
    stopping: bool = False
    out_of_memory: bool = False
    trouble: str = ""
    """Why no process could be started."""
    peak: int = 0
    logged: bool = False
    """The outcome of its last message is in the log."""
    finished: bool = False

    @property
    def id(self) -> str:
        return str(self.order["id"])

    @property
    def folder(self) -> str:
        return str(self.order["folder"])

    @property
    def mark(self) -> str:
        return str(self.order["mark"])

    @property
    def limit(self) -> int:
        """Private memory at which the attempt ends, in bytes; 0: none."""
        return int(self.order["memory"])

    def read_late_report(self) -> None:
        """Takes the last message from its file if user code had closed the channel."""
        if self.report is not None:
            return
        try:
            report = spools.open_file(os.path.join(self.folder, REPORT_FILE), os.O_RDONLY)
            with open(report, "rb") as file:
                data = file.read(wire.MAX_REPORT + wire.LENGTH.size)
            messages = wire.FrameReader(wire.MAX_REPORT).feed(data)
        except (OSError, wire.FrameError):
            return
        if messages and messages[0].get("op") == "outcome":
            self.report = messages[0]

    def outcome(self) -> wire.Message:
        """The outcome as the agent gets it, from what is known now."""
        base: wire.Message = {
            "id": self.id,
            "state": "failed",
            "exit_code": None,
            "signal": None,
            "started_at": self.started_at,
            "ended_at": time.time(),
            "result": None,
            "result_file": None,
            "size": 0,
            "preview": "",
            "failure": None,
            "peak": self.peak,
        }
        if self.status is not None:
            if os.WIFSIGNALED(self.status):
                base["signal"] = os.WTERMSIG(self.status)
            else:
                base["exit_code"] = os.WEXITSTATUS(self.status)
        if self.out_of_memory:
            base.update(state="out_of_memory", failure=self._memory_failure())
        elif self.stopping:
            base["state"] = "stopped"
        elif self.report is not None:
            base.update(self._reported(self.report))
        elif self.trouble:
            base["failure"] = _failure("start", self.trouble)
        elif self.exited and self.status is None:
            base["state"] = "lost"
            base["failure"] = _failure("lost", "the process is gone and nobody could learn how it ended")
        else:
            base.update(self._by_status(base["exit_code"], base["signal"]))
        return base

    def _reported(self, report: wire.Message) -> wire.Message:
        taken: wire.Message = {"state": "succeeded" if report.get("state") == "succeeded" else "failed"}
        taken["exit_code"] = report.get("exit_code")
        taken["ended_at"] = report.get("at") or time.time()
        taken["peak"] = max(self.peak, int(report.get("memory") or 0))
        taken["failure"] = report.get("failure")
        if taken["state"] == "succeeded":
            taken["result"] = report.get("result")
            taken["size"] = int(report.get("size") or 0)
            taken["preview"] = str(report.get("preview") or "")
            if taken["result"] is None:
                taken["result_file"] = os.path.join(self.folder, RESULT_FILE)
        return taken

    def _by_status(self, exit_code: int | None, number: int | None) -> wire.Message:
        place = "while its module was being imported" if self.importing else "before it returned"
        kind = "import" if self.importing else "signal" if number is not None else "exit"
        if number is not None:
            message = f"the task was killed by signal {_signal_name(number)} {place}"
            return {"failure": _failure(kind, message)}
        if exit_code == 0 and not self.importing:
            return {"state": "succeeded", "result": NONE_RESULT, "size": 4, "preview": _none_preview()}
        return {"failure": _failure(kind, f"the task's process ended with exit code {exit_code} {place}")}

    def _memory_failure(self) -> wire.Message:
        return _failure(
            "out_of_memory",
            f"the task used {_mebibytes(self.peak)} of private memory, "
            f"its limit is {_mebibytes(self.limit)}; give it more with memory=",
        )

    def close_log(self, outcome: wire.Message) -> None:
        """Ends both spools of a process that died before it could, and says in them why."""
        if not self.started_at or self.report is not None:
            return
        failure = outcome["failure"]
        reason = failure["message"] if failure else "the task was stopped" if self.stopping else ""
        for name, text in (("stdout", ""), ("stderr", f"{reason}\n" if reason else "")):
            path = os.path.join(self.folder, name)
            try:
                spool = spools.open_file(path, os.O_WRONLY | os.O_APPEND)
            except OSError:
                continue
            try:
                wire.write_all(spool, ("\n" * spools.has_open_line(path) + text + END_MARKER).encode())
            except OSError:
                pass
            finally:
                os.close(spool)


def _failure(kind: str, message: str) -> wire.Message:
    return {"kind": kind, "message": message, "traceback": "", "exception": None}


def _none_preview() -> str:
    return '{"type": "NoneType", "text": "None", "value": null}'


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return str(number)


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
