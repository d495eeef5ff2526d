"""The files of an attempt, in a folder that user code may write to as well."""

from __future__ import annotations

import errno
import os
import stat


def open_file(path: str, flags: int) -> int:
    """Opens a regular file; what user code put in its place neither leads elsewhere nor blocks.

    Raises OSError for anything else that has the name.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "this is no file", path)
    return descriptor


def has_open_line(path: str) -> bool:
    """True when a file's last line has no end; what is written next would stick to it."""
    try:
        spool = open_file(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        size = os.fstat(spool).st_size
        return size > 0 and os.pread(spool, 1, size - 1) != b"\n"
    except OSError:
        return False
    finally:
        os.close(spool)
