"""`python -m opentailr_controlplane backup` and `restore`.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 the data directory is in use, 4 written by a newer release.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from .backup import make_backup
from .backup_format import BackupError, Manifest, NewerBackup
from .datadir import DirectoryInUse
from .restore import restore_backup

COMMANDS: Final = ("backup", "restore")

NICE: Final = 10
"""Processors are left to the work that goes on beside."""


def main(arguments: Sequence[str]) -> int:
    """Carries out one of `COMMANDS`, the first argument, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "backup":
            return _backup(options)
        return _restore(options)
    except DirectoryInUse as error:
        return _failed(str(error), 3)
    except NewerBackup as error:
        return _failed(str(error), 4)
    except BackupError as error:
        return _failed(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m opentailr_controlplane", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "backup": "Makes a backup of a data directory, which may be in use meanwhile.",
        "restore": "Puts a backup in the place of a data directory that is not used.",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, description=text, allow_abbrev=False)
        command.add_argument("directory", metavar="DIR", type=Path, help="directory of the backup")
        command.add_argument("--data-dir", type=Path, required=True, help="directory of the control plane")
        command.add_argument("--json", action="store_true", help="say what was done as JSON")
        if name == "restore":
            command.add_argument(
                "--force", action="store_true", help="move what is in the data directory aside"
            )
    return parser


def _backup(options: argparse.Namespace) -> int:
    made = make_backup(options.data_dir, options.directory)
    manifest = made.manifest
    if options.json:
        print(json.dumps({**asdict(manifest), "copied": made.copied}))
    else:
        print(
            f"backed up {options.data_dir} to {options.directory}: {_contents(manifest)}; "
            f"{made.copied} files copied in {manifest.seconds:.1f} s"
        )
    if manifest.unavailable:
        names = ", ".join(manifest.unavailable[:5])
        more = f" and {len(manifest.unavailable) - 5} more" if len(manifest.unavailable) > 5 else ""
        return _failed(
            f"the backup is finished, but {len(manifest.unavailable)} objects are missing or damaged in "
            f"{options.data_dir}: {names}{more}",
            1,
        )
    return 0


def _restore(options: argparse.Namespace) -> int:
    restored = restore_backup(options.directory, options.data_dir, force=options.force)
    if options.json:
        answer = {
            "manifest": asdict(restored.manifest),
            "aside": str(restored.aside) if restored.aside is not None else None,
            "next_run": restored.next_run,
        }
        print(json.dumps(answer))
        return 0
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(restored.manifest.created / 1e6))
    print(f"restored {options.data_dir} as it was at {when}: {_contents(restored.manifest)}")
    print(f"the next run will be number {restored.next_run}")
    if restored.aside is not None:
        print(f"what was there is in {restored.aside}")
    return 0


def _contents(manifest: Manifest) -> str:
    counts = manifest.counts
    return (
        f"{counts['jobs']} jobs, {counts['runs']} runs ({counts['active_runs']} active), "
        f"{counts['objects']} objects, {counts['logs']} logs, {manifest.bytes / 1e6:.1f} MB"
    )


def _failed(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
