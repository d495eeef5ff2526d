"""Exit codes of both programs: a contract with scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from datatailr.errors import (
    DatatailrError,
    NotConfiguredError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)


class Exit(IntEnum):
    """What a program's exit code says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_SIGNED_IN = 3
    NOT_FOUND = 4
    DENIED = 5
    RUN_FAILED = 6
    UNREACHABLE = 7
    INTERRUPTED = 130


EXIT_CODES: Final[tuple[tuple[Exit, str], ...]] = (
    (Exit.OK, "done"),
    (Exit.FAILED, "failed for another reason than those below"),
    (Exit.USAGE, "wrong use of the command line"),
    (Exit.NOT_SIGNED_IN, "not signed in: no address, no token, or one that is not accepted"),
    (Exit.NOT_FOUND, "no such job, version, run or task"),
    (Exit.DENIED, "a permission is missing"),
    (Exit.RUN_FAILED, "the watched run did not complete"),
    (Exit.UNREACHABLE, "the server cannot be reached"),
    (Exit.INTERRUPTED, "stopped by Ctrl-C"),
)
"""The table that `dt help exit-codes` prints."""

# The first class that fits counts.
_BY_ERROR: Final[tuple[tuple[type[DatatailrError], Exit], ...]] = (
    (NotConfiguredError, Exit.NOT_SIGNED_IN),
    (UnauthenticatedError, Exit.NOT_SIGNED_IN),
    (NotFoundError, Exit.NOT_FOUND),
    (PermissionDeniedError, Exit.DENIED),
    (UnavailableError, Exit.UNREACHABLE),
)


def exit_code(error: DatatailrError) -> Exit:
    """The exit code that tells of `error`."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)


def run_program(app: Callable[[], object]) -> None:
    """Run a command-line application; errors of the platform become one message and a code."""
    try:
        app()
    except DatatailrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(exit_code(error)))
    except KeyboardInterrupt:
        sys.exit(int(Exit.INTERRUPTED))


def exit_code_table() -> str:
    """The exit codes as aligned text."""
    return "\n".join(f"{int(code):>5}  {meaning}" for code, meaning in EXIT_CODES)
