"""Text files of the user's own that a command reads and writes, with errors that name them."""

from __future__ import annotations

from pathlib import Path

from datatailr.errors import InvalidRequestError


def read_text(path: Path) -> str | None:
    """What a file holds; None when there is none.

    Raises:
        InvalidRequestError: it cannot be read, so it must not be replaced.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidRequestError(f"cannot read {path}: {reason}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file, and the folders above it if need be.

    Raises:
        InvalidRequestError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"cannot write {path}: {error.strerror or error}") from None
