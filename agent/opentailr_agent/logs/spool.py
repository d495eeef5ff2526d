"""One log on its way: what is in the file, what was sent, what is durable. No I/O but the file's."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
    not_before: float = 0.0
    """A log that writes line by line is not sent before this time, so that lines gather."""
    troubled: bool = False
    """It was told that the file cannot be read."""
    under_way: deque[Chunk] = field(default_factory=deque)
    _stale: int = 0
    _punched: int = 0
    _descriptor: int = -1

    def next(self, now: float) -> tuple[int, bytes, bool] | None:
        """Offset, data and end mark of the next message, or None when there is nothing to send.

        Raises:
            OSError: The file cannot be read now.
        """
        if self.done or self.end_sent:
            return None

        if not self.known:
            if self.under_way:
                return None

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
        self.end_sent = last
        self.under_way.append(Chunk(start, self.sent, last, now))
        return start, data, last

    def answered(self, durable: int, *, expected: bool) -> None:
        """Takes the control plane's answer: `durable` bytes are safe, `expected` asks to go on there."""
        if not self.known:
            self.known = True
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

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _rewind(self, durable: int) -> None:
        self.under_way.clear()
        self.durable = self.sent = durable
        self.end_sent = False

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

            self._descriptor = descriptor

        return True

    def _read(self, most: int) -> bytes:
        return os.pread(self._descriptor, most, self.sent) if self._open() else b""

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size if self._open() else 0

    def _free(self) -> None:
        if not self.frees or self.durable - self._punched < _PUNCH or self._descriptor < 0:
            return

        length = (self.durable - self._punched) // _PUNCH * _PUNCH
        mode = ctypes.c_int(_FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE)
        libc = ctypes.CDLL(None)
        # A file system without holes refuses; the space is then free when the attempt is removed.
        libc.fallocate(self._descriptor, mode, ctypes.c_long(self._punched), ctypes.c_long(length))
        self._punched += length
