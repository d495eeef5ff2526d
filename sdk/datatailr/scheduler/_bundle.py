"""Packing code into one archive whose digest depends on names, modes and contents alone."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from datatailr.errors import BundleError
from datatailr.scheduler._package import CodePackage, list_files

__all__ = ["PackedBundle", "packed"]

# Most packages are a few files; only larger ones go through a file on disk.
_IN_MEMORY = 8 * 1024 * 1024


class PackedBundle:
    """A bundle that can be opened any number of times; see `datatailr.scheduler._platform.Bundle`."""

    def __init__(
        self, content: bytes | Path, *, digest: str, size: int, directory: str, top_level: bool
    ) -> None:
        self._content = content
        self._digest = digest
        self._size = size
        self._directory = directory
        self._top_level = top_level

    @property
    def digest(self) -> str:
        """SHA-256 of the archive in hexadecimal."""
        return self._digest

    @property
    def size(self) -> int:
        """Length of the archive in bytes."""
        return self._size

    @property
    def directory(self) -> str:
        """Name of the directory that the archive unpacks to."""
        return self._directory

    @property
    def top_level(self) -> bool:
        """True when the directory itself belongs on the import path."""
        return self._top_level

    def open(self) -> BinaryIO:
        """A new stream over the archive; the caller closes it."""
        if isinstance(self._content, bytes):
            return io.BytesIO(self._content)
        return self._content.open("rb")

    def __repr__(self) -> str:
        return f"<bundle {self._directory} {self._digest[:12]} {self._size} bytes>"


class _HashingWriter(io.RawIOBase):
    """Passes bytes on and hashes them, so that the archive is read only once."""

    def __init__(self, target: BinaryIO) -> None:
        super().__init__()
        self._target = target
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile only passes bytes
        self._target.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)


@contextlib.contextmanager
def packed(package: CodePackage) -> Iterator[PackedBundle]:
    """Pack the files of a package (clauses B182 to B188); what is on disk goes when the block ends.

    The archive is an uncompressed tar: the bytes of a compressor differ between its versions, and
    equal code must have an equal digest everywhere.

    Raises:
        BundleError: see `list_files`; or a file changed or vanished while it was read.
    """
    files = list_files(package)
    with contextlib.ExitStack() as stack:
        target: BinaryIO = io.BytesIO()
        path: Path | None = None
        if sum(file.size for file in files) > _IN_MEMORY:
            descriptor, name = tempfile.mkstemp(prefix="datatailr-", suffix=".tar")
            path = Path(name)
            stack.callback(path.unlink)
            target = stack.enter_context(os.fdopen(descriptor, "wb"))
        writer = _HashingWriter(target)
        with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for file in files:
                _add(archive, file.path, f"{package.directory.name}/{file.name}", executable=file.executable)
        target.flush()
        content: bytes | Path = path if path is not None else target.getvalue()  # type: ignore[attr-defined]
        yield PackedBundle(
            content,
            digest=writer.hash.hexdigest(),
            size=writer.size,
            directory=package.directory.name,
            top_level=package.top_level,
        )


def _add(archive: tarfile.TarFile, path: Path, name: str, *, executable: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755 if executable else 0o644
    # owner, group and time stay at their zero defaults
    try:
        with path.open("rb") as stream:
            entry.size = os.fstat(stream.fileno()).st_size
            archive.addfile(entry, stream)
    except OSError as error:
        raise BundleError(f"cannot package {path}: {error}; was it changed meanwhile?") from error
