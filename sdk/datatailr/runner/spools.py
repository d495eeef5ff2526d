"""The files that an attempt's output is spooled to."""

from __future__ import annotations

import os


def has_open_line(path: str) -> bool:
    """True when a file's last line has no end; what is written next would stick to it."""
    try:
        spool = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(spool).st_size
        return size > 0 and os.pread(spool, 1, size - 1) != b"\n"
    except OSError:
        return False
    finally:
        os.close(spool)
