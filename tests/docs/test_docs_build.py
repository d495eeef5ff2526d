"""The site is built, without a warning, and nothing in it comes from the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_examples import DOCS, ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    out = tmp_path / "site"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (out / "index.html").read_text(encoding="utf-8") == (out / "README.html").read_text(
        encoding="utf-8"
    )
    pages = {
        path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in out.rglob("*.html")
    }
    for name in ("tutorial.html", "howto/data.html", "reference/scheduler.html", "architecture.html"):
        assert name in pages
    for name, text in pages.items():
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert fetched == [], name
        assert "&lt;!-- generated" not in text and "<!-- generated" not in text, name
    assert 'id="datatailr.scheduler.Workflow.rerun"' in pages["reference/scheduler.html"]
    assert "dt job watch" in pages["reference/dt.html"]
    assert "JobService.SaveJob" in pages["reference/wire.html"]
