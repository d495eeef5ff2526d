"""Kills in the middle of a run of 200 tasks: nothing lost, nothing twice, every log to its last byte."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from e2e_harness import FinishedRun, Platform, Project, eventually
from readopt_scenes import kill, starts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CHAINS, LINKS = 40, 4
LOOSE = 39
"""Tasks beside the chains; with the one that adds everything up there are 200."""

SOURCE = """
    import os
    import pathlib
    import sys
    import time

    from datatailr import task, workflow

    FOLDER = pathlib.Path({folder!r})


    def work(number):
        with open(FOLDER / f"{{number}}", "a") as starts:
            starts.write(f"{{os.getpid()}}\\n")
        # 0.2 to 2 s, in as many steps as there are lines.
        lines = 5 + number * 7 % 20
        for line in range(lines):
            print(f"task {{number}} line {{line}} of {{lines}} " + "x" * (number % 50))
            print(f"task {{number}} note {{line}}", file=sys.stderr)
            time.sleep((0.2 + number * 37 % 19 / 10) / lines)
        with open(FOLDER / f"{{number}}.done", "a") as ends:
            ends.write("x")


    @task(memory="16m", cpu=0.1)
    def link(number, before):
        work(number)
        return number + (before or 0)


    @task(memory="16m", cpu=0.1)
    def total(parts):
        work(199)
        return sum(parts)


    @workflow(name="@NAME@")
    def flow():
        parts = []
        for chain in range({chains}):
            before = None
            for step in range({links}):
                number = chain * {links} + step
                before = link(number, before).alias(f"task {{number}}")
            parts.append(before)
        for number in range({chains} * {links}, 199):
            parts.append(link(number, None).alias(f"task {{number}}"))
        total(parts)
"""


def out(number: int) -> str:
    """What the task prints."""
    lines = 5 + number * 7 % 20
    return "".join(
        f"task {number} line {line} of {lines} " + "x" * (number % 50) + "\n" for line in range(lines)
    )


def err(number: int) -> str:
    """What the task prints as errors."""
    return "".join(f"task {number} note {line}\n" for line in range(5 + number * 7 % 20))


def ended(folder: Path, count: int) -> bool:
    return len(list(folder.glob("*.done"))) >= count


def name_of(number: int) -> str:
    return "total" if number == 199 else f"task {number}"


def check_log(run: FinishedRun, number: int) -> None:
    name = name_of(number)
    # Logs travel apart from states: after kills the last of them may come a little later.
    eventually(lambda: run.out(name) == out(number), seconds=20, what=f"all that {name} printed")
    eventually(lambda: run.err(name) == err(number), seconds=20, what=f"all that {name} printed as errors")


@pytest.mark.parametrize(
    "victims", [("controlplane_pid",), ("agent_pid",), ("agent_pid", "controlplane_pid")]
)
def test_a_run_of_200_tasks_survives_kill_9(
    project: Project, platform: Platform, tmp_path: Path, victims: tuple[str, ...]
) -> None:
    assert CHAINS * LINKS + LOOSE + 1 == 200
    folder = tmp_path / "visits"
    folder.mkdir()
    flow = project.deploy(SOURCE.format(folder=str(folder), chains=CHAINS, links=LINKS))
    run_id = flow.run_ids()[0]
    for share in (30, 90, 140):
        eventually(partial(ended, folder, share), seconds=90, what=f"{share} ended tasks")
        for victim in victims:
            kill(platform, victim)
    run = flow.wait(run_id, seconds=150)
    assert set(run.states.values()) == {"completed"} and len(run.states) == 200
    assert run.result("total") == sum(range(199))
    assert {number: len(pids) for number, pids in starts(folder).items()} == dict.fromkeys(range(200), 1)
    assert {path.read_text() for path in folder.glob("*.done")} == {"x"}
    for chain in range(CHAINS):
        links = range(chain * LINKS, chain * LINKS + LINKS)
        assert run.result(name_of(links[-1])) == sum(links)
    for number in range(200):
        check_log(run, number)
