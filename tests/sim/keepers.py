"""Processes of attempts as they truly are, and the runtime through which an agent sees them.

They live on the machine, not in the agent: a killed agent costs them nothing, a crashed machine ends
them all, a killed keeper ends its own and leaves no outcome.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentailr_agent.ports import Adopted, AttemptOrder, Ended, EndState, Failure, Outcome, Started

from .loop import Handle

if TYPE_CHECKING:
    from .node import Node


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the user's function does."""

    seconds: float
    ending: str = "ok"
    """`ok`, `fail` or `oom`."""
    large: bool = False
    """The result does not travel inline."""
    output: tuple[int, int] = (0, 0)
    """Bytes written to stdout and stderr."""
    stubborn: bool = False
    """It ignores SIGTERM."""


def result_of(module: str, function: str, inputs: Mapping[int, bytes], *, large: bool) -> bytes:
    """What a function returns; it depends on nothing but the code and its inputs."""
    digest = hashlib.sha256(f"{module}:{function}".encode())
    for task_id in sorted(inputs):
        digest.update(f"|{task_id}:".encode() + hashlib.sha256(inputs[task_id]).digest())
    return digest.digest() * (40 if large else 1)


_ENDS = {
    EndState.SUCCEEDED: "ok",
    EndState.FAILED: "fail",
    EndState.OUT_OF_MEMORY: "oom",
    EndState.STOPPED: "stopped",
}


@dataclass(slots=True, eq=False)
class Proc:
    """An attempt on a machine, from the order to its end."""

    attempt_id: str
    machine: str
    order: AttemptOrder
    memory_bytes: int
    keeper: int
    alive: bool = True
    began: float = 0.0
    """Wall time of the machine at which the user's process existed; 0 before."""
    ended: float = 0.0
    """True time of the end; 0 while alive."""
    end: str = ""
    """`ok`, `fail`, `oom`, `stopped` or `lost`; empty while alive."""
    outcome: Outcome | None = None
    """What a keeper could tell of the end."""
    result: bytes | None = None
    written: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    stop_at: float = 0.0
    timers: list[Handle] = field(default_factory=list)
    removed: bool = False
    rebooted: bool = False
    """Its machine crashed while it lived or had output that was not on disk."""


class Keepers:
    """All processes of attempts on one machine."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = node.world.loop
        self.procs: dict[str, Proc] = {}
        """What the machine still knows."""
        self.runtime: Runtime | None = None
        self.generation = 1
        """The keeper that takes orders now."""

    def launch(self, order: AttemptOrder) -> None:
        """A keeper accepts an order: from now on there is a process, or soon."""
        node = self._node
        proc = Proc(
            order.attempt_id, node.name, order, node.world.oracle.memory_of(order.attempt_id), self.generation
        )
        self.procs[order.attempt_id] = proc
        node.world.oracle.launched(proc)
        proc.timers.append(self._loop.world_call(self._fork_seconds(), self._begin, proc))

    def _fork_seconds(self) -> float:
        chance = self._node.chance
        if chance.random() < self._node.world.plan.slow_starts:
            return 2.0 * chance.random()
        return 0.002 + 0.01 * chance.random()

    def _begin(self, proc: Proc) -> None:
        if not proc.alive:
            return
        proc.began = self._node.wall()
        behaviour = self._node.world.behaviours[proc.order.module, proc.order.function]
        seconds = behaviour.seconds * (0.5 + self._node.chance.random())
        self._tell(Started(proc.attempt_id, 4711, proc.began))
        for stream, size in zip(("stdout", "stderr"), behaviour.output, strict=True):
            if size:
                first = int(size * self._node.chance.random())
                self._at(proc, seconds * 0.3, self._write, proc, stream, first)
                self._at(proc, seconds * 0.99, self._write, proc, stream, size - first)
        self._at(proc, seconds, self._end, proc, behaviour)

    def _at(self, proc: Proc, delay: float, what: Any, *args: Any) -> None:
        proc.timers.append(self._loop.world_call(delay, what, *args))

    def _write(self, proc: Proc, stream: str, size: int) -> None:
        if not proc.alive or not size or not proc.order.folder.is_dir():
            return
        line = f"{proc.attempt_id} {stream} {len(proc.written[stream])}\n".encode()
        data = (line * (size // len(line) + 1))[:size]
        with open(proc.order.folder / stream, "ab") as file:
            file.write(data)
        proc.written[stream] += data
        self._node.grown(proc.attempt_id)

    def _end(self, proc: Proc, behaviour: Behaviour) -> None:
        if not proc.alive:
            return
        if behaviour.ending == "ok":
            inputs = {task_id: path.read_bytes() for task_id, path in proc.order.inputs.items()}
            proc.result = result_of(proc.order.module, proc.order.function, inputs, large=behaviour.large)
            file = None
            if behaviour.large:
                file = proc.order.folder / "result.pkl"
                file.write_bytes(proc.result)
            self.finish(proc, EndState.SUCCEEDED, result_file=file)
        elif behaviour.ending == "oom":
            self.finish(proc, EndState.OUT_OF_MEMORY)
        else:
            self.finish(proc, EndState.FAILED, failure=Failure("ValueError", "no vat", "Traceback: no vat"))

    def finish(
        self, proc: Proc, state: EndState, *, result_file: Path | None = None, failure: Failure | None = None
    ) -> None:
        """The process is gone and reaped, and its outcome is on disk."""
        self._bury(proc, _ENDS[state])
        inline = proc.result if state is EndState.SUCCEEDED and result_file is None else None
        proc.outcome = Outcome(
            proc.attempt_id,
            state,
            exit_code=0 if state is EndState.SUCCEEDED else 1,
            started_at=proc.began,
            ended_at=self._node.wall(),
            result=inline,
            result_file=result_file,
            result_size=len(proc.result or b""),
            preview="1" if inline else "",
            failure=failure,
        )
        self._tell(Ended(proc.outcome))

    def _bury(self, proc: Proc, end: str = "lost") -> None:
        proc.alive = False
        proc.end = end
        proc.ended = self._loop.now
        for timer in proc.timers:
            timer.cancel()
        proc.timers.clear()
        self._node.world.oracle.ended(proc)

    def stop(self, attempt_id: str, grace: float) -> None:
        """SIGTERM now, SIGKILL after the grace."""
        proc = self.procs.get(attempt_id)
        if proc is None or not proc.alive or proc.stop_at:
            return
        stubborn = self._node.world.behaviours[proc.order.module, proc.order.function].stubborn
        delay = grace if stubborn else min(grace, 0.05 * self._node.chance.random())
        proc.stop_at = self._loop.now + delay
        self._at(proc, delay, self._stopped, proc)

    def _stopped(self, proc: Proc) -> None:
        if proc.alive:
            self.finish(proc, EndState.STOPPED)

    def remove(self, attempt_id: str) -> None:
        """The agent asks for nothing of it any more."""
        proc = self.procs.pop(attempt_id, None)
        if proc is not None:
            proc.removed = True
            if proc.alive:
                self._bury(proc)

    def kill_keeper(self) -> None:
        """SIGKILL of the keeper: its processes die with it and leave nothing."""
        self.generation += 1
        for proc in list(self.procs.values()):
            if proc.alive:
                self._bury(proc)
                if self.runtime is not None:
                    words = Failure("lost", "the outcome is unknown")
                    self._tell(Ended(Outcome(proc.attempt_id, EndState.LOST, failure=words)))

    def crash(self) -> None:
        """The machine loses power: what was not synced may be gone."""
        self.generation += 1
        for proc in self.procs.values():
            proc.rebooted = True
            if proc.alive:
                self._bury(proc)
            proc.outcome = None
            for stream in proc.written:
                path = proc.order.folder / stream
                if path.is_file():
                    os.truncate(path, int(path.stat().st_size * self._node.chance.random()))
        self.procs.clear()
        self.runtime = None

    def _tell(self, event: Started | Ended) -> None:
        if self.runtime is not None:
            self.runtime.hear(event)


class Runtime:
    """`opentailr_agent.ports.Runtime` over the keepers of a machine."""

    name = "process"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._keepers = node.keepers
        self._events: asyncio.Queue[Started | Ended] = asyncio.Queue()
        node.keepers.runtime = self

    def hear(self, event: Started | Ended) -> None:
        """A keeper's message arrives in the agent, in the order in which it was sent."""
        self._events.put_nowait(event)

    async def start(self, order: AttemptOrder) -> None:
        node = self._node
        node.world.oracle.ordered(order.attempt_id, node.name)
        await asyncio.sleep(0.002 * node.chance.random())
        if order.attempt_id in self._keepers.procs:
            return
        slow = node.chance.random() < node.world.plan.slow_starts
        if slow:
            await asyncio.sleep(3.0 * node.chance.random())
        if node.chance.random() < node.world.plan.start_fails:
            raise OSError("no keeper could be started")
        self._keepers.launch(order)
        await asyncio.sleep((1.0 if slow else 0.002) * node.chance.random())

    async def stop(self, attempt_id: str, grace_seconds: float) -> None:
        await asyncio.sleep(0.001 * self._node.chance.random())
        self._keepers.stop(attempt_id, grace_seconds)

    async def events(self) -> AsyncIterator[Started | Ended]:
        while True:
            yield await self._events.get()

    async def adopt(self, attempts: Mapping[str, Path]) -> Sequence[Adopted]:
        found = []
        await asyncio.sleep(0.01 * self._node.chance.random())
        for attempt_id, proc in list(self._keepers.procs.items()):
            if attempt_id in attempts:
                if proc.alive:
                    found.append(Adopted(attempt_id, running=True, pid=4711))
                elif proc.outcome is not None:
                    found.append(Adopted(attempt_id, running=False, outcome=proc.outcome))
            elif proc.alive:
                self._keepers.stop(attempt_id, 0.0)
            else:
                self._keepers.remove(attempt_id)
        return found

    async def remove(self, attempt_id: str) -> None:
        await asyncio.sleep(0.001 * self._node.chance.random())
        self._keepers.remove(attempt_id)

    async def close(self, *, stop_attempts: bool) -> None:
        if stop_attempts:
            for proc in list(self._keepers.procs.values()):
                if proc.alive:
                    self._keepers.finish(proc, EndState.STOPPED)
