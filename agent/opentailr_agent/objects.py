"""Objects on the node: fetched once, verified, shared by hard links, bounded.

    objects/
      ab/abcd…    content by digest, mode 0444, modification time 1
      incoming/   transfers that are under way; emptied at start

A linked file shares its content with the cache, and user code of the same account could change
it. So the modification time is set to a constant: a file that no longer has it is thrown away
instead of being handed to somebody else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from opentailr_agent.flights import Flights
from opentailr_agent.transfer import ObjectError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_STAMP: Final = 1
"""Modification time of untouched content, seconds since the epoch."""


class Transfer(Protocol):
    """What the cache needs of the way to the control plane."""

    async def read(self, digest: str, target: Path) -> int:
        """Fetches into a new file, verified."""


@dataclass(slots=True)
class _Held:
    size: int
    owners: set[str] = field(default_factory=set)


class ObjectCache:
    """Content by digest.

    Args:
        folder: Made if needed; on the same disk as the attempts, so that links work.
        transfer: How missing content is fetched.
        limit_bytes: Beyond it the content that was not used for longest goes, but never what has
            an owner: the bound may be passed while live attempts use more.
    """

    def __init__(self, folder: Path, transfer: Transfer, *, limit_bytes: int = 10 << 30) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._transfer = transfer
        self._limit = limit_bytes
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._flights: Flights[None] = Flights()
        self._number = 0
        self.total_bytes = 0
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        self._scan()

    async def get(self, digest: str, *, owner: str) -> Path:
        """The file with this content, held for `owner` until `release`.

        Callers of the same digest share one transfer.

        Raises:
            ObjectError: It cannot be had.
        """
        if not _DIGEST.match(digest):
            raise ObjectError(f"{digest!r} is no digest: 64 lower-case hexadecimal digits")

        while not self._usable(digest):
            await self._flights.join(digest, lambda: self._fetch(digest))

        held = self._held[digest]
        held.owners.add(owner)
        self._held.move_to_end(digest)
        return self._path(digest)

    async def link(self, digest: str, target: Path, *, owner: str) -> None:
        """Puts the content at `target` without copying it, where the file system allows."""
        source = await self.get(digest, owner=owner)
        link_or_copy(source, target)

    def adopt(self, digest: str, source: Path, size: int) -> None:
        """Takes a verified file of the node into the cache by a link, so that nobody fetches it."""
        if self._usable(digest):
            return

        incoming = self._new_name()

        try:
            os.link(source, incoming)
        except OSError:
            return

        self._publish(digest, incoming, size)

    def release(self, owner: str) -> None:
        """`owner` uses nothing any more."""
        for held in self._held.values():
            held.owners.discard(owner)

        self._trim()

    def give_back(self) -> None:
        """Drops everything without an owner: the disk is full, and it can be fetched again."""
        for digest in [digest for digest, held in self._held.items() if not held.owners]:
            self._drop(digest)

    def _usable(self, digest: str) -> bool:
        held = self._held.get(digest)

        if held is None:
            return False

        try:
            status = os.stat(self._path(digest))
        except FileNotFoundError:
            status = None

        if status is not None and status.st_size == held.size and status.st_mtime_ns == _STAMP * 10**9:
            return True

        self._drop(digest)
        return False

    async def _fetch(self, digest: str) -> None:
        incoming = self._new_name()

        try:
            size = await self._transfer.read(digest, incoming)
            self._publish(digest, incoming, size)
        finally:
            incoming.unlink(missing_ok=True)

    def _publish(self, digest: str, incoming: Path, size: int) -> None:
        os.chmod(incoming, 0o444)
        os.utime(incoming, (_STAMP, _STAMP))
        path = self._path(digest)
        path.parent.mkdir(exist_ok=True)
        incoming.rename(path)
        self._held[digest] = _Held(size)
        self.total_bytes += size
        self._trim(keep=digest)

    def _trim(self, keep: str = "") -> None:
        if self.total_bytes <= self._limit:
            return

        for digest in [d for d, held in self._held.items() if not held.owners and d != keep]:
            if self.total_bytes <= self._limit:
                return

            self._drop(digest)

    def _drop(self, digest: str) -> None:
        held = self._held.pop(digest)
        self.total_bytes -= held.size
        self._path(digest).unlink(missing_ok=True)

    def _scan(self) -> None:
        found = []

        for path in self._folder.glob("??/*"):
            status = path.stat()

            if status.st_mtime_ns != _STAMP * 10**9 or len(path.name) != 64:
                path.unlink()
            else:
                found.append((status.st_ctime, path.name, status.st_size))

        for _, digest, size in sorted(found):
            self._held[digest] = _Held(size)
            self.total_bytes += size

        self._trim()

    def _new_name(self) -> Path:
        self._number += 1
        return self._incoming / str(self._number)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except FileExistsError:
        target.unlink()
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
