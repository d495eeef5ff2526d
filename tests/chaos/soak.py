"""`python -m tests.chaos.soak --minutes N [--seed S] [--report FILE]`: long chaos with an eye on resources.

Rounds of random work and random faults; after each, everything is healed, every run is judged, and quiet
figures are taken. At the end they are compared with those after the warm-up. Exit code 0 when the platform
kept its word and came back to where it began, 1 when not, 2 for a wrong command line. Ctrl-C ends the present
round and reports.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .figures import Figures
from .session import Session
from .verdict import report
from .workload import Generator
from .world import REAL, World

SAMPLE_SECONDS = 10.0
ROUND_SECONDS = 90.0
CALM = (0.25, 0.85)
"""Part of the time in which no server and no keeper is ended: only what grows old can be seen to grow."""
LOAD = 0.6
"""Cores that work and platform may take on average; above it the driver rests."""


@dataclass
class Counts:
    """What was done."""

    rounds: int = 0
    runs: int = 0
    tasks: int = 0
    faults: int = 0
    attempts: int = 0
    """User functions that began."""


class Soak:
    """A soak of some minutes on a world that runs.

    Args:
        world: The platform.
        seconds: How long work and faults go on; the inspections are part of it.
        seed: Of work and faults.
        say: Told one line for each round.
    """

    def __init__(self, world: World, *, seconds: float, seed: int, say: Callable[[str], None]) -> None:
        self.figures = Figures(world)
        self.session = Session(world, seed)
        self.counts = Counts()
        self.found: list[str] = []
        """What was wrong."""
        self.runs_at_disk: list[int] = []
        """Runs that had been made at each quiet look at the disk."""
        self._world = world
        self._generator = Generator(seed, prefix=f"soak {seed}", largest=30)
        self._seconds = seconds
        self._say = say
        self._stopped = threading.Event()
        self._rest = 0.2

    def stop(self) -> None:
        """Ends after the present round's inspection."""
        self._stopped.set()
        self.session.faults.stop()

    def run(self) -> None:
        """Works to the end; `found` then tells what was wrong."""
        began = time.monotonic()
        length = min(ROUND_SECONDS, max(15.0, self._seconds / 5))
        while not self._stopped.is_set():
            left = self._seconds - (time.monotonic() - began)
            if left < length / 2 and self.counts.rounds >= 3:
                break
            # The first round warms up: environments are built, modules imported, caches filled.
            passed = 1 - left / self._seconds
            restarts = 0.0 if CALM[0] <= passed < CALM[1] else 0.15
            self._round(length, storm=self.counts.rounds > 0, restarts=restarts)
        self.found += self._world.shut_down()

    def _round(self, seconds: float, *, storm: bool, restarts: float) -> None:
        session = self.session
        until = time.monotonic() + seconds
        faults = session.beside(
            lambda: (
                session.faults.storm(seconds, pause=(2, 8), long=0.02, restarts=restarts) if storm else None
            )
        )
        with self._sampling():
            try:
                session.work(
                    self._generator,
                    until=lambda: time.monotonic() > until or self._stopped.is_set(),
                    runs=2,
                    rest=lambda: self._rest,
                )
            finally:
                faults.join()
        self._inspect()

    def _inspect(self) -> None:
        """Everything whole again: judges what ran, and looks at the figures while nothing runs."""
        session, counts = self.session, self.counts
        records = list(session.driver.records)
        wrong = session.settle()
        for text in wrong:
            self._say(f"WRONG {text}")
        if wrong:
            self._say(session.story())
        self.found += wrong
        self.figures.sample(quiet=True)
        counts.rounds += 1
        counts.runs += len(records)
        counts.tasks += sum(len(record.plan.tasks) for record in records)
        counts.faults += len(session.faults.log)
        counts.attempts += sum(entry.event == "start" for entry in self._world.ledger.entries())
        self.runs_at_disk.append(counts.runs)
        self._say(
            f"round {counts.rounds}: {counts.runs} runs, {counts.tasks} tasks, {counts.attempts} starts, "
            f"{counts.faults} faults, {len(self.found)} wrong; control plane "
            f"{self.figures.of('controlplane', 'resident')[-1] // 1024} MB, "
            f"rest {self._rest:.2f} s"
        )
        session.forget()

    @contextlib.contextmanager
    def _sampling(self) -> Iterator[None]:
        """Takes figures now and then, and keeps the load where it should be."""
        ended = threading.Event()

        def sample() -> None:
            used, at = self.figures.processor_seconds(), time.monotonic()
            while not ended.wait(SAMPLE_SECONDS):
                self.figures.sample()
                now_used, now = self.figures.processor_seconds(), time.monotonic()
                # A process that was replaced takes its past with it: such a span tells nothing.
                if now_used > used:
                    load = (now_used - used) / (now - at)
                    self._rest = min(20.0, max(0.1, self._rest * (1.5 if load > LOAD else 0.7)))
                used, at = now_used, now

        thread = threading.Thread(target=sample, name="figures")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def soak(
    *,
    seconds: float,
    seed: int,
    folder: Path,
    flags: Sequence[str] = (),
    say: Callable[[str], None] = print,
    on_start: Callable[[Soak], None] = lambda soak: None,
) -> tuple[bool, str]:
    """A whole soak below a folder; whether all was well, and the report.

    Args:
        seconds: How long.
        seed: Of work and faults.
        folder: Empty or missing; stays.
        flags: More flags of the control plane.
        say: Told one line for each round.
        on_start: Given the soak before it begins, so that it can be stopped.
    """
    with World(folder, agents=2, leases=REAL, slots=4, flags=flags) as world:
        running = Soak(world, seconds=seconds, seed=seed, say=say)
        on_start(running)
        began = time.monotonic()
        try:
            running.run()
        except AssertionError as error:
            # A platform that cannot be worked with at all is a finding too, not a crash of the soak.
            running.found.append(f"{error}\n{running.session.story()}")
        return report(
            running.figures,
            found=running.found,
            counts=running.counts,
            runs_at_disk=running.runs_at_disk,
            seconds=time.monotonic() - began,
            seed=seed,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (%(default)g)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of work and faults; the time")
    parser.add_argument("--report", type=Path, help="file that the report is also written to")
    parser.add_argument("--folder", type=Path, help="where the platform lives; a temporary one, removed")
    parser.add_argument(
        "--flag", action="append", default=[], help="flag of the control plane, for instance --flag=--x=1"
    )
    flags = parser.parse_args(arguments)
    if flags.minutes <= 0:
        parser.error(f"--minutes is {flags.minutes}; give a number above 0")
    folder = flags.folder or Path(tempfile.mkdtemp(prefix="opentailr-soak-"))
    print(f"seed {flags.seed}, {flags.minutes:g} minutes, in {folder}", flush=True)

    def on_start(running: Soak) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            print("ending after this round's inspection; once more to end at once", flush=True)
            running.stop()
            for other in (signal.SIGINT, signal.SIGTERM):
                signal.signal(other, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)

    well, text = soak(
        seconds=flags.minutes * 60,
        seed=flags.seed,
        folder=folder,
        flags=flags.flag,
        say=lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True),
        on_start=on_start,
    )
    print(text)
    if flags.report is not None:
        flags.report.write_text(text, encoding="utf-8")
    if well and flags.folder is None:
        shutil.rmtree(folder)
    elif not well:
        print(f"the platform's files are kept in {folder}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
