"""The decorators `task` and `workflow` (sections 2 and 3)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from datatailr.acl import ACL
from datatailr.build import Image
from datatailr.runner.binding import is_platform_parameter
from datatailr.scheduler._arguments import environment_value
from datatailr.scheduler._context import collecting, current_workflow
from datatailr.scheduler._instant import (
    INSTANT_OPTIONS,
    InstantRun,
    check_instant_options,
    run_instantly,
)
from datatailr.scheduler._names import internal_name, title_from_function
from datatailr.scheduler._process import deployment_is_suppressed
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._schedule import Schedule
from datatailr.scheduler._workflow import Workflow
from datatailr.scheduler.constants import DEFAULT_TASK_CPU, DEFAULT_TASK_MEMORY
from datatailr.user import User
from datatailr.utils import Environment

__all__ = ["WorkflowFunction", "task", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")
P_contra = ParamSpec("P_contra")

REGISTRY = "__datatailr_tasks__"
"""Name in a module's globals under which its `@task` functions are remembered."""
_OVERRIDES = (
    *("schedule", "image", "run_as", "resources", "acl", "python_version", "python_requirements"),
    *("build_script_pre", "build_script_post", "env_vars", "fail_after", "expire_after"),
)
_MODES = ("local_run", "to_json", "save_only", "instant_run")


def _register(function: Callable[..., Any]) -> None:
    """Refuse a second `@task` function of the same name in one module (clause B39).

    Executing a module again replaces its specification, and running a notebook cell again makes
    either the same line or another file name; all of these are no duplicates.

    Raises:
        TypeError: no function.
        ValueError: there is one already.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"@task is for functions, not for {function!r}")
    code = function.__code__
    names = function.__globals__
    known: dict[str, tuple[object, str, int]] = names.setdefault(REGISTRY, {})
    mark = (names.get("__spec__"), code.co_filename, code.co_firstlineno)
    earlier = known.get(function.__qualname__)
    if earlier is not None and earlier[0] is mark[0] and earlier[1] == mark[1] and earlier[2] != mark[2]:
        raise ValueError(
            f"two @task functions named {function.__qualname__!r} in {function.__module__} "
            f"(lines {earlier[2]} and {mark[2]}); rename one of them"
        )
    known[function.__qualname__] = mark


def _task_function(function: Callable[P, R], memory: str, cpu: float) -> Callable[P, R]:
    _register(function)
    signature = inspect.signature(function)
    filled = [name for name, parameter in signature.parameters.items() if is_platform_parameter(parameter)]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        collecting_workflow = current_workflow()
        if collecting_workflow is not None:
            # In a workflow's body a task stands for the value that the function will return.
            made = collecting_workflow._add_call(call, args, kwargs, memory=memory, cpu=cpu)
            return cast(R, made)
        if filled:
            kwargs.update(_platform_arguments(signature, filled, args, kwargs))
        return function(*args, **kwargs)

    call.__datatailr_task__ = True  # type: ignore[attr-defined]
    return call


def _platform_arguments(
    signature: inspect.Signature, filled: list[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Platform parameters that a plain call left out and the environment knows (clause B42)."""
    try:
        given = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        return {}  # the call itself says what is wrong with it
    values = {name: environment_value(name) for name in filled if name not in given}
    return {name: value for name, value in values.items() if value is not None}


@overload
def task(memory: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(memory: str = ..., cpu: float = ...) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(memory: Any = DEFAULT_TASK_MEMORY, cpu: float = DEFAULT_TASK_CPU) -> Any:
    """Mark a function as a task of workflows.

    Called in the body of a `@workflow` function it makes a `Task`; anywhere else it runs as the
    plain function it is (clauses B13 to B16). `@task` and `@task()` mean the same.

    Args:
        memory: Memory limit, for instance "512m"; by default that of the workflow, else 128m.
        cpu: Cores; by default those of the workflow, else 0.25.

    Raises:
        ValueError: the module has another `@task` function of that name (clause B39).
    """
    if callable(memory):
        return _task_function(memory, DEFAULT_TASK_MEMORY, DEFAULT_TASK_CPU)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _task_function(function, memory, cpu)

    return decorate


class WorkflowFunction(Protocol[P_contra]):
    """A decorated workflow: called like the function, or with keywords that steer the call."""

    @overload
    def __call__(self, *args: P_contra.args, **kwargs: P_contra.kwargs) -> None: ...
    @overload
    def __call__(self, *args: Any, to_json: Literal[True], **kwargs: Any) -> str: ...
    @overload
    def __call__(self, *args: Any, instant_run: Literal[True], **kwargs: Any) -> InstantRun: ...
    @overload
    def __call__(self, *args: Any, local_run: bool, **kwargs: Any) -> None: ...
    @overload
    def __call__(self, *args: Any, save_only: bool, **kwargs: Any) -> None: ...
    @overload
    def __call__(self, *args: Any, schedule: Schedule | str | None, **kwargs: Any) -> None: ...
    @overload
    def __call__(self, *args: Any, env_vars: Mapping[str, Any] | None, **kwargs: Any) -> None: ...


class _Definition(Generic[P]):
    """A `@workflow` function with the values of its decorator."""

    def __init__(self, function: Callable[P, Any], name: str, options: Mapping[str, Any]) -> None:
        self._function = function
        self._name = name
        self._options = options

    def call(self, *args: Any, **kwargs: Any) -> str | InstantRun | None:
        """Evaluate the body and do what the keywords ask for (clauses B48 to B58)."""
        modes = {name: bool(kwargs.pop(name, False)) for name in _MODES}
        instant = {name: kwargs.pop(name) for name in INSTANT_OPTIONS if name in kwargs}
        if modes["instant_run"]:
            check_instant_options(instant)
            clash = next((name for name in ("local_run", "save_only") if modes[name]), None)
            if clash is not None and not modes["to_json"]:
                raise ValueError(f"instant_run and {clash} are both given; leave one out")
        given = {name: kwargs.pop(name) for name in _OVERRIDES if name in kwargs}
        overrides = {name: value for name, value in given.items() if not _is_empty(value)}
        if deployment_is_suppressed(internal_name(self._name), Environment.DEV.value):
            return None
        local_run = modes["local_run"] and not modes["to_json"] and not modes["save_only"]
        defined = Workflow(self._name, local_run=local_run, **{**self._options, **overrides})
        with collecting(defined):
            self._function(*args, **kwargs)
        if modes["to_json"]:
            defined._warn_about_missing_packages()
            return defined.to_json()
        if modes["save_only"]:
            defined._warn_about_missing_packages()
            defined.save()
        elif modes["instant_run"]:
            defined._warn_about_missing_packages()
            return run_instantly(defined)
        else:
            defined._deploy()
        return None


def _is_empty(value: object) -> bool:
    """True for an override that leaves the decorator's value (clause B56)."""
    return value is None or (isinstance(value, str | list | dict) and not value)


@overload
def workflow(name: Callable[P, Any], /) -> WorkflowFunction[P]: ...
@overload
def workflow(
    name: str | None = ...,
    schedule: Schedule | str | None = ...,
    image: Image | None = ...,
    run_as: str | User | None = ...,
    resources: Resources | None = ...,
    acl: ACL | None = ...,
    python_version: str = ...,
    python_requirements: str | list[str] = ...,
    build_script_pre: str = ...,
    build_script_post: str = ...,
    env_vars: Mapping[str, str | int | float | bool] | None = ...,
    fail_after: timedelta | str | None = ...,
    expire_after: timedelta | str | None = ...,
) -> Callable[[Callable[P, Any]], WorkflowFunction[P]]: ...
def workflow(
    name: Any = None,
    schedule: Schedule | str | None = None,
    image: Image | None = None,
    run_as: str | User | None = None,
    resources: Resources | None = None,
    acl: ACL | None = None,
    python_version: str = "auto",
    python_requirements: str | list[str] = "",
    build_script_pre: str = "",
    build_script_post: str = "",
    env_vars: Mapping[str, str | int | float | bool] | None = None,
    fail_after: timedelta | str | None = None,
    expire_after: timedelta | str | None = None,
) -> Any:
    """Make a workflow of a function whose body calls `@task` functions.

    Calling the result evaluates the body, saves a new version in dev and starts it, or puts it on
    its schedule. It returns None and does not raise when the platform refuses: the message is
    logged (clauses B48, B49). These keywords of the call are not passed to the function:

    - `local_run=True`: run every task in this process, without a platform (B50).
    - `to_json=True`: return the definition as JSON text; nothing is sent (B53).
    - `save_only=True`: save a new version and do not start it (B54).
    - `instant_run=True`: run the code as it is now, once, without saving a version; returns an
      `InstantRun`, and raises when the platform refuses (B55).
    - all parameters below but the name: override the decorator's value for this call (B56).

    Args:
        name: Display name; by default the function's name in title case (B4).
        schedule: When it runs by itself.
        image: Used as it is; the python_* and build_* arguments are then ignored.
        run_as: User or user name; by default the signed-in user.
        resources: For the workflow's own record, and for tasks that state none (B63, B64).
        acl: Access list; by default the standard one.
        python_version: See `Image`.
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables that every task starts with.
        fail_after: Time after which a run is ended (B108).
        expire_after: Time after which results are cleaned up (B109).
    """
    options = {
        "schedule": schedule,
        "image": image,
        "run_as": run_as,
        "resources": resources,
        "acl": acl,
        "python_version": python_version,
        "python_requirements": python_requirements,
        "build_script_pre": build_script_pre,
        "build_script_post": build_script_post,
        "env_vars": env_vars,
        "fail_after": fail_after,
        "expire_after": expire_after,
    }
    given_name = None if callable(name) else name

    def decorate(function: Callable[P, Any]) -> WorkflowFunction[P]:
        if not inspect.isfunction(function):
            raise TypeError(f"@workflow is for functions, not for {function!r}")
        display_name = title_from_function(function.__name__) if given_name is None else given_name
        internal_name(display_name)
        definition = _Definition(function, display_name, options)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> str | InstantRun | None:
            return definition.call(*args, **kwargs)

        return cast("WorkflowFunction[P]", call)

    return decorate(name) if callable(name) else decorate
