"""What the database finds for an expression is what its words say, checked against a reading in Python."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import NullPool
from test_filters_properties import trees

from datatailr.filters import (
    RUNS,
    And,
    Condition,
    Expression,
    Not,
    Operator,
    Or,
    SortKey,
    parse_filter,
    parse_sort,
)
from opentailr_controlplane.core.rows import RunRow
from opentailr_controlplane.core.values import Environment, JobType, PeopleState
from opentailr_controlplane.store import schema
from opentailr_controlplane.store.filtering import FOLD
from opentailr_controlplane.store.listings import Page, RunQuery
from opentailr_controlplane.store.reads import Reads

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = (
    ("my-flow", "My Flow"),
    ("flow-2", "100%_flow\\2"),
    ("n-code", "Ünï Code"),
    ("and", "and"),
    ("x", 'it\'s "x" (1) [a, b]'),
)


def row(run_id: int, **changes: object) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(RunRow._fields, 0)
    values |= {column.name: "" for column in schema.runs.c if column.type.python_type is str}
    name, display_name = NAMES[run_id % len(NAMES)]
    return values | {
        "run_id": run_id,
        "job_id": f"job_{run_id % 3}",
        "job_name": name,
        "display_name": display_name,
        "environment": 1 + run_id % 3,
        "type": 1 + run_id % 4,
        "people_state": 1 + run_id % 13,
        "submit_time": 1000 + run_id,
        "start_time": 0 if run_id % 4 == 0 else 2000 + run_id // 2,
        "end_time": 0 if run_id % 3 == 0 else 3000 - run_id,
        "scheduled_time": 500 if run_id % 5 == 0 else 0,
        **changes,
    }


ROWS = [row(number) for number in range(1, 61)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filters") / "state.db"
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(schema.runs), ROWS)
    engine.dispose()
    return path


@pytest.fixture(scope="module")
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(database)
    made.create_function(FOLD, 1, str.casefold, deterministic=True)
    yield made
    made.close()


def seen(values: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """A run with the values that people see; None for null."""
    times = {name: (values[name] or None,) for name in RUNS.fields if name.endswith("_time")}
    return {
        "name": (values["job_name"], values["display_name"]),
        "state": (PeopleState(values["people_state"]).name.lower(),),
        "type": (JobType(values["type"]).text,),
        "environment": (Environment(values["environment"]).text,),
        "job_id": (values["job_id"],),
        "run_id": (values["run_id"],),
        **times,
    }


def fits(values: dict[str, tuple[Any, ...]], expression: Expression) -> bool:
    """The same question asked in Python."""
    if isinstance(expression, And):
        return all(fits(values, part) for part in expression.parts)
    if isinstance(expression, Or):
        return any(fits(values, part) for part in expression.parts)
    if isinstance(expression, Not):
        return not fits(values, expression.part)
    found = values[expression.field]
    if expression.operator is Operator.IS_NULL:
        return found == (None,)
    if expression.operator is Operator.IS_NOT_NULL:
        return found != (None,)
    if expression.operator is Operator.UNEQUAL:
        return expression.values[0] not in found
    return any(
        value is not None and _holds(expression.operator, value, wanted)
        for value in found
        for wanted in expression.values
    )


def _holds(operator: Operator, value: Any, wanted: Any) -> bool:
    if operator.textual:
        value, wanted = value.casefold(), wanted.casefold()
    result = {
        Operator.EQUAL: lambda: value == wanted,
        Operator.LESS: lambda: value < wanted,
        Operator.AT_MOST: lambda: value <= wanted,
        Operator.GREATER: lambda: value > wanted,
        Operator.AT_LEAST: lambda: value >= wanted,
        Operator.STARTS_WITH: lambda: value.startswith(wanted),
        Operator.ENDS_WITH: lambda: value.endswith(wanted),
        Operator.CONTAINS: lambda: wanted in value,
    }[operator]()
    assert isinstance(result, bool)
    return result


def ask(connection: sqlite3.Connection, query: RunQuery, page: Page, *, explain: bool = False) -> list[Any]:
    statement = query.statement(page).compile(
        dialect=sqlite_dialect.dialect(), compile_kwargs={"render_postcompile": True}
    )
    positions = getattr(statement, "positiontup")  # noqa: B009 - the base class does not know it
    parameters = [statement.params[name] for name in positions]
    return connection.execute(
        ("EXPLAIN QUERY PLAN " if explain else "") + str(statement), parameters
    ).fetchall()


@pytest.mark.clause("B276", "B277", "B278", "B281")
@STEADY
@given(trees(RUNS))
@example(Condition("name", Operator.CONTAINS, ("%",)))
@example(Condition("name", Operator.CONTAINS, ("_f",)))
@example(Condition("name", Operator.ENDS_WITH, ("\\2",)))
@example(Condition("name", Operator.STARTS_WITH, ("ünï c",)))
@example(Condition("name", Operator.STARTS_WITH, ("",)))
@example(Condition("name", Operator.EQUAL, ("my flow",)))
@example(Condition("name", Operator.EQUAL, ("' OR '1'='1", "my-flow")))
@example(Condition("job_id", Operator.CONTAINS, ("É",)))
@example(Condition("end_time", Operator.UNEQUAL, (0,)))
@example(Condition("end_time", Operator.EQUAL, (0, 2999)))
@example(Not(Condition("end_time", Operator.LESS, (2990,))))
@example(Condition("run_id", Operator.LESS, (1e300,)))
def test_the_database_finds_what_the_words_say(connection: sqlite3.Connection, tree: Expression) -> None:
    found = [run[0] for run in ask(connection, RunQuery(filter=tree), Page(1000))]
    assert found == [values["run_id"] for values in reversed(ROWS) if fits(seen(values), tree)]


@pytest.mark.clause("B282")
@STEADY
@given(
    st.lists(
        st.builds(SortKey, st.sampled_from(list(RUNS.fields)), st.booleans()),
        max_size=3,
        unique_by=lambda k: k.field,
    ),
    st.integers(4, 25),
)
def test_pages_together_are_the_sorted_whole(
    connection: sqlite3.Connection, keys: list[SortKey], size: int
) -> None:
    query = RunQuery(sort=tuple(keys))
    whole = [run[0] for run in ask(connection, query, Page(1000))]
    expected = list(reversed(ROWS))
    for key in reversed(keys):
        # What is null sorts as the smallest.
        expected.sort(key=lambda values: seen(values)[key.field][0] or 0, reverse=key.descending)
    assert whole == [values["run_id"] for values in expected]
    paged: list[int] = []
    page = Page(size)
    while rows := ask(connection, query, page):
        paged += [run[0] for run in rows]
        page = Page(size, after=rows[-1][len(RunRow._fields) :])
    assert paged == whole
    assert [run[0] for run in ask(connection, query, Page(size, offset=7))] == whole[7 : 7 + size]


@pytest.mark.clause("B276", "B280")
@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("state = failed", "ix_runs_people_state_run_id"),
        ("state = [failed, stopped]", "ix_runs_people_state_run_id"),
        ("state starts_with FAIL", "ix_runs_people_state_run_id"),
        ("name = my-flow", "ix_runs_job_name_run_id"),
        ("name = 'My Flow'", "ix_runs_display_name_run_id"),
        ("environment = prod", "ix_runs_environment_run_id"),
        ("job_id = job_1", "ix_runs_job_id_run_id"),
        ("run_id = 5", "INTEGER PRIMARY KEY"),
        ("run_id < 5", "INTEGER PRIMARY KEY"),
        ("submit_time > 1 and submit_time < 5", "ix_runs_submit_time_run_id"),
        ("end_time > 1 and end_time < 5", "ix_runs_end_time_run_id"),
        ("end_time = 5", "ix_runs_end_time_run_id"),
        ("scheduled_time = 5", "ix_runs_scheduled_time_run_id"),
        ("name = my-flow and state = failed", "ix_runs_"),
        ("name = my-flow or state = failed", "MULTI-INDEX OR"),
    ],
)
def test_filters_use_their_index(connection: sqlite3.Connection, text: str, index: str) -> None:
    query = RunQuery(filter=parse_filter(text, RUNS))
    plan = [step[3] for step in ask(connection, query, Page(100), explain=True)]
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN runs") for step in plan), plan


@pytest.mark.clause("B268", "B282")
@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "SCAN runs"),  # by its key, backwards: the newest come first and it ends with the page
        (RunQuery(job_ids=["job_1"]), "ix_runs_job_id_run_id"),
        (RunQuery(job_ids=[f"job_{n}" for n in range(20)]), "ix_runs_job_id_run_id"),
        (RunQuery(sort=parse_sort("-name", RUNS)), "ix_runs_job_name_run_id"),
        (RunQuery(sort=parse_sort("-submit_time", RUNS)), "ix_runs_submit_time_run_id"),
        (RunQuery(sort=parse_sort("environment -run_id", RUNS)), "ix_runs_environment_run_id"),
    ],
)
def test_lists_and_orders_use_their_index(
    connection: sqlite3.Connection, query: RunQuery, index: str
) -> None:
    plan = [step[3] for step in ask(connection, query, Page(100), explain=True)]
    inner = plan[: next(number for number, step in enumerate(plan) if step == "SCAN page")]
    assert any(index in step for step in inner), plan
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in inner) or len(query.job_ids or ()) > 1, plan


@pytest.mark.clause("B277")
def test_values_never_become_part_of_the_statement() -> None:
    tree = parse_filter(
        "name = \"x'; DROP TABLE runs --\" and run_id > 7654321 and name contains 'zq\"zq'", RUNS
    )
    text = str(RunQuery(filter=tree).statement(Page(10)).compile(dialect=sqlite_dialect.dialect()))
    assert not any(part in text for part in ("DROP", "7654321", "zq"))


@pytest.mark.clause("B281")
def test_the_widest_and_deepest_filters_are_answered(connection: sqlite3.Connection) -> None:
    many = ", ".join(f"v{number}" for number in range(150))
    for text in (
        f"name contains [{many}] or name = x and {'not ' * 20}name = x",
        "".join(f"{'not ' * (n % 2)}(name = x {('and', 'or')[n % 2]} " for n in range(13))
        + "name = x"
        + ")" * 13,
        "".join(f"(end_time < {n} {('and', 'or')[n % 2]} " for n in range(20)) + "name contains x" + ")" * 20,
        " or ".join(["not (name contains ü and state = failed)"] * 100),
        f"run_id = [{', '.join(map(str, range(1000)))}]",
        f"name contains {'日' * 10_000}",
    ):
        ask(connection, RunQuery(filter=parse_filter(text, RUNS)), Page(10))


@pytest.mark.clause("B268")
def test_reads_give_rows_and_cursors(database: Path) -> None:
    async def read() -> list[tuple[RunRow, tuple[Any, ...]]]:
        reads = Reads(database)
        try:
            query = RunQuery(filter=parse_filter("name contains ÜNÏ", RUNS), sort=parse_sort("state", RUNS))
            return await reads.runs(query, Page(3))
        finally:
            await reads.close()

    rows = asyncio.run(read())
    assert [run.display_name for run, _ in rows] == ["Ünï Code"] * 3
    assert all(values[-1] == run.run_id for run, values in rows)
