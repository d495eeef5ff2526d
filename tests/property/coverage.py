"""`python -m tests.property.coverage`: prints which steps of both cores random histories reach."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from . import reach

EXAMPLES = 50
"""Histories of the control plane; a node's are cheaper, and there are more of them."""


def main() -> int:
    """Exit code 1 when a step without an argument is missing."""
    reached = reach.control_plane(EXAMPLES, 15)
    with tempfile.TemporaryDirectory() as directory:
        reached += reach.node(Path(directory), 2 * EXAMPLES, 40)
    sys.stdout.write(reach.table(reached) + "\n")
    missing = {edge for edge in reach.every_step() if not reached[edge]} - set(reach.UNREACHED)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
