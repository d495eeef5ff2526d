"""What is wrong with an expression, and where."""

from __future__ import annotations

import unicodedata
from typing import Final

_BEFORE: Final = 40
"""Characters shown before the token at fault."""

_SHOWN: Final = 72
"""Characters shown in all; an expression may have thousands."""

_TOKEN: Final = 40
"""Longest token that a message repeats whole."""


class FilterError(ValueError):
    """A filter or sort expression cannot be understood (clause B281).

    Its text is one line that names the token and its column, the part of the expression with the
    token marked, and what to do about it.

    Attributes:
        part: `filter` or `sort`.
        problem: The first line without the column.
        token: The token at fault; empty at the end of the expression.
        position: Where it begins, counted in characters from 0.
        hint: What to write instead; may be empty.
    """

    def __init__(
        self, part: str, expression: str, problem: str, *, token: str = "", position: int, hint: str = ""
    ) -> None:
        self.part = part
        self.problem = problem
        self.token = token
        self.position = position
        self.hint = _printable(hint)
        self._marked = _marked(expression, position, len(token))
        super().__init__("\n".join([self.line, *self._marked, *([f"hint: {self.hint}"] if hint else [])]))

    @property
    def line(self) -> str:
        """Problem and column."""
        return f"{self.part}: {self.problem}, at column {self.position + 1}"

    @property
    def text(self) -> str:
        """All but the hint."""
        return "\n".join([self.line, *self._marked])


def quoted(token: str) -> str:
    """A token as messages show it: cut if long, nothing in it that a terminal would obey."""
    shown = token if len(token) <= _TOKEN else f"{token[: _TOKEN - 1]}…"
    return f"'{_printable(shown)}'"


def _marked(expression: str, position: int, length: int) -> list[str]:
    begin = max(0, position - _BEFORE)
    end = min(len(expression), begin + _SHOWN)
    before = ("…" if begin else "") + _printable(expression[begin:position])
    marked = _printable(expression[position : min(end, position + length)])
    after = _printable(expression[min(end, position + length) : end]) + ("…" if end < len(expression) else "")
    return [
        f"    {before}{marked}{after}".rstrip(),
        f"    {' ' * _width(before)}{'^' * max(1, _width(marked))}",
    ]


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def _width(text: str) -> int:
    """Cells of a terminal, so that the mark stands below its token in any script."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
