"""Switches that tell the SDK in which kind of process it runs.

The SDK asks here before it sends anything: a workflow or job at the top level of
a module must do nothing while the platform imports that module (B60, B60a), and
a task function called inside a running task is a plain function (B14). The
switches belong to the process, not to a thread or context: threads that user
code starts must see them too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RUNNER_VARIABLE = "DATATAILR_RUNNER"
"""Environment variable that is `1` in every process below a runner."""


class _Switches:
    """The mutable state of this process; one instance lives as long as the process."""

    def __init__(self) -> None:
        self.runner_pid: int | None = None
        self.import_depth = 0
        self.tasks: list[str] = []


_switches = _Switches()


def enter_platform_process() -> None:
    """Marks this process, and all that it starts, as started by the platform for a job."""
    os.environ[RUNNER_VARIABLE] = "1"
    _switches.runner_pid = os.getpid()


def in_platform_process() -> bool:
    """True in a process that the platform started for a job, and in the processes below it."""
    return os.environ.get(RUNNER_VARIABLE) == "1"


def importing_user_code() -> bool:
    """True while the platform imports the module of the entrypoint (B60, B60a).

    A pool of processes that a task starts imports the user's modules again, in
    processes where no runner is at work: there an import that is under way
    counts, or a module that ends with an unguarded workflow call would deploy
    itself from every worker of the pool.
    """
    if _switches.import_depth:
        return True
    if not in_platform_process() or _switches.runner_pid is not None:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def importing() -> Iterator[None]:
    """Declares that the platform imports user code inside this block."""
    _switches.import_depth += 1
    try:
        yield
    finally:
        _switches.import_depth -= 1


@contextmanager
def task_scope(entrypoint: str) -> Iterator[None]:
    """Declares that the body of the task `module:function` runs inside this block (B14)."""
    _switches.tasks.append(entrypoint)
    try:
        yield
    finally:
        _switches.tasks.pop()


def current_task() -> str | None:
    """Entrypoint of the task whose body runs in this process, None outside of any (B14)."""
    return _switches.tasks[-1] if _switches.tasks else None
