"""A hundred thousand runs in the store: what `dt job runs` finds among them, page by page and by filter."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from e2e_harness import Platform

from datatailr.client import queries
from datatailr.client.connection import Connection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 100_000
JOBS = 40
STATES = ((100, 8, "completed"), (110, 9, "failed"), (130, 12, "stopped"))
"""Numbers in the store, of the core and for people, and the word."""


def state_of(number: int) -> tuple[int, int, str]:
    return STATES[0 if number % 50 else 1 + number % 100 // 50]


def fill(platform: Platform, begin: int) -> None:
    """Puts ended runs with the numbers 1 to COUNT into the store beside the server."""
    with closing(sqlite3.connect(platform.data / "controlplane" / "state.db", timeout=30)) as connection:
        columns = connection.execute("PRAGMA table_info(runs)").fetchall()
        empty = {column[1]: "" if column[2] == "TEXT" else 0 for column in columns}
        statement = f"INSERT INTO runs ({', '.join(empty)}) VALUES ({', '.join('?' * len(empty))})"
        for first in range(1, COUNT + 1, 10_000):
            with connection:
                connection.executemany(
                    statement, (tuple(row(empty, n, begin).values()) for n in range(first, first + 10_000))
                )


def row(empty: dict[str, object], number: int, begin: int) -> dict[str, object]:
    state, people_state, _ = state_of(number)
    return empty | {
        "run_id": number,
        "job_id": f"job_{number % JOBS}",
        "job_name": f"flow-{number % JOBS}",
        "display_name": f"Flow {number % JOBS}",
        "environment": 1,
        "type": 1,
        "version": 1,
        "state": state,
        "people_state": people_state,
        "original_run_id": -1,
        "submit_time": begin + number,
        "start_time": begin + number,
        "end_time": begin + 2 * number,
        "tasks_total": 1,
        "tasks_completed": 1,
    }


@pytest.fixture
def begin(platform: Platform) -> int:
    moment = time.time_ns() // 1000 - 60_000_000
    fill(platform, moment)
    return moment


@pytest.fixture
def connection(platform: Platform) -> Iterator[Connection]:
    made = Connection(platform.address, platform.token)
    yield made
    made.close()


@pytest.mark.clause("B268", "B276", "B280", "B282")
def test_a_hundred_thousand_runs(platform: Platform, begin: int, connection: Connection) -> None:
    numbers = range(COUNT, 0, -1)

    def found(text: str, *, sort: str = "", offset: int = 0) -> list[int]:
        return [run.run_id for run in queries.runs(connection, filter=text, sort=sort, offset=offset)]

    assert found("") == list(numbers)
    assert found("", offset=COUNT - 3) == [3, 2, 1]
    assert found("state = failed") == [n for n in numbers if state_of(n)[2] == "failed"]
    assert found("not state = completed", sort="state run_id") == [
        *(n for n in reversed(numbers) if state_of(n)[2] == "failed"),
        *(n for n in reversed(numbers) if state_of(n)[2] == "stopped"),
    ]
    assert found("name = flow-7 or job_id = job_8") == [n for n in numbers if n % JOBS in (7, 8)]
    assert found("name contains 'OW 1' and state != completed") == [
        n for n in numbers if str(n % JOBS).startswith("1") and state_of(n)[2] != "completed"
    ]
    assert found(f"end_time > {begin + COUNT} and end_time <= {begin + COUNT + 20}") == [
        n for n in numbers if COUNT < 2 * n <= COUNT + 20
    ]
    assert found("run_id <= 4 or run_id = [7, 9]", sort="-name") == [9, 7, 4, 3, 2, 1]
    assert found("state = expired") == []


@pytest.mark.clause("B268", "B271")
def test_the_program_prints_its_part(platform: Platform, begin: int) -> None:
    rows = platform.dt("job", "runs", "-f", "state = stopped", "-b", "5", "-o", "2", "-j").json()
    stopped = [n for n in range(COUNT, 0, -1) if state_of(n)[2] == "stopped"]
    assert [row["run_id"] for row in rows] == stopped[2:7]
    rows = platform.dt("job", "runs", "-b", "2500", "-s", "run_id", "--fields", "run_id,name").json()
    assert rows == [{"run_id": n, "name": f"Flow {n % JOBS}"} for n in range(1, 2501)]
    assert json.loads(platform.dt("job", "runs", "-f", "name = nothing", "-j").out) == []
