"""Every clause of the contract is named by a test or belongs to a later piece, and the table says so.

A test names the clauses that it proves with `@pytest.mark.clause("B43", ...)`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import clause_table
from .clause_table import COMMAND, PAGE, ends_in_page, ends_in_report, named_clauses, page, without_ends
from .clauses import CLAUSES, LATER, titles


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
    expected = {f"B{number}" for first, last in ((1, 244), (264, 285)) for number in range(first, last + 1)}
    assert expected | {"B57a", "B60a", "B65a"} == CLAUSES
    in_order = [clause for section in titles().values() for clause in section]
    assert in_order == sorted(in_order, key=order), "one of them stands twice or in a wrong place"
    assert all(title for section in titles().values() for title in section.values())


def test_the_table_names_the_tests_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    expected = page(named_clauses(), ends_in_page(text))
    assert without_ends(text) == without_ends(expected), f"docs/clauses.md is old: run {COMMAND}"


MARKED = """
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.clause("B1")]

@pytest.mark.clause("B2", "B3")
@pytest.mark.parametrize("x", [1, 2])
async def test_one(x): ...

@pytest.mark.clause("B2")
class TestMany:
    def test_two(self): ...
    def helper(self): ...

@pytest.fixture
def no_test(): ...
"""

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite>
<testcase classname="tests.unit.test_marked" name="test_one[1]"/>
<testcase classname="tests.unit.test_marked" name="test_one[2]"><failure message="x"/></testcase>
<testcase classname="tests.unit.test_marked.TestMany" name="test_two"><skipped/></testcase>
</testsuite></testsuites>
"""


def test_marks_and_reports_are_read(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED)
    tests = named_clauses(tmp_path)
    assert tests == {
        "B1": ["test_marked::test_one", "test_marked::test_two"],
        "B2": ["test_marked::test_one", "test_marked::test_two"],
        "B3": ["test_marked::test_one"],
    }
    (tmp_path / "report.xml").write_text(REPORT)
    ends = ends_in_report(tmp_path / "report.xml")
    assert ends == {"test_marked::test_one": "failed", "test_marked::test_two": "skipped"}
    text = page(tests, ends)
    assert (
        "| B3 | display name beside internal name | **failed** | `test_marked::test_one` (failed) |" in text
    )
    assert "| B4 | name of an unnamed workflow | no test | - |" in text
    assert "| B178 | secrets of builds | later: secrets of people and builds | - |" in text
    assert ends_in_page(text) == ends
    passed = page(tests, {"test_marked::test_one": "passed"})
    assert passed != text and without_ends(passed) == without_ends(text)
    assert without_ends(page({}, {})) != without_ends(text)


def test_the_program_writes_the_page_and_keeps_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "clauses.md"
    monkeypatch.setattr(clause_table, "PAGE", written)
    monkeypatch.setattr(clause_table, "named_clauses", lambda: {"B1": ["test_marked::test_one"]})
    assert clause_table.main(["--check"]) == 1
    (tmp_path / "report.xml").write_text(REPORT)
    assert clause_table.main([str(tmp_path / "report.xml")]) == 0
    assert "(failed)" in written.read_text()
    assert clause_table.main([]) == 0
    assert "(failed)" in written.read_text()
    assert clause_table.main(["--check"]) == 0
    assert "is fresh" in capsys.readouterr().out
