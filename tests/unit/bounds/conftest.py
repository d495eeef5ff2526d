"""The tests of bounds use the small worlds of the engine's and the core's tests."""

from __future__ import annotations

import sys
from pathlib import Path

_CONTROLPLANE = Path(__file__).parent.parent / "controlplane"
sys.path[:0] = [str(_CONTROLPLANE / "core"), str(_CONTROLPLANE / "engine")]
