from __future__ import annotations

import sys
from pathlib import Path

# The small world around the core serves these tests too.
sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
