"""Definition of an add-in: which functions it exposes and how their arguments are checked."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from datatailr.excel._queue import Queue

__all__ = ["Addin", "ExposedFunction", "annotation_problems"]

P = ParamSpec("P")
R = TypeVar("R")

_ALLOWED: Mapping[str, type] = {"int": int, "float": float, "list": list, "bool": bool, "str": str}
MODULE_MARK = "__dt_addin__"
"""Attribute of the defining module that leads to its add-in (clause B213)."""


@dataclass(frozen=True)
class ExposedFunction:
    """One function of an add-in."""

    name: str
    function: Callable[..., Any]
    description: str
    help: str
    volatile: bool
    streaming: bool
    progressbar: bool

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters that Excel shows: all but the queue of a streaming function."""
        found = list(inspect.signature(self.function).parameters.values())
        return found[1:] if self.streaming else found

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Compare arguments with the annotations (clause B216).

        Raises:
            TypeError: an argument of a wrong type; the message names it.
        """
        for parameter in self.parameters:
            wanted = _annotated_type(parameter)
            if wanted is None or parameter.name not in arguments:
                continue
            value = arguments[parameter.name]
            if not _fits(value, wanted):
                raise TypeError(
                    f"{self.name}: {parameter.name} is {value!r}, a {type(value).__name__}; "
                    f"it must be {wanted.__name__}"
                )


def _annotation_name(annotation: object) -> str:
    # with postponed evaluation annotations are texts
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", repr(annotation))


def _annotated_type(parameter: inspect.Parameter) -> type | None:
    if parameter.annotation is inspect.Parameter.empty:
        return None
    if isinstance(parameter.annotation, str):
        return _ALLOWED.get(parameter.annotation.strip("\"'"))
    return parameter.annotation if parameter.annotation in _ALLOWED.values() else None


def _is_array(value: object) -> bool:
    # numpy need not be there (clause B223); if an array came in, it is loaded
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _fits(value: object, wanted: type) -> bool:
    if _is_array(value):
        return True
    if wanted is bool:
        return isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1))
    if isinstance(value, bool):
        return False
    if wanted is float:
        return isinstance(value, float | int)
    return isinstance(value, wanted)


def annotation_problems(exposed: ExposedFunction) -> list[str]:
    """What is wrong with the annotations of a function (clause B217); missing ones are not."""
    problems: list[str] = []
    parameters = list(inspect.signature(exposed.function).parameters.values())
    if exposed.streaming and (not parameters or parameters[0].name != "queue"):
        problems.append(f"{exposed.name}: a streaming function needs 'queue' as its first parameter")
    for parameter in parameters:
        if parameter.annotation is inspect.Parameter.empty or _annotated_type(parameter) is not None:
            continue
        name = _annotation_name(parameter.annotation).strip("\"'")
        if parameter.name == "queue" and name.rpartition(".")[2] == Queue.__name__:
            continue
        problems.append(
            f"{exposed.name}: {parameter.name} is annotated {name}; it must be int, float, list, bool or str"
        )
    return problems


class Addin:
    """An Excel add-in: a name, a description and the functions it exposes.

    Creating it marks the defining module, so that the platform finds it whatever the variable is
    called (clause B213).

    Args:
        name: Shown in Excel; functions are called `name.function`.
        description: One sentence for people.
    """

    def __init__(self, name: str, description: str, **options: Any) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name of an add-in is {name!r}; it must be a text")
        self.name = name
        self.description = description
        self.options = options
        self._functions: dict[str, ExposedFunction] = {}
        frame = inspect.currentframe()
        caller = frame.f_back if frame is not None else None
        if caller is not None:
            caller.f_globals[MODULE_MARK] = self

    @property
    def functions(self) -> Mapping[str, ExposedFunction]:
        """The exposed functions by name."""
        return dict(self._functions)

    def expose(
        self,
        description: str,
        help: str = "",
        volatile: bool = False,
        streaming: bool = False,
        progressbar: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function under its name; it stays callable as plain Python.

        Args:
            description: Shown in Excel's function picker.
            help: Address or text shown as help.
            volatile: Recalculate at every recalculation of the sheet.
            streaming: The function gets a Queue as first parameter `queue` and pushes values.
            progressbar: The cell shows a moving bar until the result is there.

        Raises:
            ValueError: streaming and progressbar together (clause B215).
        """
        if streaming and progressbar:
            raise ValueError("streaming and progressbar exclude each other; give one of them")

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self._functions[function.__name__] = ExposedFunction(
                name=function.__name__,
                function=function,
                description=description,
                help=help,
                volatile=volatile,
                streaming=streaming,
                progressbar=progressbar,
            )
            return function

        return register

    def queue(self, function_name: str, call_id: str) -> Queue:
        """The queue of one call of a streaming function (clause B221)."""
        return Queue(f"{self.name.lower()}.{function_name}", call_id)

    def check_annotations(self) -> None:
        """Check all functions (clause B217).

        Raises:
            ValueError: the message names every parameter at fault.
        """
        problems = [text for exposed in self._functions.values() for text in annotation_problems(exposed)]
        if problems:
            raise ValueError("; ".join(problems))

    def run(self, port: int, ws_port: int, ide: bool = True) -> None:
        """Serve the functions: HTTP on `port`, websocket on `ws_port`; blocks (clause B222).

        Raises:
            RuntimeError: the add-in server is not part of this installation.
        """
        try:
            server = __import__("datatailr.excel._server", fromlist=["serve"])
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"the add-in {self.name!r} cannot be served: this installation has no add-in server"
            ) from error
        server.serve(self, port=int(port), ws_port=int(ws_port), ide=ide)

    def __repr__(self) -> str:
        return f"<Addin {self.name!r} with {len(self._functions)} functions>"
