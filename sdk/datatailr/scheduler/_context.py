"""Which workflow collects the tasks that are called now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datatailr.scheduler._workflow import Workflow

__all__ = ["collecting", "current_workflow", "running_user_code"]

# A context variable, so that threads and coroutines of the user do not see each other's graph.
_CURRENT: ContextVar[Workflow | None] = ContextVar("datatailr_current_workflow", default=None)


def current_workflow() -> Workflow | None:
    """The workflow whose body is being evaluated here, if any."""
    return _CURRENT.get()


@contextlib.contextmanager
def collecting(workflow: Workflow | None) -> Iterator[None]:
    """Tasks called in the block belong to `workflow`; with None they run as plain functions."""
    token = _CURRENT.set(workflow)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def running_user_code() -> contextlib.AbstractContextManager[None]:
    """For the time in which a task's own function runs (clause B14)."""
    return collecting(None)
