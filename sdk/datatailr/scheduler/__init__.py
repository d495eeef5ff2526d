"""Define jobs, run them on the platform, and look at their runs.

The kinds of jobs are workflows (`workflow` and `task`, or `Workflow`), `App`, `Service` and
`ExcelAddin`. Importing this module loads no network library; the platform is reached when an
operation needs it.
"""

from __future__ import annotations

from datatailr.errors import CodePackageMismatchError, DuplicateJobNameError, TaskError
from datatailr.scheduler._apps import App, ExcelAddin, Service
from datatailr.scheduler._decorators import task, workflow
from datatailr.scheduler._entrypoint import EntryPoint
from datatailr.scheduler._job import Job
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._repository import set_allow_unsafe_scheduling
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._schedule import Schedule
from datatailr.scheduler._task import Task
from datatailr.scheduler._workflow import Workflow
from datatailr.utils import Environment

__all__ = [
    "App",
    "CodePackageMismatchError",
    "DuplicateJobNameError",
    "EntryPoint",
    "Environment",
    "ExcelAddin",
    "Job",
    "JobType",
    "Resources",
    "Schedule",
    "Service",
    "Task",
    "TaskError",
    "Workflow",
    "set_allow_unsafe_scheduling",
    "task",
    "workflow",
]
