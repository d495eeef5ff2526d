"""One log on its way: what is in the file, what was sent, what is durable. No I/O but the file's.

All offsets here are those of the stored log; `gaps` translates them to the file's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from opentailr_agent.logs.gaps import Gaps

CHUNK: Final = 256 * 1024
"""Bytes per message, the largest that the wire allows."""
WINDOW: Final = 1 << 20
"""Bytes of one log that may be under way; one chatty task leaves room for the others."""
_PUNCH: Final = 16 << 20
"""Durable bytes are given back to the disk in pieces of this size."""
_NO_LOG: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES}
)
"""Errors of opening that mean: nothing is there that could be the log."""
_BLOCK: Final = 4096
"""Bytes are dropped in whole blocks: less would free nothing."""
_FALLOC_KEEP_SIZE: Final = 1
_FALLOC_PUNCH_HOLE: Final = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A message under way."""

    start: int
    end: int
    last: bool
    at: float
    """When it was sent, monotonic seconds."""


@dataclass(slots=True)
class Spool:
    """A log file that grows until it is finished.

    `known` is False after a restart of the agent: the first message then is an empty one at
    offset 0, whose answer tells what the control plane has.
    """

    log_id: str
    stream: int
    path: Path
    known: bool = True
    frees: bool = True
    """Whether durable parts of the file may be given back to the disk before its end."""
    sent: int = 0
    durable: int = 0
    finished: bool = False
    """Nothing more will be written."""
    end_sent: bool = False
    done: bool = False
    refused: bool = False
    """The control plane takes no more of it: what is still written is given back to the disk."""
    not_before: float = 0.0
    """A log that writes line by line is not sent before this time, so that lines gather."""
    troubled: bool = False
    """It was told that the file cannot be read."""
    remark: str = ""
    """Something odd that was found in its files, to be told once."""
    under_way: deque[Chunk] = field(default_factory=deque)
    gaps: Gaps = field(default_factory=Gaps)
    _ever_sent: int = 0
    """Furthest offset sent since the control plane's own was certain; it may have all of that."""
    _stale: int = 0
    _freed: int = 0
    """Offset in the file before which everything was given back to the disk."""
    _descriptor: int = -1

    def next(self, now: float) -> tuple[int, bytes, bool] | None:
        """Offset, data and end mark of the next message, or None when there is nothing to send.

        Raises:
            OSError: The file cannot be read now.
        """
        if self.done or self.end_sent or self.refused:
            return None

        if self.known and not self.under_way and self._ever_sent > self.durable and self.gaps.fluid:
            # A marker must stand where the control plane's bytes end, so that place must be certain.
            self.known = False

        if not self.known:
            if self.under_way:
                return None

            # The answer is read with the gaps of an earlier process of the agent in mind.
            self._open()
            self.under_way.append(Chunk(0, 0, False, now))
            return 0, b"", False

        room = WINDOW - sum(chunk.end - chunk.start for chunk in self.under_way)
        data = self._read(min(CHUNK, room)) if room > 0 else b""
        # The end mark travels alone or with the only chunk under way, so that its answer is certain.
        at_end = self.finished and self.sent + len(data) >= self._size()
        last = at_end and not self.under_way

        if not data and not last:
            return None

        start = self.sent
        self.sent += len(data)
        self._ever_sent = max(self._ever_sent, self.sent)
        self.end_sent = last
        self.under_way.append(Chunk(start, self.sent, last, now))
        return start, data, last

    def answered(self, durable: int, *, expected: bool) -> None:
        """Takes the control plane's answer: `durable` bytes are safe, `expected` asks to go on there."""
        if not self.known:
            self.known = True
            self._ever_sent = durable
            self.gaps.answered(durable)
            self._rewind(durable)
            return

        if expected:
            # Chunks behind the refused one are refused too; only the first answer counts.
            if self._stale:
                self._stale -= 1
                return

            self._stale = max(0, len(self.under_way) - 1)
            self._rewind(durable)
            return

        self.durable = max(self.durable, durable)
        self.gaps.settle(self.durable)
        ended = False

        while self.under_way and self.under_way[0].end <= durable:
            ended = self.under_way.popleft().last or ended

        if ended:
            self.done = True
        elif durable > self.sent or (self.under_way and self.under_way[0].start < durable):
            self._rewind(durable)

        self._free()

    def cut(self) -> None:
        """The connection is gone: what was under way may have arrived or not."""
        self.under_way.clear()
        self._stale = 0
        self.sent = self.durable
        self.end_sent = False

    def oldest(self) -> float | None:
        """When the longest unanswered message was sent."""
        return self.under_way[0].at if self.under_way else None

    def refuse(self) -> None:
        """The control plane takes nothing more of this log."""
        self.refused = True
        self.under_way.clear()
        self.done = self.finished

    def finish(self) -> None:
        """Nothing more will be written."""
        self.finished = True
        self.done = self.done or self.refused

    def identity(self) -> tuple[int, int] | None:
        """Which file it is; builds that share one have several logs in it. None without a file."""
        if not self._open():
            return None

        found = os.fstat(self._descriptor)
        return found.st_dev, found.st_ino

    def held_bytes(self) -> int:
        """Bytes that the log takes on the disk."""
        return os.fstat(self._descriptor).st_blocks * 512 if self._open() else 0

    def free_disk(self) -> int:
        """Free bytes of the disk that the log is on; asked of the open file, as its folder may be gone."""
        if not self._open():
            return 0

        found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def droppable(self) -> tuple[int, int]:
        """The part of the file, first and last offset, that may be lost: neither sent nor lost before.

        What is under way is not part of it, since the control plane may have it already.
        """
        if self.done or not self._open():
            return 0, 0

        size = os.fstat(self._descriptor).st_size

        if self.refused:
            return _up(self._freed), _down(size)

        last = self.gaps.last
        first = self.gaps.position(self.sent) if last is None or last.told else last.end
        return _up(first), _down(size)

    def durable_part(self) -> tuple[int, int]:
        """The part of the file that the control plane has and that is not given back yet."""
        return self._freed, _down(self.gaps.position(self.durable)) if self.known else 0

    def free(self, end: int) -> None:
        """Gives everything before `end` back to the disk, in small pieces too; it is durable."""
        if self._open():
            self._punch(end)

    def drop(self, start: int, end: int) -> None:
        """Gives a part of the file back to the disk, which lies in `droppable`; whole blocks of it.

        Raises:
            OSError: The file system cannot.
        """
        if self._open():
            _punch_hole(self._descriptor, start, end - start)
            self.dropped(start, end)

    def dropped(self, start: int, end: int) -> None:
        """Notes that a part of the file is gone."""
        if self.refused:
            self._freed = max(self._freed, end)
        else:
            self.gaps.add(start, end)

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _rewind(self, durable: int) -> None:
        self.under_way.clear()
        self.durable = self.sent = durable
        self.end_sent = False

        if self.gaps.position(durable) < self._freed:
            self.gaps.rewound(durable, self._freed)

    def _open(self) -> bool:
        if self._descriptor < 0:
            try:
                # The folder is the user's too: what was put in the log's place must not lead the
                # agent elsewhere (a link), nor hold it (a pipe).
                descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in _NO_LOG:
                    return False

                raise

            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return False

            try:
                if os.fstat(descriptor).st_size:
                    # An earlier process of the agent may have dropped parts of it.
                    if not self.gaps.load(self._told_path):
                        name = self._told_path.name
                        self.remark = f"{name} cannot be understood; its lost parts are told anew"

                    self.gaps.find(descriptor)
            except BaseException:
                # Without its gaps the file would be taken for whole.
                os.close(descriptor)
                raise

            self._descriptor = descriptor

        return True

    @property
    def _told_path(self) -> Path:
        return self.path.with_name(self.path.name + ".gaps")

    def _read(self, most: int) -> bytes:
        if not self._open():
            return b""

        piece = self.gaps.piece(self.sent)

        if piece.length is not None:
            most = min(most, piece.length)

        if piece.gap is None:
            return os.pread(self._descriptor, most, piece.position)

        if not piece.gap.told:
            self.gaps.tell(piece.gap, self._told_path)

        return piece.gap.text[piece.position : piece.position + most]

    def _size(self) -> int:
        return self.gaps.stored(os.fstat(self._descriptor).st_size) if self._open() else 0

    def _free(self) -> None:
        if not self.frees or self._descriptor < 0:
            return

        reached = self.gaps.position(self.durable) // _PUNCH * _PUNCH

        if reached > self._freed:
            self._punch(reached)

    def _punch(self, end: int) -> None:
        if end > self._freed and self._descriptor >= 0:
            try:
                _punch_hole(self._descriptor, self._freed, end - self._freed)
            except OSError:
                # A file system without holes: the space is free when the attempt is removed.
                return

            self._freed = end


def _up(offset: int) -> int:
    return -(-offset // _BLOCK) * _BLOCK


def _down(offset: int) -> int:
    return offset // _BLOCK * _BLOCK


def _punch_hole(descriptor: int, start: int, length: int) -> None:
    mode = ctypes.c_int(_FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE)
    libc = ctypes.CDLL(None, use_errno=True)

    if libc.fallocate(descriptor, mode, ctypes.c_long(start), ctypes.c_long(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
