"""What Ctrl-C means while a run is watched: once to look away, twice to end the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Final

from datatailr.cli.exits import Exit
from datatailr.cli.output import tell
from datatailr.client.connection import Connection
from datatailr.client.watching import WatchedRun, watch_run
from datatailr.v1 import run_pb2

GRACE: Final = 3.0
"""Seconds within which a second Ctrl-C ends the run."""


def look_away(connection: Connection, run_id: int, name: str, *, grace: float | None = None) -> Exit:
    """Tell how to follow and end a run that is watched no more; end it at a second Ctrl-C.

    Args:
        connection: The server.
        run_id: The run.
        name: Its job, for the commands that are told.
        grace: Seconds to wait for the second Ctrl-C; by default 3 on a terminal, and none where
            nobody can press it.

    Returns:
        Always the code that tells of Ctrl-C.
    """
    wait = (GRACE if sys.stderr.isatty() else 0.0) if grace is None else grace
    more = f" Ctrl-C within {wait:g} s ends it." if wait else ""

    try:
        tell(
            "",
            f"Stopped watching; run {run_id} goes on.{more}",
            f"  follow it:  dt job watch {name} -i {run_id}",
            f"  end it:     dt job stop -b {run_id}",
        )

        if wait:
            time.sleep(wait)
    except KeyboardInterrupt:
        _end(connection, run_id, name, watch_run(connection, run_id))

    return Exit.INTERRUPTED


def _end(connection: Connection, run_id: int, name: str, states: Iterable[WatchedRun]) -> None:
    """Cancel a run and wait until it has ended; a third Ctrl-C waits no longer."""
    follow = f"  follow it:  dt job watch {name} -i {run_id}"

    try:
        connection.call(lambda s: s.runs.CancelRun, run_pb2.CancelRunRequest(run_id=run_id))
        tell(f"Ending run {run_id} …")
        watched: WatchedRun | None = None

        for watched in states:
            if watched.ended:
                break
    except KeyboardInterrupt:
        tell("", f"Run {run_id} is being ended; nobody waits for it any more.", follow)
        return

    if watched is not None and watched.ended:
        tell(f"run {run_id} of {name}: {watched.state}")
    else:
        tell(f"Run {run_id} is being ended, but the server told no end of it.", follow)
