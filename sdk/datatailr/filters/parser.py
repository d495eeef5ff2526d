"""From tokens to the tree, with every mistake named by its token (clauses B276 to B282)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Final, NoReturn

from datatailr.filters.errors import FilterError, quoted
from datatailr.filters.expressions import (
    KEYWORDS,
    And,
    Condition,
    Expression,
    Not,
    Operator,
    Or,
    SortKey,
    Value,
)
from datatailr.filters.fields import Field, Kind, Listing
from datatailr.filters.tokens import Token, TokenKind, tokens

MAX_LENGTH: Final = 16_384
"""Most characters of an expression."""

MAX_DEPTH: Final = 20
"""Most groups and `not` within one another."""

MAX_CONDITIONS: Final = 200
"""Most conditions; one with a list and an operator on text counts once for each value."""

MAX_VALUES: Final = 1_000
"""Most values in all lists together."""

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_SPELLINGS: Final = {**{operator.value: operator for operator in Operator}, "==": Operator.EQUAL}


def parse_filter(text: str, listing: Listing) -> Expression | None:
    """Reads a filter.

    Args:
        text: The expression; None comes back for one of blanks only.
        listing: What is filtered.

    Raises:
        FilterError: the expression has a mistake; names its token and position.
    """
    _check_length("filter", text)
    return _Parser(text, listing).whole()


def parse_sort(text: str, listing: Listing) -> tuple[SortKey, ...]:
    """Reads a sort expression: `-a +b c`, the first field counts most (clause B282).

    Args:
        text: The expression; blank means no order of its own.
        listing: What is sorted.

    Raises:
        FilterError: the expression has a mistake; names its token and position.
    """
    _check_length("sort", text)
    keys: list[SortKey] = []

    for token in tokens(text, "sort")[:-1]:
        name = token.text[1:] if token.text[0] in "+-" else token.text

        if token.kind is not TokenKind.WORD or not name:
            raise FilterError(
                "sort",
                text,
                f"{quoted(token.text)} is no field",
                token=token.text,
                position=token.position,
                hint="write fields with blanks between them, each with - (descending) or + before it",
            )

        if name not in listing.fields:
            position = token.position + len(token.text) - len(name)
            _refuse_field("sort", text, name, position, listing)

        if any(key.field == name for key in keys):
            raise FilterError(
                "sort",
                text,
                f"field {quoted(name)} is there twice",
                token=token.text,
                position=token.position,
                hint="leave the second one out",
            )

        keys.append(SortKey(name, token.text[0] == "-"))

    return tuple(keys)


class _Parser:
    """Recursive descent; `or` is the weakest, then `and`, then `not`."""

    def __init__(self, text: str, listing: Listing) -> None:
        self._text = text
        self._listing = listing
        self._tokens = tokens(text, "filter")
        self._next = 0
        self._depth = 0
        self._conditions = 0
        self._values = 0

    def whole(self) -> Expression | None:
        if self._peek().kind is TokenKind.END:
            return None

        expression = self._either()
        rest = self._peek()

        if rest.kind is not TokenKind.END:
            self._refuse_rest(rest)

        return expression

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _either(self) -> Expression:
        parts = [self._all()]

        while self._peek().is_word("or"):
            self._take()
            parts.append(self._all())

        return parts[0] if len(parts) == 1 else Or(_flat(parts, Or))

    def _all(self) -> Expression:
        parts = [self._one()]

        while self._peek().is_word("and"):
            self._take()
            parts.append(self._one())

        return parts[0] if len(parts) == 1 else And(_flat(parts, And))

    def _one(self) -> Expression:
        token = self._peek()

        if not (token.is_word("not") or token.is_mark("(")):
            return self._condition()

        self._take()
        self._depth += 1

        if self._depth > MAX_DEPTH:
            self._refuse(
                token,
                f"{quoted(token.text)} begins more than {MAX_DEPTH} groups within one another",
                "write it flatter",
            )

        if token.is_mark("("):
            inner = self._either()
            self._close(token)
        else:
            inner = Not(self._one())

        self._depth -= 1
        return inner

    def _close(self, opening: Token) -> None:
        token = self._take()

        if token.kind is TokenKind.END:
            self._refuse(opening, "this '(' is not closed", "add ')'")

        if not token.is_mark(")"):
            self._refuse_rest(token)

    def _condition(self) -> Condition:
        field = self._field()
        operator = self._operator(field)

        if not operator.takes_value:
            self._count(self._tokens[self._next - 1], 1)
            return Condition(field.name, operator)

        first = self._peek()
        values = self._list(field, operator) if first.is_mark("[") else (self._value(field, operator),)
        self._count(first, len(values) if operator.textual else 1)
        return Condition(field.name, operator, values)

    def _field(self) -> Field:
        token = self._take()

        if token.kind is TokenKind.END:
            self._refuse(token, "a condition is missing", f"write for instance {self._example()}")

        if token.kind is TokenKind.QUOTED:
            self._refuse(
                token, f"{quoted(token.text)} stands where a field must", "write fields without quotes"
            )

        if token.kind is TokenKind.MARK or token.text in KEYWORDS or token.text in _SPELLINGS:
            self._refuse(
                token,
                f"{quoted(token.text)} stands where a condition must begin",
                f"write for instance {self._example()}",
            )

        field = self._listing.fields.get(token.text)

        if field is None:
            _refuse_field("filter", self._text, token.text, token.position, self._listing)

        return field

    def _operator(self, field: Field) -> Operator:
        token = self._take()
        fitting = " ".join(operator.value for operator in field.operators)

        if token.kind is TokenKind.END:
            self._refuse(token, f"an operator is missing after {quoted(field.name)}", f"one of {fitting}")

        operator = None if token.kind is TokenKind.QUOTED else _SPELLINGS.get(token.text)

        if operator is None:
            hint = _near(token.text, [name for name in _SPELLINGS if len(name) > 2])
            self._refuse(
                token,
                f"{quoted(token.text)} is no operator",
                hint or f"{field.name} takes {fitting}, with blanks around",
            )

        if operator not in field.operators:
            self._refuse(
                token,
                f"operator {quoted(token.text)} does not fit {quoted(field.name)}, "
                f"which is a {'number' if field.numeric else 'text'}",
                f"{field.name} takes {fitting}",
            )

        return operator

    def _list(self, field: Field, operator: Operator) -> tuple[Value, ...]:
        opening = self._take()

        if not operator.takes_list:
            self._refuse(
                opening,
                f"operator {quoted(operator.value)} takes one value, not a list",
                f"write: not {field.name} = [...]" if operator is Operator.UNEQUAL else "give one value",
            )

        values: list[Value] = []

        while True:
            if self._peek().kind is TokenKind.END:
                self._refuse(opening, "this '[' is not closed", "add ']'")

            values.append(self._value(field, operator))
            self._values += 1
            token = self._take()

            if self._values > MAX_VALUES:
                self._refuse(
                    token,
                    f"more than {MAX_VALUES:,} values in lists before {quoted(token.text)}",
                    "ask in several steps",
                )

            if token.is_mark("]"):
                return tuple(dict.fromkeys(values))

            if token.kind is TokenKind.END:
                self._refuse(opening, "this '[' is not closed", "add ']'")

            if not token.is_mark(","):
                self._refuse(
                    token, f"{quoted(token.text)} stands where ',' or ']' must", "put a comma between values"
                )

    def _value(self, field: Field, operator: Operator) -> Value:
        token = self._take()
        before = f"{field.name} {operator.value}"

        if token.kind is TokenKind.END:
            self._refuse(token, f"a value is missing after {quoted(before)}", 'an empty text is ""')

        if token.kind is TokenKind.MARK or (token.kind is TokenKind.WORD and token.text in KEYWORDS):
            self._refuse(
                token,
                f"{quoted(token.text)} stands where a value must",
                f'put it in quotes if it is the value: {before} "{token.text}"',
            )

        if field.numeric:
            return self._number(token, field)

        if field.kind is Kind.WORD and not operator.textual and token.value not in field.words:
            self._refuse(
                token,
                f"{quoted(token.text)} is no {field.name}",
                _near(token.value, field.words) or f"there are {', '.join(field.words)}",
            )

        return token.value

    def _number(self, token: Token, field: Field) -> int | float:
        value = token.value

        if _INTEGER.fullmatch(value):
            return int(value)

        number = float(value) if len(value) < 400 and _NUMBER.fullmatch(value) else math.inf

        if math.isinf(number):
            meaning = ", in microseconds since 1970" if field.kind is Kind.TIME else ""
            self._refuse(
                token,
                f"{quoted(token.text)} is no number, and {quoted(field.name)} is one{meaning}",
                f"write for instance {field.name} = 1000",
            )

        return number

    def _count(self, token: Token, conditions: int) -> None:
        self._conditions += conditions

        if self._conditions > MAX_CONDITIONS:
            self._refuse(
                token,
                f"more than {MAX_CONDITIONS} conditions with {quoted(token.text)}",
                "use a list: name = [a, b, c]",
            )

    def _example(self) -> str:
        return f"{next(iter(self._listing.fields))} = example"

    def _refuse_rest(self, token: Token) -> NoReturn:
        if token.is_mark(")"):
            self._refuse(token, "this ')' was never opened", "remove it, or put it in quotes")

        before = self._tokens[max(0, self._tokens.index(token) - 1)]
        hint = "join conditions with and, or; put a value with blanks or any of ( ) [ ] , in quotes"

        if token.kind is TokenKind.WORD and token.text.lower() in KEYWORDS:
            hint = f"write {token.text.lower()} in small letters"
        elif before.kind is TokenKind.WORD and token.kind is TokenKind.WORD and token.text not in KEYWORDS:
            hint = f'join conditions with and, or; a value with blanks is quoted: "{before.text[:40]} …"'

        self._refuse(token, f"{quoted(token.text)} stands where 'and', 'or' or the end must", hint)

    def _refuse(self, token: Token, problem: str, hint: str) -> NoReturn:
        raise FilterError("filter", self._text, problem, token=token.text, position=token.position, hint=hint)


def _flat(parts: Iterable[Expression], kind: type[And] | type[Or]) -> tuple[Expression, ...]:
    """Parts of the same kind joined: `(a and b) and c` is `a and b and c`."""
    flat: list[Expression] = []

    for part in parts:
        if isinstance(part, (And, Or)) and isinstance(part, kind):
            flat.extend(part.parts)
        else:
            flat.append(part)

    return tuple(flat)


def _refuse_field(part: str, text: str, name: str, position: int, listing: Listing) -> NoReturn:
    known = ", ".join(listing.fields)
    joined = next((mark for mark in ("!=", "<=", ">=", "=", "<", ">") if mark in name), None)

    if joined is not None:
        hint = f"put blanks around the operator: {name[:60].replace(joined, f' {joined} ', 1)}"
    else:
        hint = f"{_near(name, listing.fields)} fields of {listing.name}: {known}".strip()

    raise FilterError(
        part,
        text,
        f"{listing.name} has no field {quoted(name)}",
        token=name,
        position=position,
        hint=hint,
    )


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _check_length(part: str, text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise FilterError(
            part,
            text,
            f"the expression has {len(text):,} characters; at most {MAX_LENGTH:,} are read, "
            f"so it would end before {quoted(text[MAX_LENGTH : MAX_LENGTH + 20])}",
            token=text[MAX_LENGTH : MAX_LENGTH + 20],
            position=MAX_LENGTH,
            hint="ask in several steps",
        )
