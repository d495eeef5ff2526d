"""Arguments and results as pickles (clauses B43 to B45).

Protocol 5. A task among the arguments is the persistent id `("task", id)`. What the script being
run defines travels under the name of its packaged module: such a class or function is stored as a
call of `pkgutil.resolve_name` with `module:qualified.name`, so that only the packaged module and the
standard library are needed to load it.
"""

from __future__ import annotations

import io
import pickle
import pkgutil
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from datatailr.errors import ArgumentPickleError, ResultLoadError
from datatailr.scheduler._sources import main_module_name

__all__ = ["dump_arguments", "dump_value", "load_result", "load_value"]

PROTOCOL = 5
_DEEPEST = 30


class _Pickler(pickle.Pickler):
    """Stores tasks as persistent ids and what `__main__` defines under its packaged name."""

    def __init__(self, stream: io.BytesIO, *, tasks: Mapping[int, int], main_name: str | None) -> None:
        super().__init__(stream, protocol=PROTOCOL)
        self._tasks = tasks
        self._main_name = main_name

    def persistent_id(self, obj: Any) -> tuple[str, int] | None:
        task_id = self._tasks.get(id(obj))
        return None if task_id is None else ("task", task_id)

    def reducer_override(self, obj: Any) -> Any:
        if self._main_name is None:
            return NotImplemented
        if isinstance(obj, type | FunctionType):
            if obj.__module__ == "__main__":
                return _by_name(obj, obj.__qualname__, self._main_name)
            return NotImplemented
        kind = type(obj)
        if kind.__module__ == "__main__" and _customises_reduction(kind):
            reduced = obj.__reduce_ex__(PROTOCOL)
            # a text names a global of the module, such as a singleton
            return _by_name(obj, reduced, self._main_name) if isinstance(reduced, str) else reduced
        return NotImplemented


def _customises_reduction(kind: type) -> bool:
    return any(
        "__reduce__" in base.__dict__ or "__reduce_ex__" in base.__dict__ for base in kind.__mro__[:-1]
    )


def _by_name(obj: Any, name: str, main_name: str) -> tuple[Callable[..., Any], tuple[str]]:
    found: Any = sys.modules.get("__main__")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not obj:
        raise pickle.PicklingError(f"cannot pickle {name}: it is not at the top level of the script")
    return pkgutil.resolve_name, (f"{main_name}:{name}",)


def dump_value(
    value: object, *, tasks: Mapping[int, int] | None = None, main_name: str | None = None
) -> bytes:
    """Pickle one value.

    Args:
        tasks: `id()` of each task object that stands for a result, to the task's id.
        main_name: Packaged name of the script being run; None keeps `__main__`, for use in this
            process.

    Raises:
        Exception: whatever pickling the value raises.
    """
    stream = io.BytesIO()
    _Pickler(stream, tasks=tasks or {}, main_name=main_name).dump(value)
    return stream.getvalue()


def dump_arguments(
    arguments: Mapping[str, Any], *, task: str, tasks: Mapping[int, int], main_name: str | None
) -> bytes:
    """Pickle the bound arguments of a task.

    Raises:
        ArgumentPickleError: the message names task, parameter and the place within the value.
    """

    def dump(value: object) -> bytes:
        return dump_value(value, tasks=tasks, main_name=main_name)

    try:
        return dump(dict(arguments))
    except Exception as error:
        for name, value in arguments.items():
            problem = _first_problem(value, name, dump)
            if problem is not None:
                path, reason = problem
                place = "" if path == name else f"{path}: "
                raise ArgumentPickleError(f"argument {name!r} of task {task!r}: {place}{reason}") from error
        raise ArgumentPickleError(f"the arguments of task {task!r} cannot be pickled: {error}") from error


def _first_problem(value: object, path: str, dump: Callable[[object], bytes]) -> tuple[str, str] | None:
    """Path and reason of the innermost value that cannot be pickled, None when all can."""
    try:
        dump(value)
    except Exception as error:
        reason = _reason(error, value)
    else:
        return None
    if path.count(".") + path.count("[") < _DEEPEST:
        for name, child in _children(value, path):
            inner = _first_problem(child, name, dump)
            if inner is not None:
                return inner
    return path, reason


def _children(value: object, path: str) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f"{path}[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, list | tuple):
        return [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"{path}{{{child!r}}}", child) for child in value]
    if isinstance(value, type | FunctionType):
        return []
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                attributes.setdefault(slot, getattr(value, slot))
    return [(f"{path}.{name}", child) for name, child in attributes.items()]


def _reason(error: Exception, value: object) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        return f"cannot pickle a {type(value).__name__}: it is nested too deeply"
    return text or f"cannot pickle a {type(value).__name__}: {type(error).__name__}"


class _ResultUnpickler(pickle.Unpickler):
    """Finds classes of the script being run in `__main__`, not in a second copy of it."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == main_module_name():
            found: Any = sys.modules["__main__"]
            try:
                for part in global_name.split("."):
                    found = getattr(found, part)
                return found
            except AttributeError:
                pass  # the script changed since; the module may still have it
        return super().find_class(module_name, global_name)


def load_value(data: bytes) -> Any:
    """The value of a pickle from `dump_value`; called in the user's own process only."""
    return _ResultUnpickler(io.BytesIO(data)).load()


def load_result(data: bytes, *, of: str) -> Any:
    """The object that a task returned on the platform, from its pickle.

    Args:
        data: The pickle.
        of: Words that name the task, for errors.

    Raises:
        ResultLoadError: it cannot be loaded by this interpreter.
    """
    try:
        return load_value(data)
    except Exception as error:
        raise ResultLoadError(
            f"the result of {of} cannot be loaded here: {_missing(error)}\n"
            "hint: load it where the modules of the job are installed in the same versions, or let a task "
            "turn it into plain values"
        ) from error


def _missing(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"its class needs the module {error.name!r}, which is not installed"
    return f"{type(error).__name__}: {error}"
