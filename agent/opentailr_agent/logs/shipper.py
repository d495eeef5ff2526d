"""Sends all logs of the node over one stream, fairly, within windows, until each is durable."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog

from datatailr.v1 import log_pb2 as pb
from datatailr.v1.log_pb2_grpc import LogServiceStub
from opentailr_agent.backoff import Backoff
from opentailr_agent.logs.budget import SpoolBudget
from opentailr_agent.logs.spool import Spool
from opentailr_agent.logs.watch import FolderWatch

if TYPE_CHECKING:
    from datatailr.v1.log_pb2_grpc import LogServiceAsyncStub

    Call = grpc.aio.StreamStreamCall[pb.AppendLogsRequest, pb.AppendLogsResponse]

STREAMS: Final = ((pb.LOG_STREAM_STDOUT, "stdout"), (pb.LOG_STREAM_STDERR, "stderr"))
_AGENT_KEY: Final = "opentailr-agent"
_TOTAL_WINDOW: Final = 16 << 20
"""Bytes of all logs that may be under way."""
_LINE: Final = 4096
"""Chunks below this size are taken for single lines."""
_GATHER: Final = 0.02
"""Seconds between two messages of a log that writes line by line."""
_FIRST: Final = 0.004
"""Seconds that the first bytes wait for more: a short task's log then needs one message, not three."""
_FEW: Final = 2
"""Open logs up to which everything is sent without waiting for company."""
_TICK: Final = 0.02
"""Seconds: beyond, short logs leave together at its multiples, so that a burst of tasks costs both
sides one wake-up for many messages and control frames are not kept waiting by single ones."""
_MANY: Final = 16
"""Open logs beyond which the ticks are five times as long: most of these tasks end within one."""
_SWEEP: Final = 1.0
"""Seconds between looks at all logs, for growth that nobody told."""
_UNREADABLE: Final = 2.0
"""Seconds before a file is tried again that could not be read."""
_LOOK_AGAIN: Final = 1.0
"""Seconds until the bound is looked at again after that failed."""
_STALL: Final = 20.0
"""Seconds without an answer after which the stream is taken for dead."""


class LogShipper:
    """Follows spool files and sends them.

    Args:
        channel: Connected to the control plane; not closed here.
        metadata: Authentication of the stream.
        shipped: Called once with the id of each log of which everything is durable, or which the
            control plane refused.
        agent_id: Whose attempts and builds the logs belong to: the control plane takes a log only
            from the agent that it gave the work to.
        first_pause: Seconds before the first reconnection; doubled each time.
        longest_pause: Seconds, no pause is longer.
        budget: Bound of all logs on the disk; None means 2 GiB or half of what is free.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Sequence[tuple[str, str]],
        shipped: Callable[[str], None],
        *,
        agent_id: str,
        first_pause: float = 0.1,
        longest_pause: float = 8.0,
        budget: SpoolBudget | None = None,
    ) -> None:
        self._stub: LogServiceAsyncStub = LogServiceStub(channel)  # type: ignore[assignment]
        self._metadata = (*metadata, (_AGENT_KEY, agent_id))
        self._shipped = shipped
        self._pauses = Backoff(first=first_pause, longest=longest_pause)
        self._logs: dict[str, dict[int, Spool]] = {}
        self._dirty: dict[tuple[str, int], None] = {}
        self._postponed: dict[str, float] = {}
        """Logs that wait, and until when."""
        self._wake = asyncio.Event()
        self._watch = FolderWatch(self._grown)
        self._budget = budget or SpoolBudget()
        self._any = asyncio.Event()
        """There are logs."""
        self.trouble = ""
        """Why nothing is stored now, in words for people; empty while all goes well."""
        self.lost_bytes = 0
        """Bytes dropped since the start, because there was no room for what could not be sent."""
        self._log = structlog.get_logger("logs")

    @property
    def waiting_logs(self) -> int:
        """Number of logs of which not everything is durable yet."""
        return len(self._logs)

    def follow(self, log_id: str, folder: Path, *, known: bool = True, frees: bool = True) -> None:
        """Begins to ship `stdout` and `stderr` of a folder; the files need not exist yet.

        Args:
            log_id: Attempt or build.
            folder: Holds the files.
            known: False after a restart of the agent: ask first what the control plane has.
            frees: Give durable parts back to the disk while the file still grows.
        """
        if log_id in self._logs:
            return

        self._logs[log_id] = {
            stream: Spool(log_id, stream, folder / name, known=known, frees=frees) for stream, name in STREAMS
        }
        self._watch.add(log_id, folder)
        self._any.set()
        self._changed(log_id)

    def finish(self, log_id: str) -> None:
        """Nothing more will be written; end marks follow the last byte."""
        due = self._together(asyncio.get_running_loop().time())

        for spool in self._logs.get(log_id, {}).values():
            spool.finish()
            spool.not_before = due

        if log_id in self._logs:
            self._settle(log_id)

        self._changed(log_id)

    def discard(self, log_id: str) -> None:
        """Forgets a log that nobody wants."""
        self._watch.remove(log_id)

        for spool in self._logs.pop(log_id, {}).values():
            spool.close()

    async def run(self) -> None:
        """Ships until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_bound())
            group.create_task(self._ship())

    async def _keep_bound(self) -> None:
        """Keeps the files within their bound, also while there is nobody to send them to."""
        dropping = False

        while True:
            await self._any.wait()

            try:
                look = self._budget.enforce(
                    [spool for spools in self._logs.values() for spool in spools.values()]
                )
            except OSError as error:
                # The files lie in folders of the tasks: nothing done there may end the agent.
                self._log.warning("the bound of logs could not be kept", error=str(error))
                await asyncio.sleep(_LOOK_AGAIN)
                continue

            self.lost_bytes += look.dropped

            if look.dropped and not dropping:
                self._log.warning(
                    "logs have reached their bound; the oldest unsent bytes are dropped",
                    limit=look.limit,
                    held=look.held,
                )

            dropping = bool(look.dropped)

            if not self._logs:
                self._any.clear()

            await asyncio.sleep(look.pause)

    async def _ship(self) -> None:
        while True:
            await self._wake.wait()

            try:
                await self._session()
            except grpc.aio.AioRpcError as error:
                self._log.debug("log stream ended", status=error.code().name, details=error.details())
                self._tell_full(error)
            except asyncio.InvalidStateError:
                self._log.debug("log stream was cut")

            for spools in self._logs.values():
                for spool in spools.values():
                    spool.cut()

            self._changed(None)
            await asyncio.sleep(self._pauses.next())

    def close(self) -> None:
        """Closes all files."""
        self._watch.close()

        for log_id in list(self._logs):
            self.discard(log_id)

    def _tell_full(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if not self.trouble:
                self._log.warning("the control plane stores no logs now; waiting", details=error.details())

            self.trouble = f"the control plane stores no logs: {error.details()}"

    async def _session(self) -> None:
        call = self._stub.AppendLogs(metadata=self._metadata)
        reader = asyncio.create_task(self._receive(call))
        sender = asyncio.create_task(self._send(call))
        sweeper = asyncio.create_task(self._sweep())
        tasks = (reader, sender, sweeper)

        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

            for task in done:
                task.result()
        finally:
            call.cancel()

            for task in tasks:
                task.cancel()

            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, call: Call) -> None:
        loop = asyncio.get_running_loop()

        while True:
            await self._wake.wait()
            self._wake.clear()

            while self._dirty:
                room = _TOTAL_WINDOW - self._under_way()

                for key in list(self._dirty):
                    spool = self._logs.get(key[0], {}).get(key[1])
                    message = None

                    if spool is not None and spool.not_before <= loop.time():
                        message = self._next(spool, loop.time()) if room > 0 else None
                    elif spool is not None:
                        self._postpone(key[0], spool.not_before)

                    if spool is None or message is None:
                        self._dirty.pop(key, None)
                        continue

                    offset, data, last = message
                    room -= len(data)

                    if spool.remark:
                        self._log.warning("log has an odd trace", log_id=spool.log_id, remark=spool.remark)
                        spool.remark = ""

                    if len(data) < _LINE:
                        spool.not_before = loop.time() + _GATHER if data and not spool.finished else 0.0

                    await call.write(
                        pb.AppendLogsRequest(
                            log_id=spool.log_id,
                            stream=spool.stream,  # type: ignore[arg-type]
                            offset=offset,
                            data=data,
                            end=last,
                        )
                    )

    def _next(self, spool: Spool, now: float) -> tuple[int, bytes, bool] | None:
        """The next message of a log; a file that cannot be read waits, and stops no other log."""
        try:
            return spool.next(now)
        except OSError as error:
            if not spool.troubled:
                self._log.warning("log cannot be read; waiting", log_id=spool.log_id, error=str(error))

            spool.troubled = True
            spool.not_before = now + _UNREADABLE
            return None

    async def _receive(self, call: Call) -> None:
        while True:
            answer = await call.read()

            if not isinstance(answer, pb.AppendLogsResponse):
                return

            self._pauses.reset()
            self.trouble = ""
            spool = self._logs.get(answer.log_id, {}).get(answer.stream)

            if spool is None:
                continue

            if answer.refused:
                self._log.info("log refused", log_id=answer.log_id, stream=answer.stream, sent=spool.sent)
                spool.refuse()
            else:
                spool.answered(answer.durable_offset, expected=answer.expected)

            if spool.done:
                self._settle(answer.log_id)
            elif not spool.refused:
                self._changed(answer.log_id)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()

        while True:
            await asyncio.sleep(_SWEEP)
            self._changed(None)

            for spools in self._logs.values():
                for spool in spools.values():
                    oldest = spool.oldest()

                    if oldest is not None and loop.time() - oldest > _STALL:
                        self._log.warning("log stream gives no answers; connecting again")
                        return

    def _settle(self, log_id: str) -> None:
        if all(spool.done for spool in self._logs[log_id].values()):
            self.discard(log_id)
            self._shipped(log_id)

    def _under_way(self) -> int:
        return sum(
            chunk.end - chunk.start
            for spools in self._logs.values()
            for spool in spools.values()
            for chunk in spool.under_way
        )

    def _together(self, earliest: float) -> float:
        """When a short log that is due at `earliest` is sent: alone at once, among many with them."""
        if len(self._logs) <= _FEW:
            return earliest

        tick = _TICK if len(self._logs) <= _MANY else 5 * _TICK
        return math.ceil(earliest / tick) * tick

    def _postpone(self, log_id: str, until: float) -> None:
        """Looks at the log again at `until`; one timer serves both streams and every repetition."""
        if self._postponed.get(log_id, math.inf) > until:
            self._postponed[log_id] = until
            asyncio.get_running_loop().call_at(until, self._due, log_id, until)

    def _due(self, log_id: str, until: float) -> None:
        if self._postponed.get(log_id) == until:
            del self._postponed[log_id]
            self._changed(log_id)

    def _grown(self, log_id: str | None) -> None:
        """Somebody wrote; not called for what was there before."""
        earliest = self._together(asyncio.get_running_loop().time() + _FIRST)

        for name in self._logs if log_id is None else (log_id,):
            for stream, spool in self._logs.get(name, {}).items():
                if (name, stream) not in self._dirty and not spool.finished:
                    spool.not_before = max(spool.not_before, earliest)

        self._changed(log_id)

    def _changed(self, log_id: str | None) -> None:
        for name in self._logs if log_id is None else (log_id,):
            for stream, spool in self._logs.get(name, {}).items():
                if not (spool.done or spool.refused):
                    self._dirty[name, stream] = None

        if self._dirty:
            self._wake.set()
