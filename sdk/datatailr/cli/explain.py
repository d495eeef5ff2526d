"""`dt explain CODE`: what a code means and what to do, without a network."""

from __future__ import annotations

from typing import Annotated

import typer

from datatailr import catalogue
from datatailr._near import suggestion


def explain(
    code: Annotated[str, typer.Argument(help="A code such as DT0401; `all` lists every one.")],
) -> None:
    """Print what the code at the end of an error means, an example, and what to do.

    Examples: `dt explain DT0401` and `dt explain all`.
    """
    if code.strip().lower() == "all":
        for entry in catalogue.entries():
            typer.echo(f"{entry.code}  {entry.title}")

        return

    found = catalogue.find(code)

    if found is None:
        known = [entry.code for entry in catalogue.entries()]
        hint = suggestion(code, known, otherwise="`dt explain all` lists every code")
        raise typer.BadParameter(f"there is no code {code!r}; {hint}")

    typer.echo(catalogue.page(found), nl=False)
