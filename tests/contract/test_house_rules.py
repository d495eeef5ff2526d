"""The rules of the house, read from the imports: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = {
    "datatailr": ROOT / "sdk" / "datatailr",
    "opentailr_controlplane": ROOT / "controlplane" / "opentailr_controlplane",
    "opentailr_agent": ROOT / "agent" / "opentailr_agent",
}
GENERATED = COMPONENTS["datatailr"] / "v1"
SHARED = ("datatailr.v1", "datatailr.errors")
"""What every component may use of the SDK."""
PURE_HELPERS: tuple[str, ...] = ("datatailr.scheduler.names", "datatailr.filters")
"""Helpers of the SDK without state or I/O that the servers share."""
IMPURE = {
    "asyncio",
    "grpc",
    "google",
    "time",
    "random",
    "os",
    "socket",
    "threading",
    "subprocess",
    "secrets",
    "uuid",
}
LINES = 500


def sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        if GENERATED not in path.parents:
            yield path


def module_name(path: Path) -> str:
    for name, folder in COMPONENTS.items():
        if folder in path.parents:
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise ValueError(path)


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Yields the absolute names that a file imports; not those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def within(name: str, *owners: str) -> bool:
    return any(name == owner or name.startswith(owner + ".") for owner in owners)


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_do_not_import_one_another(component: str) -> None:
    others = [other for other in COMPONENTS if other != component]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(COMPONENTS[component])
        for name in imports(path)
        if within(name, *others) and not within(name, *SHARED, *PURE_HELPERS)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("component", ["opentailr_controlplane", "opentailr_agent"])
def test_cores_are_pure(component: str) -> None:
    core = COMPONENTS[component] / "core"
    files = list(sources(core))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in IMPURE or within(name, "datatailr.v1")
    ]
    assert not wrong, "\n".join(wrong)


def test_runner_needs_only_the_standard_library() -> None:
    import sys

    allowed = set(sys.stdlib_module_names) | {"__future__"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(COMPONENTS["datatailr"] / "runner")
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] not in allowed and not within(name, "datatailr.runner")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    known = {module_name(path) for folder in COMPONENTS.values() for path in sources(folder)}
    for folder in COMPONENTS.values():
        for path in sources(folder):
            targets = set()
            for name in imports(path, top_level_only=True):
                while name and name not in known:
                    name = name.rpartition(".")[0]
                if name and name != module_name(path):
                    targets.add(name)
            graph[module_name(path)] = targets
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise AssertionError("cycle: " + " -> ".join([*trail[trail.index(name) :], name]))
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            # A package and its parts belong together: `package/__init__` re-exports its modules.
            if not within(target, name) and not within(name, target):
                visit(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in COMPONENTS.values()
        for path in sources(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert not long, long
