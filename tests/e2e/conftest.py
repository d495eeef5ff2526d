"""Fixtures of the end-to-end tests: one real platform for all of them, a scratch project for each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_harness import Platform, Project, client_variables

RUNTIMES = os.environ.get("OPENTAILR_TEST_RUNTIMES", "process").split(",")
"""The same tests run once per runtime named here."""


@pytest.fixture(scope="session", params=RUNTIMES)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A real `datatailr up`, started once and ended by SIGTERM, after which no process of it may be left."""
    running = Platform.start(tmp_path_factory.mktemp("platform"), runtime=request.param)
    try:
        yield running
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def client(platform: Platform) -> Iterator[None]:
    """Lets the SDK of the test process speak to the platform, and nothing after the test."""
    with client_variables(platform):
        yield


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, platform: Platform, client: None) -> Project:
    """An empty project of a user, with a workflow name that no other test uses."""
    return Project(tmp_path / "project", platform, unique_name(request))


@pytest.fixture(scope="module")
def module_project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, platform: Platform
) -> Project:
    """A project that the tests of one file share."""
    return Project(tmp_path_factory.mktemp("project"), platform, unique_name(request))


def unique_name(request: pytest.FixtureRequest) -> str:
    """A name made from those of file and test."""
    node = request.node.name.partition("[")[0].removesuffix(".py").rpartition("/")[2]
    words = re.sub(r"[\W_]+", " ", node).strip()
    stem = request.path.stem.removeprefix("test_e2e_").replace("_", " ")
    return f"{stem} {words.removeprefix('test ')}"
