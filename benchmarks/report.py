"""One row per figure, printed as aligned text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A figure beside its limit of the same run."""

    name: str
    figure: float
    limit: float
    unit: str
    target: str
    """What `docs` promises, in words."""
    limit_name: str

    @property
    def ratio(self) -> float:
        """Figure over limit."""
        return self.figure / self.limit if self.limit else float("nan")


def table(rows: list[Row]) -> str:
    """Formats rows as aligned columns under a heading."""
    heading = ("benchmark", "figure", "limit", "ratio", "unit", "limit is", "target")
    cells = [heading] + [
        (r.name, f"{r.figure:.2f}", f"{r.limit:.2f}", f"{r.ratio:.2f}", r.unit, r.limit_name, r.target)
        for r in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heading))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    )
