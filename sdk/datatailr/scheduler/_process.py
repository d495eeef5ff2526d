"""Where this code runs: on a user's machine, in a process of the platform, or while such a process
imports the user's module (clauses B60, B60a)."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import FrameType, ModuleType

__all__ = ["deployment_is_suppressed", "importing_user_code", "in_platform_process", "workflows_disabled"]


def _runner_state() -> ModuleType | None:
    """The switches of the platform's runner; None on a user's machine, where nobody set any."""
    if os.environ.get("DATATAILR_RUNNER") == "1":
        return importlib.import_module("datatailr.runner.state")
    return sys.modules.get("datatailr.runner.state")


def in_platform_process() -> bool:
    """True in a process that the platform started for a job."""
    state = _runner_state()
    return state is not None and bool(state.in_platform_process())


def importing_user_code() -> bool:
    """True while the platform imports the module of an entrypoint in this process."""
    state = _runner_state()
    return state is not None and bool(state.importing_user_code())


@contextlib.contextmanager
def workflows_disabled() -> Iterator[None]:
    """Import user code as the platform does: calls of workflows send nothing."""
    state = importlib.import_module("datatailr.runner.state")
    with state.importing():
        yield


def deployment_is_suppressed(name: str, environment: str) -> bool:
    """True when run, save, start or a workflow call must do nothing, silently.

    That is so while the platform imports an entrypoint's module, whatever the depth of the call:
    a helper function called at module level would otherwise start a new run from each run, without
    end. And in a Streamlit script, whose top level runs for every visitor, for the app itself.

    Args:
        name: Internal name of the job that would be deployed.
        environment: Its environment.
    """
    if importing_user_code():
        return True
    own = os.environ.get("DATATAILR_JOB_NAME"), os.environ.get("DATATAILR_JOB_ENVIRONMENT", "dev")
    return (
        os.environ.get("DATATAILR_JOB_TYPE") == "app"
        and (name, environment) == own
        and in_platform_process()
        and _called_at_top_level()
    )


def _called_at_top_level() -> bool:
    """True when the nearest caller outside this package is the body of a module."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(package):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "<module>"
