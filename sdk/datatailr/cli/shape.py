"""Which part of an answer is wanted: `--filter`, `--sort` before it is asked for, then `--fields`, `--jq`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from datatailr._near import near
from datatailr.cli.output import print_json
from datatailr.errors import DatatailrError

FilterOption = Annotated[
    str,
    typer.Option(
        *("-f", "--filter"),
        metavar="EXPRESSION",
        help='Only what fits, for instance "name starts_with a and not state = failed".',
    ),
]
SortOption = Annotated[
    str,
    typer.Option(
        *("-s", "--sort"), metavar="FIELDS", help='Fields in order, - for descending: "-version name".'
    ),
]
FieldsOption = Annotated[
    str | None,
    typer.Option(
        "--fields", metavar="A,B", help="Print JSON with these keys alone; without names lists them."
    ),
]
JqOption = Annotated[
    str | None,
    typer.Option(
        "--jq", metavar="PROGRAM", help="Print what a jq program makes of the JSON; texts come bare."
    ),
]


@dataclass(frozen=True)
class Shape:
    """How an answer is to be printed.

    Attributes:
        json: As JSON on one line.
        pretty: As JSON, indented.
        fields: Only these keys of each object, joined by commas; empty: list the keys instead.
        jq: Through this program.
    """

    json: bool = False
    pretty: bool = False
    fields: str | None = None
    jq: str | None = None

    @property
    def data(self) -> bool:
        """True when data is wanted and not a table for people."""
        return self.json or self.pretty or self.fields is not None or self.jq is not None

    def print(self, value: Any, *, keys: Sequence[str] = ()) -> None:
        """Print data.

        Args:
            value: The answer.
            keys: Keys of its objects, for `--fields` when the list is empty.

        Raises:
            typer.BadParameter: an unknown field, or a jq program that is none.
        """
        if self.fields is not None:
            rows: list[dict[str, Any]] = value if isinstance(value, list) else [value]
            known = list(keys) or list(rows[0] if rows else ())

            if not self.fields.strip(" ,"):
                print("\n".join(known))
                return

            wanted = [name.strip() for name in self.fields.split(",") if name.strip()]
            _check_fields(wanted, known)
            value = [{name: row.get(name) for name in wanted} for row in rows]

        if self.jq is None:
            print_json(value, pretty=self.pretty)
            return

        for result in _jq(self.jq, value):
            if isinstance(result, str):
                print(result)
            else:
                print(json.dumps(result, ensure_ascii=False, indent=2 if self.pretty else None))


def check_expressions(filter: str, sort: str, listing: Literal["jobs", "runs"]) -> None:
    """Refuse a filter or order with a mistake before anything is sent (clause B281).

    Raises:
        typer.BadParameter: names the token at fault.
    """
    if not filter and not sort:
        return

    from datatailr.filters import JOBS, RUNS, FilterError, parse_filter, parse_sort

    fields = JOBS if listing == "jobs" else RUNS

    try:
        parse_filter(filter, fields)
        parse_sort(sort, fields)
    except FilterError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.part}") from None


def bare_fields(arguments: Sequence[str]) -> list[str]:
    """The arguments with an empty value for a `--fields` that has none, which lists the fields."""
    found = []

    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        bare = argument == "--fields" and (not following or following[0].startswith("-"))
        found.append("--fields=" if bare else argument)

    return found


def _check_fields(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if known and name not in known:
            meant = near(name, known)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            raise typer.BadParameter(f"no field {name!r}; {hint}", param_hint="--fields")


def _jq(program: str, value: Any) -> list[Any]:
    try:
        jq: Any = importlib.import_module("jq")
    except ModuleNotFoundError:
        raise DatatailrError(
            "--jq needs the Python package jq, which is not installed\nhint: pip install jq"
        ) from None

    try:
        results: list[Any] = jq.compile(program).input_value(value).all()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--jq") from None

    return results
