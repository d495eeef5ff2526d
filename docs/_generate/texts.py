"""Text from outside `docs/`, fitted to the place where it stands here."""

from __future__ import annotations

import re
from pathlib import Path

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_FENCE = re.compile(r"^\s*(```|~~~|:::)")


class MissingTargetError(ValueError):
    """A link names a file that does not exist."""


def without_outer_links(text: str, page: Path, docs: Path) -> str:
    """The text of a page with links to files outside `docs/` as plain text.

    In the repository such links can be followed, on the site there is nothing to follow.

    Raises:
        MissingTargetError: the file that a link names does not exist.
    """

    def replace(found: re.Match[str]) -> str:
        target = found["target"]
        if target.startswith(("#", "http:", "https:", "mailto:")):
            return found[0]
        path = (page.parent / target.partition("#")[0]).resolve()
        if path.is_relative_to(docs) and not path.is_dir():
            return found[0]
        if not path.exists():
            raise MissingTargetError(f"{page}: the link to {target!r} leads nowhere")
        text = found["text"]
        return text if text.startswith("`") else f"`{text}`"

    return _outside_fences(text, lambda line: _LINK.sub(replace, line))


def page_of_root(path: Path, docs: Path) -> str:
    """A page of the repository's root as part of a page in `docs/`: its links start from there."""

    def replace(found: re.Match[str]) -> str:
        target = found["target"]
        if target.startswith(("#", "http:", "https:")):
            return found[0]
        inside = target.removeprefix(f"{docs.name}/")
        return f"[{found['text']}]({inside if inside != target else '../' + target})"

    return _outside_fences(path.read_text(encoding="utf-8"), lambda line: _LINK.sub(replace, line))


def restructured(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText has it: fences as code blocks, no blank at the ends of code."""
    made: list[str] = []
    inside = False
    for line in lines:
        fence = re.match(r"^(\s*)```(\w*)\s*$", line)
        if fence:
            inside = not inside
            made += ["", f"{fence[1]}.. code-block:: {fence[2] or 'text'}", ""] if inside else [""]
        else:
            made.append(f"    {line}" if inside and line.strip() else line)
    return _CODE.sub(lambda found: f"`{found[1].strip()}`", "\n".join(made)).split("\n")


def _outside_fences(text: str, change: object) -> str:
    assert callable(change)
    made: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence:
            if found and found[1] == fence:
                fence = ""
            made.append(line)
        elif found and found[1] != ":::":
            fence = found[1]
            made.append(line)
        else:
            made.append(change(line))
    return "".join(made)
