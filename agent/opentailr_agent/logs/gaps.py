"""Where a log file has bytes no more, and what stands in their place.

What is stored is not always what the file held: when the node's bound for logs is reached, the oldest
unsent bytes of a log are given back to the disk, and a marker with their number takes their place. Offsets
of the stored log therefore differ from offsets in the file; this module translates.

    file     |--- sent ---|--- lost ---|--- unsent ---|
    stored   |--- sent ---|marker|--- unsent ---|

A gap is *fluid* until its marker may have been sent: it can still grow, and is nothing but a hole in the
file, found again after a restart by asking the file system. From then on it is *told*: its text and place
are written beside the log first, so that a restarted agent translates as before.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 256 * 1024
"""Size of the file beside a log beyond which it cannot be ours: some 2,000 gaps."""
_NO_DATA: Final = frozenset({errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP})


def marker(count: int) -> str:
    """What stands in place of lost bytes."""
    return f"\n[{count} bytes lost: the node had no more room for logs that could not be sent]\n"


@dataclass(slots=True)
class Gap:
    """Bytes of a file that are gone."""

    start: int
    """Offset in the file of the first one."""
    end: int
    """Offset in the file of the first byte after them."""
    told: str = ""
    """The marker, once it may have been sent; empty before."""

    @property
    def text(self) -> bytes:
        """The marker."""
        return (self.told or marker(self.end - self.start)).encode()


@dataclass(frozen=True, slots=True)
class Piece:
    """Where bytes of the stored log come from."""

    gap: Gap | None
    """The gap whose marker it is, or None for bytes of the file."""
    position: int
    """Offset in the file, or in the marker."""
    length: int | None
    """Bytes up to the end of the piece; None for the last, which ends where the file does."""


class Gaps:
    """All gaps of one log, in the order of the file. No I/O but `load`, `save` and `find`."""

    def __init__(self) -> None:
        self._stored = 0
        self._file = 0
        """What lies before these offsets is durable at the control plane; they mean the same place."""
        self._gaps: list[Gap] = []

    def __len__(self) -> int:
        return len(self._gaps)

    @property
    def last(self) -> Gap | None:
        """The one furthest on."""
        return self._gaps[-1] if self._gaps else None

    @property
    def fluid(self) -> Gap | None:
        """The first gap of which nothing was told."""
        return next((gap for gap in self._gaps if not gap.told), None)

    def piece(self, stored: int) -> Piece:
        """Where the bytes at an offset of the stored log come from."""
        at, position = self._stored, self._file

        for gap in self._gaps:
            length = gap.start - position

            if stored < at + length:
                return Piece(None, position + stored - at, at + length - stored)

            at += length
            text = len(gap.text)

            if stored < at + text:
                return Piece(gap, stored - at, at + text - stored)

            at += text
            position = gap.end

        return Piece(None, position + stored - at, None)

    def position(self, stored: int) -> int:
        """Offset in the file before which nothing is needed for `stored`; for a marker the end of its gap."""
        piece = self.piece(stored)
        return piece.position if piece.gap is None else piece.gap.end

    def stored(self, position: int) -> int:
        """Offset of the stored log that belongs to one in the file; inside a gap, that of its marker."""
        at, last = self._stored, self._file

        for gap in self._gaps:
            if position < gap.end:
                return at + max(0, min(position, gap.start) - last)

            at += gap.start - last + len(gap.text)
            last = gap.end

        return at + max(0, position - last)

    def add(self, start: int, end: int) -> None:
        """Notes lost bytes; those that follow the last gap, of which nothing was told, make it longer."""
        last = self._gaps[-1] if self._gaps else None

        if last is not None and not last.told and start <= last.end:
            last.end = max(last.end, end)
            return

        start = max(start, last.end if last is not None else self._file)

        if start < end:
            self._gaps.append(Gap(start, end))

    def settle(self, durable: int) -> None:
        """Forgets gaps whose markers are durable."""
        while self._gaps and self._gaps[0].told:
            gap = self._gaps[0]
            after = self._stored + gap.start - self._file + len(gap.text)

            if after > durable:
                return

            self._stored, self._file = after, gap.end
            del self._gaps[0]

    def answered(self, durable: int) -> None:
        """Takes over how much the control plane really has, where that was not certain.

        It never got a marker that was not told: what it has beyond the start of a fluid gap are the
        bytes themselves, and so they are not lost.
        """
        while (gap := self.fluid) is not None:
            beyond = durable - self.stored(gap.start)

            if beyond <= 0:
                return

            if gap.start + beyond < gap.end:
                gap.start += beyond
                return

            self._gaps.remove(gap)

    def rewound(self, durable: int, freed: int) -> None:
        """The control plane has less than it had: what was given back to the disk since is lost.

        Args:
            durable: What it has.
            freed: Offset in the file before which nothing is left.
        """
        if durable < self._stored:
            # Where exactly that lay in the file is forgotten; as many bytes are lost as it lacks.
            first, self._file = self._file, self._file - (self._stored - durable)
            self._stored = durable
            self._insert(Gap(self._file, first))

        self._fill(self.position(durable), freed)

    def find(self, descriptor: int) -> None:
        """Finds the holes of a file that no told gap explains: bytes dropped before a restart."""
        size = os.fstat(descriptor).st_size
        position = self._file

        while position < size:
            hole = _seek(descriptor, position, os.SEEK_HOLE, size)

            if hole >= size:
                return

            data = _seek(descriptor, hole, os.SEEK_DATA, size)

            self._fill(hole, data)
            position = max(data, hole + 1)

    def load(self, path: Path) -> bool:
        """Reads the told gaps; False when there is a file but it cannot be understood."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)

        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False

            kept = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
            base, gaps = kept["base"], [Gap(int(a), int(b), str(text)) for a, b, text in kept["gaps"]]
            stored, file = int(base[0]), int(base[1])
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return False
        finally:
            os.close(descriptor)

        ends = [file, *(place for gap in gaps for place in (gap.start, gap.end))]

        if not 0 <= stored <= file or ends != sorted(ends) or not all(gap.told for gap in gaps):
            return False

        self._stored, self._file, self._gaps = stored, file, gaps
        return True

    def tell(self, gap: Gap, path: Path) -> None:
        """Fixes a gap, durably, before its marker is sent.

        Raises:
            OSError: It cannot be written; the gap stays fluid.
        """
        text = gap.text.decode()
        kept = [
            [one.start, one.end, text if one is gap else one.told]
            for one in self._gaps
            if one is gap or one.told
        ]
        incoming = path.with_name(path.name + ".part")
        incoming.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(incoming, flags, 0o600)

        try:
            data = memoryview(json.dumps({"base": [self._stored, self._file], "gaps": kept}).encode())

            while data:
                data = data[os.write(descriptor, data) :]

            os.fdatasync(descriptor)
        except OSError:
            incoming.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

        incoming.replace(path)
        gap.told = text

    def _fill(self, start: int, end: int) -> None:
        """Notes as lost what lies in a part of the file and in no gap yet."""
        for gap in list(self._gaps):
            if gap.end > start:
                self._insert(Gap(start, min(gap.start, end)))
                start = gap.end

        self._insert(Gap(start, end))

    def _insert(self, gap: Gap) -> None:
        if gap.start < gap.end:
            self._gaps.append(gap)
            self._gaps.sort(key=lambda one: one.start)


def _seek(descriptor: int, position: int, whence: int, size: int) -> int:
    """Next data or hole; the end of the file where there is none, or the file system cannot tell."""
    try:
        return os.lseek(descriptor, position, whence)
    except OSError as error:
        if error.errno in _NO_DATA:
            return size

        raise
