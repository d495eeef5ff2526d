"""The tree of an expression, and its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

KEYWORDS: Final = frozenset({"and", "or", "not"})
"""Words that a value must be quoted to be (clause B279)."""

SPECIAL: Final = frozenset("()[],")
"""Characters that end a bare word."""

QUOTES: Final = frozenset("\"'")


class Operator(Enum):
    """What a condition asks (clause B277); `==` is read as `=`."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    CONTAINS = "contains"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"

    @property
    def ordering(self) -> bool:
        """True for the four that compare numbers."""
        return self in _ORDERING

    @property
    def textual(self) -> bool:
        """True for the three that look into a text, without regard to case."""
        return self in _TEXTUAL

    @property
    def takes_value(self) -> bool:
        """False for the two that ask whether there is a value at all."""
        return self not in (Operator.IS_NULL, Operator.IS_NOT_NULL)

    @property
    def takes_list(self) -> bool:
        """True where `[a, b]` may stand: any of the values fits (clause B278)."""
        return self is Operator.EQUAL or self in _TEXTUAL


_ORDERING = frozenset({Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST})
_TEXTUAL = frozenset({Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.CONTAINS})

Value = str | int | float


@dataclass(frozen=True)
class Condition:
    """`field operator value`.

    Attributes:
        field: Name of the field.
        operator: What is asked.
        values: Texts or numbers as the field has them. More than one: any of them fits. None for
            `is_null` and `is_not_null`.
    """

    field: str
    operator: Operator
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Not:
    """What does not fit `part`."""

    part: Expression


@dataclass(frozen=True)
class And:
    """What fits all parts, at least two."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """What fits one of the parts, at least two."""

    parts: tuple[Expression, ...]


Expression = Condition | Not | And | Or


@dataclass(frozen=True)
class SortKey:
    """One field to sort by (clause B282)."""

    field: str
    descending: bool = False


def filter_text(expression: Expression) -> str:
    """The expression as text; reading it gives the same tree."""
    if isinstance(expression, Condition):
        return _condition_text(expression)

    if isinstance(expression, Not):
        return f"not {_grouped(expression.part, (And, Or))}"

    if isinstance(expression, And):
        return " and ".join(_grouped(part, (And, Or)) for part in expression.parts)

    return " or ".join(_grouped(part, (Or,)) for part in expression.parts)


def sort_text(keys: Iterable[SortKey]) -> str:
    """The keys as text; reading it gives the same keys."""
    return " ".join(f"-{key.field}" if key.descending else key.field for key in keys)


def _grouped(part: Expression, kinds: tuple[type, ...]) -> str:
    text = filter_text(part)
    return f"({text})" if isinstance(part, kinds) else text


def _condition_text(condition: Condition) -> str:
    head = f"{condition.field} {condition.operator.value}"

    if not condition.operator.takes_value:
        return head

    values = [_value_text(value) for value in condition.values]
    return f"{head} {values[0]}" if len(values) == 1 else f"{head} [{', '.join(values)}]"


def _value_text(value: Value) -> str:
    if not isinstance(value, str):
        return repr(value)

    plain = (
        value
        and value not in KEYWORDS
        and value[0] not in QUOTES
        and not any(character in SPECIAL or character.isspace() for character in value)
    )

    if plain:
        return value

    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
