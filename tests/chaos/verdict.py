"""Whether a platform came back to where it began, as a table with a verdict for each row."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .figures import Figures

if TYPE_CHECKING:
    from .soak import Counts

MORE_RESIDENT: Final = {
    "controlplane": 24 * 1024,
    "keeper": 12 * 1024,
    "agent": 16 * 1024,
    "client": 16 * 1024,
}
"""Kilobytes that a process may have more at the end than after the warm-up: bounded caches."""
GROWTH: Final = {"controlplane": 16 * 1024, "keeper": 6 * 1024, "agent": 8 * 1024, "client": 8 * 1024}
"""Kilobytes an hour that the longest-lived process may grow by."""
MORE_DESCRIPTORS: Final = 8
MORE_THREADS: Final = 6
LARGEST: Final = {"wal": 64 * 1024, "journal": 48 * 1024, "bundles": 16 * 1024, "runtime": 64 * 1024}
"""Kilobytes of a folder that does not grow with the number of runs, at any time."""
EMPTY: Final = ("attempts", "temporary files")
"""Folders in which nothing may be left when nothing runs."""
BY_RUN: Final = ("database", "logs", "objects")
"""What grows with the runs: one in the second half may cost at most so much more than one in the first."""
BY_RUN_FACTOR: Final = 2.0
BY_RUN_LEAST: Final = 40
"""Runs below which the cost of one is not compared."""


@dataclass(frozen=True)
class Row:
    """One figure at three times."""

    name: str
    first: float
    most: float
    last: float
    unit: str
    limit: str
    well: bool


def report(
    figures: Figures,
    *,
    found: Sequence[str],
    counts: Counts,
    runs_at_disk: Sequence[int],
    seconds: float,
    seed: int,
) -> tuple[bool, str]:
    """Whether all was well, and the text for people.

    Args:
        figures: All readings.
        found: What the oracle found.
        counts: What was done.
        runs_at_disk: Runs that had been made at each quiet look at the disk.
        seconds: How long it took.
        seed: That it can be repeated with.
    """
    rows = [*_processes(figures), *_folders(figures, runs_at_disk)]
    bad = [row for row in rows if not row.well]
    well = not bad and not found and bool(rows)
    lines = [
        f"Soak of {seconds / 60:.1f} minutes, seed {seed}: {counts.rounds} rounds, {counts.runs} runs, "
        f"{counts.tasks} tasks, {counts.attempts} starts of user functions, {counts.faults} faults",
        "",
        *_table(rows),
        "",
        f"What was wrong: {len(found)}",
        *found,
        "",
        "VERDICT: " + ("well" if well else f"NOT WELL ({len(found)} violations, {len(bad)} figures)"),
    ]
    return well, "\n".join(lines) + "\n"


def _processes(figures: Figures) -> Iterator[Row]:
    for role in figures.roles:
        kind = "agent" if role.startswith("agent") and not role.endswith("keeper") else role.split()[-1]
        for what, more, unit in (
            ("resident", MORE_RESIDENT[kind], "MB"),
            ("descriptors", MORE_DESCRIPTORS, ""),
            ("threads", MORE_THREADS, ""),
        ):
            quiet = figures.of(role, what)
            every = quiet + figures.of(role, what, quiet=False)
            # Single quiet readings still vary: the median of the first and of the last three counts.
            first, last = statistics.median(quiet[:3]), statistics.median(quiet[-3:])
            scale = 1024 if unit else 1
            yield Row(
                f"{role}: {what}",
                first / scale,
                max(every) / scale,
                last / scale,
                unit,
                f"first + {more / scale:g}",
                last <= first + more,
            )
        growth = figures.growth_an_hour(role)
        if growth is not None:
            limit = GROWTH[kind]
            yield Row(
                f"{role}: growth",
                0,
                growth / 1024,
                growth / 1024,
                "MB/h",
                f"{limit / 1024:g}",
                growth <= limit,
            )


def _folders(figures: Figures, runs_at_disk: Sequence[int]) -> Iterator[Row]:
    if not figures.disks:
        return
    first, last = figures.disks[0].folders, figures.disks[-1].folders
    for name in last:
        before = first[name].kilobytes if name in first else 0
        after, most = last[name].kilobytes, figures.most_disk[name]
        word = name.split()[-1]
        limit, well = "", True
        if name.endswith(EMPTY):
            limit, well = "no files", last[name].files == 0
        elif word in LARGEST:
            limit, well = f"{LARGEST[word] / 1024:g} at any time", most <= LARGEST[word]
        elif word in BY_RUN and name.startswith("controlplane"):
            limit, well = _by_run(figures, name, runs_at_disk)
        yield Row(name, before / 1024, most / 1024, after / 1024, "MB", limit, well)


def _by_run(figures: Figures, name: str, runs: Sequence[int]) -> tuple[str, bool]:
    """Kilobytes of a run in the first and in the second half; retention may make it less, nothing more."""
    middle = len(runs) // 2
    if middle < 1 or runs[middle] - runs[0] < BY_RUN_LEAST or runs[-1] - runs[middle] < BY_RUN_LEAST:
        return "too few runs to compare", True
    sizes = [disk.folders[name].kilobytes for disk in figures.disks]
    early = (sizes[middle] - sizes[0]) / (runs[middle] - runs[0])
    late = (sizes[-1] - sizes[middle]) / (runs[-1] - runs[middle])
    # A file system gives space in pieces: below some kilobytes a run the comparison says nothing.
    return f"{early:.0f} then {late:.0f} kB a run", late <= max(early, 8) * BY_RUN_FACTOR


def _table(rows: Sequence[Row]) -> list[str]:
    heading = ("figure", "first", "most", "last", "unit", "limit", "")
    cells = [heading] + [
        (
            row.name,
            f"{row.first:.1f}",
            f"{row.most:.1f}",
            f"{row.last:.1f}",
            row.unit,
            row.limit,
            "" if row.well else "TOO MUCH",
        )
        for row in rows
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
