"""An event loop in virtual time: one seed decides every order, so one seed is one history.

Every callback belongs to a simulated process (or to the world around them). A process has a monotonic clock
of its own, can be paused, and can be killed: a killed process simply never runs again, so no `finally` of
it is carried out, as with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

STEP: Final = 20e-6
"""Seconds that pass with each callback, so that time goes on in a busy loop too."""

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """One process of the simulated world.

    Args:
        name: For traces.
        rate: Seconds of its monotonic clock per true second.
        offset: What its monotonic clock showed at true time 0.
    """

    def __init__(self, name: str, *, rate: float = 1.0, offset: float = 0.0) -> None:
        self.name = name
        self.rate = rate
        self.offset = offset
        self.alive = True
        self.paused = False
        self.parked: list[Handle] = []
        """What would run if the process were not paused or dead."""
        self.tasks: list[asyncio.Task[Any]] = []
        """All tasks ever, so that those of a killed process are not cleaned up while the world lives."""
        self.fuse = 0
        """Callbacks until `blow` is called; 0 means never."""
        self.blow: Callable[[], None] | None = None
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)
        self.busy: dict[int, float] = {}
        """Until when each executor of one thread is at work."""

    def local(self, true: float) -> float:
        """The monotonic clock of the process at a true time."""
        return true * self.rate + self.offset

    def true(self, local: float) -> float:
        """The true time at which the clock shows this."""
        return (local - self.offset) / self.rate


class Handle:
    """A callback that waits for its turn."""

    __slots__ = ("_cancelled", "args", "callback", "context", "process", "when")

    def __init__(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.when = when
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self.process = context.get(_process)
        self._cancelled = False

    def cancel(self) -> None:
        """It never runs."""
        self._cancelled = True
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """True after `cancel`."""
        return self._cancelled

    def __lt__(self, other: Handle) -> bool:
        return self.when < other.when


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one world.

    Args:
        chance: Source of every order and delay.
        shuffle: Run what is ready in any order instead of the order of arrival.
    """

    def __init__(self, chance: random.Random, *, shuffle: bool) -> None:
        self.now = 0.0
        """True seconds since the beginning."""
        self.chance = chance
        self.shuffle = shuffle
        self.stopping = False
        self.handles = 0
        """Callbacks run so far."""
        self.disk_delay = 0.001
        """Most seconds of ordinary work in another thread."""
        self.current: Process | None = None
        self.errors: list[str] = []
        """What callbacks and forgotten tasks raised."""
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._number = 0
        self._world = contextvars.copy_context()
        self._world.run(_process.set, None)
        self._unwinding = False
        self.world_tasks: list[asyncio.Task[Any]] = []
        self.processes: list[Process] = []

    # ------------------------------------------------------------------ the world's own

    def run(self, *, until: float) -> None:
        """Runs callbacks until a true time is reached, or `stopping` is set, or nothing is left."""
        asyncio.events._set_running_loop(self)
        try:
            while not self.stopping and self.now < until:
                if not self._turn():
                    break
        finally:
            asyncio.events._set_running_loop(None)

    def _turn(self) -> bool:
        timers, ready = self._timers, self._ready
        while timers and (timers[0][0] <= self.now or not ready):
            when, _, handle = heapq.heappop(timers)
            if handle._cancelled:
                continue
            self.now = max(self.now, when)
            ready.append(handle)
        if not ready:
            return False
        handle = self._pick()
        if handle._cancelled:
            return True
        process = handle.process
        if process is not None:
            if process.paused or not process.alive:
                process.parked.append(handle)
                return True
            if process.fuse:
                process.fuse -= 1
                if not process.fuse and process.blow is not None:
                    process.blow()
                    ready.append(handle)
                    return True
        self.now += STEP
        self.handles += 1
        self.current = process
        assert handle.callback is not None
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.errors.append(f"{handle.callback!r}: {error!r}")
        finally:
            self.current = None
        return True

    def _pick(self) -> Handle:
        ready = self._ready
        if len(ready) == 1:
            return ready.pop()
        if self.shuffle:
            index = int(self.chance.random() * len(ready))
            ready[index], ready[-1] = ready[-1], ready[index]
            return ready.pop()
        return ready.pop(0)

    def world_call(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Calls back in the world's own name, which no process's death or pause stops."""
        return self._arm(self.now + delay, Handle(self.now + delay, callback, args, self._world))

    def world_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of the world."""
        task = self._world.run(lambda: asyncio.Task(work, loop=self))
        self.world_tasks.append(task)
        return task

    def spawn(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of a process, begun from outside of it."""
        if process not in self.processes:
            self.processes.append(process)
        context = process.context.copy()
        task = context.run(lambda: asyncio.Task(work, loop=self))
        process.tasks.append(task)
        return task

    def call_in(self, process: Process, callback: Callable[..., Any], *args: Any) -> None:
        """Calls back in a process."""
        self._ready.append(Handle(self.now, callback, args, process.context))

    def kill(self, process: Process) -> None:
        """The process is gone, from one callback to the next."""
        process.alive = self._unwinding

    def resume(self, process: Process) -> None:
        """The process goes on with what waits."""
        process.paused = False
        parked, process.parked = process.parked, []
        self._ready.extend(parked)

    def unwind(self) -> None:
        """The end of the world: every task is cancelled and runs to its end, also of killed processes."""
        self._unwinding = True
        self._timers = [entry for entry in self._timers if entry[2].process is not None]
        heapq.heapify(self._timers)
        for process in self.processes:
            process.alive, process.paused, process.fuse = True, False, 0
            self._ready.extend(process.parked)
        tasks = [*self.world_tasks, *(task for process in self.processes for task in process.tasks)]
        for _ in range(5):
            tasks = [task for task in tasks if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.stopping = False
            self.run(until=self.now + 1.0)
        assert not tasks, f"tasks that cannot be cancelled: {tasks}"
        for task in [*self.world_tasks, *(task for process in self.processes for task in process.tasks)]:
            if not task.cancelled():
                task.exception()
        self._ready.clear()
        self._timers.clear()
        self.world_tasks.clear()
        self.processes.clear()

    def _arm(self, when: float, handle: Handle) -> Handle:
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle))
        return handle

    # ------------------------------------------------------------------ what asyncio needs

    def time(self) -> float:
        return self.now if self.current is None else self.current.local(self.now)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(self.now, callback, args, context or contextvars.copy_context())
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        true = when if self.current is None else self.current.true(when)
        handle = Handle(true, callback, args, context or contextvars.copy_context())
        return self._arm(max(true, self.now), handle)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, context=context)
        if self.current is None:
            self.world_tasks.append(task)
        else:
            self.current.tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Work of another thread: done in one piece at a later moment, its answer comes later still.

        Between the two the process may die: then the work is done and nobody knows.
        """
        future: asyncio.Future[T] = self.create_future()
        process = self.current
        assert process is not None, "only processes have threads"
        due = self.now + self.chance.random() * self.disk_delay
        if executor is not None and executor._max_workers == 1:
            due = max(due, process.busy.get(id(executor), 0.0) + STEP)
            process.busy[id(executor)] = due
        context = contextvars.copy_context()

        def work() -> None:
            try:
                answer: Callable[..., None] = partial(_succeed, future, func(*args))
            except BaseException as error:
                answer = partial(_fail, future, error)
            delay = self.chance.random() * self.disk_delay * 0.2
            self._arm(self.now + delay, Handle(self.now + delay, answer, (), context))

        self._arm(due, Handle(due, work, (), context))
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self.errors.append(f"{context.get('message')}: {error!r}")


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
