"""`datatailr setup-cli`: completion for the user's shell (clause B275)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from datatailr._files import user_folder
from datatailr.cli.completion import SHELLS, Shell, script
from datatailr.cli.output import tell
from datatailr.cli.textfiles import read_text, write_text

_PROGRAMS: Final = ("dt", "datatailr")
_MARK: Final = "# opentailr completion"


def _shell_name(text: str) -> str:
    if text not in SHELLS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(SHELLS)}")

    return text


def setup_cli(
    *,
    shell: Annotated[
        str | None,
        typer.Option(
            "--shell",
            parser=_shell_name,
            metavar="NAME",
            help="bash, zsh or fish; the login shell by default.",
        ),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Only print the lines for the shell; write nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before files are written.")] = False,
) -> None:
    """Set up the tab key for `dt` and `datatailr`: commands, options, names of jobs, runs and nodes.

    Shows which files it writes. It may be called again; what is there already stays as it is.

    Examples: `datatailr setup-cli --shell bash --yes` and `datatailr setup-cli --shell fish --print`.
    """
    name = _login_shell() if shell is None else shell
    chosen: Shell = next(known for known in SHELLS if known == name)

    if print_:
        print("\n".join(script(program, chosen) for program in _PROGRAMS), end="")
        return

    changes = [change for change in planned_changes(chosen) if read_text(change[0]) != change[1]]

    for path, _ in changes:
        tell(f"{'change' if path.exists() else 'write '}  {path}")

    if changes and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                "nothing is written without a terminal unless it is given", param_hint="--yes"
            )

        if not typer.confirm("Write these files?", default=True, err=True):
            tell("Nothing is written.")
            raise typer.Exit(1)

    for path, text in changes:
        write_text(path, text)

    print(f"Completion for {chosen} is {'set up' if changes else 'set up already'}; it works in new shells.")
    line = "datatailr export-auth --fish | source" if chosen == "fish" else 'eval "$(datatailr export-auth)"'
    tell(f"A shell whose programs need server and token as variables:  {line}")


def planned_changes(shell: Shell) -> list[tuple[Path, str]]:
    """Each file that completion for a shell needs, with the whole text that it shall have."""
    if shell == "fish":
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "fish" / "completions"
        return [(folder / f"{program}.fish", script(program, shell)) for program in _PROGRAMS]

    lines = user_folder("XDG_CONFIG_HOME", ".config") / f"completion.{shell}"
    text = "\n".join(script(program, shell) for program in _PROGRAMS)
    startup = _startup_file(shell)
    begun = read_text(startup) or ""
    loading = f'[ -f "{lines}" ] && . "{lines}"  {_MARK}\n'
    kept = "".join(line for line in begun.splitlines(keepends=True) if not line.rstrip().endswith(_MARK))

    if loading in begun:
        return [(lines, text), (startup, begun)]

    if kept and not kept.endswith("\n"):
        kept += "\n"

    return [(lines, text), (startup, kept + loading)]


def _startup_file(shell: Shell) -> Path:
    if shell == "zsh":
        return Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"

    return Path.home() / ".bashrc"


def _login_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name

    if name not in SHELLS:
        said = f"the login shell is {name!r}" if name else "SHELL is not set"
        raise typer.BadParameter(f"{said}; give one of {', '.join(SHELLS)}", param_hint="--shell")

    return name
