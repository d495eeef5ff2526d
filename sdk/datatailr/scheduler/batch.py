"""Workflows and tasks, under the name that code for batch jobs imports."""

from __future__ import annotations

from datatailr.errors import (
    CodePackageMismatchError,
    CyclicDependencyError,
    DuplicateJobNameError,
    MissingDagError,
)
from datatailr.scheduler._decorators import task, workflow
from datatailr.scheduler._durations import parse_duration
from datatailr.scheduler._task import Task
from datatailr.scheduler._workflow import Workflow

__all__ = [
    "CodePackageMismatchError",
    "CyclicDependencyError",
    "DuplicateJobNameError",
    "MissingDagError",
    "Task",
    "Workflow",
    "parse_duration",
    "task",
    "workflow",
]
