"""Every clause of the contract's sections 1 to 5 and 7 to 10 is named by a test.

A test names the clauses that it proves with `@pytest.mark.clause("B43", ...)`. The clauses are kept
here as data; those whose proof comes with a later piece of the platform stand in LATER.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def numbers(first: int, last: int) -> set[str]:
    return {f"B{number}" for number in range(first, last + 1)}


CLAUSES = numbers(1, 75) | {"B57a", "B60a", "B65a"} | numbers(95, 188)
LATER = {
    "B55": "instant runs",
    "B177": "container images",
    "B178": "secrets of people and builds",
}


def named_clauses() -> dict[str, list[str]]:
    """Clauses to the tests that name them, read from the source of all tests."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.clause":
                    for argument in decorator.args:
                        found.setdefault(ast.literal_eval(argument), []).append(f"{path.name}::{node.name}")
    return found


def order(clause: str) -> tuple[int, str]:
    digits = clause[1:].rstrip("ab")
    return int(digits), clause


def test_every_clause_is_named_by_a_test() -> None:
    missing = sorted(CLAUSES - named_clauses().keys() - LATER.keys(), key=order)
    assert not missing, f"no test names {', '.join(missing)}"


def test_the_lists_hold_clauses_of_the_contract() -> None:
    assert LATER.keys() <= CLAUSES
    unreadable = [name for name in named_clauses() if not name[1:].rstrip("ab").isdigit() or name[0] != "B"]
    assert unreadable == []
