"""LogService: what processes wrote, from agents and for people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from datatailr.v1 import log_pb2, log_pb2_grpc

from ..core.errors import InvalidArgument, NotFound
from ..core.values import AttemptState, RunState, TaskState
from ..errors import Aborted
from ..logfiles import log_expired
from ..logstore import CHUNK, Chunk, FileLogStore, Stream
from ..ports import Engine
from ..security.access import Permission
from ..store.reads import Reads
from .follow import Subscription
from .interceptor import Context
from .logfollow import follow_log
from .lookup import Lookup, task_not_found
from .runlog import run_log_id

AGENT_KEY = "opentailr-agent"
"""Metadata by which an agent says who it is, so that only the owner of a log appends to it."""

_TAIL_LIMIT = 1_000_000
_SILENCE = 15.0
_OWNERS_KEPT = 4096
"""Answers about ownership, and offsets told, that are kept per stream."""

_COMPANY = 0.002
"""Seconds that a chunk waits for others before it is written: one way to a thread serves them all."""

_GATHERED_BYTES = 1 << 20
_GATHERED_CHUNKS = 256
"""What may be gathered while a group is being written."""

_NEVER_STARTED = frozenset({AttemptState.REJECTED, AttemptState.WITHDRAWN})

_STREAMS = {
    log_pb2.LOG_STREAM_UNSPECIFIED: Stream.STDOUT,
    log_pb2.LOG_STREAM_STDOUT: Stream.STDOUT,
    log_pb2.LOG_STREAM_STDERR: Stream.STDERR,
}


_SETTLE = 2.0
"""Most seconds that a read of a finished log waits for its end; a node that is gone never sends it."""

_NUMBERS = {Stream.STDOUT: log_pb2.LOG_STREAM_STDOUT, Stream.STDERR: log_pb2.LOG_STREAM_STDERR}


@dataclass(frozen=True, slots=True)
class _Source:
    """A log to read."""

    log_id: str
    """Empty when nothing writes it yet."""
    over: Callable[[], Awaitable[bool]]
    """Whether what writes it has ended for good."""
    final: bool = False
    """Nothing will ever be added."""


class LogService(log_pb2_grpc.LogServiceServicer):
    """Logs of attempts and builds come from agents; those of runs from the platform itself."""

    def __init__(self, engine: Engine, reads: Reads, logs: FileLogStore, lookup: Lookup) -> None:
        self._engine = engine
        self._reads = reads
        self._logs = logs
        self._lookup = lookup

    async def AppendLogs(
        self, request_iterator: AsyncIterator[log_pb2.AppendLogsRequest], context: Context
    ) -> AsyncIterator[log_pb2.AppendLogsResponse]:
        """Takes chunks as they come, and answers with durable offsets, one sync for all that gathered."""
        inbox = _Inbox(self._logs, lambda log_id: self._owns(agent_id, log_id))
        metadata = dict(context.invocation_metadata() or ())
        agent_id = str(metadata.get(AGENT_KEY, ""))
        reader = asyncio.create_task(inbox.read(request_iterator))
        try:
            while await inbox.filled():
                for response in await inbox.settle():
                    yield response
            await reader
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _owns(self, agent_id: str, log_id: str) -> bool:
        if agent_id:
            return await self._engine.owns_log(agent_id, log_id)
        return await self._reads.log_exists(log_id)

    async def ReadLog(
        self, request: log_pb2.ReadLogRequest, context: Context
    ) -> AsyncIterator[log_pb2.ReadLogResponse]:
        """A log from an offset or its last lines, and with `follow` on to its end (clauses B155 to B158)."""
        stream = _STREAMS.get(request.stream)
        if stream is None:
            raise _bad("stream", f"{request.stream} is no stream", "use STDOUT or STDERR")
        if request.offset < 0 or not 0 <= request.tail_lines <= _TAIL_LIMIT:
            field = "offset" if request.offset < 0 else "tail_lines"
            raise _bad(field, f"{getattr(request, field)} is out of range", f"at most {_TAIL_LIMIT} lines")
        source = await self._source(request)
        while request.follow and not source.log_id and not source.final:
            # An empty message now and then shows a reader who has gone.
            yield log_pb2.ReadLogResponse()
            source = await self._await_source(request)
        if not source.log_id:
            yield log_pb2.ReadLogResponse(offset=request.offset, end=source.final)
            return
        if not request.follow and not source.final:
            await self._settle(source, stream)
        offset = request.offset
        if request.WhichOneof("start") == "tail_lines":
            offset = await self._logs.tail_offset(source.log_id, stream, request.tail_lines)
        if request.follow and not source.final:
            async for position, data in follow_log(
                self._logs, source.log_id, stream, offset, over=source.over
            ):
                yield log_pb2.ReadLogResponse(offset=position, data=data)
                offset = position + len(data)
            yield log_pb2.ReadLogResponse(offset=offset, end=True)
            return
        extent = await self._logs.extent(source.log_id, stream)
        while data := await self._logs.read(
            source.log_id, stream, offset, limit=min(CHUNK, max(0, extent.size - offset))
        ):
            yield log_pb2.ReadLogResponse(offset=offset, data=data)
            offset += len(data)
        whole = offset >= extent.size
        if not whole and (await self._logs.extent(source.log_id, stream)).removed:
            raise log_expired(source.log_id)
        yield log_pb2.ReadLogResponse(offset=offset, end=whole and (extent.ended or source.final))

    async def _settle(self, source: _Source, stream: Stream) -> None:
        """Gives the last bytes of what is over a moment to arrive: logs travel apart from states."""
        extent = await self._logs.extent(source.log_id, stream)
        if extent.ended or not await source.over():
            return
        try:
            async with asyncio.timeout(_SETTLE):
                while not extent.ended:
                    extent = await self._logs.wait(source.log_id, stream, extent.size)
        except TimeoutError:
            return

    async def _source(self, request: log_pb2.ReadLogRequest) -> _Source:
        target = request.WhichOneof("target")
        if target == "task":
            return await self._task_source(request.task)
        if target == "run_id":
            run = await self._lookup.run(request.run_id, Permission.READ)
            run_id = run.run_id
            await self._check_kept(run_id)
            return _Source(run_log_id(run_id), lambda: self._run_over(run_id))
        if target == "image_key":
            return await self._image_source(request.image_key)
        raise _bad("target", "the request names no log", "give task, run_id or image_key")

    async def _task_source(self, target: log_pb2.TaskLog) -> _Source:
        run = await self._lookup.run(target.run_id, Permission.READ)
        task = await self._reads.task(run.run_id, target.task_id)
        if task is None:
            raise task_not_found(run.run_id, target.task_id)
        await self._check_kept(run.run_id)
        attempts = await self._reads.attempts(run.run_id, target.task_id)
        if target.attempt < 0 or target.attempt > max(len(attempts), 1):
            raise NotFound(
                "attempt_not_found",
                f"task {target.task_id} of run {run.run_id} has no attempt {target.attempt}",
                field="task.attempt",
                hint=f"it has {len(attempts)}; 0 means the latest",
            )
        if not attempts:
            return _Source("", _always, final=TaskState(task.state).terminal)
        attempt = attempts[target.attempt - 1]
        attempt_id = attempt.attempt_id

        async def over() -> bool:
            found = await self._reads.attempt(attempt_id)
            return found is None or AttemptState(found.state).terminal

        return _Source(attempt_id, over, final=AttemptState(attempt.state) in _NEVER_STARTED)

    async def _image_source(self, image_key: str) -> _Source:
        row = (await self._reads.images([image_key])).get(image_key)
        if row is None:
            raise NotFound(
                "image_not_found",
                f"there is no image {image_key[:80]!r}",
                field="image_key",
                hint="ask for it with EnsureImage; SaveJob does so by itself",
            )
        build_id = row.build_id

        async def over() -> bool:
            found = await self._reads.builds([build_id])
            return not found or found[0].end_time > 0

        return _Source(build_id, over)

    async def _await_source(self, request: log_pb2.ReadLogRequest) -> _Source:
        """The source once something has changed, or after a while."""
        if request.WhichOneof("target") == "task":
            subscription = Subscription(self._engine.subscribe(run_id=request.task.run_id))
        else:
            subscription = Subscription(self._engine.subscribe(image_key=request.image_key))
        async with subscription as changes:
            source = await self._source(request)
            if source.log_id or source.final:
                return source
            try:
                await changes.next(_SILENCE)
            except EOFError:
                raise Aborted("closing", "the server stops", hint="call again once it is back") from None
            return await self._source(request)

    async def _check_kept(self, run_id: int) -> None:
        if await self._reads.logs_removed(run_id):
            raise log_expired(run_log_id(run_id))

    async def _run_over(self, run_id: int) -> bool:
        run = await self._reads.run(run_id)
        return run is None or RunState(run.state).terminal


class _Inbox:
    """Chunks of one AppendLogs stream: appended in groups, acknowledged together after a sync.

    What comes while a group is on its way to the disk makes up the next one.
    """

    def __init__(self, logs: FileLogStore, owns: Callable[[str], Awaitable[bool]]) -> None:
        self._logs = logs
        self._owns = owns
        self._known: dict[str, bool] = {}
        self._gathered: list[tuple[Chunk, bool]] = []
        """Chunks, and whether each must be answered even by what was told before."""
        self._gathered_bytes = 0
        self._appending: asyncio.Task[None] | None = None
        self._waiting: dict[tuple[str, Stream], log_pb2.AppendLogsResponse] = {}
        self._owed: set[tuple[str, Stream]] = set()
        """Of those that wait, the ones whose sender must hear even what it was told before."""
        self._told: dict[tuple[str, Stream], int] = {}
        """Durable offsets told on this stream, the logs that were not heard of for longest dropped first."""
        self._changed = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    async def read(self, requests: AsyncIterator[log_pb2.AppendLogsRequest]) -> None:
        """Takes everything that comes, until the sender ends; returns when all of it is appended."""
        try:
            async for request in requests:
                await self._take(request)
        finally:
            if self._appending is not None:
                # Also when cut off: what was half written must not be left behind by a cancellation.
                await asyncio.wait({self._appending})
            self._ended = True
            self._changed.set()

    async def filled(self) -> bool:
        """Waits for something to acknowledge; False when nothing will come any more.

        Raises:
            ResourceExhausted: The store has no room for what came.
            OSError: The store cannot be written.
        """
        await self._changed.wait()
        if self._failure is not None and not self._waiting:
            raise self._failure
        return bool(self._waiting) or not self._ended

    async def settle(self) -> list[log_pb2.AppendLogsResponse]:
        """Syncs what was appended so far and returns its answers, at most one for each log.

        An offset is not told twice: one sync may reach further than the chunk it is for, and a second
        answer with the same offset would be taken for that of the end mark, which was sent meanwhile.
        """
        if not self._ended and self._failure is None:
            self._changed.clear()
        waiting, self._waiting = self._waiting, {}
        owed, self._owed = self._owed, set()
        if not waiting:
            return []
        await self._logs.sync()
        answers = []
        for key, response in waiting.items():
            if not (response.refused and not response.durable_offset):
                response.durable_offset = await self._logs.durable(*key)
            if key in owed or self._told.get(key) != response.durable_offset:
                self._told.pop(key, None)
                self._told[key] = response.durable_offset
                answers.append(response)
        while len(self._told) > _OWNERS_KEPT:
            del self._told[next(iter(self._told))]
        return answers

    async def _take(self, request: log_pb2.AppendLogsRequest) -> None:
        log_id, data = request.log_id, request.data
        stream = _STREAMS.get(request.stream)
        if stream is None or request.stream == log_pb2.LOG_STREAM_UNSPECIFIED:
            raise _bad("stream", f"{request.stream} is no stream", "use STDOUT or STDERR")
        if len(data) > CHUNK:
            raise _bad("data", f"the chunk has {len(data)} bytes", f"send at most {CHUNK}")
        if request.offset < 0:
            raise _bad("offset", f"{request.offset} is negative", "count from 0")
        owned = self._known.get(log_id)
        if owned is None:
            if len(self._known) >= _OWNERS_KEPT:
                self._known.clear()
            owned = self._known[log_id] = await self._owns(log_id)
        if not owned:
            refusal = log_pb2.AppendLogsResponse(log_id=log_id, stream=request.stream, refused=True)
            self._answer(refusal, stream, owed=True)
            return
        # A repeat of what was told before it came is answered again.
        repeated = request.offset + len(data) <= self._told.get((log_id, stream), -1)
        owed = request.end or not data or repeated
        self._gathered.append((Chunk(log_id, stream, request.offset, data, request.end), owed))
        self._gathered_bytes += len(data)
        if self._appending is None:
            self._appending = asyncio.create_task(self._append())
        elif self._gathered_bytes > _GATHERED_BYTES or len(self._gathered) >= _GATHERED_CHUNKS:
            # The sender has to wait, or what is not written yet would pile up here.
            await asyncio.wait({self._appending})

    async def _append(self) -> None:
        """Appends what is gathered until nothing more has come meanwhile."""
        try:
            while self._gathered and self._failure is None:
                await asyncio.sleep(_COMPANY)
                gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
                appended = await self._logs.append_many([chunk for chunk, _ in gathered])
                for (chunk, owed), done in zip(gathered, appended, strict=True):
                    self._answer(
                        log_pb2.AppendLogsResponse(
                            log_id=chunk.log_id,
                            stream=_NUMBERS[chunk.stream],
                            durable_offset=done.offset,
                            expected=done.expected,
                            refused=done.refused,
                        ),
                        chunk.stream,
                        owed=owed or done.expected or done.refused,
                    )
        except Exception as error:
            # Kept for the stream's own task, which ends the call with it.
            self._failure = error
            self._changed.set()
        finally:
            self._appending = None

    def _answer(self, response: log_pb2.AppendLogsResponse, stream: Stream, *, owed: bool) -> None:
        key = (response.log_id, stream)
        self._waiting[key] = response
        if owed:
            self._owed.add(key)
        self._changed.set()


async def _always() -> bool:
    return True


def _bad(field: str, message: str, hint: str) -> InvalidArgument:
    return InvalidArgument("invalid_request", f"{field}: {message}", field=field, hint=hint)
