"""`datatailr init-demo`: small files of every kind of job, to run, read and change (clause B275)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from datatailr.cli.demofiles import DEMO_FILES
from datatailr.cli.output import print_aligned, print_json, tell
from datatailr.cli.session import JsonOption
from datatailr.cli.textfiles import read_text, write_text
from datatailr.errors import InvalidRequestError

_DEFAULT: Final = "opentailr-demo"


def init_demo(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")] = Path(_DEFAULT),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there and differ.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a workflow, a service, an app, an Excel add-in and a notebook, each with the line that runs it.

    Files that are there already are never replaced unless --force says so.

    Examples: `datatailr init-demo` and `datatailr init-demo demo --force`.
    """
    taken = differing(directory)

    if taken and not force:
        raise InvalidRequestError(
            f"there already in {directory}, with another text: {', '.join(taken)}\n"
            "hint: give another directory, or --force to replace them"
        )

    write_demo(directory)

    if json:
        print_json({"directory": str(directory), "files": list(DEMO_FILES)}, pretty=True)
        return

    print(f"Written to {directory}:")
    print_aligned([(f"  {name}", file.what) for name, file in DEMO_FILES.items()])
    tell("", "Try:", f"  cd {directory}", "  python deploy.py")


def differing(directory: Path) -> list[str]:
    """The files of the demo that are there with another text.

    Raises:
        InvalidRequestError: one cannot be read.
    """
    return [name for name, file in DEMO_FILES.items() if read_text(directory / name) not in (None, file.text)]


def write_demo(directory: Path) -> None:
    """Write all files of the demo.

    Raises:
        InvalidRequestError: one cannot be written.
    """
    for name, file in DEMO_FILES.items():
        write_text(directory / name, file.text)
