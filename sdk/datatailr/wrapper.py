"""The commands of `dt` as methods, for scripts (clause B274).

```python
from datatailr.wrapper import dt__Job

dt__Job().ls(filter="state = failed")
dt__Job().start("my-flow", environment="pre")
```

There is one class for each group and one method for each command, with `_` for `-`. Arguments are given in
their order, options as keywords by their long or short names; a list stands for values joined by commas.
A method does in this process what the command does, and returns what it would print with `--json`, decoded;
what is no JSON is returned as text. What a command tells on stderr goes to stderr.

Wrong arguments are `TypeError`; whatever else fails is `RuntimeError` with the message of the command.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar

from datatailr.errors import DatatailrError

__all__ = [
    "dt__Blob",
    "dt__Group",
    "dt__Job",
    "dt__Kv",
    "dt__Log",
    "dt__Node",
    "dt__System",
    "dt__Tag",
    "dt__User",
]

_OWN_SHAPE = ("json", "pretty", "fields", "jq")
"""Options that say how data is printed; without any of them `--json` is added."""


class _Group:
    """Commands of one group of `dt` as methods."""

    _GROUP: ClassVar[str]
    _LATER: ClassVar[tuple[str, ...]] = ()
    """Commands that this release does not have, while it has others of the group."""
    _TEXTS: ClassVar[tuple[str, ...]] = ()
    """Commands whose output is text, also where it looks like JSON."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of a command.

        Raises:
            AttributeError: the group has no such command; suggests one that is near.
        """
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        commands = _commands(self._GROUP)
        command = name.rstrip("_").replace("_", "-")
        if commands is None or (command in self._LATER and command not in commands):
            return _missing(f"dt {self._GROUP} {command}")
        if command not in commands:
            near = difflib.get_close_matches(command, commands, n=1)
            hint = (
                f"did you mean {near[0].replace('-', '_')}?" if near else f"there are {', '.join(commands)}"
            )
            raise AttributeError(f"{type(self).__name__} has no command {name!r}; {hint}")
        return _method(self._GROUP, command, commands[command], name=name, decode=command not in self._TEXTS)

    def __dir__(self) -> list[str]:
        commands = _commands(self._GROUP) or {}
        return [*super().__dir__(), *(name.replace("-", "_") for name in commands)]


class dt__Job(_Group):
    """`dt job …`: definitions and runs."""

    _GROUP = "job"
    _TEXTS = ("watch",)


class dt__Log(_Group):
    """`dt log …`: what tasks and runs wrote."""

    _GROUP = "log"
    _LATER = ("extract", "system")
    _TEXTS = ("read",)


class dt__Node(_Group):
    """`dt node …`: the worker hosts."""

    _GROUP = "node"


class dt__User(_Group):
    """`dt user …`: not in this release."""

    _GROUP = "user"


class dt__Group(_Group):
    """`dt group …`: not in this release."""

    _GROUP = "group"


class dt__Blob(_Group):
    """`dt blob …`: not in this release."""

    _GROUP = "blob"


class dt__Kv(_Group):
    """`dt kv …`: not in this release."""

    _GROUP = "kv"


class dt__Tag(_Group):
    """`dt tag …`: not in this release."""

    _GROUP = "tag"


class dt__System(_Group):
    """`dt system …`: not in this release."""

    _GROUP = "system"


@lru_cache(maxsize=1)
def _program() -> Mapping[str, Any]:
    """The groups of `dt` by name; imported when a command is first asked for."""
    import typer

    from datatailr.cli.dt import app

    groups: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return groups


def _commands(group: str) -> Mapping[str, Any] | None:
    """The commands of a group; None when `dt` does not have it."""
    found = _program().get(group)
    return None if found is None else found.commands


def _missing(command: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"this release of the platform has no command `{command}`")

    return refuse


def _method(group: str, command: str, parsed: Any, *, name: str, decode: bool) -> Callable[..., Any]:
    """A function that carries the command out."""
    title = f"dt {group} {command}"

    def method(*args: Any, **kwargs: Any) -> Any:
        text = _run(title, parsed, _words(title, parsed, args, kwargs))
        return _decoded(text) if decode else text

    method.__name__ = method.__qualname__ = name
    method.__doc__ = parsed.help
    return method


def _words(title: str, command: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The command line of a call.

    Raises:
        TypeError: the arguments do not fit the command.
    """
    places = [param for param in command.params if param.param_type_name == "argument"]
    options = {key: param for param in command.params if param not in places for key in _keys(param)}
    positional = list(args)
    words: list[str] = []
    for key, value in kwargs.items():
        place = next((number for number, param in enumerate(places) if param.name == key), None)
        if place is not None:
            if place != len(positional):
                problem = "is given twice" if place < len(positional) else "needs the arguments before it"
                raise TypeError(f"{title}: {key} {problem}")
            positional.append(value)
            continue
        param = options.get(key)
        if param is None:
            near = difflib.get_close_matches(key, [*options, *(param.name for param in places)], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{title} has no option {key!r}{hint}")
        words += _option(title, key, param, value)
    values = [word for value in positional for word in _texts(value)]
    least = sum(1 for param in places if param.required)
    most = None if any(param.nargs == -1 for param in places) else len(places)
    if len(values) < least or (most is not None and len(values) > most):
        wanted = ", ".join(str(param.name) for param in places) or "none"
        raise TypeError(f"{title} has the arguments {wanted}; {len(values)} are given")
    shaped = {options[key].name for key in kwargs if key in options}.intersection(_OWN_SHAPE)
    if "json" in options and not shaped:
        words.append("--json")
    return [*words, "--", *values]


def _keys(param: Any) -> Iterator[str]:
    """The keywords that an option goes by."""
    yield str(param.name)
    for text in param.opts:
        yield text.lstrip("-").replace("-", "_")


def _option(title: str, key: str, param: Any, value: Any) -> list[str]:
    longest = max(param.opts, key=len)
    if value is None:
        return []
    if param.is_flag:
        if not isinstance(value, bool):
            raise TypeError(f"{title}: {key} is {value!r}; it must be True or False")
        return [longest] if value else []
    return [f"{longest}={','.join(_texts(value))}"]


def _texts(value: Any) -> list[str]:
    """A value as words; each element of a list is one."""
    if isinstance(value, list | tuple | set | frozenset):
        return [word for element in value for word in _texts(element)]
    if isinstance(value, Enum):
        return [str(value.value)]
    if isinstance(value, date):
        return [value.strftime("%Y-%m-%d")]
    return [str(value)]


def _run(title: str, command: Any, words: Sequence[str]) -> str:
    """Carry a command out; what it printed.

    Raises:
        RuntimeError: it failed; with its message.
    """
    import typer

    with _printed() as output:
        try:
            code = command.main(args=list(words), prog_name=title, standalone_mode=False)
        except DatatailrError as error:
            raise RuntimeError(f"{title}: {error}") from error
        except SystemExit as end:
            code = end.code
        except (typer.Exit, typer.Abort) as end:
            code = getattr(end, "exit_code", 1)
        except Exception as error:
            # How the program words a mistake in its arguments.
            if not hasattr(error, "format_message"):
                raise
            raise RuntimeError(f"{title}: {error.format_message()}") from None
    text = output.getvalue().decode("utf-8", "replace")
    if code:
        raise RuntimeError(f"{title} ended with exit code {code}" + (f": {text.strip()}" if text else ""))
    return text


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class _Router:
    """Stands in for stdout while commands are under way: what they print is theirs alone, and what other
    threads print goes where it went."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(_OUTPUT.get() or self.real, name)


_OUTPUT: ContextVar[io.TextIOWrapper | None] = ContextVar("datatailr_wrapper_output", default=None)


class _Stdout:
    """Puts one router in the place of stdout for as long as any command is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._router: _Router | None = None

    def enter(self) -> None:
        """A command begins."""
        with self._lock:
            if not self._under_way:
                self._router = _Router(sys.stdout)
                sys.stdout = self._router
            self._under_way += 1

    def leave(self) -> None:
        """A command has ended."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way and self._router is not None:
                if sys.stdout is self._router:
                    sys.stdout = self._router.real
                self._router = None


_STDOUT = _Stdout()


@contextlib.contextmanager
def _printed() -> Iterator[io.BytesIO]:
    """The bytes that the block prints."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="utf-8", write_through=True)
    token = _OUTPUT.set(stream)
    _STDOUT.enter()
    try:
        yield content
    finally:
        _STDOUT.leave()
        _OUTPUT.reset(token)
        stream.detach()
