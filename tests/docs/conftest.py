"""Fixtures of the documentation's examples: one platform for the pages of a file of tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from e2e_harness import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A real `datatailr up`, for all pages of a file of tests."""
    running = Platform.start(tmp_path_factory.mktemp("platform"))
    try:
        yield running
        running.stop()
    finally:
        running.kill()
