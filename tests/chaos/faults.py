"""What can be done to a platform, one fault at a time or several together, and what it excuses.

Each fault is one call that begins it, lasts, and ends it. The log of faults is what the oracle reads when a
task began more than once: only some faults may cost an attempt.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .ledger import is_attempt
from .proxy import DOWN, UP
from .servers import Server
from .world import Node, World

COSTLY: Final = frozenset({"keeper kill", "agent drain", "user kill"})
"""Faults that end running attempts at once."""


@dataclass(frozen=True)
class Fault:
    """One fault that happened."""

    kind: str
    """For instance `agent kill`, `proxy refuse`."""
    target: str
    """Name of the server or agent; for a user process its attempt."""
    began: float
    """Monotonic seconds."""
    ended: float
    """When it was healed and everything was ready again."""

    def __str__(self) -> str:
        return f"{self.kind} of {self.target} for {self.ended - self.began:.2f} s"


class Faults:
    """Brings faults upon a world.

    Args:
        world: The platform.
        seed: Of the choice of targets and lengths.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world = world
        self.log: list[Fault] = []
        self._random = random.Random(f"faults {seed}")
        self._stop = threading.Event()
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    # -- one kind each ---------------------------------------------------------------------------
    def kill(self, server: Server, *, down: float = 0.2) -> None:
        """kill -9 and a new start after some seconds."""
        with self._logged(server, "kill"):
            server.kill()
            self._pause(down)
            server.start()

    def terminate(self, server: Server, *, down: float = 0.1) -> None:
        """SIGTERM, a clean end, and a new start."""
        node = self._node_of(server)
        drains = node is not None and node.stops_attempts
        with self._logged(server, "drain" if drains else "terminate"):
            server.terminate()
            self._pause(down)
            if node is not None:
                node.stops_attempts = self._random.random() < 0.3
            server.start()

    def pause(self, server: Server, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some seconds."""
        with self._logged(server, "pause"):
            server.pause()
            self._pause(seconds)
            server.resume()

    def kill_keeper(self, node: Node) -> None:
        """kill -9 of the agent's keepers."""
        for keeper in node.keepers:
            with self._logged(node.server, "kill", kind="keeper"):
                _send(keeper.pid, signal.SIGKILL)

    def pause_keeper(self, node: Node, seconds: float) -> None:
        """SIGSTOP of the agent's keepers for some seconds."""
        with self._logged(node.server, "pause", kind="keeper"):
            keepers = node.keepers
            for keeper in keepers:
                _send(keeper.pid, signal.SIGSTOP)
            self._pause(seconds)
            for keeper in keepers:
                _send(keeper.pid, signal.SIGCONT)

    def kill_stage(self, node: Node) -> None:
        """kill -9 of one prepared interpreter; the attempts that it began must not notice."""
        stages = [pid for keeper in node.keepers for pid in keeper.stages() if not is_attempt(pid)]
        if stages:
            with self._logged(node.server, "kill", kind="stage"):
                _send(self._random.choice(stages), signal.SIGKILL)

    def kill_user(self) -> None:
        """kill -9 of the process of one running task."""
        running = self.world.ledger.running()
        if running:
            pid, attempt = self._random.choice(sorted(running.items()))
            began = time.monotonic()
            _send(pid, signal.SIGKILL)
            self.log.append(Fault("user kill", attempt, began, time.monotonic()))

    def pause_user(self, seconds: float) -> None:
        """SIGSTOP of the process of one running task."""
        running = self.world.ledger.running()
        if running:
            pid, attempt = self._random.choice(sorted(running.items()))
            began = time.monotonic()
            _send(pid, signal.SIGSTOP)
            self._pause(seconds)
            _send(pid, signal.SIGCONT)
            self.log.append(Fault("user pause", attempt, began, time.monotonic()))

    def cut(self, node: Node, *, reset: bool = True) -> None:
        """All connections of an agent end."""
        with self._logged(node.server, "reset" if reset else "fin", kind="proxy"):
            node.proxy.cut(reset=reset)

    def refuse(self, node: Node, seconds: float) -> None:
        """The agent is cut off, its new connections are refused."""
        with self._logged(node.server, "refuse", kind="proxy"):
            node.proxy.refuse()
            self._pause(seconds)
            node.proxy.heal()

    def hold(self, node: Node, seconds: float, *directions: str) -> None:
        """Nothing is delivered in the directions, both unless named."""
        with self._logged(node.server, "hold", kind="proxy"):
            node.proxy.hold(*directions)
            self._pause(seconds)
            node.proxy.heal()

    def throttle(self, node: Node, seconds: float, *, rate: float = 64_000) -> None:
        """Each connection carries `rate` bytes per second."""
        with self._logged(node.server, "throttle", kind="proxy"):
            node.proxy.throttle(rate)
            self._pause(seconds)
            node.proxy.heal()

    def delay(self, node: Node, seconds: float, *, each: float = 0.15) -> None:
        """Each chunk comes `each` seconds late."""
        with self._logged(node.server, "delay", kind="proxy"):
            node.proxy.delay(each)
            self._pause(seconds)
            node.proxy.heal()

    # -- by chance -------------------------------------------------------------------------------
    def one(self, *, long: bool = False, restarts: float = 0.4) -> None:
        """One fault by chance.

        Args:
            long: It lasts longer than a lease.
            restarts: Chance that it ends a server, where it is not a long one; with 0 no keeper is ended
                either, so that all these processes grow old.
        """
        draw = self._random
        node = draw.choice(self.world.nodes)
        span = self.world.leases.deadly if long else draw.uniform(0.1, self.world.leases.harmless)
        server = draw.choice(self.world.servers)
        kinds: list[Callable[[], None]] = [
            lambda: self.pause(server, span),
            lambda: self.refuse(node, span),
            lambda: self.hold(node, span, *draw.choice(((UP,), (DOWN,), ()))),
        ]
        if not long and draw.random() < restarts:
            kinds = [
                lambda: self.kill(self.world.controlplane, down=draw.uniform(0, 1)),
                lambda: self.kill(node.server, down=draw.uniform(0, 1)),
                lambda: self.terminate(server),
            ]
        elif not long:
            kinds += [lambda: self.kill_keeper(node)] * (restarts > 0)
            kinds += [
                lambda: self.pause_keeper(node, span),
                lambda: self.kill_stage(node),
                self.kill_user,
                lambda: self.pause_user(span),
                lambda: self.cut(node, reset=draw.random() < 0.5),
                lambda: self.throttle(node, span * 2, rate=draw.choice((16_000, 64_000, 256_000))),
                lambda: self.delay(node, span * 2, each=draw.uniform(0.02, 0.3)),
            ]
        draw.choice(kinds)()

    def together(self, *, count: int, restarts: float = 0.4) -> None:
        """Several faults at the same time, each in a thread; what one meets of another is part of it."""
        problems: list[BaseException] = []

        def run() -> None:
            try:
                self.one(restarts=restarts)
            except AssertionError as problem:
                problems.append(problem)

        threads = [threading.Thread(target=run, name=f"fault-{number}") for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def storm(
        self,
        seconds: float,
        *,
        pause: tuple[float, float] = (0.5, 3.0),
        long: float = 0.0,
        restarts: float = 0.4,
    ) -> None:
        """Faults one after another until the time is over or `stop`.

        Args:
            seconds: How long.
            pause: Least and most seconds between two.
            long: Share of faults longer than a lease.
            restarts: Share of the others that end a server, as for `one`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.is_set():
            chance = self._random.random()
            if chance < long:
                self.one(long=True)
            elif chance < long + 0.25:
                self.together(count=self._random.randint(2, 3), restarts=restarts)
            else:
                self.one(restarts=restarts)
            self._stop.wait(self._random.uniform(*pause))

    def stop(self) -> None:
        """Ends `storm` and the pauses of faults early."""
        self._stop.set()

    # -- for the oracle --------------------------------------------------------------------------
    def absences(self, agent: str) -> list[tuple[float, float]]:
        """Spans in which an agent may have been unheard, those with too short a gap between them joined."""
        leases = self.world.leases
        away = [
            (fault.began, fault.ended)
            for fault in self.log
            if fault.target == agent and fault.kind.startswith(("agent ", "proxy "))
        ]
        # A dead control plane hears nobody; its own restart starts every lease anew, but the agent needs to
        # find its way back in both cases.
        away += [(fault.began, fault.ended) for fault in self.log if fault.target == "controlplane"]
        joined: list[tuple[float, float]] = []
        for began, ended in sorted(away):
            if joined and began - joined[-1][1] < leases.harmless:
                joined[-1] = (joined[-1][0], max(joined[-1][1], ended))
            else:
                joined.append((began, ended))
        return joined

    def excuse(self, agent: str, attempt: str, since: float, until: float) -> str:
        """The fault that may have cost an attempt that was alive in a span; empty when there is none."""
        for fault in self.log:
            if fault.kind not in COSTLY or fault.target not in (agent, attempt):
                continue
            if fault.began <= until and fault.ended >= since:
                return str(fault)
        for began, ended in self.absences(agent):
            if ended - began > self.world.leases.harmless and began <= until and ended >= since:
                return f"{agent} may have been away for {ended - began:.1f} s"
        return ""

    # -- inside ----------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _logged(self, server: Server, what: str, *, kind: str = "") -> Iterator[None]:
        """Notes the fault; two of one kind and target come after one another."""
        kind = kind or ("controlplane" if server is self.world.controlplane else "agent")
        with self._locks.setdefault((kind, server.name), threading.Lock()):
            began = time.monotonic()
            try:
                yield
            finally:
                self.log.append(Fault(f"{kind} {what}", server.name, began, time.monotonic()))

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _node_of(self, server: Server) -> Node | None:
        return next((node for node in self.world.nodes if node.server is server), None)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
