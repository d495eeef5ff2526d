"""`python -m tests.sim --seeds 0:5000`: simulates many seeds and says what was found and what was reached."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from time import perf_counter

from .coverage import UNREACHED, all_moves
from .planted import PLANTS, planted
from .world import Result, simulate

CHUNK = 25
"""Seeds that a worker takes at once."""


class Tally:
    """What many seeds came to."""

    def __init__(self) -> None:
        self.seeds = 0
        self.handles = 0
        self.seconds = 0.0
        self.simulated = 0.0
        self.counts: Counter[str] = Counter()
        self.moves: set[tuple[str, str, str]] = set()
        self.failed: list[Result] = []

    def add(self, result: Result) -> None:
        """Takes one seed's result."""
        self.seeds += 1
        self.handles += result.handles
        self.seconds += result.seconds
        self.simulated += result.simulated
        self.counts.update(result.counts)
        self.moves |= result.moves
        if not result.ok:
            self.failed.append(result)

    def lines(self) -> Iterable[str]:
        """The report, for people."""
        yield (
            f"{self.seeds} seeds, {len(self.failed)} failed; {self.handles} callbacks, "
            f"{self.counts['frame']} frames, {self.counts['commit']} commits, "
            f"{self.counts['launch']} processes, "
            f"{self.simulated / 3600:.1f} simulated hours"
        )
        for name, count in sorted(self.counts.items()):
            if name.startswith(("fault: ", "error: ", "end: ")) or name in ("killed", "stale frames"):
                yield f"  {count:8}  {name}"
        every, reached = all_moves(), self.moves
        yield f"transitions: {len(every & reached)} of {len(every)} reached"
        for move in sorted(every - reached):
            reason = f" ({UNREACHED[move]})" if move in UNREACHED else ""
            yield f"  not reached: {' '.join(move)}{reason}"
        yield f"{1000 * self.seconds / max(1, self.seeds):.0f} ms of a core for each seed"


def run(seeds: Iterable[int], plant: str = "") -> list[Result]:
    """Simulates seeds one after the other."""
    with planted(plant) if plant else nullcontext():
        return [simulate(seed) for seed in seeds]


def main(arguments: list[str] | None = None) -> int:
    """The program; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="0:200", metavar="FROM:TO", help="or one number")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plant", default="", choices=("", *PLANTS), help="a mistake to put into the code")
    parser.add_argument("--failures", type=int, default=20, help="end after so many failed seeds")
    parser.add_argument("--trace", action="store_true", help="print every event of every seed")
    options = parser.parse_args(arguments)
    first, colon, last = options.seeds.partition(":")
    seeds = range(int(first), int(last) if colon else int(first) + 1)
    tally, began = Tally(), perf_counter()
    if options.trace:
        with planted(options.plant) if options.plant else nullcontext():
            for seed in seeds:
                result = simulate(seed, lines=True)
                print(f"seed {seed}: {result.plan}", *result.lines, sep="\n")
                _show(result)
                tally.add(result)
    else:
        chunks = [range(at, min(at + CHUNK, seeds.stop)) for at in range(seeds.start, seeds.stop, CHUNK)]
        with ProcessPoolExecutor(options.workers) as pool:
            for results in pool.map(run, chunks, [options.plant] * len(chunks)):
                for result in results:
                    tally.add(result)
                    _show(result)
                if len(tally.failed) >= options.failures:
                    pool.shutdown(cancel_futures=True)
                    break
    print(*tally.lines(), sep="\n")
    print(f"{perf_counter() - began:.0f} s with {options.workers} workers")
    return 1 if tally.failed else 0


def _show(result: Result) -> None:
    if not result.ok:
        print(f"seed {result.seed} ({', '.join(result.plan.kinds)}): {result.violations[0]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
