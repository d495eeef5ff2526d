"""`python -m benchmarks`: runs all benchmarks against a platform of their own and prints a table."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import hotpath, listing, restart, start
from benchmarks.platform import Platform
from benchmarks.report import Row, table

BENCHMARKS: tuple[Callable[[Platform], list[Row]], ...] = (
    start.edit_to_run,
    hotpath.chain,
    hotpath.fan_out,
    restart.restart,
    listing.listing,
)


def main() -> int:
    rows: list[Row] = []
    with Platform() as platform:
        for benchmark in BENCHMARKS:
            rows += benchmark(platform)
            print(table(rows[-1:]), flush=True)
    print()
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
