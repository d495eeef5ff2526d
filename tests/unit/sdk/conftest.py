"""Fixtures of the SDK's tests: a platform in memory, user packages on disk, no platform at all."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr.scheduler import _platform


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No platform of this machine, no variables of it, and an environment that is left as it was."""
    for name in list(os.environ):
        if name.startswith("DATATAILR_"):
            monkeypatch.delenv(name)
    empty = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(empty))
    # the tests' own temporary directories may lie below a git work tree or not: say so once
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(empty.parent))
    yield
    monkeypatch.undo()


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    """A configured platform."""
    fake = FakePlatform()
    monkeypatch.setattr(_platform, "get_platform", lambda: fake)
    return fake


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Builder]:
    """Write modules below tmp_path/project and import one: `package("flows.py", source)`."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    before = set(sys.modules)

    def build(name: str, source: str, **others: str) -> ModuleType:
        for file, text in {name: source, **others}.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        sys.modules.pop(module, None)
        return importlib.import_module(module)

    yield build
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and str(root) in file:
            del sys.modules[name]
