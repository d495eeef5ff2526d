"""From the text of an expression to tokens."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import Enum

from datatailr.filters.errors import FilterError, quoted
from datatailr.filters.expressions import QUOTES, SPECIAL


class TokenKind(Enum):
    """What a token is before anything is known of its place."""

    WORD = "word"
    QUOTED = "quoted"
    MARK = "mark"
    """One of `( ) [ ] ,`."""

    END = "end"


@dataclass(frozen=True)
class Token:
    """A token.

    Attributes:
        kind: What it is.
        text: As it was written, with its quotes.
        value: What it says, without quotes and escapes.
        position: Where it begins, in characters from 0.
    """

    kind: TokenKind
    text: str
    value: str
    position: int

    def is_mark(self, mark: str) -> bool:
        """True for this one of `( ) [ ] ,`."""
        return self.kind is TokenKind.MARK and self.text == mark

    def is_word(self, word: str) -> bool:
        """True for this bare word; a quoted one is never a keyword (clause B279)."""
        return self.kind is TokenKind.WORD and self.text == word


def tokens(text: str, part: str) -> list[Token]:
    """The tokens of an expression, with one of kind `END` last.

    Args:
        text: The expression.
        part: `filter` or `sort`, for messages.

    Raises:
        FilterError: a quote without its end, text right after one, or a control character.
    """
    found: list[Token] = []
    position = 0

    while position < len(text):
        character = text[position]

        if character.isspace():
            position += 1
        elif character in SPECIAL:
            found.append(Token(TokenKind.MARK, character, character, position))
            position += 1
        else:
            read = _quoted if character in QUOTES else _word
            token = read(text, position, part)
            _refuse_control(token, text, part)
            found.append(token)
            position += len(token.text)

    found.append(Token(TokenKind.END, "", "", len(text)))
    return found


def _word(text: str, begin: int, part: str) -> Token:
    end = begin

    while end < len(text) and text[end] not in SPECIAL and not text[end].isspace():
        end += 1

    return Token(TokenKind.WORD, text[begin:end], text[begin:end], begin)


def _quoted(text: str, begin: int, part: str) -> Token:
    quote, position = text[begin], begin + 1
    value: list[str] = []

    while position < len(text) and text[position] != quote:
        if text[position] == "\\" and text[position + 1 : position + 2] in ('"', "'", "\\"):
            position += 1

        value.append(text[position])
        position += 1

    if position >= len(text):
        raise FilterError(
            part,
            text,
            f"the quote of {quoted(text[begin:])} does not end",
            token=text[begin:],
            position=begin,
            hint=f"close it with {quote} and write {quote} inside as \\{quote}",
        )

    end = position + 1

    if end < len(text) and not text[end].isspace() and text[end] not in ")],":
        rest = _word(text, end, part).text or text[end]
        raise FilterError(
            part,
            text,
            f"{quoted(rest)} stands right after a closing quote",
            token=rest,
            position=end,
            hint=f"leave a blank between them, or write {quote} inside a quoted value as \\{quote}",
        )

    return Token(TokenKind.QUOTED, text[begin:end], "".join(value), begin)


def _refuse_control(token: Token, text: str, part: str) -> None:
    for offset, character in enumerate(token.text):
        if unicodedata.category(character) in ("Cc", "Cs") and not character.isspace():
            raise FilterError(
                part,
                text,
                f"character {ord(character):#06x} cannot be part of {quoted(token.text)}",
                token=character,
                position=token.position + offset,
                hint="names and values hold no control characters",
            )
