"""The status page in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_harness import Platform, Project

pytestmark = pytest.mark.slow

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<script>document.title='stolen'</script> & Söhne"
DEPLOY = f"""
from datatailr import Workflow, task

@task()
def one():
    return 1

with Workflow(name={HOSTILE!r}):
    one()
"""


def browser() -> str:
    """The browser; in continuous integration its absence is a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    if os.environ.get("CI"):
        pytest.fail("no Chromium: .ci/run installs it")
    pytest.skip("no Chromium on this machine")


def page(url: str, folder: Path, *options: str) -> str:
    """The document after the browser rendered it."""
    done = subprocess.run(
        [browser(), *QUIET, f"--user-data-dir={folder}", *options, "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_page_shows_runs_to_the_token_and_counts_to_all(
    platform: Platform, project: Project, tmp_path: Path
) -> None:
    project.script(DEPLOY)
    url = str(platform.ready["http"])

    anonymous = page(url, tmp_path / "anonymous")
    assert "Opentailr" in anonymous
    assert "Söhne" not in anonymous

    signed_in = page(f"{url}/?token={platform.token}", tmp_path / "signed-in")
    assert "&lt;script&gt;" in signed_in and "Söhne" in signed_in
    assert "<script" not in signed_in
    assert platform.token not in signed_in
    assert "stolen</title>" not in signed_in

    shot = tmp_path / "page.png"
    page(
        f"{url}/?token={platform.token}", tmp_path / "shot", f"--screenshot={shot}", "--window-size=1000,700"
    )
    assert shot.stat().st_size > 5_000
