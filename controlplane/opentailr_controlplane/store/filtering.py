"""From the trees of filter and sort expressions to SQL with bound parameters (clauses B276 to B282).

Values never become part of a statement's text. Times are 0 in the tables where they are null for people, so a
comparison leaves 0 out; a field that is null fits `is_null` and `!=` and nothing else, and `not` turns that
around. Words (state, type, environment) are numbers in the tables: what an operator asks of the word is
decided here, so that an index on the number serves `state starts_with fail` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    case,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    true,
)

from datatailr.filters import JOBS, RUNS, And, Condition, Expression, Field, Not, Operator, SortKey

from ..core.people import IMAGE_STATES
from ..core.values import Environment, JobType, PeopleState
from .schema import definitions, images, jobs, runs, versions

FOLD: Final = "casefold_text"
"""Function that a connection must have for filters: a text without case, in any script."""

Column = ColumnElement[Any]

_NULL: Final = literal_column("0", Integer)
"""A time that is not reached. Not a parameter: indexes leave such rows out by a condition written so."""


@dataclass(frozen=True)
class Source:
    """Where a field's values are.

    Args:
        field: The field.
        columns: One column, or several texts of which any may fit.
        words: For fields with words: their numbers in the column.
        nullable: 0 in the column means null.
        plain: A text of ASCII characters only.
        cursor: Type of the value in page tokens.
    """

    field: Field
    columns: tuple[Column, ...]
    words: Mapping[str, int] | None = None
    nullable: bool = False
    plain: bool = False
    cursor: type = int

    @property
    def order(self) -> Column:
        """What the field is sorted by; words by their text, as they are shown."""
        column = self.columns[0]
        if self.words is None:
            return column
        ranks = {self.words[word]: rank for rank, word in enumerate(sorted(self.words))}
        ascending = sorted(ranks, key=lambda number: ranks[number])
        return column if ascending == sorted(ascending) else case(ranks, value=column, else_=-1)


@dataclass(frozen=True)
class Order:
    """One term of an order: an expression, its direction, and the type of its value in page tokens."""

    expression: Column
    descending: bool
    cursor: type


def condition(
    expression: Expression, sources: Mapping[str, Source], *, negated: bool = False
) -> ColumnElement[bool]:
    """The expression, or with `negated` its opposite, as a condition on the tables of the sources.

    `not` moves to the single conditions, since the database's parser takes few levels of it.
    """
    if isinstance(expression, Not):
        return condition(expression.part, sources, negated=not negated)
    if isinstance(expression, Condition):
        compared = _compare(expression, sources[expression.field])
        return not_(compared) if negated else compared
    parts = [condition(part, sources, negated=negated) for part in expression.parts]
    return and_(*parts) if isinstance(expression, And) is not negated else or_(*parts)


def order(
    keys: Sequence[SortKey], sources: Mapping[str, Source], ties: Sequence[tuple[str, bool]]
) -> list[Order]:
    """The terms of an order.

    Args:
        keys: What was asked for.
        sources: The fields.
        ties: Fields, with True for descending, that together are unique; those not asked for follow
            at the end, so that each row has its own place.
    """
    asked = {key.field for key in keys}
    terms = [(key.field, key.descending) for key in keys]
    terms += [(field, descending) for field, descending in ties if field not in asked]
    return [Order(sources[name].order, descending, sources[name].cursor) for name, descending in terms]


def after(terms: Sequence[Order], values: Sequence[Any]) -> ColumnElement[bool]:
    """What comes after the row with these values in the order."""
    first, value = terms[0], values[0]
    beyond = _beyond(first, value)
    if len(terms) == 1:
        return beyond
    same = and_(first.expression == value, after(terms[1:], values[1:]))
    # The first part says nothing new, but lets an index find where to go on.
    bound = first.expression <= value if first.descending else first.expression >= value
    return and_(bound, or_(beyond, same))


def _beyond(term: Order, value: Any) -> ColumnElement[bool]:
    less: ColumnElement[bool] = term.expression < value
    more: ColumnElement[bool] = term.expression > value
    return less if term.descending else more


def _compare(asked: Condition, source: Source) -> ColumnElement[bool]:
    if asked.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        null = asked.operator is Operator.IS_NULL
        if not source.nullable:
            return false() if null else true()
        column = source.columns[0]
        return column == _NULL if null else column > _NULL
    if source.words is not None:
        return _compare_word(asked, source.words, source.columns[0])
    if source.field.numeric:
        return _compare_number(asked, source)
    if asked.operator is Operator.UNEQUAL:
        return and_(*(column != asked.values[0] for column in source.columns))
    if asked.operator is Operator.EQUAL:
        return or_(*(_among(column, asked.values) for column in source.columns))
    return or_(
        false(),
        *(
            _look_into(column, asked.operator, str(value), plain=source.plain)
            for column in source.columns
            for value in asked.values
        ),
    )


def _compare_word(asked: Condition, words: Mapping[str, int], column: Column) -> ColumnElement[bool]:
    if asked.operator is Operator.UNEQUAL:
        return column != words[str(asked.values[0])]
    numbers = [
        number
        for word, number in words.items()
        if any(_word_fits(word, asked.operator, str(value)) for value in asked.values)
    ]
    return _among(column, numbers) if numbers else false()


def _word_fits(word: str, operator: Operator, value: str) -> bool:
    if operator is Operator.EQUAL:
        return word == value
    value = value.casefold()
    if operator is Operator.STARTS_WITH:
        return word.startswith(value)
    if operator is Operator.ENDS_WITH:
        return word.endswith(value)
    return value in word


def _compare_number(asked: Condition, source: Source) -> ColumnElement[bool]:
    column, value = source.columns[0], asked.values[0]
    if asked.operator is Operator.UNEQUAL:
        # Null differs from every number, 0 too.
        return true() if source.nullable and value == 0 else column != value
    if asked.operator is Operator.EQUAL:
        values = [number for number in asked.values if not (source.nullable and number == 0)]
        found = _among(column, values) if values else false()
        return and_(found, column > _NULL) if source.nullable else found
    compared: dict[Operator, ColumnElement[bool]] = {
        Operator.LESS: column < value,
        Operator.AT_MOST: column <= value,
        Operator.GREATER: column > value,
        Operator.AT_LEAST: column >= value,
    }
    return and_(compared[asked.operator], column > _NULL) if source.nullable else compared[asked.operator]


def _look_into(column: Column, operator: Operator, value: str, *, plain: bool) -> ColumnElement[bool]:
    """Part of a text, without case; no pattern, so that `%` and `_` are plain characters (clause B277)."""
    wanted = value.casefold()
    if not wanted:
        return true()
    if wanted.isascii():
        # The database's own function knows ASCII only, which is all that can fit, and is much faster.
        folded = func.lower(column)
    elif plain:
        return false()
    else:
        folded = getattr(func, FOLD)(column)
    if operator is Operator.STARTS_WITH:
        return func.substr(folded, 1, len(wanted)) == wanted
    if operator is Operator.ENDS_WITH:
        return func.substr(folded, -len(wanted)) == wanted
    return func.instr(folded, wanted) > 0


def _among(column: Column, values: Sequence[Any]) -> ColumnElement[bool]:
    return column == values[0] if len(values) == 1 else column.in_(list(values))


_STATES = {state.name.lower(): int(state) for state in PeopleState if state is not PeopleState.DID_NOT_RUN}
_TYPES = {kind.text: int(kind) for kind in JobType}
_ENVIRONMENTS = {place.text: int(place) for place in Environment}

_VERSION_STATE = case(
    (jobs.c.scheduled_version == versions.c.version, int(PeopleState.SCHEDULED)),
    else_=func.coalesce(
        case({int(image): int(seen) for image, seen in IMAGE_STATES.items()}, value=images.c.state),
        int(PeopleState.CREATED),
    ),
)
"""State of a version as people see it, the same as `core.people.version_state` says of records."""


def _header(*path: str) -> Column:
    return func.json_extract(definitions.c.header, literal(".".join(("$", *path))))


def _sources(fields: Mapping[str, Field], **sources: dict[str, Any]) -> dict[str, Source]:
    return {name: Source(fields[name], **sources[name]) for name in fields}


JOB_SOURCES: Final = _sources(
    JOBS.fields,
    name={"columns": (jobs.c.name,), "plain": True, "cursor": str},
    display_name={"columns": (_header("display_name"),), "cursor": str},
    id={"columns": (jobs.c.job_id,), "plain": True, "cursor": str},
    type={"columns": (jobs.c.type,), "words": _TYPES},
    state={"columns": (_VERSION_STATE,), "words": _STATES},
    environment={"columns": (jobs.c.environment,), "words": _ENVIRONMENTS},
    run_as={"columns": (_header("run_as"),), "cursor": str},
    create_time={"columns": (versions.c.create_time,), "nullable": True},
    cpu={"columns": (_header("resources", "cpu"),), "cursor": float},
    memory={"columns": (_header("resources", "memory_bytes"),)},
    version={"columns": (versions.c.version,)},
)
"""Fields of `dt job ls`, over `jobs`, the version shown of each, its definition and image."""

RUN_SOURCES: Final = _sources(
    RUNS.fields,
    # People write either of the two, and both name the same job.
    name={"columns": (runs.c.job_name, runs.c.display_name), "cursor": str},
    state={"columns": (runs.c.people_state,), "words": _STATES},
    type={"columns": (runs.c.type,), "words": _TYPES},
    environment={"columns": (runs.c.environment,), "words": _ENVIRONMENTS},
    job_id={"columns": (runs.c.job_id,), "plain": True, "cursor": str},
    run_id={"columns": (runs.c.run_id,)},
    submit_time={"columns": (runs.c.submit_time,), "nullable": True},
    start_time={"columns": (runs.c.start_time,), "nullable": True},
    scheduled_time={"columns": (runs.c.scheduled_time,), "nullable": True},
    end_time={"columns": (runs.c.end_time,), "nullable": True},
)
"""Fields of `dt job runs`, over `runs`."""
