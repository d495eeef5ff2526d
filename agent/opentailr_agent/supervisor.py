"""The loop of the agent: events into the core, effects out of it.

One task takes all that has gathered, steps the core, commits the journal once, and only then carries
out what the core asked for. Everything slow runs in a task of its own and comes back as an event.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

import structlog

from datatailr.v1 import agent_pb2 as pb
from opentailr_agent import inventory, wire
from opentailr_agent.builder.venv import VenvBuilder
from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.ending import micros
from opentailr_agent.core.machine import step
from opentailr_agent.core.model import AnyReport, NodeState, Phase
from opentailr_agent.core.outbox import Entry
from opentailr_agent.journal import Journal
from opentailr_agent.logs.shipper import LogShipper
from opentailr_agent.objects import ObjectCache
from opentailr_agent.ports import Ended, Runtime, Started
from opentailr_agent.preparation import Preparation
from opentailr_agent.transfer import ObjectTransfer
from opentailr_agent.work import Work

_BUSY: Final = 4
"""Attempts in flight beyond which the loop waits a moment for more events."""
_GATHER: Final = 0.002
"""Seconds of that wait: saves messages and commits in a fan; a chain never meets it."""
_DONE_BEFORE: Final = (*get_args(do.JournalEffect), do.SendReports)
_FLUSH: Final = 0.05
"""Seconds that reports which are not terminal wait for the end of a short task."""
_RETRY: Final = 1.0
"""Seconds between tries to write the journal on a full disk."""
LOG_BACKLOG: Final = 256
"""Logs that may wait to be sent beyond those of the slots: each holds a folder and two open files. Beyond
it the node takes nothing new until some are stored."""
_SAMPLE: Final = 1.0
"""Seconds between looks at the delay of the loop and at what is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the supervisor is put together from."""

    attempts: Path
    """Folder of the attempts' folders."""
    journal: Journal
    runtime: Runtime
    builder: VenvBuilder
    preparation: Preparation
    objects: ObjectCache
    transfer: ObjectTransfer
    send: Callable[[pb.ConnectRequest], None]
    """Queues a frame of the present session."""
    hello: Callable[[], pb.Hello]
    """The greeting but for what only the supervisor knows."""
    free_disk: Callable[[], int]
    """Bytes."""
    min_free_disk: int
    slots: int
    ready: Callable[[], None]
    """Called once, when the first session has brought the node up to date."""
    clock: Callable[[], float] = time.time
    leased: Callable[[], bool] = lambda: True
    """Whether the control plane still takes this agent for alive."""


class Supervisor:
    """Carries out what the core decides. It is the listener of the session."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.state = NodeState(slots=parts.slots)
        self._events: deque[ev.Event] = deque()
        self._held: list[ev.Event] = []
        """Starts that wait for a lease: bounded by the slots."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        """Set while nothing runs and nothing waits to be acknowledged."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._old_builds: set[str] = set()
        self._loop_delay = 0.0
        self._pressure = ""
        self._journal_trouble = ""
        self._was_ready = False
        self._log = structlog.get_logger("agent")
        # Set by `attach`, because the shipper calls back.
        self._shipper: LogShipper | None = None
        self._work = Work(
            runtime=parts.runtime,
            builder=parts.builder,
            preparation=parts.preparation,
            objects=parts.objects,
            transfer=parts.transfer,
            feed=self.feed,
            shipper=lambda: self.shipper,
        )

    def attach(self, shipper: LogShipper) -> None:
        """Names the shipper, which reports to `shipped`."""
        self._shipper = shipper

    @property
    def shipper(self) -> LogShipper:
        """The attached shipper."""
        assert self._shipper is not None, "attach a shipper first"
        return self._shipper

    def feed(self, event: ev.Event) -> None:
        """Queues an event."""
        self._events.append(event)
        self._wake.set()

    def shipped(self, log_id: str) -> None:
        """All of a log is durable at the control plane, or was refused there."""
        if log_id not in self.state.attempts:
            self._parts.builder.drop_log(log_id)
        self.feed(ev.LogsShipped(log_id))

    # The session's side.

    def hello(self, last_epoch: int) -> pb.Hello:
        """The greeting with everything that the journal knows."""
        hello = self._parts.hello()
        hello.journal_id = self._parts.journal.opened.journal_id
        hello.last_epoch = last_epoch
        hello.last_revision = self.state.revision
        hello.next_report_seq = self.state.outbox.next_seq
        hello.image_keys.extend(self._parts.builder.keys())
        hello.inventory.extend(
            pb.InventoryEntry(
                attempt_id=record.attempt_id,
                fence=record.fence,
                state=cast("pb.AttemptState", _shown(record.phase, record.told)),
            )
            for record in self.state.attempts.values()
            if record.phase < Phase.ACKNOWLEDGED
        )
        return hello

    def heartbeat(self) -> pb.Heartbeat:
        """Present facts."""
        delay, self._loop_delay = self._loop_delay, 0.0
        return pb.Heartbeat(
            last_revision=self.state.revision,
            disk_free_bytes=self._parts.free_disk(),
            memory_free_bytes=inventory.free_memory(),
            loop_delay=micros(delay),
            pressure=self._pressure,
        )

    def frame(self, frame: pb.ConnectResponse) -> None:
        """Takes a frame of the session."""
        match frame.WhichOneof("frame"):
            case "welcome":
                self.feed(wire.welcomed(frame.welcome))
            case "assignments":
                for entry in frame.assignments.attempts:
                    if entry.attempt_id in self.state.attempts and entry.HasField("spec"):
                        self._parts.preparation.hold(entry.attempt_id, entry.spec)

                self.feed(wire.assigned(frame.assignments))
            case "report_ack":
                self.feed(ev.Acknowledged(frame.report_ack.report_seq))
            case "node_directive":
                directive = frame.node_directive
                self._log.info("directive", schedulable=directive.schedulable, reason=directive.reason)
            case _:
                # A newer control plane may say more than this agent knows.
                pass

    def cut(self) -> None:
        """The session is over."""
        if self.state.connected:
            self.feed(ev.Disconnected())

    # Life.

    async def recover(self) -> None:
        """Loads the journal and finds again what goes on; to be awaited before `run`."""
        opened = self._parts.journal.opened
        self._parts.journal.load(self.state)

        if opened.replaced is not None:
            self._log.error("journal unreadable, put aside", file=str(opened.replaced))

        known = {key: self._folder(key) for key in self.state.attempts}
        strays = {
            path.name: path
            for path in sorted(self._parts.attempts.iterdir())
            if path.is_dir() and path.name not in known
        }
        found = {one.attempt_id: one for one in await self._parts.runtime.adopt({**known, **strays})}

        for attempt_id, folder in strays.items():
            self._log.warning("stray attempt removed", attempt=attempt_id)

            if attempt_id in found and found[attempt_id].running:
                # Removed when its end is told.
                await self._parts.runtime.stop(attempt_id, 0.0)
            else:
                self._later(self._work.remove_stray(attempt_id, folder))

        for attempt_id, record in self.state.attempts.items():
            if record.phase < Phase.RETIRED:
                self.shipper.follow(attempt_id, known[attempt_id], known=False)

        for folder in self._parts.builder.old_logs():
            self._old_builds.add(folder.name)
            self.shipper.follow(folder.name, folder, known=False, frees=False)

        self._log.info(
            "recovered",
            attempts=len(self.state.attempts),
            running=sum(one.running for one in found.values()),
            rebooted=opened.rebooted,
        )
        self.feed(ev.Recovered({key: one for key, one in found.items() if key in known}, opened.rebooted))
        # Before any session: Hello tells what was found.
        await self._turn()

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump())
                group.create_task(self._runtime_events())
                group.create_task(self._facts())
        finally:
            if self._flush is not None:
                self._flush.cancel()

            tasks = [*self._tasks.values(), *self._background]

            for task in tasks:
                task.cancel()

            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, *, within: float) -> bool:
        """Ends all attempts and waits until their outcomes are acknowledged, at most `within` seconds."""
        self._idle.clear()
        self.feed(ev.Drain())

        try:
            await asyncio.wait_for(self._idle.wait(), within)
        except TimeoutError:
            return False

        return True

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()

            if self.state.live_attempts > _BUSY:
                await asyncio.sleep(_GATHER)

            await self._turn()

    async def _turn(self) -> None:
        """Takes all events that have gathered: step, one commit, then the rest."""
        self._wake.clear()
        effects: list[do.Effect] = []
        full = False

        while self._events or self._take_held():
            event = self._events.popleft()

            if isinstance(event, ev.Prepared) and not self._parts.leased():
                # Another node may have it by now: what the next session says of it comes first.
                self._held.append(event)
                continue

            full = full or (isinstance(event, ev.Assigned) and event.full)
            effects += step(self.state, event, micros(self._parts.clock()))

        await self._commit([effect for effect in effects if isinstance(effect, do.JournalEffect)])
        # First of all: what ended is what others wait for.
        self._send_reports(
            [entry for effect in effects if isinstance(effect, do.SendReports) for entry in effect.entries]
        )

        for effect in effects:
            if not isinstance(effect, _DONE_BEFORE):
                self._carry_out(effect)

        self._after(full)

    def _take_held(self) -> bool:
        if not (self._held and self.state.synced and self._parts.leased()):
            return False

        self._events.extend(self._held)
        self._held.clear()
        return True

    async def _commit(self, effects: Sequence[do.JournalEffect]) -> None:
        """Writes the journal; while the disk refuses, nothing is done and nothing is told."""
        told = False

        while effects and (trouble := self._try_commit(effects)):
            if not told:
                self._log.error("journal cannot be written; waiting", error=trouble)
                told = True

            self._journal_trouble = f"journal: {trouble}; free space on the node"
            self._look_for_pressure()
            await asyncio.sleep(_RETRY)

        if self._journal_trouble:
            self._journal_trouble = ""
            self._log.info("journal can be written again")

    def _try_commit(self, effects: Sequence[do.JournalEffect]) -> str:
        try:
            self._parts.journal.commit(effects)
        except sqlite3.OperationalError as error:
            return str(error)

        return ""

    def _after(self, full: bool) -> None:
        if full:
            # A build that goes on ends its log itself; one whose end was journalled before is done.
            going_on = {key for key, build in self.state.builds.items() if not build.done}

            for name in self._old_builds - going_on:
                self.shipper.finish(name)

            self._old_builds.clear()

        if not self.state.outbox.waiting:
            # Else the wait of one short task would end in the middle of the next one.
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH, self._flush_due)

        if not self.state.live_attempts and not self.state.outbox.entries and not self._events:
            self._idle.set()

    def _flush_due(self) -> None:
        self._flush = None
        self.feed(ev.FlushDue())

    def _send_reports(self, entries: list[Entry[AnyReport]]) -> None:
        """Joins what several steps had to tell, within the bounds of a frame."""
        batch: list[Entry[AnyReport]] = []
        weight = 0
        box = self.state.outbox

        for entry in entries:
            if batch and (len(batch) >= box.batch_entries or weight + entry.report.weight > box.batch_weight):
                self._parts.send(wire.report(batch))
                batch, weight = [], 0

            batch.append(entry)
            weight += entry.report.weight

        if batch:
            self._parts.send(wire.report(batch))

    def _carry_out(self, effect: do.Effect) -> None:
        match effect:
            case do.Prepare():
                self._own(effect.attempt_id, self._work.prepare(effect.attempt_id, effect.spec))
            case do.CancelPreparation():
                self._cancel(effect.attempt_id)
            case do.Start():
                self._own(effect.attempt_id, self._work.start(effect.attempt_id))
            case do.Stop():
                self._later(self._parts.runtime.stop(effect.attempt_id, effect.grace))
            case do.StoreResult():
                self._own(effect.attempt_id, self._work.store(effect.attempt_id, effect.outcome))
            case do.FinishLogs():
                self.shipper.follow(effect.log_id, self._folder(effect.log_id))
                self.shipper.finish(effect.log_id)
            case do.DiscardLogs():
                self.shipper.discard(effect.log_id)
            case do.Remove():
                self._cancel(effect.attempt_id)
                self._later(self._work.remove(effect.attempt_id))
            case do.Build():
                self._own(effect.build_id, self._work.build(effect))
            case do.CancelBuild():
                self._cancel(effect.build_id)
            case do.SendApplied():
                applied = pb.Applied(revision=effect.revision, need_full=effect.need_full)
                self._parts.send(pb.ConnectRequest(applied=applied))

                if not self._was_ready and not effect.need_full:
                    self._was_ready = True
                    self._parts.ready()
            case do.SendCredit():
                credit = pb.Credit(attempt_limit=effect.attempt_limit, build_limit=effect.build_limit)
                self._parts.send(pb.ConnectRequest(credit=credit))
            case _:
                raise AssertionError(f"no way to carry out {effect!r}")

    # The runtime's side, and facts.

    async def _runtime_events(self) -> None:
        async for event in self._parts.runtime.events():
            match event:
                case Started():
                    self.feed(ev.ProcessStarted(event.attempt_id, micros(event.started_at)))
                case Ended():
                    ended = event.outcome.attempt_id

                    if ended in self.state.attempts:
                        self.feed(ev.ProcessEnded(event.outcome))
                    else:
                        self._later(self._work.remove_stray(ended, self._folder(ended)))

    async def _facts(self) -> None:
        loop = asyncio.get_running_loop()

        while True:
            self._look_for_pressure()
            self._wake.set()  # for what is held: an answer may have renewed the lease and told nobody
            due = loop.time() + _SAMPLE
            await asyncio.sleep(_SAMPLE)
            self._loop_delay = max(self._loop_delay, loop.time() - due)

    def _look_for_pressure(self) -> None:
        """Finds out why the node should take nothing new now; the most pressing reason is told."""
        waiting = self.shipper.waiting_logs
        backlog = self._parts.slots + LOG_BACKLOG
        trouble = self.shipper.trouble or "the control plane does not take them fast enough"
        reasons = (
            self._journal_trouble,
            inventory.pressure(self._parts.free_disk(), self._parts.min_free_disk),
            self._work.room.trouble,
            f"logs: {waiting} wait to be stored, at most {backlog} may; {trouble}"
            if waiting > backlog
            else "",
        )
        self._set_pressure(next(filter(None, reasons), ""))

    def _set_pressure(self, reason: str) -> None:
        # Numbers in it change all the time: only another kind of reason is news.
        if reason.partition(":")[0] != self._pressure.partition(":")[0]:
            self._log.warning("pressure", reason=reason or "none any more")
            self._pressure = reason
            self.feed(ev.PressureChanged(reason))

    # Tasks.

    def _own(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs work that belongs to an attempt or build and may be cancelled with it."""
        task = asyncio.create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finished(done, key))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs work to its end."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _cancel(self, key: str) -> None:
        task = self._tasks.get(key)

        if task is not None:
            task.cancel()

    def _finished(self, task: asyncio.Task[None], key: str = "") -> None:
        self._background.discard(task)

        if key and self._tasks.get(key) is task:
            del self._tasks[key]

        if not task.cancelled() and task.exception() is not None:
            # A mistake of ours must be seen, and must not stop the node.
            self._log.error("work failed", subject=key, exc_info=task.exception())

    def _folder(self, attempt_id: str) -> Path:
        return self._parts.preparation.folder(attempt_id)


def _shown(phase: Phase, told: int) -> int:
    """State of an attempt in Hello: what was told, but never behind where it is."""
    least = {Phase.STARTING: 40, Phase.RUNNING: 50, Phase.ENDED: 50}.get(phase, 20)
    return max(least, told)
