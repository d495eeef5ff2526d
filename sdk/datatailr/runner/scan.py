"""Which foreign modules a user's module imports when it is imported itself."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Sequence

MAX_FILES = 500
MAX_MODULES = 200
MAX_SOURCE = 2 << 20
"""Bytes; a larger file is data in the shape of code and is not read."""


def foreign_imports(module: str, search_path: Sequence[str]) -> list[str]:
    """Modules outside the bundle and the standard library that importing `module` needs, in order.

    Follows the imports of the bundle's own files, without running any of them.
    Imports inside functions do not count, as they happen when the function runs.
    A file that cannot be read or parsed adds nothing: the import itself will tell.
    """
    finder = _Finder(search_path)
    found: dict[str, None] = {}
    queue = list(_with_parents(module))
    seen: set[str] = set()
    while queue and len(seen) < MAX_FILES:
        name = queue.pop(0)
        if name in seen:
            continue
        seen.add(name)
        path = finder.find(name)
        if path is None:
            continue
        for imported in _imports(path, name):
            top = imported.partition(".")[0]
            if finder.has(top):
                queue.extend(_with_parents(imported))
            elif top not in sys.stdlib_module_names and len(found) < MAX_MODULES:
                found[imported] = None
    return list(found)


class _Finder:
    """Finds the source of modules in the folders of a bundle."""

    def __init__(self, search_path: Sequence[str]) -> None:
        self._folders = list(search_path)

    def has(self, top: str) -> bool:
        return any(
            os.path.isfile(os.path.join(folder, top + ".py")) or os.path.isdir(os.path.join(folder, top))
            for folder in self._folders
        )

    def find(self, module: str) -> str | None:
        relative = module.replace(".", os.sep)
        for folder in self._folders:
            for name in (relative + ".py", os.path.join(relative, "__init__.py")):
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    return path
        return None


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _imports(path: str, module: str) -> list[str]:
    try:
        if os.path.getsize(path) > MAX_SOURCE:
            return []
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    is_package = os.path.basename(path) == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    found: list[str] = []
    for node in _run_at_import(tree.body):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _resolve(node, package)
            if base:
                found.append(base)
                found.extend(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    return found


def _resolve(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _run_at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, except under TYPE_CHECKING."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _run_at_import(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                yield from _run_at_import([item for item in inner if isinstance(item, ast.stmt)])
        for handler in getattr(node, "handlers", ()):
            yield from _run_at_import(handler.body)
