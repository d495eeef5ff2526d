"""Fixtures of the slow tests: each starts platforms of its own, with the harness of the end-to-end tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from e2e_harness import Platform, Project, client_variables


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform for one test; the test may stop, kill and restart it."""
    running = Platform.start(tmp_path / "platform")
    try:
        with client_variables(running):
            yield running
        if running.process.poll() is None:
            running.stop()
    finally:
        running.kill()


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, platform: Platform) -> Project:
    """An empty project of a user."""
    name = re.sub(r"\W+", " ", request.node.name.removeprefix("test_")).replace("_", " ").strip()
    return Project(tmp_path / "project", platform, name)
