"""The grammar of filter and sort expressions: what they mean, and how mistakes are told."""

from __future__ import annotations

import pytest

from datatailr.filters import (
    GROUPS,
    JOBS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_VALUES,
    RUNS,
    USERS,
    And,
    Condition,
    FilterError,
    Listing,
    Not,
    Operator,
    Or,
    SortKey,
    parse_filter,
    parse_sort,
)


def equal(field: str, *values: str | int | float) -> Condition:
    return Condition(field, Operator.EQUAL, values)


A, B, C = equal("name", "a"), equal("name", "b"), equal("name", "c")


@pytest.mark.clause("B276", "B277", "B278", "B279")
@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("name = a", A),
        ("name == a", A),
        ("  name   =\ta  ", A),
        ("name = a or name = b and name = c", Or((A, And((B, C))))),
        ("name = a and name = b or name = c", Or((And((A, B)), C))),
        ("(name = a or name = b) and name = c", And((Or((A, B)), C))),
        ("( name = a )", A),
        ("not name = a and name = b", And((Not(A), B))),
        ("not (name = a and name = b)", Not(And((A, B)))),
        ("not not name = a", Not(Not(A))),
        ("(name = a and name = b) and name = c", And((A, B, C))),
        ("name = [a, b, c]", equal("name", "a", "b", "c")),
        ("name = [a,b , 'c']", equal("name", "a", "b", "c")),
        ("name starts_with [a, b]", Condition("name", Operator.STARTS_WITH, ("a", "b"))),
        ("name != a", Condition("name", Operator.UNEQUAL, ("a",))),
        ("version = [1, 2]", equal("version", 1, 2)),
        ("cpu >= 0.5", Condition("cpu", Operator.AT_LEAST, (0.5,))),
        ("create_time < -1e3", Condition("create_time", Operator.LESS, (-1000.0,))),
        ("create_time is_null", Condition("create_time", Operator.IS_NULL)),
        (
            "name is_not_null and version = 3",
            And((Condition("name", Operator.IS_NOT_NULL), equal("version", 3))),
        ),
        ('name = "and"', equal("name", "and")),
        ("name = 'a b (c) [d], e'", equal("name", "a b (c) [d], e")),
        (r'name = "say \"hi\" \\ \n"', equal("name", r'say "hi" \ \n')),
        (r"name = 'it\'s'", equal("name", "it's")),
        ("name = it's", equal("name", "it's")),
        ("name = ''", equal("name", "")),
        (r"name contains 100%_\x", Condition("name", Operator.CONTAINS, (r"100%_\x",))),
        ("name = =", equal("name", "=")),
        ("name = AND", equal("name", "AND")),
        ("state ends_with y", Condition("state", Operator.ENDS_WITH, ("y",))),
    ],
)
def test_meaning(text: str, tree: object) -> None:
    assert parse_filter(text, JOBS) == tree


@pytest.mark.clause("B276")
def test_blank_filter_is_none() -> None:
    assert parse_filter(" \n\t", JOBS) is None


@pytest.mark.clause("B281")
@pytest.mark.parametrize(
    ("text", "token", "position", "hint"),
    [
        ("nam = a", "nam", 0, "did you mean name?"),
        ("name=a", "name=a", 0, "put blanks around the operator: name = a"),
        ("name = a and stat = ready", "stat", 13, "did you mean state?"),
        ("name = a AND name = b", "AND", 9, "write and in small letters"),
        ("name = a b", "b", 9, "quoted"),
        ("name start_with a", "start_with", 5, "did you mean starts_with?"),
        ("name < 3", "<", 5, "starts_with"),
        ("cpu contains 3", "contains", 4, "<="),
        ("cpu = one", "one", 6, "cpu = 1000"),
        ("cpu = 1e999", "1e999", 6, ""),
        ("cpu = nan", "nan", 6, ""),
        ("cpu = ٣", "٣", 6, ""),
        ("cpu = 1_000", "1_000", 6, ""),
        ("state = runing", "runing", 8, "did you mean running?"),
        ("type = [batch, flow]", "flow", 15, "excel"),
        ("name = and", "and", 7, '"and"'),
        ("name = (", "(", 7, '"("'),
        ("name != [a]", "[", 8, "not name = [...]"),
        ("cpu < [1]", "[", 6, "one value"),
        ("name = []", "]", 8, ""),
        ("name = [a,]", "]", 10, ""),
        ("name = [a b]", "b", 10, "comma"),
        ("name = [a", "[", 7, "add ']'"),
        ("name = [", "[", 7, "add ']'"),
        ("name = [a,", "[", 7, "add ']'"),
        ("(name = a", "(", 0, "add ')'"),
        ("name = a)", ")", 8, "quotes"),
        ("()", ")", 1, "name = example"),
        ("name", "", 4, "starts_with"),
        ("name =", "", 6, '""'),
        ("not", "", 3, "name = example"),
        ("name = a and", "", 12, "name = example"),
        ("and name = a", "and", 0, "name = example"),
        ("= a", "=", 0, "name = example"),
        ("'name' = a", "'name'", 0, "without quotes"),
        ("name '=' a", "'='", 5, "blanks around"),
        ("name = 'it", "'it", 7, "close it"),
        ("name = 'a'b", "b", 10, "blank"),
        ("name = 'a'(", "(", 10, "blank"),
        ("name is_null a", "a", 13, ""),
        ("name = a\x00b", "\x00", 8, "control"),
        ("name = '\ud800'", "\ud800", 8, "control"),
        ("name = a; DROP TABLE runs", "DROP", 10, ""),
        ("name = a -- b", "--", 9, ""),
        ("1 = 1", "1", 0, "fields of job ls"),
    ],
)
def test_mistakes_name_their_token(text: str, token: str, position: int, hint: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, JOBS)

    error = caught.value
    assert (error.token, error.position) == (token, position)
    assert f"at column {position + 1}" in error.line
    assert hint in error.hint
    assert str(error).isprintable() or set(filter(lambda c: not c.isprintable(), str(error))) == {"\n"}


@pytest.mark.clause("B281")
def test_the_mark_stands_below_the_token_also_after_wide_characters() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter("name = 日本 und 1", JOBS)

    assert caught.value.text.splitlines()[1:] == ["    name = 日本 und 1", "                ^^^"]


@pytest.mark.clause("B281")
def test_long_expressions_are_shown_in_part() -> None:
    text = " and ".join(["name = a"] * 100) + " wrong " + "x" * 5000

    with pytest.raises(FilterError) as caught:
        parse_filter(text, JOBS)

    assert caught.value.token == "wrong"
    assert max(map(len, str(caught.value).splitlines())) < 200


@pytest.mark.clause("B281")
@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("x" * (MAX_LENGTH + 1), MAX_LENGTH),
        ("(" * (MAX_DEPTH + 1) + "name = a" + ")" * (MAX_DEPTH + 1), MAX_DEPTH),
        ("not " * (MAX_DEPTH + 1) + "name = a", MAX_DEPTH * 4),
        (" or ".join(["cpu = 1"] * (MAX_CONDITIONS + 1)), 0),
        (f"name contains [{','.join(map(str, range(MAX_CONDITIONS + 1)))}]", 0),
        (f"cpu = [{','.join(map(str, range(MAX_VALUES + 1)))}]", 0),
    ],
)
def test_bounds(text: str, position: int) -> None:
    with pytest.raises(FilterError, match=r"more than|at most") as caught:
        parse_filter(text, JOBS)

    assert caught.value.position >= position


@pytest.mark.clause("B281")
def test_what_is_just_within_the_bounds_is_read() -> None:
    parse_filter("(" * MAX_DEPTH + "name = a" + ")" * MAX_DEPTH, JOBS)
    parse_filter(" or ".join(["cpu = 1"] * MAX_CONDITIONS), JOBS)
    parse_filter(f"cpu = [{','.join(map(str, range(MAX_VALUES)))}]", JOBS)
    assert parse_filter(f"name = {'x' * 10_000}", JOBS) == equal("name", "x" * 10_000)


@pytest.mark.clause("B280")
@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (JOBS, "name display_name id type state environment run_as create_time cpu memory version"),
        (RUNS, "name state type environment job_id run_id submit_time start_time scheduled_time end_time"),
        (USERS, "name user_id email"),
        (GROUPS, "name group_id"),
    ],
)
def test_fields(listing: Listing, names: str) -> None:
    assert set(listing.fields) == set(names.split())

    for name in names.split():
        assert parse_filter(f"{name} is_not_null", listing) == Condition(name, Operator.IS_NOT_NULL)
        assert parse_sort(name, listing) == (SortKey(name),)


@pytest.mark.clause("B277")
@pytest.mark.parametrize("listing", [JOBS, RUNS, USERS, GROUPS], ids=lambda listing: listing.name)
def test_operators_fit_the_type(listing: Listing) -> None:
    for field in listing.fields.values():
        value = "1" if field.numeric else field.words[0] if field.words else "x"

        for operator in Operator:
            text = f"{field.name} {operator.value} {value if operator.takes_value else ''}"

            if operator.textual if field.numeric else operator.ordering:
                with pytest.raises(FilterError, match="does not fit"):
                    parse_filter(text, listing)
            else:
                assert parse_filter(text, listing) is not None


@pytest.mark.clause("B282")
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ()),
        ("name", (SortKey("name"),)),
        ("-create_time +name cpu", (SortKey("create_time", True), SortKey("name"), SortKey("cpu"))),
    ],
)
def test_sort(text: str, keys: tuple[SortKey, ...]) -> None:
    assert parse_sort(text, JOBS) == keys


@pytest.mark.clause("B281", "B282")
@pytest.mark.parametrize(
    ("text", "token", "position"),
    [
        ("nam", "nam", 0),
        ("name -versoin", "versoin", 6),
        ("--name", "-name", 1),
        ("-", "-", 0),
        ("name,cpu", ",", 4),
        ("'name'", "'name'", 0),
        ("name -name", "-name", 5),
        ("name desc", "desc", 5),
        ("x" * (MAX_LENGTH + 5), "xxxxx", MAX_LENGTH),
    ],
)
def test_sort_mistakes(text: str, token: str, position: int) -> None:
    with pytest.raises(FilterError, match=r"^sort: ") as caught:
        parse_sort(text, JOBS)

    assert (caught.value.token, caught.value.position) == (token, position)
