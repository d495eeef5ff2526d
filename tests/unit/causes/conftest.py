"""The small world around the core, shared with the tests of the core."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "controlplane" / "core"))
