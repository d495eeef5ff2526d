"""Default resources (clauses B62 to B65).

A default must be told from the same value given by the user, although both compare equal. Python
interns literals, so identity cannot do it; the type of the default can.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TASK_CPU",
    "DEFAULT_TASK_MEMORY",
    "DEFAULT_WORKFLOW_CPU",
    "DEFAULT_WORKFLOW_MEMORY",
    "is_default",
]


class _DefaultMemory(str):
    """A memory size that nobody chose."""

    __slots__ = ()


class _DefaultCpu(float):
    """A number of cores that nobody chose."""

    __slots__ = ()


DEFAULT_TASK_MEMORY: str = _DefaultMemory("128m")
"""Memory of a task, app, service, add-in or job that states none."""
DEFAULT_TASK_CPU: float = _DefaultCpu(0.25)
"""Cores of a task, app, service, add-in or job that states none."""
DEFAULT_WORKFLOW_MEMORY: str = _DefaultMemory("100m")
"""Memory of a workflow's own record (clause B63)."""
DEFAULT_WORKFLOW_CPU: float = _DefaultCpu(1)
"""Cores of a workflow's own record (clause B63)."""


def is_default(value: object) -> bool:
    """True for a size or number that comes from a default, not from the user."""
    return isinstance(value, _DefaultMemory | _DefaultCpu)
