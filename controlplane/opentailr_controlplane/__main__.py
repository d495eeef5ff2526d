"""`python -m opentailr_controlplane`: runs a control plane until it is told to end."""

from __future__ import annotations

import sys

from .server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
