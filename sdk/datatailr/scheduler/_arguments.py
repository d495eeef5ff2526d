"""Arguments of tasks: binding at the call, finding tasks in them (B17 to B21, B40 to B42)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from datatailr.runner.binding import is_platform_parameter, platform_variable

__all__ = [
    "bind_arguments",
    "container_leaves",
    "environment_value",
    "platform_values",
]


def bind_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, task: str
) -> dict[str, Any]:
    """All arguments of a call by parameter name, defaults included (clauses B17, B40).

    `*args` stands under its own name as a tuple, `**kwargs` is flattened; platform parameters are
    no arguments of the call.

    Raises:
        ValueError: the call does not fit the signature, or two values would share a name.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    filled = [parameter.name for parameter in parameters if is_platform_parameter(parameter)]
    for name in filled:
        if name in kwargs and not takes_any:
            raise ValueError(f"task {task!r}: {name} is filled by the platform and cannot be passed")
    own = [parameter for parameter in parameters if not is_platform_parameter(parameter)]
    try:
        bound = signature.replace(parameters=own).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"task {task!r}: {error}") from None
    bound.apply_defaults()
    result: dict[str, Any] = {}
    flattened: dict[str, Any] = {}
    for parameter in own:
        value = bound.arguments[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            flattened = value
        else:
            result[parameter.name] = value
    clash = sorted(result.keys() & flattened.keys())
    if clash:
        raise ValueError(
            f"task {task!r}: the keyword {clash[0]!r} has the name of another parameter; rename it"
        )
    return {**result, **flattened}


def environment_value(name: str) -> str | None:
    """The value that the environment gives a platform parameter (clause B42)."""
    return os.environ.get(platform_variable(name))


def platform_values(
    *, batch_name: str, job_name: str, submitted: datetime, started: datetime
) -> dict[str, str]:
    """Values of all platform parameters for a run without a schedule (clauses B41, B42).

    A variable with the prefix, set by the user, wins.

    Args:
        submitted: Time of the call, aware.
        started: Start of the task, aware.
    """
    made_up = {
        "rundate": submitted.astimezone(timezone.utc).date().isoformat(),
        "scheduled_time": submitted.astimezone(timezone.utc).isoformat(),
        "started_at": started.astimezone(timezone.utc).isoformat(),
        "batch_name": batch_name,
        "job_name": job_name,
    }
    return {name: environment_value(name) or value for name, value in made_up.items()}


def container_leaves(value: object) -> Iterator[object]:
    """Everything that is reachable through lists, tuples, sets and values of dicts, to any depth
    (clause B20): the values that are no such containers themselves."""
    seen: set[int] = set()
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, list | tuple | set | frozenset):
            children: list[object] = list(current)
        elif isinstance(current, dict):
            children = list(current.values())
        else:
            yield current
            continue
        # a container may hold itself
        if id(current) not in seen:
            seen.add(id(current))
            pending.extend(children)
