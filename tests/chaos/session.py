"""One round of chaos: work from a seed, faults beside it, and the judgement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from .driver import Driver
from .faults import Faults
from .oracle import Oracle
from .workload import Generator
from .world import World


class Session:
    """A world with work in it.

    Args:
        world: The platform.
        seed: Of work and faults.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world = world
        self.driver = Driver(world)
        self.faults = Faults(world, seed)
        self.oracle = Oracle(world, self.faults)
        self._read: dict[str, int] = {}
        """How much of a server's log was looked at."""

    def beside(self, fault: Callable[[], None]) -> _Beside:
        """Runs a fault in a thread of its own; `join` raises what it raised."""
        return _Beside(fault)

    def work(
        self,
        generator: Generator,
        *,
        until: Callable[[], bool],
        runs: int = 3,
        rest: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Keeps some runs going until the condition holds; rests some seconds after each that it starts."""
        next_at = 0.0
        while not until():
            if len(self.driver.active) < runs and time.monotonic() >= next_at:
                self.driver.submit(generator.next())
                next_at = time.monotonic() + rest()
            self.driver.poll()
            time.sleep(0.3)

    def storm(self, generator: Generator, seconds: float, *, long: float = 0.0) -> None:
        """Work and faults beside it for some seconds."""
        storm = self.beside(lambda: self.faults.storm(seconds, long=long))
        try:
            self.work(generator, until=lambda: storm.done)
        finally:
            self.faults.stop()
            storm.join()

    def settle(self, *, seconds: float = 120.0) -> list[str]:
        """Heals everything, waits for the end of all runs and judges them; what was wrong."""
        self.world.heal()
        self.driver.wait_all(seconds=seconds)
        found = [*self.driver.troubles, *self.oracle.judge(self.driver.records)]
        for name in sorted({record.job_name for record in self.driver.records}):
            same = self.driver.runs_of(name)
            wanted = [record.run_id for record in self.driver.records if record.job_name == name]
            if sorted(same) != sorted(wanted):
                found.append(f"{name} has the runs {same}, {wanted} were started")
        return found + self.world.leftovers() + self.crashes()

    def forget(self) -> None:
        """Drops what was judged, so that a long session stays small."""
        self.world.ledger.forget({record.run_id for record in self.driver.records})
        self.driver.records.clear()
        self.driver.troubles.clear()
        self.faults.log.clear()
        for server in self.world.servers:
            server.exits.clear()

    def finish(self, *, seconds: float = 120.0) -> list[str]:
        """`settle`, and the whole platform's end judged too."""
        return self.settle(seconds=seconds) + self.world.shut_down()

    def crashes(self) -> list[str]:
        """Servers that ended by themselves, and what programs wrote of what they did not expect."""
        found = [
            f"{server.name} ended by itself with {server.exits}:\n{server.last_words()}"
            for server in self.world.servers
            if server.exits
        ]
        for server in self.world.servers:
            text = server.log.read_text(errors="replace")
            place = text.find("Traceback (most recent call last)", self._read.get(server.name, 0))
            self._read[server.name] = len(text)
            if place >= 0:
                found.append(f"{server.name} wrote:\n{text[max(0, place - 500) : place + 3000]}")
        told = {path: path.read_text(errors="replace") for path in self._keeper_logs()}
        return found + [f"{path} is not empty:\n{text[-3000:]}" for path, text in told.items() if text]

    def logs(self) -> str:
        """The ends of the servers' logs and of those of the keepers."""
        texts = [f"--- {server.name}\n{server.last_words(80)}" for server in self.world.servers]
        texts += [f"--- {path}\n{path.read_text(errors='replace')[-4000:]}" for path in self._keeper_logs()]
        return "\n".join(texts)

    def _keeper_logs(self) -> list[Path]:
        return sorted(self.world.folder.glob("agent*/runtime/**/keeper.log"))

    def story(self) -> str:
        """The faults, for the message of a failed test."""
        return "\n".join(f"{fault.began:.2f} {fault}" for fault in self.faults.log)


class _Beside:
    def __init__(self, work: Callable[[], None]) -> None:
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), name="fault")
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as problem:
            self._problem = problem

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Waits for it."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
