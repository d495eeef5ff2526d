"""What the bare machine does: a fork and a wait, with the same modules imported."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, os, sys, time
for name in sys.argv[2].split(","):
    if name: __import__(name)
gc.freeze()
alive, count = int(sys.argv[1]), 400
begin, running = time.perf_counter(), 0
for _ in range(count):
    if running == alive:
        os.wait(); running -= 1
    if os.fork() == 0: os._exit(0)
    running += 1
while running: os.wait(); running -= 1
print((time.perf_counter() - begin) / count * 1000)
"""


def fork_and_wait(modules: str = "", *, alive: int = 1) -> float:
    """Milliseconds per bare fork, exit and wait, with at most `alive` children at once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(alive), modules],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)
