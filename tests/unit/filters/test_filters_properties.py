"""Filter and sort expressions made at random: what is printed is read again; what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datatailr.filters import (
    JOBS,
    MAX_LENGTH,
    RUNS,
    And,
    Condition,
    Expression,
    Field,
    FilterError,
    Listing,
    Not,
    Or,
    SortKey,
    filter_text,
    parse_filter,
    parse_sort,
    sort_text,
)

LISTINGS = st.sampled_from([JOBS, RUNS])
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20) | st.sampled_from(
    ["and", "or", "not", "'", '"', "\\", '\\"', "%_", "[a, b]", "(", "", " ", "= x or 1 = 1"]
)
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1) | st.floats(allow_nan=False, allow_infinity=False)
FRAGMENTS = st.sampled_from(
    [
        *(
            "name",
            "state",
            "run_id",
            "=",
            "==",
            "!=",
            "<",
            "contains",
            "is_null",
            "and",
            "or",
            "not",
            "(",
            ")",
        ),
        *(
            "[",
            "]",
            ",",
            "'",
            '"',
            "\\",
            "a",
            "failed",
            "3",
            "-1e5",
            " ",
            "  ",
            "; DROP TABLE runs --",
            "日本",
        ),
        *("\x00", "\ud800", "' OR '1'='1", "%s", "?", ":name", "\N{RIGHT-TO-LEFT OVERRIDE}", "x" * 2000),
    ]
)


@st.composite
def conditions(draw: st.DrawFn, listing: Listing) -> Condition:
    field: Field = draw(st.sampled_from(list(listing.fields.values())))
    operator = draw(st.sampled_from(field.operators))

    if not operator.takes_value:
        return Condition(field.name, operator)

    if field.numeric:
        values: st.SearchStrategy[str | int | float] = NUMBERS
    elif field.words and not operator.textual:
        values = st.sampled_from(field.words)
    else:
        values = TEXTS

    most = 4 if operator.takes_list else 1
    found = draw(st.lists(values, min_size=1, max_size=most, unique=True))
    return Condition(field.name, operator, tuple(found))


def trees(listing: Listing) -> st.SearchStrategy[Expression]:
    """Trees in the form that reading gives: no `and` directly in an `and`, no `or` in an `or`."""

    def grow(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        not_and = children.filter(lambda part: not isinstance(part, And))
        not_or = children.filter(lambda part: not isinstance(part, Or))
        return st.one_of(
            children.map(Not),
            st.lists(not_and, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(not_or, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
        )

    return st.recursive(conditions(listing), grow, max_leaves=8)


@pytest.mark.clause("B276", "B277", "B278", "B279")
@settings(deadline=None)
@given(st.data(), LISTINGS)
def test_what_is_printed_is_read_again(data: st.DataObject, listing: Listing) -> None:
    tree = data.draw(trees(listing))
    text = filter_text(tree)
    assert parse_filter(text, listing) == tree
    assert parse_filter(f"({text})", listing) == tree


@pytest.mark.clause("B282")
@settings(deadline=None)
@given(st.data(), LISTINGS)
def test_sort_keys_are_read_again(data: st.DataObject, listing: Listing) -> None:
    names = data.draw(st.lists(st.sampled_from(list(listing.fields)), unique=True))
    keys = tuple(SortKey(name, data.draw(st.booleans())) for name in names)
    assert parse_sort(sort_text(keys), listing) == keys


@pytest.mark.clause("B281")
@settings(deadline=None)
@given(
    (
        st.lists(FRAGMENTS, max_size=30).map(" ".join)
        | st.lists(FRAGMENTS, max_size=30).map("".join)
        | st.text()
    ),
    LISTINGS,
)
def test_any_text_is_understood_or_its_token_named(text: str, listing: Listing) -> None:
    _check_mistake("filter", parse_filter, text, listing)
    _check_mistake("sort", parse_sort, text, listing)


def _check_mistake(part: str, read: Callable[[str, Listing], object], text: str, listing: Listing) -> None:
    try:
        read(text, listing)
    except FilterError as error:
        assert 0 <= error.position <= len(text)
        assert text[error.position :].startswith(error.token)
        assert error.token or error.position == len(text)
        message = str(error)
        assert message.startswith(f"{part}: ")
        assert all(character.isprintable() or character == "\n" for character in message)
        assert len(message) < 1500
        message.encode()


@pytest.mark.clause("B277", "B281")
@settings(deadline=None, max_examples=30)
@given(st.text("ab ()[],'\"\\=!<>-", min_size=1, max_size=30), st.integers(8_000, MAX_LENGTH))
def test_thousands_of_characters_are_read_or_named(text: str, length: int) -> None:
    expression = (text * length)[:length]

    try:
        tree = parse_filter(expression, RUNS)
    except FilterError as error:
        assert expression[error.position :].startswith(error.token)
        assert len(str(error)) < 1500
    else:
        assert tree is None
