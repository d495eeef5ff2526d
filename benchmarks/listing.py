"""Lists of runs out of 100,000: the server for each filter that an index serves, and `dt` as a whole."""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.platform import Platform
from benchmarks.report import Row

RUNS = 100_000
JOBS = 50
FIRST = 1_000_000
"""Number of the first run, above those that other benchmarks made."""

COMPLETED, FAILED = (100, 8), (110, 9)
"""Numbers of the states in the store: the core's and that for people."""

FILTERS = (
    "",
    "state = failed",
    "state = [failed, stopped]",
    "state starts_with out",
    "name = listed-7",
    "name = 'Listed 7'",
    "job_id = listed_7",
    "environment = prod",
    f"run_id < {FIRST + 50}",
    "submit_time > {middle} and submit_time < {later}",
    "end_time > {middle} and end_time < {later}",
    "name = listed-7 and state = failed",
    "name = listed-7 or state = failed",
)
CALLS = 7
PROGRAMS = 5


def listing(platform: Platform) -> list[Row]:
    """Milliseconds of the slowest filter of a page of runs, and of the program that prints it."""
    database = platform.folder / "data" / "controlplane" / "state.db"
    begin = time.time_ns() // 1000 - RUNS * 1000
    _fill(database, begin)
    # Imported here: the other benchmarks measure a client that has not.
    from datatailr.client import queries
    from datatailr.client.connection import Connection

    connection = Connection(platform.ready["grpc"], platform.ready["token"])
    try:

        def page(text: str) -> Callable[[], object]:
            return lambda: next(queries.runs(connection, filter=text, page_size=100), None)

        figures = {}
        for raw in FILTERS:
            text = raw.format(middle=begin + RUNS * 500, later=begin + RUNS * 500 + 50_000)
            figures[text] = statistics.median(_milliseconds(page(text)) for _ in range(CALLS))
    finally:
        connection.close()
    slowest = max(figures, key=lambda text: figures[text])
    environment = {
        **os.environ,
        "DATATAILR_ADDRESS": platform.ready["grpc"],
        "DATATAILR_TOKEN": platform.ready["token"],
    }
    program = [str(Path(sys.executable).with_name("dt")), "job", "runs", "-f", slowest, "-j"]
    imports = [sys.executable, "-c", "import grpc, typer, datatailr.v1.run_pb2_grpc"]
    return [
        Row(
            f"100,000 runs, {slowest or 'no filter'}",
            figures[slowest],
            statistics.median(_milliseconds(lambda: _bare(database)) for _ in range(CALLS)),
            "ms",
            "at most 300 ms",
            "100 rows by key",
        ),
        Row(
            "dt job runs of them",
            statistics.median(_milliseconds(lambda: _run(program, environment)) for _ in range(PROGRAMS)),
            statistics.median(_milliseconds(lambda: _run(imports, environment)) for _ in range(PROGRAMS)),
            "ms",
            "at most 300 ms",
            "imports alone",
        ),
    ]


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _bare(database: Path) -> None:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        connection.execute("SELECT * FROM runs ORDER BY run_id DESC LIMIT 100").fetchall()
    finally:
        connection.close()


def _fill(database: Path, begin: int) -> None:
    """Puts ended runs into the store beside the server, in short transactions."""
    connection = sqlite3.connect(database, timeout=30)
    try:
        columns = connection.execute("PRAGMA table_info(runs)").fetchall()
        names = [column[1] for column in columns]
        empty = {column[1]: "" if column[2] == "TEXT" else 0 for column in columns}
        statement = f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for first in range(0, RUNS, 5_000):
            rows = (_row(empty, number, begin) for number in range(first, first + 5_000))
            with connection:
                connection.executemany(statement, ([row[name] for name in names] for row in rows))
    finally:
        connection.close()


def _row(empty: dict[str, object], number: int, begin: int) -> dict[str, object]:
    job, submitted = number % JOBS, begin + number * 1000
    state, people_state = FAILED if number % 97 == 0 else COMPLETED
    return empty | {
        "run_id": FIRST + number,
        "job_id": f"listed_{job}",
        "job_name": f"listed-{job}",
        "display_name": f"Listed {job}",
        "environment": 3 if number % 1000 == 0 else 1,
        "type": 1,
        "version": 1,
        "state": state,
        "people_state": people_state,
        "original_run_id": -1,
        "submit_time": submitted,
        "start_time": submitted + 1000,
        "end_time": submitted + 2000,
        "tasks_total": 1,
        "tasks_completed": 1,
    }
