"""`dt`: look at jobs, runs, logs and nodes, and start or stop things."""

from __future__ import annotations

import sys

import typer

from datatailr.cli.exits import EXIT_CODES, exit_code_table, run_program
from datatailr.cli.session import complete, completion_asked, new_group
from datatailr.cli.shape import bare_fields

app = new_group(
    "Look at jobs, runs, logs and nodes of the platform, and start or stop things.",
    {
        "job": "datatailr.cli.jobs:app",
        "log": "datatailr.cli.runlogs:app",
        "node": "datatailr.cli.nodes:app",
        "help": "datatailr.cli.dt:help_app",
    },
)

help_app = new_group("Texts about things that several commands share.")


@help_app.command("exit-codes")
def show_exit_codes() -> None:
    """Print what the exit codes of `dt` mean."""
    typer.echo("Exit codes of dt:")
    typer.echo(exit_code_table())


@help_app.command("environment")
def show_environment() -> None:
    """Print the environment variables that `dt` reads."""
    typer.echo(
        "DATATAILR_ADDRESS    HOST:PORT of the server; before the client configuration file\n"
        "DATATAILR_TOKEN      the token to show it\n"
        "XDG_CONFIG_HOME      where opentailr/client.json lies; ~/.config by default\n"
        "DATATAILR_PROGRESS   0 switches the display of progress off\n"
        "NO_COLOR             any value switches colours off"
    )


@app.callback(
    epilog="Exit codes: "
    + ", ".join(f"{int(code)} {meaning.split(':')[0]}" for code, meaning in EXIT_CODES)
    + "."
)
def dt() -> None:
    """Look at jobs, runs, logs and nodes of the platform, and start or stop things."""


def main() -> None:
    """Entry point of the program."""
    if completion_asked():
        complete(app)
        return

    run_program(lambda: app(bare_fields(sys.argv[1:]), prog_name="dt"))


if __name__ == "__main__":
    main()
