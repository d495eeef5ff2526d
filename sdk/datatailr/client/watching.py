"""Following a run or a build until it has ended, over cuts of the connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from datatailr.client.connection import Connection
from datatailr.client.words import cause_word, failed_tries, retry_text, state_word
from datatailr.errors import ImageBuildError
from datatailr.v1 import common_pb2, image_pb2, run_pb2

ENDED_STATES: Final = frozenset(
    {
        common_pb2.STATE_COMPLETED,
        common_pb2.STATE_FAILED,
        common_pb2.STATE_FAILED_AFTER,
        common_pb2.STATE_OUT_OF_MEMORY,
        common_pb2.STATE_STOPPED,
        common_pb2.STATE_EXPIRED,
        common_pb2.STATE_DID_NOT_RUN,
    }
)

WELL_ENDED_STATES: Final = frozenset({common_pb2.STATE_COMPLETED, common_pb2.STATE_EXPIRED})

RETRIES_KEPT: Final = 200
"""Retries of a watched run that are remembered."""

TAIL_LINES: Final = 20
"""Lines of a failed build's log that its error message holds."""


@dataclass
class WatchedRun:
    """What is known of a run that is followed; brought up to date in place."""

    run: run_pb2.Run = field(default_factory=run_pb2.Run)
    tasks: dict[int, run_pb2.RunTask] = field(default_factory=dict)
    retries: dict[tuple[int, int], str] = field(default_factory=dict)
    """What the platform failed while the run was followed, by task and number of failed tries; the latest."""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.run.state in ENDED_STATES

    @property
    def well(self) -> bool:
        """Whether it completed."""
        return self.run.state in WELL_ENDED_STATES

    @property
    def state(self) -> str:
        """State in words (clause B107)."""
        return state_word(self.run.state)

    def update(self, answer: run_pb2.WatchRunResponse) -> None:
        """Take over what changed."""
        if answer.HasField("run"):
            self.run.CopyFrom(answer.run)

        for task in answer.tasks:
            self.tasks[task.task_id] = task

        for task in answer.tasks:
            if task.waiting_for and self.open_upstreams(task):
                # Which of them are open is known here at any time, on the way it grows old.
                del task.waiting_for[:]

            tries = failed_tries(task)

            if tries and (task.task_id, tries) not in self.retries:
                self.retries[task.task_id, tries] = retry_text(task)

                if len(self.retries) > RETRIES_KEPT:
                    del self.retries[next(iter(self.retries))]

    def open_upstreams(self, task: run_pb2.RunTask) -> list[int]:
        """The tasks that a task waits for."""
        return [other for other in task.dependencies if not self._is_done(other)]

    def _is_done(self, task_id: int) -> bool:
        task = self.tasks.get(task_id)
        return task is not None and (task.state == common_pb2.STATE_COMPLETED or task.reused)

    def waits_for(self, task: run_pb2.RunTask) -> str:
        """Why a pending task waits, in a few words; empty for others and where it is not known."""
        if task.state != common_pb2.STATE_PENDING:
            return ""

        before = self.open_upstreams(task)

        if not before:
            return task.waiting_for[0] if task.waiting_for else ""

        names = [self.tasks[other].name if other in self.tasks else str(other) for other in before[:3]]
        more = f" (+{len(before) - 3} more)" if len(before) > 3 else ""
        return f"waits for {', '.join(names)}{more}"

    def ordered_tasks(self) -> list[run_pb2.RunTask]:
        """Tasks by id."""
        return [self.tasks[task_id] for task_id in sorted(self.tasks)]


def watch_run(
    connection: Connection, run_id: int, *, on_cut: Callable[[], None] | None = None
) -> Iterator[WatchedRun]:
    """Follow a run: the same object again and again, each time something changed, until its end.

    Args:
        connection: The server.
        run_id: The run.
        on_cut: Called when the connection was lost and is tried again.

    Raises:
        NotFoundError: No such run.
    """
    watched = WatchedRun()
    request = run_pb2.WatchRunRequest(run_id=run_id)
    synced = False

    for answer in connection.follow(lambda s: s.runs.WatchRun, lambda: request, on_cut=on_cut):
        watched.update(answer)
        synced = synced or answer.synced

        if synced:
            yield watched


@dataclass(frozen=True)
class BuildChange:
    """One step of a build that is followed: a state or a line of its log."""

    image: image_pb2.Image
    line: str = ""


class _Lines:
    """Cuts one stream of a build log into lines."""

    def __init__(self) -> None:
        self.offset = 0
        self._rest = b""

    def feed(self, output: image_pb2.BuildOutput) -> Iterator[str]:
        skip = max(0, self.offset - output.offset)
        data = output.data[skip:]
        self.offset = max(self.offset, output.offset + len(output.data))

        # A carriage return stands for a progress bar: only its last state is of interest.
        *lines, self._rest = (self._rest + data).split(b"\n")

        for line in lines:
            yield _text(line)

    def flush(self) -> Iterator[str]:
        rest, self._rest = self._rest, b""

        if rest:
            yield _text(rest)


def _text(line: bytes) -> str:
    shown = line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace")
    return "".join(character for character in shown if character.isprintable() or character == "\t").rstrip()


def watch_build(
    connection: Connection, image_key: str, *, on_cut: Callable[[], None] | None = None
) -> Iterator[BuildChange]:
    """Follow the build of an image: states and lines, ending when it is ready.

    Raises:
        ImageBuildError: The build failed; the message has the reason and the end of its log.
        NotFoundError: The key was never asked for.
    """
    image = image_pb2.Image(image_key=image_key)
    streams = {False: _Lines(), True: _Lines()}
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def request() -> image_pb2.WatchBuildRequest:
        return image_pb2.WatchBuildRequest(
            image_key=image_key,
            stdout_offset=streams[False].offset,
            stderr_offset=streams[True].offset,
        )

    for answer in connection.follow(lambda s: s.images.WatchBuild, request, on_cut=on_cut):
        if answer.WhichOneof("event") == "output":
            for line in streams[answer.output.stderr].feed(answer.output):
                tail.append(line)
                yield BuildChange(image, line)
        elif answer.HasField("image"):
            image = answer.image
            yield BuildChange(image)

            if image.state == image_pb2.IMAGE_STATE_READY:
                return

            # A retry may set out again from a failed build: only the end of the stream is final.

    for stream in streams.values():
        tail.extend(stream.flush())

    if image.state != image_pb2.IMAGE_STATE_READY:
        raise ImageBuildError(build_failure(image, list(tail)))


def build_failure(image: image_pb2.Image, tail: list[str]) -> str:
    """The message of a failed build: the reason, the end of the log, and where to read the rest."""
    reason = image.cause.message or cause_word(image.cause.kind) or "the build did not end well"

    if tail:
        # What follows the first line is the end of the log, which is shown below anyway.
        reason = reason.partition("\n")[0].rstrip(":")

    which = ", ".join(filter(None, (image.build_id, image.node and f"on {image.node}")))
    parts = [f"the environment could not be built{f' ({which})' if which else ''}: {reason}"]

    if tail:
        parts.append(f"the last {len(tail)} lines of the build log:")
        parts.extend(f"  {line}" for line in tail)

    parts.append("hint: `dt job get NAME --build-logs stdout` (or stderr) shows the whole log")
    return "\n".join(parts)
