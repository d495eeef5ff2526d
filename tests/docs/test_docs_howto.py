"""The how-to pages, done as they stand, each in an empty folder, all on one platform."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_examples import DOCS, reader, steps
from e2e_harness import Platform

PAGES = sorted(path.name for path in (DOCS / "howto").glob("*.md") if path.name != "README.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, platform: Platform, tmp_path: Path) -> None:
    environment = {**platform.client_environment(), "PLATFORM_DATA": str(platform.data)}
    path = DOCS / "howto" / page
    assert reader(tmp_path / "reader", environment).follow(path) == steps(path) > 0
