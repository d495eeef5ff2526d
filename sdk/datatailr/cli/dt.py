"""`dt`: look at jobs, runs, logs and nodes, and start or stop things."""

from __future__ import annotations

import os
import sys
from typing import Annotated

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
        "explain": "datatailr.cli.explain:explain",
        "help": "datatailr.cli.dt:help_app",
    },
)

help_app = new_group("Texts about things that several commands share.")


@help_app.command("exit-codes")
def show_exit_codes() -> None:
    """Print what the exit codes of both programs mean.

    Examples: `dt help exit-codes` and `dt job watch my-flow || dt help exit-codes`.
    """
    typer.echo("Exit codes of dt:")
    typer.echo(exit_code_table())


@help_app.command("environment")
def show_environment() -> None:
    """Print the environment variables that both programs read.

    Examples: `dt help environment` and `dt help environment | less`.
    """
    typer.echo(
        "DATATAILR_ADDRESS    HOST:PORT of the server; before the client configuration file\n"
        "DATATAILR_TOKEN      the token to show it\n"
        "DATATAILR_BASE_URL   with DATATAILR_USER_NAME and DATATAILR_USER_PASSWORD: for `datatailr login`\n"
        "XDG_CONFIG_HOME      where opentailr/client.json lies; ~/.config by default\n"
        "DATATAILR_PROGRESS   0 switches the display of progress off\n"
        "DATATAILR_TRACE      1 shows each call on the wire, as `dt -vv` does\n"
        "NO_COLOR             any value switches colours off"
    )


@app.callback(
    epilog="Exit codes: "
    + ", ".join(f"{int(code)} {meaning.split(':')[0]}" for code, meaning in EXIT_CODES)
    + "."
)
def dt(
    *,
    verbose: Annotated[
        int,
        typer.Option(
            *("-v", "--verbose"),
            count=True,
            help="Twice: show each call to the server with duration and request id.",
        ),
    ] = 0,
) -> None:
    """Look at jobs, runs, logs and nodes of the platform, and start or stop things."""
    if verbose > 1:
        os.environ["DATATAILR_TRACE"] = "1"


def main() -> None:
    """Entry point of the program."""
    if completion_asked():
        complete(app)
        return

    run_program(lambda: app(bare_fields(sys.argv[1:]), prog_name="dt"))


if __name__ == "__main__":
    main()
