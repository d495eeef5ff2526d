"""Frames and hand-over of data between agent, keeper, prepared interpreters and attempts.

Between agent and keeper, and from an attempt to the keeper, a message is one
JSON object behind its length (4 bytes, big endian). What only a new process
reads goes through an anonymous memory file instead: it never blocks the writer,
whatever its size, and secrets in it never reach a disk.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

Message = dict[str, Any]

LENGTH = struct.Struct("!I")
SEQUENCE = struct.Struct("!Q")
"""Number of an attempt within its keeper, the whole text of an order to fork."""

_encode = json.JSONEncoder(separators=(",", ":")).encode

MAX_FRAME = 64 << 20
"""Largest message between agent and keeper, in bytes."""
MAX_REPORT = 1 << 20
"""Largest message of an attempt to its keeper, in bytes."""
INLINE_RESULT = 64 << 10
"""Results and exceptions up to this many bytes travel inside the outcome."""


class FrameError(ValueError):
    """The other side does not speak this protocol."""


def pack(message: Message) -> bytes:
    """The message as one frame."""
    body = _encode(message).encode()
    return LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into messages; raises FrameError for what is not one."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[Message]:
        """Takes the next bytes and returns the messages that are complete now."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > self._limit:
                raise FrameError(f"a message of {size} bytes exceeds the limit of {self._limit}")
            end = LENGTH.size + size
            if len(self._buffer) < end:
                break
            try:
                message = json.loads(bytes(self._buffer[LENGTH.size : end]))
            except ValueError as error:
                raise FrameError("a message is not JSON") from error
            del self._buffer[:end]
            if not isinstance(message, dict):
                raise FrameError(f"a message is a JSON {type(message).__name__}, not an object")
            messages.append(message)
        return messages


def to_memory(message: Message) -> int:
    """Descriptor of an anonymous memory file that holds the message."""
    descriptor = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        write_all(descriptor, _encode(message).encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def from_memory(descriptor: int) -> Message:
    """Reads a message that `to_memory` wrote and closes the descriptor."""
    # Plain system calls: buffered files would touch many pages in a process just forked.
    message: Message = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    os.close(descriptor)
    return message


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
