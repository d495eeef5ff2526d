"""The single-writer loop around the core.

Commands and agents' events queue up; one task drains what has gathered, steps the core, writes all changes in
one transaction, and only then releases replies, frames for agents and changes for followers. Nothing outside
ever sees an effect that is not on disk.

When a commit fails, the state in memory is thrown away and read again from the store, all agents' sessions
are closed (they come back and reconcile), and commands are refused with the reason until a write succeeds.
The same happens to a step that fails by a defect: the loop survives whatever a job or an agent sends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import cast

import structlog

from .attendance import Attendance
from .core import fleet
from .core.batch import WriteBatch, collect
from .core.commands import (
    AgentEvent,
    AgentHello,
    AgentReport,
    Command,
    Reply,
    SaveVersion,
    Tick,
)
from .core.definition import CheckedDefinition, check_definition
from .core.effects import Dismiss, Effect, Effects
from .core.errors import CoreError, ResourceExhausted, Unavailable
from .core.machine import finish, step
from .core.model import NeedsPlan, NeedsPrior, State
from .core.settings import CoreSettings
from .core.timers import next_due
from .core.values import SECOND, Instant, RunState
from .engine_queue import Item, stopping, take_apart
from .engine_views import EngineStats, EngineViews, PayloadCache, SessionSink, Store
from .ports import Clock, IdSource, Offload
from .quarantine import Quarantine
from .store.errors import StoreError, StoreFull
from .subscriptions import Hub, Subscription

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 10_000
"""Most commands and events that wait; beyond it commands are refused and agents are read more slowly."""

ROUND_LIMIT = 1_000
"""Most events in one commit: a round must not hold the loop for longer than some 20 ms."""

PLAN_CACHE = 64
"""Plans of recently saved or started versions that stay at hand."""

PLAN_CACHE_TASKS = 50_000
"""And the most tasks in them, at about 1 KB each."""

LARGE_DEFINITION = 200
"""Definitions with more tasks than this are checked outside the loop (12 µs a task)."""

GATHER_SECONDS = 0.001
"""How long a round waits for more reports while several attempts are in flight; a chain never meets it."""

GATHER_ATTEMPTS = 8
"""Attempts in flight from which a round waits for more."""

RETRY_SECONDS = 1.0
"""Between tries to write again after the store failed."""


class Engine(EngineViews):
    """Owns the state; everything that changes it goes through `execute` or `post`."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        ids: IdSource,
        settings: CoreSettings | None = None,
        offload: Offload = asyncio.to_thread,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._settings = settings or CoreSettings()
        self._offload = offload
        self._on_commit = on_commit
        self._state = State(self._settings, "")
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._active: dict[int, str] = {}
        self._hub = Hub()
        self._sessions: dict[tuple[str, int], SessionSink] = {}
        self._payloads = PayloadCache()
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._quarantine = Quarantine()
        self._helpers: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._monitor: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._broken: CoreError | None = None
        self._closing = False
        self._removals = 0  # commits that took results away: a run read before the last is read again
        self._alone = 0  # items that are stepped one by one, to find out which one breaks a round
        self.stats = EngineStats()
        self._attendance = Attendance(self._clock, self.stats)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Reads the state and begins to work.

        Raises:
            StoreError: the store cannot be read or written.
        """
        await self._load()
        if not self._state.installation:
            self._state.installation = self._ids.installation()
            self._state.dirty.counters = True
            await self._store.commit(cast(WriteBatch, collect(self._state)))
        self._task = asyncio.create_task(self._run(), name="engine")
        self._monitor = asyncio.create_task(self._attendance.watch(), name="engine-monitor")
        self._arm_timer()
        self._wake.set()

    async def close(self) -> None:
        """Carries out what has been accepted, closes sessions and subscriptions, and ends."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        for task in (self._monitor, *self._helpers):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        while self._queue:
            self._fail([self._queue.popleft()], stopping())
        if self._timer is not None:
            self._timer.cancel()
        self._close_sessions("The control plane stops.")
        self._hub.close()

    # ------------------------------------------------------------------ the face

    async def execute(self, command: Command) -> Reply:
        """Carries out a command and returns its reply once everything it changed is on disk.

        Raises:
            CoreError: the command was refused and changed nothing.
        """
        if self._broken is not None:
            raise self._broken
        if self._closing:
            raise stopping()
        if len(self._queue) >= QUEUE_LIMIT:
            raise ResourceExhausted(
                "queue_full",
                f"{QUEUE_LIMIT} commands and events are waiting already.",
                hint="Try again in a moment.",
            )
        if isinstance(command, SaveVersion) and command.checked is None:
            definition = command.definition
            if len(definition.tasks) > LARGE_DEFINITION:
                checked = cast(CheckedDefinition, await self._offload(lambda: check_definition(definition)))
            else:
                checked = check_definition(definition)
            command = replace(command, checked=checked)
        item = Item(command, asyncio.get_running_loop().create_future())
        self._put(item)
        assert item.future is not None
        # A caller that goes away does not take back what it asked for.
        return cast(Reply, await asyncio.shield(item.future))

    def subscribe(
        self, *, run_id: int | None = None, image_key: str | None = None, maxsize: int = 256
    ) -> Subscription:
        """Committed changes of one run, of one image, or of everything, from now on.

        At most `maxsize` wait; a slower reader gets `Resync` in place of what was dropped.
        """
        return self._hub.subscribe(run_id, image_key, maxsize)

    async def hello(self, event: AgentHello, sink: SessionSink) -> int:
        """Opens an agent's session and returns its epoch; from then on `sink` gets its effects.

        Raises:
            CoreError: the Hello was refused.
        """
        if self._broken is not None:
            raise self._broken
        if self._closing:
            raise stopping()
        item = Item(event, asyncio.get_running_loop().create_future(), sink)
        self._put(item)
        assert item.future is not None
        return cast(int, await asyncio.shield(item.future))

    async def post(self, event: AgentEvent) -> None:
        """Queues an agent's event; waits while the queue is full, so that agents are read no faster."""
        while len(self._queue) >= QUEUE_LIMIT and not self._closing:
            self._room.clear()
            await self._room.wait()
        self._put(Item(event))

    def detach(self, agent_id: str, epoch: int) -> None:
        """The session's stream is gone: its sink gets nothing more."""
        self._sessions.pop((agent_id, epoch), None)

    # ------------------------------------------------------------------ the loop

    def _put(self, item: Item) -> None:
        self._queue.append(item)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._closing and not self._queue:
                return
            if self._broken is not None:
                self._refuse_waiting()
                continue
            if self._gathering():
                await asyncio.sleep(GATHER_SECONDS)
            limit = 1 if self._alone else ROUND_LIMIT
            self._alone = max(0, self._alone - 1)
            items = [self._queue.popleft() for _ in range(min(len(self._queue), limit))]
            if self._queue:
                self._wake.set()
            self._room.set()
            await self._round(items)
            self._attendance.end()
            self._arm_timer()

    def _gathering(self) -> bool:
        return (
            len(self._state.attempts) >= GATHER_ATTEMPTS
            and len(self._queue) < ROUND_LIMIT
            and not self._closing
            and all(isinstance(item.event, AgentReport) for item in self._queue)
        )

    async def _round(self, items: list[Item]) -> None:
        now = self._clock.now()
        done: list[Item] = []
        position = -1
        try:
            step(self._state, Tick(late=self._attendance.begin(now)), now)
            for item in items:
                position += 1
                if self._step(item, now):
                    done.append(item)
            position += 1
            finish(self._state, now)
            batch = collect(self._state)
        except Exception as error:
            await self._defect(items, done, position, error)
            return
        effects, self._state.effects = self._state.effects.items, Effects()
        self.stats.events += len(items)
        spent = (self._clock.now().mono - now.mono) / SECOND
        self.stats.step_seconds += spent
        self.stats.round_seconds_max = max(self.stats.round_seconds_max, spent)
        if batch is not None:
            try:
                await self._commit(batch)
            except StoreError as error:
                await self._store_failed(done, error)
                return
            except Exception as error:  # the tables cannot hold what the steps made
                await self._defect(items, done, len(items), error)
                return
            self._payloads.put(batch.payloads)
        self._release(done, effects, batch)

    def _step(self, item: Item, now: Instant) -> bool:
        """True when the item is done, False when something is being loaded for it."""
        item.error = None
        if item.plan is not None:
            self._state.plans[item.plan.definition_id] = item.plan
        if item.prior is not None and item.prior_as_of == self._removals:
            self._state.priors[item.prior.run_id] = item.prior
        try:
            if isinstance(item.event, AgentReport):
                for part in self._quarantine.split(item.event):
                    step(self._state, part, now)
            else:
                item.result = step(self._state, item.event, now)
        except CoreError as error:
            item.error = error
        except NeedsPlan as need:
            self._help(self._fetch_plan(item, need.definition_id))
            return False
        except NeedsPrior as need:
            self._help(self._fetch_prior(item, need.run_id))
            return False
        finally:
            self._state.priors.clear()
        return True

    async def _commit(self, batch: WriteBatch) -> None:
        begun = self._clock.now().mono
        await self._store.commit(batch)
        spent = (self._clock.now().mono - begun) / SECOND
        self.stats.commits += 1
        self.stats.commit_seconds += spent
        self.stats.commit_seconds_max = max(self.stats.commit_seconds_max, spent)
        if self._on_commit is not None:
            self._on_commit(spent)

    def _release(self, done: list[Item], effects: list[Effect], batch: WriteBatch | None) -> None:
        for item in done:
            if isinstance(item.event, AgentHello) and item.sink is not None and item.error is None:
                self._sessions[item.event.agent_id, cast(int, item.result)] = item.sink
        for effect in effects:
            sink = self._sessions.get((effect.agent_id, effect.epoch))
            if sink is not None:
                sink.deliver(effect)
                if isinstance(effect, Dismiss):
                    del self._sessions[effect.agent_id, effect.epoch]
        if batch is not None:
            for row in batch.runs:
                if row.state >= RunState.SUCCEEDED:
                    self._active.pop(row.run_id, None)
                else:
                    self._active[row.run_id] = row.job_id
            self._removals += bool(batch.expired_runs or batch.retired.runs)
            self._hub.publish(batch)
        for item in done:
            if item.future is None or item.future.done():
                continue
            if item.error is not None:
                item.future.set_exception(item.error)
            else:
                item.future.set_result(item.result)
        if any(item.plan is not None for item in done) or (batch is not None and batch.definitions):
            self._trim_plans()

    def _trim_plans(self) -> None:
        """Forgets the oldest plans; active runs hold their own."""
        plans = self._state.plans
        tasks = sum(len(plan.tasks) for plan in plans.values())
        while len(plans) > PLAN_CACHE or (tasks > PLAN_CACHE_TASKS and len(plans) > 1):
            tasks -= len(plans.pop(next(iter(plans))).tasks)

    # ------------------------------------------------------------------ what goes wrong

    async def _defect(self, items: list[Item], done: list[Item], position: int, error: Exception) -> None:
        """All but the culprit is tried again; one by one, while it is not known."""
        broken = take_apart(items, done, position)
        suspects = items if broken.culprit is None else [broken.culprit]
        kinds = sorted({type(item.event).__name__ for item in suspects})
        log.error("a step failed; the state is read again", events=kinds, exc_info=error)
        for item in suspects:
            self._quarantine.condemn(item.event)
        failed = Unavailable("internal_error", f"It could not be carried out: {type(error).__name__}.")
        if broken.culprit is not None:
            self._fail([broken.culprit], failed)
        else:
            self._alone = len(broken.again)
        self._fail([item for item in items if isinstance(item.event, AgentHello)], failed)
        await self._rollback("The control plane had to read its state again.")
        if not items:
            # Time itself met the defect: nothing is gained by trying at once.
            await asyncio.sleep(RETRY_SECONDS)
        self._queue.extendleft(reversed(broken.again))
        self._wake.set()

    async def _store_failed(self, done: list[Item], error: StoreError) -> None:
        kind = ResourceExhausted if isinstance(error, StoreFull) else Unavailable
        reason = "disk_full" if isinstance(error, StoreFull) else "store_failed"
        self._broken = kind(
            reason,
            f"Nothing can be changed now: {error}",
            hint="Free disk space; it goes on by itself."
            if kind is ResourceExhausted
            else "Try again later.",
        )
        log.error("a commit failed; changes are refused until a write succeeds", error=str(error))
        self._fail(done, self._broken)
        self._refuse_waiting()
        await self._rollback("The control plane cannot store changes now.")
        self._help(self._heal())

    def _refuse_waiting(self) -> None:
        assert self._broken is not None
        while self._queue:
            self._fail([self._queue.popleft()], self._broken)
        self._room.set()

    def _fail(self, items: Iterable[Item], error: CoreError) -> None:
        for item in items:
            if item.future is not None and not item.future.done():
                item.future.set_exception(item.error or error)

    async def _rollback(self, reason: str) -> None:
        """Back to the last commit: memory never runs ahead of the disk."""
        self.stats.rollbacks += 1
        self._close_sessions(reason)
        while not self._closing or not self._state.installation:
            try:
                await self._load()
                break
            except Exception as error:
                log.error("the state cannot be read; trying again", exc_info=error)
                await asyncio.sleep(RETRY_SECONDS)
        self._hub.resync()

    async def _heal(self) -> None:
        """Tries to write until it works."""
        while not self._closing:
            await asyncio.sleep(RETRY_SECONDS)
            self._state.dirty.counters = True
            batch = collect(self._state)
            if batch is None:
                return
            try:
                await self._store.commit(batch)
            except StoreError:
                continue
            log.info("the store can be written again")
            # No agent could open a session meanwhile: the silence was on this side.
            fleet.pardon(self._state, self._clock.now())
            self._broken = None
            self._wake.set()
            return

    async def _load(self) -> None:
        now = self._clock.now()
        state = await self._store.load(self._settings, now)
        if state is None:
            state = State(self._settings, self._state.installation)
        assignments = self._state.assignments
        self._state = state
        self._active = {run.run_id: run.job_id for run in state.runs.values()}
        state.assignments = assignments
        fleet.recover(state, now)

    def _close_sessions(self, reason: str) -> None:
        sessions, self._sessions = self._sessions, {}
        for sink in sessions.values():
            sink.close(reason)

    # ------------------------------------------------------------------ helpers

    def _help(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _fetch_plan(self, item: Item, definition_id: int) -> None:
        try:
            plan = await self._store.read_plan(definition_id)
        except StoreError as error:
            self._fail([item], Unavailable("store_failed", str(error)))
            return
        if plan is None:
            self._fail([item], Unavailable("store_failed", f"Definition {definition_id} is missing."))
            return
        item.plan = plan
        self._put(item)

    async def _fetch_prior(self, item: Item, run_id: int) -> None:
        item.prior_as_of = self._removals
        try:
            prior = await self._store.read_prior(run_id)
        except StoreError as error:
            self._fail([item], Unavailable("store_failed", str(error)))
            return
        item.prior = prior
        self._put(item)

    def _arm_timer(self) -> None:
        if self._state.placing:
            self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wall, mono = next_due(self._state)
        now = self._clock.now()
        # The wall clock may be set: it is looked at every minute at least.
        delays = [min(wall - now.wall, 60 * SECOND)] if wall is not None else []
        if mono is not None:
            delays.append(mono - now.mono)
        if delays:
            delay = max(min(delays), 0) / SECOND
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
