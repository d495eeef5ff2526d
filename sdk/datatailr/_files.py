"""Files of the user's own that the client and the programs keep."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["user_folder", "write_private"]


def user_folder(variable: str, default: str, environ: Mapping[str, str] | None = None) -> Path:
    """The folder `opentailr` below a base directory of the XDG rules.

    Args:
        variable: Names the base directory, for instance `XDG_CONFIG_HOME`; a relative path in it is
            ignored, as the rules say.
        default: The base directory below the home directory when the variable says nothing.
        environ: Where the variable is read; the process's environment by default.
    """
    base = (os.environ if environ is None else environ).get(variable, "")
    root = Path(base) if os.path.isabs(base) else Path.home() / default
    return root / "opentailr"


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by its owner only, then move it to its place.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    # mkstemp creates with mode 0600, so a token is at no moment readable by others
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
