"""What a project says about itself: pyproject.toml and .python-version (clause B173)."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NEWEST_MINOR", "OLDEST_MINOR", "project_dependencies", "project_python_version", "read_project"]

OLDEST_MINOR = 10
NEWEST_MINOR = 14
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|~=|>|<)\s*3\.(\d+)(?:\.(?:\d+|\*))*\s*")
_VERSION_LINE = re.compile(r"3\.1[0-4](\.\d+)?")


def _toml_reader() -> Any:
    # tomllib came with Python 3.11; before it a reader is used if one is installed
    for name in ("tomllib", "tomli"):
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    return None


def read_project(file: Path) -> dict[str, Any]:
    """The [project] table of a pyproject.toml, empty when it has none.

    Raises:
        ValueError: the file is no TOML.
    """
    reader = _toml_reader()
    if reader is None:
        warnings.warn(f"{file} is not read: install tomli on Python 3.10", UserWarning, stacklevel=2)
        return {}
    try:
        table = reader.loads(file.read_text(encoding="utf-8")).get("project", {})
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return table if isinstance(table, dict) else {}


def project_dependencies(file: Path) -> str | None:
    """[project].dependencies as lines, None when the file states none."""
    dependencies = read_project(file).get("dependencies")
    return None if dependencies is None else "\n".join(str(line) for line in dependencies)


def _upwards(package: Path, repository: Path) -> Iterator[Path]:
    yield package
    for directory in package.parents:
        if not directory.is_relative_to(repository):
            return
        yield directory


def find_project_dependencies(package: Path, repository: Path) -> str | None:
    """Dependencies of the nearest pyproject.toml from the package up to the repository root."""
    for directory in _upwards(package, repository):
        file = directory / "pyproject.toml"
        if file.is_file():
            found = project_dependencies(file)
            if found is not None:
                return found
    return None


def project_python_version(package: Path, repository: Path) -> str | None:
    """The version that `.python-version`, else `requires-python`, of the project asks for.

    With requires-python the running interpreter's version is taken if it is allowed, else the
    newest allowed one. None when the project says nothing that can be used.
    """
    for directory in _upwards(package, repository):
        file = directory / ".python-version"
        if file.is_file():
            lines = file.read_text(encoding="utf-8").split()
            if lines and _VERSION_LINE.fullmatch(lines[0]):
                return lines[0]
    for directory in _upwards(package, repository):
        file = directory / "pyproject.toml"
        if file.is_file():
            wanted = read_project(file).get("requires-python")
            if isinstance(wanted, str):
                return _allowed_version(wanted)
    return None


def _allowed_version(wanted: str) -> str | None:
    clauses = [_CLAUSE.fullmatch(part) for part in wanted.split(",") if part.strip()]
    running = sys.version_info.minor
    candidates = [running, *range(NEWEST_MINOR, OLDEST_MINOR - 1, -1)]
    for minor in candidates:
        if all(clause is None or _fits(minor, clause[1], int(clause[2])) for clause in clauses):
            return f"3.{minor}"
    return None


def _fits(minor: int, operator: str, bound: int) -> bool:
    return {
        ">=": minor >= bound,
        ">": minor >= bound,  # `>3.11` and `>3.11.2` both leave room within 3.11
        "<=": minor <= bound,
        "<": minor < bound,
        "==": minor == bound,
        "!=": minor != bound,
        "~=": minor >= bound,
    }[operator]
