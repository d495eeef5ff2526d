"""The tutorial, done as it stands, on a platform that has not run anything yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_examples import DOCS, reader, steps
from e2e_harness import Platform


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(platform: Platform, tmp_path: Path) -> None:
    page = DOCS / "tutorial.md"
    assert reader(tmp_path / "reader", platform.client_environment()).follow(page) == steps(page) > 15
