"""`python -m tests.chaos.watchdog FOLDER`: when its input ends, kills what still has to do with the folder.

So nothing outlives a test run that was itself killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from .facts import processes_of

if __name__ == "__main__":
    # Ctrl-C is for the program that watches over us; our sign is the end of the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    for _ in range(3):
        for pid in processes_of(sys.argv[1]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
