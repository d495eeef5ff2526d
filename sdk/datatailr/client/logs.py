"""Reading logs: the last lines, or all of it from an offset, and on while it grows."""

from __future__ import annotations

from collections.abc import Iterator

from datatailr.client.connection import Connection
from datatailr.v1 import log_pb2

_MOST_LINES = 1_000_000
"""The server finds the beginning of at most so many last lines; more are counted here."""


def read_log(
    connection: Connection,
    target: log_pb2.ReadLogRequest,
    *,
    stderr: bool = False,
    lines: int | None = None,
    follow: bool = False,
) -> Iterator[bytes]:
    """Iterate over the bytes of a log; a cut of the connection loses and repeats nothing.

    Args:
        connection: The server.
        target: A request of which only the target is set; see `task_log`, `run_log`, `build_log`.
        stderr: The error stream instead of the output stream.
        lines: Only the last so many lines; None for all. With `follow` at most a million.
        follow: Go on until the log has ended.

    Raises:
        NotFoundError: No such run, task or image.
    """
    if lines is not None and lines <= 0 and not follow:
        return

    if lines is not None and lines > _MOST_LINES and not follow:
        yield last_lines(b"".join(read_log(connection, target, stderr=stderr)), lines)
        return

    offset = 0 if lines is None else None

    def request() -> log_pb2.ReadLogRequest:
        message = log_pb2.ReadLogRequest()
        message.CopyFrom(target)
        message.stream = log_pb2.LOG_STREAM_STDERR if stderr else log_pb2.LOG_STREAM_STDOUT
        message.follow = follow

        if offset is None:
            message.tail_lines = min(max(lines or 0, 0), _MOST_LINES)
        else:
            message.offset = offset

        return message

    for answer in connection.follow(lambda s: s.logs.ReadLog, request):
        # Also an empty answer says where the log stands: a repetition must not begin anew.
        offset = answer.offset + len(answer.data)

        if answer.data:
            yield answer.data


def last_lines(content: bytes, lines: int) -> bytes:
    """The last `lines` lines; the newline that ends the last one begins no further line."""
    parts = content.split(b"\n")
    return b"\n".join(parts[-lines - (not parts[-1]) :])


def task_log(run_id: int, task_id: int, *, attempt: int = 0) -> log_pb2.ReadLogRequest:
    """The log of a task; attempt 0 is the latest, 1 the first."""
    task = log_pb2.TaskLog(run_id=run_id, task_id=task_id, attempt=attempt)
    return log_pb2.ReadLogRequest(task=task)


def run_log(run_id: int) -> log_pb2.ReadLogRequest:
    """The run's own log: what the platform did with it (clause B156)."""
    return log_pb2.ReadLogRequest(run_id=run_id)


def build_log(image_key: str) -> log_pb2.ReadLogRequest:
    """The log of the latest build of an image."""
    return log_pb2.ReadLogRequest(image_key=image_key)
