"""Words for people, data for programs.

Tables have colours and fit the terminal when stdout is one, and are plain aligned text without
any escape code when it is not. JSON goes to stdout alone; everything that is not the answer to
the question goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Final

STATE_COLOURS: Final = {
    "completed": "green",
    "ready": "green",
    "running": "cyan",
    "starting": "cyan",
    "building": "cyan",
    "scheduled": "blue",
    "failed": "red",
    "failed_after": "red",
    "out_of_memory": "red",
    "down": "red",
    "suspect": "yellow",
    "stopped": "yellow",
    "did_not_run": "bright_black",
    "pending": "bright_black",
}


def print_json(value: Any, *, pretty: bool) -> None:
    """Print one JSON text: on one line, or indented."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if pretty else None))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, state: str | None = None) -> None:
    """Print a table on stdout.

    Args:
        columns: Headings.
        rows: As many texts each as there are columns.
        state: Heading of the column that holds states, which have colours on a terminal.
    """
    if not sys.stdout.isatty():
        print_aligned([tuple(columns), *rows])
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")

    for column in columns:
        table.add_column(column, overflow="fold")

    for row in rows:
        table.add_row(
            *(
                Text(cell, style=STATE_COLOURS.get(cell, "") if column == state else "")
                for column, cell in zip(columns, row)
            )
        )

    Console(no_color=bool(os.environ.get("NO_COLOR"))).print(table)


def print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts in columns of plain text, two blanks apart."""
    if not rows:
        return

    widths = [max(text_width(row[index]) for row in rows) for index in range(len(rows[0]))]

    for row in rows:
        cells = (cell + " " * (width - text_width(cell)) for cell, width in zip(row, widths))
        print("  ".join(cells).rstrip())


def text_width(text: str) -> int:
    """How many cells of a terminal a text takes; names may be in any script."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def tell(*lines: str) -> None:
    """Print lines for people on stderr."""
    for line in lines:
        print(line, file=sys.stderr)


def time_text(microseconds: int | None, *, utc: bool = False) -> str:
    """A time for people: local, or UTC marked with Z; `-` where it was not reached."""
    if not microseconds:
        return "-"

    moment = datetime.fromtimestamp(microseconds / 1e6, tz=timezone.utc)

    if utc:
        return moment.strftime("%Y-%m-%d %H:%M:%SZ")

    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration_text(microseconds: int | None) -> str:
    """A length of time for people: `0.25 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if microseconds is None or microseconds < 0:
        return "-"

    seconds = microseconds / 1e6

    if seconds < 9.995:
        return f"{seconds:.2f} s"

    if seconds < 59.95:
        return f"{seconds:.1f} s"

    minutes, rest = divmod(round(seconds), 60)

    if minutes < 60:
        return f"{minutes} min {rest:02d} s"

    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size_text(size: int) -> str:
    """Bytes in the units of memory sizes, where `1g` is 2**30 bytes."""
    value, unit = float(size), "B"

    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break

        value /= 1024

    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "B" else f"{value:.1f} {unit}"
