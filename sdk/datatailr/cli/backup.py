"""`datatailr backup` and `datatailr restore`: the control plane's own programs, run as child processes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from datatailr.cli.children import module_command
from datatailr.cli.places import Places

IN_USE = 3
"""Exit code: the data directory is in use."""


def back_up(places: Places, directory: Path, *, json: bool = False) -> int:
    """Make a backup of the platform in `directory`, whether it runs or not; returns the exit code."""
    return _run("backup", places, directory, ["--json"] if json else [])


def restore(places: Places, directory: Path, *, force: bool = False, json: bool = False) -> int:
    """Put a backup in the place of the platform's state; returns the exit code.

    A platform that runs is refused: its `up` would start the control plane again at once.
    """
    holder = places.holder()

    if holder is not None:
        from datatailr.cli.output import tell

        tell(
            f"error: `datatailr up` runs in {places.root} (process {holder['pid']})",
            f"hint: datatailr down --data-dir {places.root}",
        )
        return IN_USE

    arguments = [*(["--force"] if force else []), *(["--json"] if json else [])]
    return _run("restore", places, directory, arguments)


def _run(command: str, places: Places, directory: Path, arguments: Sequence[str]) -> int:
    line = [command, str(directory.absolute()), "--data-dir", str(places.controlplane), *arguments]
    return subprocess.run(module_command("opentailr_controlplane", line), check=False).returncode
