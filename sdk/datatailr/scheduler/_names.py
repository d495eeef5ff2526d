"""Names: internal names of jobs, display names of functions, names of tasks."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["internal_name", "normalize_name", "title_from_function", "validate_task_name"]

_OUTSIDE = re.compile(r"[^0-9a-z]+")


def normalize_name(name: str) -> str:
    """The internal form of a name (clause B1): lower-case ASCII letters and digits, joined by `-`.

    The result is empty when the name has no such character.
    """
    return _OUTSIDE.sub("-", unicodedata.normalize("NFKC", name).lower()).strip("-")


def internal_name(name: str) -> str:
    """Like `normalize_name`, for a name that has to identify a job (clause B2).

    Raises:
        TypeError: `name` is no text.
        ValueError: nothing is left of it.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; the name of a job is a text")
    result = normalize_name(name)
    if not result:
        raise ValueError(f"name {name!r} has no letter a to z and no digit; a job needs at least one of them")
    return result


def title_from_function(function_name: str) -> str:
    """The display name of a workflow that was given none (clause B4)."""
    return function_name.replace("_", " ").title()


def validate_task_name(name: str) -> str:
    """Return the name of a task if it can serve as one.

    Any script, blanks, quotes and slashes are allowed; control characters are not, as names stand
    in single lines of logs and tables.

    Raises:
        TypeError: not a text.
        ValueError: blank, or with control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"task name is {name!r}; it must be a text")
    if not name.strip():
        raise ValueError(f"task name {name!r} is blank")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ValueError(f"task name {name!r} holds control characters")
    return name
