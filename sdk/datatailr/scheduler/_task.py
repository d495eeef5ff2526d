"""Tasks: the nodes of a workflow (section 2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from datatailr.errors import MissingDagError, TaskError
from datatailr.scheduler._arguments import container_leaves
from datatailr.scheduler._context import current_workflow
from datatailr.scheduler._entrypoint import EntryPoint
from datatailr.scheduler._environment import env_entries
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._names import validate_task_name
from datatailr.scheduler._resources import Resources
from datatailr.scheduler.constants import DEFAULT_TASK_CPU, DEFAULT_TASK_MEMORY

if TYPE_CHECKING:
    from datatailr.scheduler._workflow import Workflow

__all__ = ["Task"]


class Task:
    """One step of a workflow. Usually made by calling a `@task` function in a workflow's body.

    Args:
        name: Unique in the workflow (clause B135).
        entrypoint: What runs.
        resources: Memory and cores; by default those of the workflow, else 128m and 0.25.
        dependencies: Tasks, names or ids that must complete before (clause B37).
        dag: The workflow; by default the one whose body is being evaluated.
        argument_mapping: Arguments by parameter name; tasks in them are dependencies.
        env_vars: Added to the workflow's variables for this task.
        id: By default the next free one.

    Raises:
        MissingDagError: no workflow.
        DuplicateJobNameError: the name is taken.
        CodePackageMismatchError: the code lies in another package than the workflow's.
    """

    dag: Workflow | None

    def __init__(
        self,
        name: str,
        entrypoint: EntryPoint | Callable[..., Any],
        resources: Resources | None = None,
        dependencies: Iterable[Task | str | int] | None = None,
        dag: Workflow | None = None,
        argument_mapping: Mapping[str, Any] | None = None,
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        id: int | None = None,
    ) -> None:
        workflow = dag if dag is not None else current_workflow()
        if workflow is None:
            raise MissingDagError
        self._name = validate_task_name(name)
        self.entrypoint = (
            entrypoint if isinstance(entrypoint, EntryPoint) else EntryPoint(JobType.WORKFLOW, entrypoint)
        )
        if resources is not None and not isinstance(resources, Resources):
            raise TypeError(f"resources of task {name!r} is {resources!r}; it must be a Resources object")
        self.resources: Resources | None = resources
        self.env_vars: dict[str, str | int | float | bool] = workflow.get_env_vars_copy()
        if env_vars is not None:
            self.update_env_vars(env_vars)
        self._args: dict[str, Any] = {}
        if argument_mapping is not None:
            self.args = dict(argument_mapping)
        self.dag = workflow
        self._explicit: list[Task | str | int] = []
        workflow._reserve_name(self._name)
        self._id = workflow._take_id(id)
        for dependency in dependencies or ():
            self._depend_on(dependency)
        self._stored = False
        self._result: bytes | None = None
        """Pickled value of a local run."""
        workflow.add_job(self)

    # -- identity ------------------------------------------------------------------------------
    @property
    def id(self) -> int:
        """Position in the workflow, from 0 in call order."""
        return self._id

    @property
    def name(self) -> str:
        """Unique name in the workflow."""
        return self._name

    @property
    def args(self) -> dict[str, Any]:
        """Arguments by parameter name (clause B17); assigning anything but a dict is a TypeError."""
        return self._args

    @args.setter
    def args(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise TypeError(
                f"args of task {self._name!r} is {value!r}; it must be a dict of arguments by name"
            )
        self._args = value

    def alias(self, name: str) -> Task:
        """Rename the task and return it (clauses B29 to B32).

        Raises:
            DuplicateJobNameError: another task of the workflow has the name.
        """
        validate_task_name(name)
        if name != self._name:
            if self.dag is not None:
                self.dag._rename(self, name)
            self._name = name
        return self

    def __call__(self, *args: Any, **kwds: Any) -> Task:
        """The task itself (clause B33)."""
        return self

    def __lt__(self, other: Task) -> bool:
        return self._id < other._id if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Task {self._id} {self._name!r}>"

    # -- resources and variables ---------------------------------------------------------------
    def set_resources(
        self, resources: Resources | None = None, memory: str | None = None, cpu: float | None = None
    ) -> Task:
        """Set what the task asks for and return it (clause B34).

        With `resources` the other two are ignored; without, a missing memory is "128m" and a
        missing cpu 0.25, whatever the task had before.

        Raises:
            TypeError: `resources` is no Resources object.
        """
        if resources is not None:
            if not isinstance(resources, Resources):
                raise TypeError(
                    f"resources of task {self._name!r} is {resources!r}; it must be a Resources object"
                )
            self.resources = resources
        else:
            self.resources = Resources(
                memory=DEFAULT_TASK_MEMORY if memory is None else memory,
                cpu=DEFAULT_TASK_CPU if cpu is None else cpu,
            )
        return self

    def update_env_vars(self, env_vars: Mapping[str, str | int | float | bool]) -> Task:
        """Add variables for this task only, or override the workflow's, and return it (B35)."""
        if not isinstance(env_vars, Mapping):
            raise TypeError(f"env_vars of task {self._name!r} is {env_vars!r}; it must be a dict")
        self.env_vars.update(env_vars)
        return self

    # -- dependencies --------------------------------------------------------------------------
    def _depend_on(self, other: Task | str | int) -> None:
        if isinstance(other, Task) and other.dag is not None and other.dag is not self.dag:
            raise TaskError(f"task {self._name!r} cannot wait for {other._name!r}: it is in another workflow")
        if isinstance(other, str) and self.dag is not None:
            # a later rename must not change the dependency (clause B32)
            other = self.dag.get_task_by_name(other) or other
        self._explicit.append(other)

    def argument_tasks(self) -> list[Task]:
        """Other tasks found in the arguments, by id, each once (clauses B19 to B21).

        Raises:
            TaskError: one of them belongs to another workflow.
        """
        found: dict[int, Task] = {}
        for leaf in container_leaves(self._args):
            if isinstance(leaf, Task) and leaf is not self:
                if leaf.dag is not None and self.dag is not None and leaf.dag is not self.dag:
                    raise TaskError(
                        f"an argument of task {self._name!r} is task {leaf._name!r} of another workflow"
                    )
                found[leaf._id] = leaf
        return [found[task_id] for task_id in sorted(found)]

    @property
    def dependencies(self) -> set[int]:
        """Ids of the direct dependencies."""
        return self.translate_dependencies()

    def translate_dependencies(self) -> set[int]:
        """Ids of the direct dependencies, from data flow and explicit ones (clauses B22, B37).

        Raises:
            KeyError: no task of that name or id in the workflow.
            TypeError: a dependency is neither task, name nor id.
        """
        result = {task._id for task in self.argument_tasks()}
        for entry in self._explicit:
            if isinstance(entry, Task):
                result.add(entry._id)
            elif isinstance(entry, str):
                task = self.dag.get_task_by_name(entry) if self.dag is not None else None
                if task is None:
                    raise KeyError(f"task {self._name!r} depends on {entry!r}, which is not in the workflow")
                result.add(task._id)
            elif isinstance(entry, int) and not isinstance(entry, bool):
                if self.dag is not None and self.dag.get_task_name_from_id(entry) is None:
                    raise KeyError(f"task {self._name!r} depends on id {entry}, which is not in the workflow")
                result.add(entry)
            else:
                raise TypeError(f"task {self._name!r} depends on {entry!r}; give a task, a name or an id")
        result.discard(self._id)
        return result

    def __rshift__(self, other: Any) -> Any:
        """`a >> b`: b depends on a; the value is b, or the list (clauses B23, B24)."""
        targets = _as_tasks(other)
        if targets is None:
            return NotImplemented
        for target in targets:
            target._depend_on(self)
        return other

    def __lshift__(self, other: Any) -> Any:
        """`a << b`: a depends on b; the value is b, or the list."""
        targets = _as_tasks(other)
        if targets is None:
            return NotImplemented
        for target in targets:
            self._depend_on(target)
        return other

    def __rrshift__(self, other: Any) -> Any:
        """`[a, b] >> c`: c depends on both; the value is c."""
        return NotImplemented if self.__lshift__(other) is NotImplemented else self

    def __rlshift__(self, other: Any) -> Any:
        """`[b, c] << a`: both depend on a; the value is a."""
        return NotImplemented if self.__rshift__(other) is NotImplemented else self

    # -- output --------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """The task for JSON (clause B70)."""
        resources = self.resources or Resources()
        return {
            "display_name": self._name,
            "name": self._name,
            "child_number": self._id,
            "entrypoint": str(self.entrypoint),
            "memory": str(resources.memory),
            "num_cpus": resources.cpu,
            "depends_on": sorted(self.translate_dependencies()),
            "env": env_entries(self.env_vars),
        }

    def to_json(self) -> str:
        """JSON text of `to_dict()`."""
        return json.dumps(self.to_dict())

    def run(self) -> Any:
        """Execute the function in this process and return its value (clause B141).

        The value is kept for the tasks that use it.

        Raises:
            TaskError: a task that it depends on by data has not run yet.
        """
        from datatailr.scheduler._local import run_task

        return run_task(self)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the workflow (clause B142)."""
        return {name: value for name, value in vars(self).items() if name != "dag"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.dag = None


def _as_tasks(other: object) -> list[Task] | None:
    if isinstance(other, Task):
        return [other]
    if isinstance(other, list | tuple | set | frozenset) and all(isinstance(entry, Task) for entry in other):
        return [entry for entry in other if isinstance(entry, Task)]
    return None
