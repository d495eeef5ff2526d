"""The judges judged: rules of the oracle and limits of the soak are broken on purpose, and must speak up."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import facts
from .conftest import MakeSession
from .driver import RunRecord
from .faults import Fault, Faults
from .figures import Disk, Figures, Reading
from .ledger import Entry
from .oracle import Oracle
from .scenes import steady
from .session import Session
from .soak import Counts
from .verdict import report
from .workload import TaskPlan, make_plan
from .world import World


@contextmanager
def noted(session: Session, *entries: Entry) -> Iterator[None]:
    """More lines in the ledger, for the length of a block."""
    path = session.world.ledger_file
    before = path.read_bytes()
    with path.open("ab") as file:
        for entry in entries:
            file.write(json.dumps(dataclasses.asdict(entry)).encode() + b"\n")
    session.world.ledger = type(session.world.ledger)(path, session.world.folder)
    try:
        yield
    finally:
        path.write_bytes(before)
        session.world.ledger = type(session.world.ledger)(path, session.world.folder)


def judged(session: Session, *, faults: Faults | None = None) -> str:
    oracle = Oracle(session.world, faults or session.faults, log_seconds=0.2)
    return "\n".join(oracle.judge(session.driver.records))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_oracle_notices(make_session: MakeSession) -> None:
    session = make_session()
    plan = steady("judged", chains=2, links=2, seconds=0.1)
    record = session.driver.submit(plan)
    assert not session.driver.wait_all(seconds=60)
    assert not session.settle()

    def with_task(number: int, **changes: object) -> str:
        tasks = list(plan.tasks)
        tasks[number] = dataclasses.replace(tasks[number], **changes)  # type: ignore[arg-type]
        record.plan = make_plan(plan.name, tasks)
        try:
            return judged(session)
        finally:
            record.plan = plan

    assert "is not what was returned" in with_task(0, salt=1)
    assert "log out of attempt 1 has" in with_task(0, lines=21)
    assert "log err of attempt 1 has" in with_task(0, width=1)
    assert "fails on purpose" in with_task(0, fail="raise")
    assert "began before task 1 had finished" in with_task(2, parents=(1,))

    starts = [entry for entry in session.world.ledger.entries() if entry.event == "start"]
    first = next(entry for entry in starts if entry.task == 0)
    with noted(session, first):
        assert f"attempt {first.attempt} was started 2 times" in judged(session)
    again = dataclasses.replace(first, attempt="att_other", fence=2, at=first.at + 1)
    with noted(session, again):
        assert "began again after 1.00 s on agent1" in judged(session)
        excused = Faults(session.world)
        excused.log.append(Fault("keeper kill", "agent1", first.at, first.at + 0.1))
        assert "began again" not in judged(session, faults=excused)
        short = Faults(session.world)
        short.log.append(Fault("agent pause", "agent1", first.at, first.at + 0.9))
        assert "began again" in judged(session, faults=short), "a short pause is no excuse"
    unfinished = [entry for entry in session.world.ledger.entries() if entry.event == "start"]
    path = session.world.ledger_file
    path.write_text("".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in unfinished))
    session.world.ledger = type(session.world.ledger)(path, session.world.folder)
    assert "which never finished" in judged(session)

    assert noticed(session, record, lambda r: r.fences_at_cancel.update({0: 0})) == "was made after the stop"
    assert noticed(session, record, lambda r: setattr(r, "run", None)) == "did not end"
    promised = record.promised[0]
    record.promised[0] = (promised[0], "att_other", 1, 1)
    session.driver.refresh(record)
    assert any("task 0 was" in text for text in record.faults)
    record.faults.clear()

    session.driver.records.append(dataclasses.replace(record, run_id=record.run_id))
    assert any("were started" in text for text in session.settle(seconds=1))
    session.driver.records.pop()

    stray = subprocess.Popen(
        ["sleep", "60"], cwd=session.world.folder, env={**os.environ, "DATATAILR_ATTEMPT_MARK": "1" * 32}
    )
    try:
        assert any(str(stray.pid) in text for text in session.world.leftovers(seconds=0.5))
    finally:
        stray.kill()
        stray.wait()
    (session.world.folder / "tmp" / "left").touch()
    assert [text for text in session.world.shut_down() if "temporary file" in text]


def noticed(session: Session, record: RunRecord, change: Callable[[RunRecord], object]) -> str:
    """Which of two words of the oracle a changed record brings up."""
    changed = dataclasses.replace(record, fences_at_cancel=dict(record.fences_at_cancel))
    change(changed)
    session.driver.records[:] = [changed]
    try:
        text = judged(session)
    finally:
        session.driver.records[:] = [record]
    return next((word for word in ("was made after the stop", "did not end") if word in text), text)


def figures_of(tmp_path: Path, resident: list[int], *, descriptors: int = 20, left: int = 0) -> Figures:
    """Quiet readings of one control plane, a minute and a half apart."""
    figures = Figures(World(tmp_path))
    for number, size in enumerate(resident):
        at = 90.0 * number
        last = number == len(resident) - 1
        figures.quiet.append(Reading("controlplane", 1, at, size, descriptors if number > 2 else 20, 10, 0))
        folders = {
            "agent1 attempts": facts.Usage(left if last else 0, 0),
            "controlplane wal": facts.Usage(1, 4),
        }
        figures.disks.append(Disk(at, folders))
        figures.most_disk.update({name: usage.kilobytes for name, usage in folders.items()})
    return figures


def verdict(figures: Figures, *, found: tuple[str, ...] = ()) -> tuple[bool, str]:
    return report(figures, found=found, counts=Counts(), runs_at_disk=[], seconds=60, seed=1)


def test_a_steady_platform_is_well(tmp_path: Path) -> None:
    well, text = verdict(figures_of(tmp_path, [90_000 + 500 * (n % 3) for n in range(40)]))
    assert well, text
    assert "VERDICT: well" in text


@pytest.mark.parametrize(
    ("figures", "row"),
    [
        (lambda path: figures_of(path, [90_000 + 600 * n for n in range(40)]), "controlplane: growth"),
        (lambda path: figures_of(path, [90_000] * 3 + [150_000] * 5), "controlplane: resident"),
        (lambda path: figures_of(path, [90_000] * 9, descriptors=40), "controlplane: descriptors"),
        (lambda path: figures_of(path, [90_000] * 9, left=3), "agent1 attempts"),
    ],
    ids=["slope", "step", "descriptors", "left-over"],
)
def test_what_does_not_come_back_is_not_well(
    tmp_path: Path, figures: Callable[[Path], Figures], row: str
) -> None:
    well, text = verdict(figures(tmp_path))
    assert not well
    assert [line.split("  ")[0] for line in text.splitlines() if line.endswith("TOO MUCH")][:1] == [row], text


def test_a_violation_is_not_well(tmp_path: Path) -> None:
    well, text = verdict(figures_of(tmp_path, [90_000] * 9), found=("run 1 did not end",))
    assert not well and "run 1 did not end" in text


def test_the_consequences_of_a_failure_on_purpose() -> None:
    tasks = [
        TaskPlan((), salt=1),
        TaskPlan((0,), salt=2, fail="raise"),
        TaskPlan((1,), salt=3),
        TaskPlan((0,), salt=4),
    ]
    plan = make_plan("consequences", tasks)
    assert plan.values == {0: 1, 3: 4 * 31 + 1} and plan.skipped == {2} and plan.failures == {1}
