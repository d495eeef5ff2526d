"""A control plane that is killed in the middle of a large run: from the kill to the next assignment."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.platform import Platform
from benchmarks.report import Row

TASKS = 10_000
KILLS = 3
_PATIENCE = 120.0

SOURCE = """
import sys, time
from datatailr import Workflow, task

@task(memory="16m", cpu=0.1)
def nap(number):
    time.sleep(1.0)

if __name__ == "__main__":
    wf = Workflow(name="Bench Restart")
    with wf:
        wf.set_autorun(False)
        for number in range(int(sys.argv[1])):
            nap(number)
    ok, answer = wf.run()
    assert ok, answer
    print(wf.runs(refresh=True)[0]["run_id"])
"""

STOP = """
from datatailr import Workflow
ok, answer = Workflow(name="Bench Restart", get_existing=True).stop()
assert ok, answer
"""

IMPORTS = "import grpc.aio, sqlalchemy.ext.asyncio, starlette.applications, uvicorn, structlog"
"""What a control plane cannot do without: a process that only imports it is the limit."""


def _bare_start() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return (time.perf_counter() - begin) * 1000


def _first_assignment(database: Path, since: int) -> int:
    """Microseconds since the epoch of the first attempt made after `since`, read beside the writer."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        time.sleep(0.2)
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            (found,) = connection.execute(
                "SELECT min(assigned_time) FROM attempts WHERE assigned_time > ?", (since,)
            ).fetchone()
        finally:
            connection.close()
        if found is not None:
            return int(found)
        if time.monotonic() > deadline:
            raise RuntimeError("no task was assigned after the restart")


def restart(platform: Platform) -> list[Row]:
    """Milliseconds from `kill -9` of the control plane, 10,000 tasks live, to the first assignment.

    `datatailr up` notices the death and starts another one, so its pause is part of the figure.
    """
    path = platform.project("bench_restart", SOURCE)
    platform.python(path.name, str(TASKS), cwd=path.parent)
    database = platform.folder / "data" / "controlplane" / "state.db"
    ready = platform.folder / "ready.json"
    figures, limits = [], []
    begin = time.time_ns() // 1000
    _first_assignment(database, 0)
    for _ in range(KILLS):
        _first_assignment(database, begin)
        limits.append(_bare_start())
        pid = int(json.loads(ready.read_text())["controlplane_pid"])
        begin = time.time_ns() // 1000
        os.kill(pid, signal.SIGKILL)
        # What the killed one had committed in its last moments lies before the other's start.
        while int(json.loads(ready.read_text())["controlplane_pid"]) == pid:
            time.sleep(0.02)
        figures.append((_first_assignment(database, begin) - begin) / 1000)
    path.with_name("stop.py").write_text(STOP)
    platform.python("stop.py", cwd=path.parent)
    return [
        Row(
            "restart, 10,000 tasks",
            sorted(figures)[KILLS // 2],
            sorted(limits)[KILLS // 2],
            "ms",
            "at most 2,000 ms",
            "imports alone",
        )
    ]
