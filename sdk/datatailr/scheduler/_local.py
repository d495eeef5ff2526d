"""Local runs: every task in this process, arguments replayed through pickles (B50 to B52, B231)."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from datatailr.errors import MissingDagError, ResultPickleError, TaskError
from datatailr.runner.binding import bind, platform_variable
from datatailr.runner.pickles import load_arguments
from datatailr.scheduler._arguments import platform_values
from datatailr.scheduler._context import running_user_code
from datatailr.scheduler._environment import env_pairs
from datatailr.scheduler._names import internal_name
from datatailr.scheduler._pickling import dump_arguments, dump_value, load_value

if TYPE_CHECKING:
    from datatailr.scheduler._task import Task
    from datatailr.scheduler._workflow import Workflow

__all__ = ["plain_function", "run_task", "run_workflow"]


def plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's own function behind a `@task` function; any other callable as it is."""
    if getattr(function, "__datatailr_task__", False) is True:
        wrapped: Callable[..., Any] = function.__wrapped__  # type: ignore[attr-defined]
        return wrapped
    return function


def run_workflow(workflow: Workflow) -> None:
    """Run all tasks in dependency order; the first exception of a task goes to the caller.

    Raises:
        CyclicDependencyError: before anything is executed.
    """
    order = workflow.task_levels()
    tasks = {task.id: task for task in workflow.tasks}
    run_id = secrets.token_hex(4)
    submitted = datetime.now(timezone.utc)
    for task in tasks.values():
        task._result = None
    for level in order:
        for task_id in level:
            _execute(tasks[task_id], workflow, run_id=run_id, submitted=submitted)


def run_task(task: Task) -> Any:
    """Run one task; see `Task.run`."""
    if task.dag is None:
        raise MissingDagError
    return _execute(task, task.dag, run_id=secrets.token_hex(4), submitted=datetime.now(timezone.utc))


def _execute(task: Task, workflow: Workflow, *, run_id: str, submitted: datetime) -> Any:
    function = plain_function(_resolve(task))
    upstream = {other.id: other for other in task.argument_tasks()}

    def result_of(task_id: int) -> Any:
        stored = upstream[task_id]._result
        if stored is None:
            raise TaskError(
                f"task {task.name!r} needs the result of {upstream[task_id].name!r}; run that first"
            )
        return load_value(stored)

    data = dump_arguments(
        task.args, task=task.name, tasks={id(other): other.id for other in upstream.values()}, main_name=None
    )
    arguments = load_arguments(io.BytesIO(data), result_of)
    batch_name = internal_name(workflow.name)
    job_name = f"{batch_name}-{task.id}"
    values = platform_values(
        batch_name=batch_name, job_name=job_name, submitted=submitted, started=datetime.now(timezone.utc)
    )
    variables = {
        **dict(env_pairs(task.env_vars)),
        **{platform_variable(name): value for name, value in values.items()},
        "DATATAILR_BATCH_ID": workflow.id,
        "DATATAILR_BATCH_RUN_ID": run_id,
        "DATATAILR_JOB_ID": str(task.id),
        "DATATAILR_JOB_NAME": job_name,
    }
    with _environment(variables), running_user_code():
        positional, keywords = bind(function, arguments, variables)
        value = function(*positional, **keywords)
        try:
            task._result = dump_value(value)
        except Exception as error:
            raise ResultPickleError(
                f"the result of task {task.name!r}, a {type(value).__name__}, cannot be pickled: {error}"
            ) from error
    return value


def _resolve(task: Task) -> Callable[..., Any]:
    entrypoint = task.entrypoint
    if entrypoint.function is not None:
        return entrypoint.function
    if entrypoint.function_name is None:
        raise TaskError(f"task {task.name!r}: a task runs a function, {entrypoint} is a module")
    try:
        function: Callable[..., Any] = getattr(
            importlib.import_module(entrypoint.module_name), entrypoint.function_name
        )
    except (ImportError, AttributeError) as error:
        raise TaskError(f"task {task.name!r}: {entrypoint} cannot be loaded here: {error}") from error
    return function


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for one task; afterwards the environment is what it was (clause B15)."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
