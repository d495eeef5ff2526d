"""What every code of an error means, an example, and what to do; the source of `dt explain`.

A code never changes its meaning and is never given again. Its first two digits are its chapter:

    00  this package        03  reaching the platform   06  values it refuses
    01  tasks and graphs    04  things it does not know  07  storage and limits
    02  code and images     05  states that forbid it    08  how tasks and runs end

The pages of `docs/errors` are made from here; a test fails when they differ, when an error class, a
reason of the server or a kind of cause has no code, and when a code is used twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

CHAPTERS: Final[Mapping[str, str]] = {
    "00": "This package",
    "01": "Tasks and graphs",
    "02": "Code and images",
    "03": "Reaching the platform",
    "04": "Things the platform does not know",
    "05": "States that forbid it",
    "06": "Values that are refused",
    "07": "Storage and limits",
    "08": "How tasks and runs end",
}


@dataclass(frozen=True)
class Entry:
    """One code.

    Attributes:
        code: `DT` and four digits.
        title: A few words.
        meaning: What happened and why the platform says no.
        example: What leads to it.
        remedy: What to do, with a command where there is one.
        reasons: The server's words for it, as `ErrorDetail.reason` carries them.
        cause: The kind of cause that an attempt, task or run ends with, as `cause.kind` in JSON.
    """

    code: str
    title: str
    meaning: str
    example: str
    remedy: str
    reasons: tuple[str, ...] = ()
    cause: str = ""


def entries() -> Iterator[Entry]:
    """All codes in order."""
    return iter(_by_code().values())


def find(code: str) -> Entry | None:
    """The entry of a code, which may be written in any case and without leading zeros: `dt102`, `102`."""
    digits = code.strip().upper().removeprefix("DT")
    return _by_code().get(f"DT{digits.zfill(4)}") if digits.isascii() and digits.isdigit() else None


def code_of_reason(reason: str) -> str:
    """The code of a reason that the server gave; empty for a reason that this release does not know."""
    return _by_reason().get(reason, "")


def code_of_cause(kind: str) -> str:
    """The code of a kind of cause such as `out_of_memory`; empty for one that is not known."""
    return next((entry.code for entry in _by_code().values() if kind and entry.cause == kind), "")


def page(entry: Entry) -> str:
    """The page of a code as Markdown."""
    return (
        f"# {entry.code}: {entry.title}\n\n{entry.meaning}\n\n"
        f"## Example\n\n{entry.example}\n\n## What to do\n\n{entry.remedy}\n"
    )


def index() -> str:
    """The list of all codes as Markdown, by chapter."""
    parts = [
        "# Error codes",
        "Every error ends its first line with a code. `dt explain CODE` prints its page without a network.",
    ]

    for number, title in CHAPTERS.items():
        rows = [f"- [{entry.code}]({entry.code}.md) {entry.title}" for entry in _chapter(number)]
        parts.extend((f"## {title}", "\n".join(rows)))

    names = "\n".join(entry.code for entry in entries())
    parts.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """The files of `docs/errors` by name."""
    return {"README.md": index(), **{f"{entry.code}.md": page(entry) for entry in entries()}}


def _chapter(number: str) -> list[Entry]:
    return [entry for entry in entries() if entry.code[2:4] == number]


@lru_cache(maxsize=1)
def _by_code() -> dict[str, Entry]:
    from datatailr import _codes_platform, _codes_sdk

    found = sorted((*_codes_sdk.ENTRIES, *_codes_platform.ENTRIES), key=lambda entry: entry.code)
    return {entry.code: entry for entry in found}


@lru_cache(maxsize=1)
def _by_reason() -> dict[str, str]:
    return {reason: entry.code for entry in entries() for reason in entry.reasons}
