"""The page of manners names tests that there are, and leaves no row of its chapters unsaid."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROWS = [
    line
    for line in (ROOT / "docs" / "manners.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [A-Z]\d", line)
]
STATES = ("met", "partly", "later")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_every_test_that_is_named_exists() -> None:
    files = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = [name for row in ROWS for name in re.findall(r"`(\w+::\w+)`", cells(row)[3])]
    missing = []

    for name in named:
        module, _, test = name.partition("::")

        if module not in files or not re.search(rf"^(async )?def {test}\(", files[module].read_text(), re.M):
            missing.append(name)

    assert len(named) > 50
    assert missing == []


def test_each_row_is_judged_once_and_proved() -> None:
    names = [cells(row)[0] for row in ROWS]
    assert len(set(names)) == len(names)
    chapters = {"F": 7, "C": 15}
    assert {f"{letter}{number}" for letter, last in chapters.items() for number in range(1, last + 1)} <= {
        *names
    }

    for row in ROWS:
        name, title, state, tests = cells(row)
        assert title and state.split(":")[0].split(";")[0] in STATES, row
        assert bool(tests) is not state.startswith("later"), (
            f"{name}: what is met is proved, what comes is not"
        )
        assert ":" in state or not state.startswith("partly"), f"{name}: says what is missing"
