"""Code of users on the node: unpacked once per digest, read-only, bounded.

bundles/
  <digest>/<directory>/…   published whole by a rename
  incoming/                emptied at start
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from opentailr_agent.flights import Flights
from opentailr_agent.objects import ObjectCache

LARGEST_BUNDLE: Final = 1 << 30
"""Bytes that one bundle may unpack to; a bomb stops there."""
MOST_FILES: Final = 100_000
_CHUNK: Final = 1 << 20


class BundleError(RuntimeError):
    """An archive that is not what a bundle may be; the message names the entry."""


@dataclass(slots=True)
class _Unpacked:
    size: int
    owners: set[str] = field(default_factory=set)


class BundleStore:
    """Unpacked bundles.

    Args:
        folder: Made if needed.
        objects: Where archives come from.
        limit_bytes: Beyond it bundles without an owner go, the longest unused first.
    """

    def __init__(self, folder: Path, objects: ObjectCache, *, limit_bytes: int = 4 << 30) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._objects = objects
        self._limit = limit_bytes
        self._flights: Flights[None] = Flights()
        self._held: OrderedDict[str, _Unpacked] = OrderedDict()
        self._number = 0
        remove_tree(self._incoming)
        self._incoming.mkdir(parents=True)

        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_ctime):
            if path != self._incoming:
                self._held[path.name] = _Unpacked(_size_of(path))

    async def get(self, digest: str, directory: str, *, owner: str) -> Path:
        """Folder that holds the package directory, kept for `owner` until `release`.

        Raises:
            BundleError: The archive is not sound.
            ObjectError: It cannot be had.
        """
        while digest not in self._held:
            await self._flights.join(digest, lambda: self._unpack(digest, directory, owner))

        self._held[digest].owners.add(owner)
        self._held.move_to_end(digest)
        return self._folder / digest

    def hold(self, digest: str, *, owner: str) -> None:
        """Notes an owner again after a restart of the agent."""
        if digest in self._held:
            self._held[digest].owners.add(owner)

    def release(self, owner: str) -> None:
        """`owner` uses nothing any more."""
        for held in self._held.values():
            held.owners.discard(owner)

        self._trim()

    async def _unpack(self, digest: str, directory: str, owner: str) -> None:
        archive = await self._objects.get(digest, owner=f"bundle {digest}")
        self._number += 1
        incoming = self._incoming / str(self._number)

        try:
            size = await asyncio.to_thread(unpack, archive, incoming, directory)
            incoming.rename(self._folder / digest)
            self._held[digest] = _Unpacked(size, {owner})
            self._trim()
        finally:
            self._objects.release(f"bundle {digest}")
            remove_tree(incoming)

    def _trim(self) -> None:
        total = sum(held.size for held in self._held.values())

        for digest in [d for d, held in self._held.items() if not held.owners]:
            if total <= self._limit:
                return

            total -= self._held.pop(digest).size
            remove_tree(self._folder / digest)


def unpack(archive: Path, target: Path, directory: str) -> int:
    """Unpacks a bundle below `target`, read-only; returns its size in bytes.

    Every entry must lie inside `directory`; links, devices, absolute names and names that climb
    are refused before anything is written for them.

    Raises:
        BundleError: The archive is broken, too large, or has such an entry.
    """
    if not directory or directory in (".", "..") or "/" in directory or "\0" in directory:
        raise BundleError(f"bundle directory {directory!r} is not a plain name")

    target.mkdir(parents=True)
    total = count = 0

    try:
        # A plain tar only: `r:` takes no compression, so the archive bounds what it unpacks to.
        with tarfile.open(archive, mode="r:", errorlevel=2) as packed:
            (target / directory).mkdir()

            for entry in packed:
                count += 1
                total += entry.size

                if count > MOST_FILES:
                    raise BundleError(f"the bundle has more than {MOST_FILES} entries")

                if total > LARGEST_BUNDLE:
                    raise BundleError(f"the bundle unpacks to more than {LARGEST_BUNDLE} bytes")

                path = target / _checked(entry, directory)

                if entry.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _extract(packed, entry, path)
    except (tarfile.TarError, UnicodeError, EOFError, FileExistsError, NotADirectoryError) as error:
        raise BundleError(f"the bundle is not a sound archive: {error}") from error

    _seal(target)
    return total


def _checked(entry: tarfile.TarInfo, directory: str) -> PurePosixPath:
    name = PurePosixPath(entry.name)

    if not (entry.isreg() or entry.isdir()) or entry.issparse():
        raise BundleError(f"bundle entry {entry.name!r} is a link or a device")

    if name.is_absolute() or ".." in name.parts or "\0" in entry.name:
        raise BundleError(f"bundle entry {entry.name!r} leaves the package directory")

    if not name.parts or name.parts[0] != directory or (len(name.parts) == 1 and not entry.isdir()):
        raise BundleError(f"bundle entry {entry.name!r} is outside of {directory!r}")

    return name


def _extract(packed: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise BundleError(f"bundle entry {entry.name!r} occurs twice") from error

    with os.fdopen(descriptor, "wb") as file:
        source = packed.extractfile(entry)
        assert source is not None
        shutil.copyfileobj(source, file, _CHUNK)

    if path.stat().st_size != entry.size:
        raise BundleError(f"bundle entry {entry.name!r} is cut short")

    path.chmod(0o555 if entry.mode & 0o111 else 0o444)
    # Compiled files are named after the time of their source: it must not differ between nodes.
    os.utime(path, (_SOURCE_TIME, _SOURCE_TIME))


_SOURCE_TIME: Final = 315_532_800
"""1980-01-01: old enough that no clock is behind it."""


def _seal(target: Path) -> None:
    for root, folders, _ in os.walk(target, topdown=False):
        for name in folders:
            os.chmod(os.path.join(root, name), 0o555)


def _size_of(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(folder) for name in names
    )


def remove_tree(folder: Path) -> None:
    """Deletes a folder with read-only parts; harmless if it is not there."""
    refused: list[str] = []
    shutil.rmtree(folder, onerror=lambda _, path, __: refused.append(path))

    if refused:
        _remove_locked(folder)


def _remove_locked(folder: Path) -> None:
    """The long way, for a tree in which something could not be deleted: opens every folder first."""

    def unlock(_: object, path: str, __: object) -> None:
        try:
            os.chmod(os.path.dirname(path), 0o700)

            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, 0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        except OSError:
            # Somebody else removed it, or the disk fails: the next start tries again.
            return

    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(root, name)

            if not os.path.islink(path):
                os.chmod(path, 0o700)

    shutil.rmtree(folder, onerror=unlock)
