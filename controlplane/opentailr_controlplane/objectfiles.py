"""What the object store does to files; everything here may block and is called in a thread."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from .errors import Aborted

BATCH = 4 * 1024 * 1024
"""Bytes handed to the threads at once: large enough that the hop costs nothing."""


def write_all(file: int, data: memoryview) -> None:
    """Writes all of the data where the file stands."""
    while data:
        data = data[os.write(file, data) :]


def read_block(file: int, offset: int, length: int, hasher: hashlib._Hash | None) -> bytes:
    """Bytes of an open file, fed to the hasher too."""
    block = os.pread(file, length, offset)
    if hasher is not None:
        hasher.update(block)
    return block


def link(source: Path, private: Path) -> str:
    """Links or copies `source` to `private`, read-only and synced, and returns its digest."""
    try:
        os.link(source, private)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(source, private)
    private.chmod(0o400)
    with private.open("rb") as file:
        before = os.fstat(file.fileno())
        hasher = hashlib.sha256()
        offset = 0
        while block := read_block(file.fileno(), offset, BATCH, hasher):
            offset += len(block)
        os.fsync(file.fileno())
        after = os.fstat(file.fileno())
    if offset != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Aborted(
            "file_changed",
            f"{source.name} was written to while it was taken over",
            hint="hand a file over only after its writers have ended",
        )
    return hasher.hexdigest()
