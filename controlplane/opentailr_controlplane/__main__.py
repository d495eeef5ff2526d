"""`python -m opentailr_controlplane`: runs a control plane until it is told to end, or backs one up."""

from __future__ import annotations

import os
import sys

from . import backup_main, server

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] and arguments[0] in backup_main.COMMANDS:
        os.nice(backup_main.NICE)
        sys.exit(backup_main.main(arguments))
    sys.exit(server.main(arguments))
