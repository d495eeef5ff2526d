"""The command reference, made from the programs themselves."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import typer


def reference(module: str, name: str) -> str:
    """The commands of the typer application `app` of a module, as Markdown below a page's title."""
    command = typer.main.get_command(importlib.import_module(module).app)
    return "\n".join(_command(command, _context(command, name, None), level=1))


def command_names(module: str, name: str) -> Iterator[str]:
    """The full names of all commands that are no groups, such as `dt job ls`."""
    command = typer.main.get_command(importlib.import_module(module).app)
    yield from _names(command, _context(command, name, None))


def _names(command: Any, context: Any) -> Iterator[str]:
    subcommands = list(_subcommands(command, context))
    if not subcommands:
        yield context.command_path
    for child, below in subcommands:
        yield from _names(child, below)


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.context_class(command, info_name=name, parent=parent, **command.context_settings)


def _subcommands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    if not hasattr(command, "list_commands"):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            yield child, _context(child, name, context)


def _command(command: Any, context: Any, *, level: int) -> Iterator[str]:
    subcommands = list(_subcommands(command, context))
    if level > 1:
        yield f"{'#' * level} `{context.command_path}`\n"
    yield _prose(command.help or "") + "\n"
    if subcommands:
        rows = [
            (f"`{below.command_path}`", _first_sentence(child.help or "")) for child, below in subcommands
        ]
        yield from _table(("command", "what it does"), rows)
    else:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f"```text\n{usage}\n```\n"
        yield from _parameters(command, context)
    if command.epilog:
        yield _prose(command.epilog) + "\n"
    for child, below in subcommands:
        yield from _command(child, below, level=min(level + 1, 5))


def _parameters(command: Any, context: Any) -> Iterator[str]:
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"`{record[0]}`".replace("|", r"\|"), _cell(record[1])) for record in records if record]
    if rows:
        yield from _table(("argument or option", "meaning"), rows)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |\n|---|---|"
    for left, right in rows:
        yield f"| {left} | {right} |"
    yield ""


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", r"\|")


def _escaped(text: str) -> str:
    """Text for Markdown: what it holds of HTML, emphasis and brackets is shown, code in backticks kept."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\<>*_\[\]{}$])", r"\\\1", part) for part in parts
    )


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return _cell(re.split(r"(?<=\.)\s", paragraph)[0])


def _prose(text: str) -> str:
    """Help as Markdown: paragraphs kept, indented ones and those with columns as they stand."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\b\n", "").strip()):
        if paragraph.startswith((" ", "\t")) or re.search(r"^\s*\S+ {3,}\S", paragraph, re.MULTILINE):
            paragraphs.append(f"```text\n{paragraph}\n```")
        else:
            paragraphs.append(_escaped(paragraph))
    return "\n\n".join(paragraphs)
