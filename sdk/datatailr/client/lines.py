"""Bytes of logs as lines that are safe to show beside others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

LONGEST: Final = 1 << 20
"""Bytes after which a line that does not end is cut, so that one never grows without end."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # a control sequence
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a command to the terminal, such as its title
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"  # a string for a device
    r"|[ -/]*[0-~]?)"
)
_RESET: Final = "\x1b[0m"


class LineCutter:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete, without their ends."""
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        self._rest = bytearray(rest)
        yield from lines

        if len(self._rest) > LONGEST:
            yield from self.flush()

    def flush(self) -> Iterator[bytes]:
        """What is left at the end of the stream."""
        rest, self._rest = bytes(self._rest), bytearray()

        if rest:
            yield rest


def shown(line: bytes, *, colours: bool) -> str:
    """A line for people: a progress bar as it stood last, colours kept or dropped, nothing else raw.

    Args:
        line: Its bytes, without the end of line.
        colours: Keep what sets colours, and end with what resets them.
    """
    # A carriage return begins the line anew; one before the end of line is only part of that.
    last = line.rstrip(b"\r").rpartition(b"\r")[2]
    parts = _pieces(last.decode("utf-8", "replace"), colours=colours)
    text = "".join(parts)
    return text + _RESET if colours and _COLOUR.search(text) and not text.endswith(_RESET) else text


def _pieces(text: str, *, colours: bool) -> Iterator[str]:
    position = 0

    for found in _ESCAPE.finditer(text):
        yield _printable(text[position : found.start()])
        position = found.end()

        if colours and _COLOUR.fullmatch(found.group()):
            yield found.group()

    yield _printable(text[position:])


def _printable(text: str) -> str:
    if text.isprintable():
        return text

    # Format characters (joiners, marks of direction) are no control characters, and scripts need some.
    return "".join(character for character in text if character == "\t" or not _is_control(character))


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f" or "\u202a" <= character <= "\u202e"
