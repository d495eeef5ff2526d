"""`make demo`, as a new user sees it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e_harness import ROOT, Ran, base_environment, eventually, processes_of, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = ("load", "split", "train-svm-rbf", "train-forest-300", "choose", "evaluate", "draw")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The examples alone, in a folder of their own, so that the demo of the working tree is not touched."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def demo(clone: Path) -> Ran:
    command = [sys.executable, str(clone / "examples" / "demo.py")]
    return run_command(command, base_environment(clone / "home"), cwd=clone, seconds=300)


def test_the_demo_twice(clone: Path) -> None:
    first = demo(clone)
    for name in TASKS:
        assert name in first.out
    assert "accuracy" in first.out and "ranking on the validation set" in first.out
    picture = clone / ".demo" / "confusion-matrix.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    accuracy = next(line for line in first.out.splitlines() if line.strip().startswith("accuracy"))
    assert 0.95 < float(accuracy.split()[-1]) <= 1
    assert processes_of(clone) == {}
    picture.unlink()
    began = time.monotonic()
    second = demo(clone)
    took = time.monotonic() - began
    assert accuracy in second.out and picture.exists()
    assert took < 25, f"the second demo took {took:.1f} s"
    assert processes_of(clone) == {}
    for text in (first, second):
        assert "Traceback" not in text.out + text.err and "Warning" not in text.err, text.err


def test_the_demo_can_be_interrupted(clone: Path) -> None:
    environment = base_environment(clone / "home")
    with (clone / "demo.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(clone / "examples" / "demo.py")],
            env=environment,
            cwd=clone,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually((clone / ".demo" / "ready.json").exists, seconds=60, what="the platform of the demo")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "interrupted" in (clone / "demo.out").read_text()
    assert processes_of(clone) == {}


def test_the_demo_says_when_it_cannot_start(clone: Path) -> None:
    (clone / ".demo").mkdir()
    (clone / ".demo" / "platform").write_text("a file where the data directory should be")
    command = [sys.executable, str(clone / "examples" / "demo.py")]
    ran = run_command(command, base_environment(clone / "home"), cwd=clone, code=1, seconds=90)
    assert "demo failed" in ran.err and "Traceback" not in ran.err
    assert processes_of(clone) == {}
