"""Tables made from the code: exit codes and errors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from datatailr import errors
from datatailr.cli.exits import EXIT_CODES, exit_code


def exit_codes() -> str:
    """The exit codes of both programs as a table."""
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def errors_by_name() -> list[type[errors.DatatailrError]]:
    """All public error classes, each after the one it derives from."""
    classes = [getattr(errors, name) for name in errors.__all__]
    return sorted(classes, key=lambda kind: [parent.__name__ for parent in reversed(kind.__mro__)])


def error_table() -> str:
    """The errors with what they mean and the exit code that `dt` ends with; then each by itself."""
    rows = []
    for kind in errors_by_name():
        parent = kind.__mro__[1].__name__
        meaning = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        code = exit_code(kind.__new__(kind))
        rows.append(
            f"| {{py:exc}}`~datatailr.errors.{kind.__name__}` | `{parent}` | {meaning} | {int(code)} |"
        )
    table = ["| error | is a | when | `dt` exits |", "|---|---|---|---|", *rows]
    classes = [f".. autoexception:: datatailr.errors.{kind.__name__}" for kind in errors_by_name()]
    return "\n".join([*table, "", "```{eval-rst}", *classes, "```"])


def contents(docs: Path, pattern: str, *, besides: Sequence[str] = ()) -> str:
    """A table of contents of the pages that fit a pattern, by name.

    Unlike a `:glob:` it may be empty: some pages are made by the tests.
    """
    there = [path.relative_to(docs).with_suffix("").as_posix() for path in docs.glob(pattern)]
    pages = sorted(page for page in there if page not in besides)
    return "\n".join(["```{toctree}", ":maxdepth: 1", "", *(f"/{page}" for page in pages), "```"])
