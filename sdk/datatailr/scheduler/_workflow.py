"""Workflows: jobs that consist of tasks (sections 2, 3 and 7)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from datatailr.acl import ACL
from datatailr.build import Image
from datatailr.errors import (
    CodePackageMismatchError,
    DuplicateJobNameError,
    NotConfiguredError,
    PlatformError,
)
from datatailr.scheduler import _platform
from datatailr.scheduler._arguments import bind_arguments
from datatailr.scheduler._context import collecting
from datatailr.scheduler._durations import duration_microseconds
from datatailr.scheduler._entrypoint import EntryPoint
from datatailr.scheduler._environment import EnvVars, checked_env_vars, env_from_entries, env_pairs
from datatailr.scheduler._graph import levels
from datatailr.scheduler._job import Job
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._lifecycle import Outcome
from datatailr.scheduler._local import run_workflow
from datatailr.scheduler._package import CodePackage
from datatailr.scheduler._pickling import dump_arguments
from datatailr.scheduler._reporting import failure
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._schedule import Schedule
from datatailr.scheduler._sources import main_module_name
from datatailr.scheduler._task import Task
from datatailr.scheduler.constants import (
    DEFAULT_TASK_CPU,
    DEFAULT_TASK_MEMORY,
    DEFAULT_WORKFLOW_CPU,
    DEFAULT_WORKFLOW_MEMORY,
    is_default,
)
from datatailr.user import User
from datatailr.utils import Environment

__all__ = ["Workflow"]


class Workflow(Job):
    """A job that consists of tasks.

    Usually made by calling a `@workflow` function; or as a context manager, which deploys at the
    end of its block unless no task was created (clause B59).

    Args:
        name: Display name.
        environment: Where it lives; None means dev.
        schedule: When it runs by itself; None or an empty one for never.
        image: Used as it is; the python_* and build_* arguments are then ignored.
        run_as: User or user name; by default the signed-in user.
        resources: For the workflow's own record (default 100m and 1), and for tasks that state none.
        acl: Access list; by default the standard one.
        python_version: See `Image`.
        local_run: Run in this process instead of deploying (clause B50).
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables that every task starts with.
        fail_after: Time after which a run is ended (clause B108).
        expire_after: Time after which results are cleaned up (clause B109).
        get_existing: Load the saved workflow of this name, with its tasks (clause B112).
        version: Version to load; only with get_existing.

    Raises:
        ValueError: a bad name, duration or other value; a local run with a schedule (B51).
    """

    _LISTED = "batch"
    _TASK_TYPE: ClassVar[type[Task]] = Task

    def __init__(
        self,
        name: str,
        environment: Environment | str | None = Environment.DEV,
        schedule: Schedule | str | None = None,
        image: Image | None = None,
        run_as: str | User | None = None,
        resources: Resources | None = None,
        acl: ACL | None = None,
        python_version: str = "auto",
        local_run: bool = False,
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        fail_after: timedelta | str | None = None,
        expire_after: timedelta | str | None = None,
        get_existing: bool = False,
        version: str | int | None = None,
    ) -> None:
        self._clear_graph()
        self._explicit_resources = resources
        self.fail_after: timedelta | str | None = fail_after
        self.expire_after: timedelta | str | None = expire_after
        self._limits_in_microseconds()
        self._local_run = False
        self._autorun = True
        self._context: contextlib.AbstractContextManager[None] | None = None
        super().__init__(
            name=name,
            environment=environment,
            image=image,
            run_as=run_as,
            resources=resources,
            acl=acl,
            python_version=python_version,
            python_requirements=python_requirements,
            build_script_pre=build_script_pre,
            build_script_post=build_script_post,
            env_vars=env_vars,
            type=JobType.WORKFLOW,
            get_existing=get_existing,
            version=version,
        )
        if schedule is not None:
            self.schedule = _checked_schedule(schedule)
        if get_existing:
            self.fail_after = fail_after if fail_after is not None else self.fail_after
            self.expire_after = expire_after if expire_after is not None else self.expire_after
        self.set_local_run(local_run)

    @classmethod
    def _default_resources(cls) -> Resources:
        return Resources(memory=DEFAULT_WORKFLOW_MEMORY, cpu=DEFAULT_WORKFLOW_CPU)

    # -- the graph -----------------------------------------------------------------------------
    def _clear_graph(self) -> None:
        self._tasks: list[Task] = []
        self._by_name: dict[str, Task] = {}
        self._by_id: dict[int, Task] = {}
        self._suffixes: dict[str, int] = {}
        self._next_id = 0
        self._graph_package: CodePackage | None = None
        self._packages: dict[tuple[str, Path | None], CodePackage | None] = {}

    @property
    def tasks(self) -> list[Task]:
        """The tasks in the order in which they were added; a copy."""
        return list(self._tasks)

    @property
    def next_job_id(self) -> int:
        """The next task id; every read hands out another one, from 0 (clause B139)."""
        number = self._next_id
        self._next_id += 1
        return number

    def _take_id(self, wanted: int | None) -> int:
        if wanted is None:
            return self.next_job_id
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
            raise ValueError(f"id of a task is {wanted!r}; it must be a whole number from 0")
        if wanted in self._by_id:
            raise ValueError(f"id {wanted} is taken by task {self._by_id[wanted].name!r}")
        self._next_id = max(self._next_id, wanted + 1)
        return wanted

    def _reserve_name(self, name: str) -> None:
        if name in self._by_name:
            raise DuplicateJobNameError(name)

    def _automatic_name(self, base: str) -> str:
        """`base`, else the next free of `base-1`, `base-2`, … (clauses B28, B30, B31)."""
        if base not in self._by_name:
            return base
        number = self._suffixes.get(base, 0) + 1
        while f"{base}-{number}" in self._by_name:
            number += 1
        self._suffixes[base] = number
        return f"{base}-{number}"

    def _rename(self, task: Task, name: str) -> None:
        self._reserve_name(name)
        if self._by_name.get(task.name) is task:
            del self._by_name[task.name]
        self._by_name[name] = task

    def add_job(self, job: Task) -> None:
        """Add a task (clause B135): its name is made unique, missing resources are filled, its
        package is checked. One that is there already changes nothing.

        Raises:
            TypeError: no Task.
            CodePackageMismatchError: its code lies in another package than the workflow's (B38).
        """
        if not isinstance(job, Task):
            raise TypeError(f"{job!r} is no Task")
        if self.is_task_in(job):
            return
        self._check_package(job.entrypoint)
        if job.dag is not self:
            job.dag = self
            job._id = self._take_id(None)
        job._name = self._automatic_name(job.name)
        if job.resources is None:
            job.resources = self._task_resources()
        self._tasks.append(job)
        self._by_name[job.name] = job
        self._by_id[job.id] = job

    def _add_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        memory: str,
        cpu: float,
    ) -> Task:
        """The task that a call of a `@task` function stands for (clauses B16, B17)."""
        name = self._automatic_name(function.__name__)
        return self._TASK_TYPE(
            name,
            EntryPoint(JobType.WORKFLOW, function),
            resources=self._task_resources(memory, cpu),
            dag=self,
            argument_mapping=bind_arguments(function, args, kwargs, task=name),
        )

    def _task_resources(self, memory: str = DEFAULT_TASK_MEMORY, cpu: float = DEFAULT_TASK_CPU) -> Resources:
        """Resources of a task that set none itself (clause B64), one by one."""
        general = self._explicit_resources
        if general is not None:
            memory = general.memory if is_default(memory) and not is_default(general.memory) else memory
            cpu = general.cpu if is_default(cpu) and not is_default(general.cpu) else cpu
        return Resources(memory=memory, cpu=cpu)

    def _check_package(self, entry: EntryPoint) -> None:
        # thousands of tasks of one module shall not look at the disk thousands of times
        place = (entry.module_name, entry.file)
        if place not in self._packages:
            self._packages[place] = entry.package
        package = self._packages[place]
        if package is None:
            return
        if self._graph_package is None:
            self._graph_package = package
            self._fill_image_from(package)
        elif package.directory != self._graph_package.directory:
            raise CodePackageMismatchError(
                f"{entry} is in {package.directory}, but workflow {self.name!r} is packaged from "
                f"{self._graph_package.directory}; all tasks of a workflow come from one package"
            )

    def get_task_by_name(self, task_name: str) -> Task | None:
        """The task of a name, None if there is none."""
        return self._by_name.get(task_name)

    def get_task_name_from_id(self, task_id: int) -> str | None:
        """The name of the task of an id, None if there is none."""
        task = self._by_id.get(task_id)
        return None if task is None else task.name

    def is_task_in(self, task: Task) -> bool:
        """True when this very task is in the workflow."""
        return isinstance(task, Task) and self._by_id.get(task.id) is task

    def get_env_vars_copy(self) -> EnvVars:
        """A copy of the workflow's variables."""
        return dict(self.env_vars)

    def reset(self) -> None:
        """Remove tasks, names, counters and variables; nothing runs at the end of a context (B138)."""
        self._clear_graph()
        self.env_vars = {}

    def _dependencies(self) -> dict[int, set[int]]:
        return {task.id: task.translate_dependencies() for task in self._tasks}

    def task_levels(self) -> list[list[int]]:
        """Task ids by level of the graph, ids ascending within one (clause B50).

        Raises:
            CyclicDependencyError: the tasks wait for one another (clause B27).
        """
        return levels(self._dependencies(), {task.id: task.name for task in self._tasks})

    def _current_task_names(self) -> dict[int, str]:
        return {task.id: task.name for task in self._tasks}

    # -- code ----------------------------------------------------------------------------------
    def _package(self) -> CodePackage | None:
        return self._graph_package

    def _entry_points(self) -> list[EntryPoint]:
        return [task.entrypoint for task in self._tasks]

    # -- output --------------------------------------------------------------------------------
    def _limits_in_microseconds(self) -> tuple[int | None, int | None]:
        return (
            duration_microseconds(self.fail_after, field="fail_after"),
            duration_microseconds(self.expire_after, field="expire_after"),
        )

    def _limits(self) -> dict[str, int | None]:
        return dict(zip(("fail_after", "expire_after"), self._limits_in_microseconds()))

    def _type_dict(self) -> dict[str, Any]:
        self.task_levels()
        for task in self._tasks:
            (task.resources or Resources()).request(owner=f"task {task.name!r}")
        schedule = self._active_schedule()
        return {
            "jobs": [task.to_dict() for task in self._tasks],
            "schedule": (schedule.get_cron_string() or None) if schedule is not None else None,
            **self._limits(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The definition for JSON (clauses B66, B69).

        Raises:
            ValueError: unreadable resources or durations.
            CyclicDependencyError: the tasks wait for one another (clause B27).
        """
        return super().to_dict()

    def to_json(self) -> str:
        """JSON text of `to_dict()`, indented by 4 (clause B72)."""
        return json.dumps(self.to_dict(), indent=4)

    def _active_schedule(self) -> Schedule | None:
        """The schedule, None when it is empty (clause B83)."""
        return self.schedule if self.schedule is not None and not self.schedule.is_empty() else None

    def get_schedule_args(self) -> dict[str, Any]:
        """The fields of the schedule that are set, lists joined by `,` (clause B75)."""
        return {} if self.schedule is None else self.schedule.get_schedule_args()

    def _schedule_request(self) -> _platform.ScheduleRequest | None:
        request = super()._schedule_request()
        return request if request is None or request.cron or request.fields else None

    # -- from the platform ---------------------------------------------------------------------
    def from_dict(self, job_dict: Mapping[str, Any]) -> None:
        """Fill this object from a platform answer, with `children_full` also the tasks."""
        super().from_dict(job_dict)
        self._clear_graph()
        self.schedule = Schedule.from_platform(
            job_dict.get("schedule"), dict(job_dict.get("schedule_args") or {})
        )
        for name in ("fail_after", "expire_after"):
            count = job_dict.get(name)
            setattr(self, name, timedelta(microseconds=int(count)) if count else None)
        children = sorted(job_dict.get("children_full") or [], key=lambda child: int(child["child_number"]))
        for child in children:
            task = self._TASK_TYPE(
                child["name"],
                EntryPoint.from_stored(JobType.WORKFLOW, child["entrypoint"]),
                resources=Resources.from_job_dict(child),
                dependencies=[int(other) for other in child.get("depends_on") or []],
                dag=self,
                id=int(child["child_number"]),
            )
            task.env_vars = env_from_entries(child.get("env"))
            task._stored = True

    # -- deploying -----------------------------------------------------------------------------
    def set_local_run(self, local_run: bool) -> None:
        """Let `run()` execute in this process (clause B140).

        Raises:
            ValueError: the workflow has a schedule (clause B51).
        """
        if local_run and self._active_schedule() is not None:
            raise ValueError(f"workflow {self.name!r} has a schedule, so it cannot run locally")
        self._local_run = bool(local_run)

    def set_autorun(self, auto_run: bool) -> None:
        """With False, the end of a `with` block deploys nothing (clause B59)."""
        self._autorun = bool(auto_run)

    def _run_locally(self) -> Outcome:
        if self._active_schedule() is not None:
            raise ValueError(f"workflow {self.name!r} has a schedule, so it cannot run locally")
        run_workflow(self)
        return True, ""

    def run(self) -> Outcome:
        """Save and start; or run in this process, after `set_local_run(True)` (B140).

        Without a configured platform one line says so and the workflow runs in this process (B61).

        Raises:
            CyclicDependencyError: the tasks wait for one another.
            ValueError: a local run of a workflow with a schedule.
        """
        if self._local_run and not self._is_suppressed():
            return self._run_locally()
        return super().run()

    def _without_platform(self, operation: str) -> Outcome:
        if operation != "run":
            return failure(f"{operation} of workflow {self.name!r} failed: {NotConfiguredError()}")
        if not self._tasks:
            return failure(self._no_tasks())
        if self._active_schedule() is None:
            print(f"No platform is configured: workflow {self.name!r} runs in this process.", flush=True)
        return self._run_locally()

    def rerun(self, run_id: int | str, version: str | int | None = None, full: bool = False) -> Outcome:
        """Start a new run that repeats an earlier one (clauses B126 to B132).

        Args:
            run_id: The run to repeat.
            version: The version to run; by default the latest.
            full: Also run the tasks that completed; by default their results are taken over.
        """
        return self._rerun(run_id, version=version, full=full)

    def _no_tasks(self) -> str:
        return f"workflow {self.name!r} has no tasks, so there is nothing to save or run"

    def _check_before_save(self) -> str | None:
        if not self._tasks:
            return self._no_tasks()
        self.task_levels()
        for task in self._tasks:
            problem = task.entrypoint.importable_problem()
            if problem is not None:
                return f"task {task.name!r}: {problem}"
        return None

    def _task_definitions(self) -> Sequence[_platform.TaskDefinition]:
        main_name = main_module_name()
        return [
            _platform.TaskDefinition(
                id=task.id,
                name=task.name,
                entrypoint=str(task.entrypoint),
                resources=(task.resources or Resources()).request(owner=f"task {task.name!r}"),
                depends_on=sorted(task.translate_dependencies()),
                env=env_pairs(checked_env_vars(task.env_vars, owner=f"task {task.name!r}")),
                arguments=self._arguments(task, main_name),
            )
            for task in self._tasks
        ]

    @staticmethod
    def _arguments(task: Task, main_name: str | None) -> bytes | None:
        if task._stored and not task.args:
            return None
        tasks = {id(other): other.id for other in task.argument_tasks()}
        return dump_arguments(task.args, task=task.name, tasks=tasks, main_name=main_name)

    # -- as a context --------------------------------------------------------------------------
    def __enter__(self) -> Workflow:
        """Collect the tasks that are called in the block."""
        context = collecting(self)
        context.__enter__()
        self._context = context
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        """Deploy, unless the block raised, no task was created, or `set_autorun(False)` (B58, B59)."""
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(exc_type, exc_value, exc_traceback)
        if exc_type is None and self._autorun and self._tasks:
            self._deploy()

    def _deploy(self) -> Outcome:
        """Run, after the warning about packages where that makes sense (clause B181)."""
        if not self._is_suppressed() and not self._local_run and self._will_be_sent():
            self._warn_about_missing_packages()
        return self.run()

    @staticmethod
    def _will_be_sent() -> bool:
        try:
            return _platform.get_platform() is not None
        except PlatformError:
            return False  # what is wrong with the configuration is told by the operation itself


def _checked_schedule(value: object) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return Schedule(cron_expression=value)
    raise TypeError(f"schedule is {value!r}; it must be a Schedule or a cron expression")
