"""The site is built, without a warning, and nothing in it comes from the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_examples import DOCS, ROOT


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site as `make docs` does."""
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(out.with_name("trees"))]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    out = tmp_path / "site"
    done = build(DOCS, out)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](#no-such-heading)", "no-such-heading"),
        ("[gone](../gone.txt)", "leads nowhere"),
        ("<!-- generated: weather -->", "weather"),
    ],
)
def test_what_leads_nowhere_fails_the_build(tmp_path: Path, text: str, message: str) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(DOCS / "conf.py", source)
    shutil.copytree(DOCS / "_generate", source / "_generate", ignore=shutil.ignore_patterns("__pycache__"))
    page = source / "README.md"
    page.write_text("# Start\n\nNothing here.\n", encoding="utf-8")
    done = build(source, tmp_path / "good")
    assert done.returncode == 0, done.stderr
    page.write_text(f"# Start\n\n{text}\n", encoding="utf-8")
    done = build(source, tmp_path / "bad")
    assert done.returncode != 0 and message in done.stderr
