"""`python -m tests.contract.clause_table [REPORT.xml …]`: writes docs/clauses.md.

The table names for each clause the tests that prove it, from the marks in their source, and how they
ended, from reports that `pytest --junitxml=REPORT.xml` wrote. A test in no report keeps the end that stands
in the table. With `--check` nothing is written; the exit code is 1 when the names in the table are old.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from .clauses import LATER, titles

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "clauses.md"
COMMAND = "python -m tests.contract.clause_table"
NOT_RUN = "not run"
_WORST = ("failed", "skipped", "passed")
"""Ends of a test with several sets of parameters: the first of these that any of them had."""
_ENTRY = re.compile(r"`(test_\w+::\w+)` \(([a-z ]+)\)")

HEAD = f"""# Clauses and their tests

Each clause of the behaviour contract with the tests that prove it and how they ended when this page was
written. The names come from the marks in the tests, the ends from reports of `pytest --junitxml=REPORT.xml`;
`{COMMAND} REPORT.xml` writes the page anew.
"""


def _marked(decorators: Iterable[ast.expr]) -> Iterator[str]:
    for decorator in decorators:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.clause":
            for argument in decorator.args:
                clause = ast.literal_eval(argument)
                assert isinstance(clause, str)
                yield clause


def _marks_of_module(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            values = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            return list(_marked(values))
    return []


def named_clauses(folder: Path = TESTS) -> dict[str, list[str]]:
    """Clause to the tests that name it, as `file::function`, read from the source of all tests."""
    found: dict[str, dict[str, None]] = {}

    def visit(nodes: Iterable[ast.stmt], stem: str, inherited: list[str]) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                visit(node.body, stem, [*inherited, *_marked(node.decorator_list)])
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                for clause in (*inherited, *_marked(node.decorator_list)):
                    found.setdefault(clause, {})[f"{stem}::{node.name}"] = None

    for path in sorted(folder.rglob("test_*.py"), key=lambda path: path.name):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        visit(tree.body, path.stem, _marks_of_module(tree))
    return {clause: list(tests) for clause, tests in found.items()}


def ends_in_report(path: Path) -> dict[str, str]:
    """Test to its end, from a report in JUnit's form; the worst of all sets of parameters."""
    ends: dict[str, str] = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        stem = next((part for part in case.get("classname", "").split(".") if part.startswith("test_")), "")
        test = f"{stem}::{case.get('name', '').partition('[')[0]}"
        if case.find("failure") is not None or case.find("error") is not None:
            end = "failed"
        else:
            end = "skipped" if case.find("skipped") is not None else "passed"
        ends[test] = min(end, ends.get(test, end), key=_WORST.index)
    return ends


def ends_in_page(page: str) -> dict[str, str]:
    """Test to its end as the page tells it."""
    return {test: end for test, end in _ENTRY.findall(page) if end != NOT_RUN}


def page(tests: Mapping[str, list[str]], ends: Mapping[str, str]) -> str:
    """The whole page."""
    sections = titles()
    clauses = [clause for section in sections.values() for clause in section]
    proved = sum(1 for clause in clauses if tests.get(clause) and clause not in LATER)
    later = sum(1 for clause in clauses if clause in LATER)
    lines = [
        HEAD,
        f"{len(clauses)} clauses: {proved} with tests, {later} for a later piece of the platform.",
        "",
    ]
    for section, entries in sections.items():
        lines += [f"## {section}", "", "| Clause | About | Result | Tests |", "|---|---|---|---|"]
        for clause, title in entries.items():
            names = tests.get(clause, [])
            told = "<br>".join(f"`{name}` ({ends.get(name, NOT_RUN)})" for name in names) or "-"
            lines.append(f"| {clause} | {title} | {_result(clause, names, ends)} | {told} |")
        lines.append("")
    return "\n".join(lines)


def _result(clause: str, names: list[str], ends: Mapping[str, str]) -> str:
    if clause in LATER:
        return f"{'partly; ' if names else ''}later: {LATER[clause]}"
    if not names:
        return "no test"
    found = {ends.get(name, NOT_RUN) for name in names}
    if "failed" in found:
        return "**failed**"
    return "passed" if "passed" in found else "skipped" if "skipped" in found else NOT_RUN


def without_ends(text: str) -> str:
    """A page without what a run of the tests changes in it."""
    text = _ENTRY.sub(r"`\1`", text)
    return re.sub(
        r"^(\| B\w+ \| [^|]+ \|) (?:passed|skipped|not run|\*\*failed\*\*) \|", r"\1 |", text, flags=re.M
    )


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when `--check` finds an old page."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write docs/clauses.md.")
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT.xml")
    parser.add_argument("--check", action="store_true", help="only say whether its names are fresh")
    options = parser.parse_args(arguments)
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    ends = ends_in_page(old)
    for report in options.reports:
        ends.update(ends_in_report(report))
    new = page(named_clauses(), ends)
    if options.check:
        fresh = without_ends(old) == without_ends(new)
        sys.stdout.write(f"{PAGE.name} is {'fresh' if fresh else 'old'}\n")
        return 0 if fresh else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
