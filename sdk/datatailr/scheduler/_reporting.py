"""What the SDK tells people: one line after a success, one log line after a failure (B95, B97)."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

from datatailr.logging import GREEN, YELLOW, DatatailrLogger
from datatailr.scheduler._repository import warn_about_unsafe_scheduling

__all__ = ["failure", "progress", "stack_level", "success", "warn_unverified"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def success(text: str) -> tuple[bool, str]:
    """Print the line of clause B97 to stdout; the pair that the operation returns."""
    print(GREEN(text), flush=True)
    return True, text


def failure(text: str) -> tuple[bool, str]:
    """Log the message at ERROR to stderr; the pair that the operation returns (clause B95)."""
    # the number of a line in the message is that of the user's own code
    DatatailrLogger("datatailr").get_logger().error(text, stacklevel=stack_level())
    return False, text


def progress(text: str) -> None:
    """One line about work that takes a while, to stderr, so that stdout stays for data."""
    print(text, file=sys.stderr, flush=True)


def warn_unverified(job: str, problem: str) -> None:
    """Say that a version cannot be promoted, if the user wants to be told (clause B168)."""
    if warn_about_unsafe_scheduling():
        progress(YELLOW(f"{job} cannot be promoted: {problem}"))


def stack_level() -> int:
    """`stacklevel` for a warning that shall show the user's line, counted from the caller."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    return level


def warn_user(text: str) -> None:
    """A UserWarning that shows the user's own line."""
    warnings.warn(text, UserWarning, stacklevel=stack_level())
