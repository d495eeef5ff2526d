"""The page of bounds says what the code does, and leaves nothing out."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "design" / "bounds.md"
SOURCES = ("agent/opentailr_agent", "controlplane/opentailr_controlplane", "sdk/datatailr/runner")
_ROW = re.compile(
    r"^\| (?P<what>.+?) \| `(?P<place>[\w.:()]+)` \| (?P<value>[\d.]+) \| (?P<rule>.+) \| (?P<test>.+) \|$"
)
_BOUND = re.compile(r"(?P<module>[\w.]+):(?P<path>[\w.]+)(\((?P<parameter>\w+)\))?")
_GROWING = {"deque", "Queue", "OrderedDict"}
_WITHIN_A_CALL = {"core/definition.py", "core/placement.py"}
"""Files whose queues hold what the state holds already, or end with the call."""


def rows() -> list[re.Match[str]]:
    return [found for line in PAGE.read_text(encoding="utf-8").splitlines() if (found := _ROW.match(line))]


def value_of(place: str) -> object:
    found = _BOUND.fullmatch(place)
    assert found is not None, place
    target: object = importlib.import_module(found["module"])

    for name in found["path"].split("."):
        if dataclasses.is_dataclass(target):
            return next(field.default for field in dataclasses.fields(target) if field.name == name)

        target = getattr(target, name)

    if found["parameter"] is None:
        return target

    assert callable(target)
    return inspect.signature(target).parameters[found["parameter"]].default


def test_the_page_has_all_its_rows() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    bounded = [line for line in lines if re.match(r"^\| .* \| `\w+[\w.]+:", line)]
    assert len(rows()) == len(bounded) > 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["what"][:50])
def test_each_bound_is_what_the_page_says(row: re.Match[str]) -> None:
    assert value_of(row["place"]) == ast.literal_eval(row["value"])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["what"][:50])
def test_each_bound_has_a_test(row: re.Match[str]) -> None:
    named = row["test"].strip("`")
    path, _, name = named.partition("::")
    assert (ROOT / path).is_file(), named
    defined = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in defined, named


def said() -> set[str]:
    """Files and attributes that a row of any table names."""
    tables = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {part for line in tables for part in re.findall(r"`([^`]+\.py: \w+)`", line)}


def growing() -> Iterator[str]:
    """Queues and caches that objects keep: file and attribute."""
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                attribute = _attribute(node)

                if attribute:
                    inside = path.relative_to(ROOT / source)
                    yield f"{'runner/' if source.endswith('runner') else ''}{inside}: {attribute}"


def _attribute(node: ast.AST) -> str:
    if isinstance(node, ast.AnnAssign):
        target, value = node.target, node.value
    elif isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
    else:
        return ""

    if not isinstance(value, ast.Call):
        return ""

    names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
    names |= {part.attr for part in ast.walk(value) if isinstance(part, ast.Attribute)}

    if not names & _GROWING:
        return ""

    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def test_every_queue_and_cache_has_a_row() -> None:
    known = said()
    lacking = [
        one
        for one in sorted(set(growing()))
        if one not in known and one.partition(":")[0] not in _WITHIN_A_CALL
    ]
    assert not lacking, f"docs/design/bounds.md says nothing of {lacking}"


def test_no_row_speaks_of_what_is_gone() -> None:
    for one in said():
        name, _, attribute = one.partition(": ")
        places = [ROOT / source / name for source in (*SOURCES[:2], "sdk/datatailr")]
        assert any(attribute in path.read_text(encoding="utf-8") for path in places if path.exists()), one
