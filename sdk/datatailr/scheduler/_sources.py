"""Finding and reading user modules without importing them."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["find_module_file", "imported_modules", "main_module_name", "module_file", "top_level_names"]


def main_module_name(module: ModuleType | None = None) -> str | None:
    """The name under which the script being run is packaged (clause B189); None in a session
    without a file.

    With `python -m package.module` that is the dotted name, as its relative imports need it.
    """
    main = module if module is not None else sys.modules.get("__main__")
    if main is None:
        return None
    spec = getattr(main, "__spec__", None)
    if spec is not None and getattr(main, "__file__", None):
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else None


def module_file(module_name: str) -> Path | None:
    """The source file of a loaded module, None when it has none."""
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None) if module is not None else None
    return Path(os.path.abspath(file)) if file else None


def find_module_file(module_name: str) -> Path | None:
    """The source file that importing a dotted name would load, without importing anything."""
    if "." not in module_name and module_name == main_module_name():
        return module_file("__main__")
    loaded = module_file(module_name)
    if loaded is not None:
        return loaded
    path: list[str] | None = None
    spec: importlib.machinery.ModuleSpec | None = None
    parts = module_name.split(".")
    for index in range(len(parts)):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: index + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def parse(file: Path) -> ast.Module | None:
    """The syntax tree of a source file, None when it cannot be read or parsed."""
    try:
        with tokenize.open(file) as stream:
            return ast.parse(stream.read(), filename=str(file))
    except (OSError, SyntaxError, ValueError):
        return None


def imported_modules(file: Path) -> set[str]:
    """Top-level names of all absolute imports anywhere in a file."""
    tree = parse(file)
    if tree is None:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def top_level_names(file: Path) -> set[str] | None:
    """Names that importing the file binds; None when that cannot be told from the source."""
    tree = parse(file)
    if tree is None:
        return None
    found: set[str] = set()
    for node in _module_level(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                found.update(leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
    return found


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _module_level(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _module_level(handler.body)
