"""The documented names and signatures, checked in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_every_documented_signature_matches() -> None:
    script = Path(__file__).with_name("check_signatures.py")
    done = subprocess.run(
        [sys.executable, str(script), "--seed-only"], capture_output=True, text=True, check=False
    )
    counts = re.search(r"(\d+) of (\d+) documented names match", done.stdout)
    assert counts is not None, done.stdout + done.stderr
    assert counts[1] == counts[2], done.stdout
    assert int(counts[2]) > 100
    assert done.returncode == 0
