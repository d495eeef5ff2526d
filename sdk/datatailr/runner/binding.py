"""Turns stored arguments back into a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

PLATFORM_PARAMETERS = ("rundate", "scheduled_time", "started_at", "batch_name", "job_name")
"""Parameters that a task function may declare and that the platform fills (B40)."""
PLATFORM_VARIABLE_PREFIX = "DATATAILR_BATCH_ARG_"


def platform_variable(name: str) -> str:
    """The variable in which the value of a platform parameter travels (B42)."""
    return PLATFORM_VARIABLE_PREFIX + name.upper()


def is_platform_parameter(parameter: inspect.Parameter) -> bool:
    """True for a declared parameter that the platform fills (B40)."""
    return parameter.name in PLATFORM_PARAMETERS and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def bind(
    function: Callable[..., Any], stored: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of the call that `stored` describes (B17, B40, B42).

    `stored` maps parameter names to values: `*args` under its own name as a
    tuple, `**kwargs` flattened. Platform parameters that the function declares
    and that are not stored come from `environment`. Raises TypeError, naming the
    parameter, when the stored arguments do not fit the function.
    """
    values = dict(stored)
    if _is_simple(function, values):
        return [], values
    name = getattr(function, "__name__", repr(function))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [], values
    for parameter in parameters:
        if parameter.name in values or not is_platform_parameter(parameter):
            continue
        variable = platform_variable(parameter.name)
        if variable in environment:
            values[parameter.name] = environment[variable]

    rest = next((values[p.name] for p in parameters if p.kind is p.VAR_POSITIONAL and p.name in values), ())
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in parameters:
        by_position = parameter.kind is parameter.POSITIONAL_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD and bool(rest)
        )
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(values.pop(parameter.name, ()))
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif parameter.name in values:
            value = values.pop(parameter.name)
            if by_position:
                positional.append(value)
            else:
                keywords[parameter.name] = value
        elif parameter.default is parameter.empty:
            raise TypeError(f"{name}() has no stored argument for its parameter {parameter.name!r}")
        elif by_position:
            positional.append(parameter.default)
    if values and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(f"{name}() has no parameter {next(iter(values))!r}, but an argument is stored for it")
    keywords.update(values)
    return positional, keywords


def _is_simple(function: Callable[..., Any], values: Mapping[str, Any]) -> bool:
    """True when the stored values are the keywords of the call as they are: the usual case, told cheaply."""
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        return False
    code = function.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS) or code.co_posonlyargcount:
        return False
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return len(names) == len(values) and all(name in values for name in names)
