"""Hooks the generated parts into Sphinx.

A page says `<!-- generated: NAME -->` on a line of its own; `PARTS` makes the Markdown that stands there.
Links that lead out of `docs/` become plain text, after a check that what they name exists.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from _generate import commands, tables, texts, wire

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS: Final = Path(__file__).resolve().parent.parent
ROOT: Final = DOCS.parent

PLACED: Final = ("README", "architecture", "changelog", "glossary", "ideas", "tutorial")
"""Pages at the top that stand in a table of contents by name; the others are tables that tests make."""

PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "dt": lambda: commands.reference("datatailr.cli.dt", "dt"),
    "datatailr": lambda: commands.reference("datatailr.cli.platform", "datatailr"),
    "wire": lambda: wire.reference(ROOT / "protos"),
    "states": lambda: wire.enumeration(ROOT / "protos", "State"),
    "causes": lambda: wire.enumeration(ROOT / "protos", "CauseKind"),
    "exit codes": tables.exit_codes,
    "errors": tables.error_table,
    "architecture": lambda: texts.page_of_root(ROOT / "ARCHITECTURE.md", DOCS),
    "proof": lambda: tables.contents(DOCS, "*.md", besides=PLACED),
    "changelog": lambda: texts.page_of_root(ROOT / "CHANGELOG.md", DOCS),
}
"""What a page can ask for, by name."""

_MARKER = re.compile(r"^<!-- generated: ([a-z ]+) -->$", re.MULTILINE)


def expand(text: str) -> str:
    """The text with each marker replaced by the part that it names.

    Raises:
        KeyError: a marker names no part.
    """
    return _MARKER.sub(lambda found: PARTS[found[1]](), text)


def _read(app: Sphinx, name: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    content[0] = texts.without_outer_links(expand(content[0]), path, DOCS)


def _docstring(_app: Sphinx, _what: str, name: str, _obj: object, _options: Any, lines: list[str]) -> None:
    lines[:] = texts.restructured(lines)


def _finished(app: Sphinx, error: Exception | None) -> None:
    start = Path(app.outdir) / f"{app.config.root_doc}.html"
    if error is None and start.exists():
        shutil.copyfile(start, start.with_name("index.html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring, priority=100)
    app.connect("build-finished", _finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
