"""What goes wrong, and when: chosen by the seed, healed at the end of the phase."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .loop import Process
from .network import DOWN, UP

if TYPE_CHECKING:
    from .node import Node
    from .world import World

KINDS = (
    "agent killed",
    "agent restarted",
    "agent drained",
    "control plane killed",
    "control plane restarted",
    "control plane crashed",
    "node crashed",
    "keeper killed",
    "link cut",
    "link half-open",
    "link silent",
    "stream reset",
    "link slow",
    "link delayed",
    "agent paused",
    "control plane paused",
    "clock step",
    "node disk full",
    "control plane disk full",
    "disk slow",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one seed makes of the world."""

    shuffle: bool
    nodes: int
    kinds: tuple[str, ...]
    pace: float
    """Mean seconds between two faults."""
    phase: float
    """Seconds in which faults happen."""
    severity: int
    """Exponent of the length of faults: 3 makes nearly all of them short, 1 many as long as they may be."""
    window: int
    """Bytes that may be under way in one direction of a stream before its writer has to wait."""
    start_fails: float
    slow_starts: float
    """Share of starts that take seconds, as that of a new keeper does."""
    fragile_starts: bool
    """Programs may be killed again while they start."""
    outlived: bool
    """Nodes fall silent for longer than their lease while long tasks run on."""

    @property
    def power_cuts(self) -> bool:
        """Journals keep what is needed to forget unsynced commits."""
        return "node crashed" in self.kinds


SILENCES = ("link cut", "link silent", "link half-open", "agent paused")


def draw_plan(chance: random.Random) -> Plan:
    """The plan of a seed: few kinds of faults at a time, so that each gets its turn alone and with others."""
    kinds = chance.sample(KINDS, chance.choice((0, 1, 2, 3, 4, 6, 10)))
    outlived = chance.random() < 0.25
    if outlived:
        kinds = sorted({*kinds[:3], *chance.sample(SILENCES, 2)})
    return Plan(
        shuffle=chance.random() < 0.8,
        nodes=chance.choice((2, 2, 3)) if outlived else chance.choice((1, 2, 2, 3)),
        kinds=tuple(kinds),
        pace=chance.choice((4.0, 10.0)) if outlived else chance.choice((1.5, 4.0, 10.0)),
        phase=chance.uniform(30.0, 90.0) if outlived else chance.uniform(15.0, 60.0) if kinds else 5.0,
        severity=1 if outlived else chance.choice((1, 1, 3)),
        window=chance.choice((1, 1, 4_000, 256_000)),
        start_fails=chance.choice((0.0, 0.0, 0.05)),
        slow_starts=chance.choice((0.0, 0.1, 0.3)),
        fragile_starts=chance.random() < 0.2,
        outlived=outlived,
    )


def plan_of(seed: int) -> Plan:
    """What a seed makes of the world."""
    return draw_plan(random.Random(f"plan {seed}"))


class Faults:
    """Carries out a plan."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.over = False
        self._paused_at = 0.0
        """Since when the control plane is paused, if it is."""
        self._acts: dict[str, Callable[[], None]] = {
            "agent killed": lambda: self._soon(self._node(), self._kill_agent),
            "agent restarted": lambda: self._restart_agent(keep=True),
            "agent drained": lambda: self._restart_agent(keep=False),
            "control plane killed": self._kill_platform,
            "control plane restarted": self._restart_platform,
            "control plane crashed": lambda: self._end_platform(power=True),
            "node crashed": self._crash_node,
            "keeper killed": lambda: self._node().keepers.kill_keeper(),
            "link cut": self._cut,
            "link half-open": lambda: self._block(self._chance.choice((UP, DOWN))),
            "link silent": lambda: self._block(UP, DOWN),
            "stream reset": self._reset,
            "link slow": self._slow,
            "link delayed": self._delay,
            "agent paused": self._pause_agent,
            "control plane paused": self._pause_platform,
            "clock step": self._step_clock,
            "node disk full": self._fill_node,
            "control plane disk full": self._fill_platform,
            "disk slow": self._slow_disk,
        }

    async def run(self) -> None:
        """Faults at the pace of the plan until its phase ends."""
        world = self._world
        plan = world.plan
        while plan.kinds:
            await asyncio.sleep(self._chance.expovariate(1 / plan.pace))
            if world.loop.now > plan.phase:
                break
            kind = self._chance.choice(plan.kinds)
            world.oracle.trace("fault", kind)
            world.oracle.counts[f"fault: {kind}"] += 1
            self._acts[kind]()
        if world.loop.now < plan.phase:
            await asyncio.sleep(plan.phase - world.loop.now)
        self._heal()

    def arm(self, process: Process) -> None:
        """A program starts: perhaps it does not get far."""
        if self._world.plan.fragile_starts and not self.over and self._chance.random() < 0.3:
            process.fuse = self._chance.randrange(1, 60)
            node = getattr(process, "node", None)
            process.blow = (lambda: self._kill_agent(node)) if node is not None else self._end_platform

    # ------------------------------------------------------------------ parts

    def _node(self) -> Node:
        return self._chance.choice(self._world.nodes)

    def _later(self, longest: float, what: Callable[[], None]) -> None:
        """After a while."""
        delay = longest * self._chance.random() ** self._world.plan.severity
        self._world.loop.world_call(delay, self._unless_over, what)

    def _unless_over(self, what: Callable[[], None]) -> None:
        if not self.over:
            what()

    def _soon(self, node: Node, act: Callable[[Node], None]) -> None:
        """At one of the next awaits of the agent."""
        process = node.process
        if process is None or not process.alive:
            return
        process.fuse = self._chance.randrange(1, 150)
        process.blow = lambda: act(node)

    def _kill_agent(self, node: Node) -> None:
        self._world.oracle.trace("killed", node.name)
        node.kill()
        self._later(40.0, node.start)

    def _restart_agent(self, *, keep: bool) -> None:
        node = self._node()
        rows = self._world.oracle.rows.agents
        drained = [
            one for one in self._world.nodes if one.agent_id in rows and not rows[one.agent_id].schedulable
        ]
        if drained and not keep:
            # A node that was taken out of service is one that is shut down next.
            node = self._chance.choice(drained)
        node.leave(keep=keep)
        self._world.loop.world_call(6.0, lambda: self._unless_over(node.kill))
        self._world.loop.world_call(6.0 + 20.0 * self._chance.random() ** 2, self._unless_over, node.start)

    def _crash_node(self) -> None:
        node = self._node()

        def crash(node: Node) -> None:
            node.power_cut()
            self._world.oracle.lost_journal(node)
            self._later(40.0, node.start)

        if node.up:
            self._soon(node, crash)
        else:
            crash(node)

    def _kill_platform(self) -> None:
        process = self._world.platform.process
        if process is not None and process.alive:
            process.fuse = self._chance.randrange(1, 200)
            process.blow = self._end_platform

    def _end_platform(self, *, power: bool = False) -> None:
        self._world.oracle.trace("killed", "cp")
        self._world.platform.kill(power=power)
        self._later(45.0, self._world.platform.start)

    def _restart_platform(self) -> None:
        platform = self._world.platform
        if platform.up and platform.engine is not None and platform.process is not None:
            platform.leaving = True
            self._world.loop.spawn(platform.process, platform.stop())
            self._world.loop.world_call(4.0, lambda: self._unless_over(platform.kill))
            self._world.loop.world_call(4.5, self._unless_over, platform.start)

    def _cut(self) -> None:
        link = self._node().link
        link.cut = True
        link.reset()
        self._later(40.0, lambda: setattr(link, "cut", False))

    def _block(self, *directions: int) -> None:
        link = self._node().link
        if link.blocked == [False, False]:
            link.block(*directions)
            self._later(60.0, link.unblock)

    def _reset(self) -> None:
        link = self._node().link
        if link.streams:
            link.reset(self._chance.choice(link.streams))

    def _slow(self) -> None:
        link = self._node().link
        link.per_byte = self._chance.choice((1e-5, 1e-4, 1e-3))
        self._later(30.0, lambda: setattr(link, "per_byte", 0.0))

    def _delay(self) -> None:
        link = self._node().link
        link.delay, link.jitter = self._chance.choice((0.05, 0.5, 2.0)), self._chance.choice((0.01, 0.5, 2.0))

        def calm() -> None:
            link.delay, link.jitter = 0.001, 0.002

        self._later(40.0, calm)

    def _pause_agent(self) -> None:
        node = self._node()
        process = node.process
        if process is not None and process.alive:
            process.paused = True
            self._later(60.0, lambda: self._world.loop.resume(process))

    def _pause_platform(self) -> None:
        process = self._world.platform.process
        if process is None or not process.alive or process.paused:
            return
        process.paused = True
        since = self._paused_at = self._world.loop.now
        self._later(60.0, lambda: self._resume_platform(process, since))

    def _resume_platform(self, process: Process, since: float) -> None:
        if process.paused:
            if self._world.loop.now - since > 6.0:
                self._world.resumed_at = self._world.loop.now
            self._world.loop.resume(process)

    def _step_clock(self) -> None:
        step = self._chance.choice((-3600.0, -20.0, -0.5, 0.5, 20.0, 3600.0))
        if self._chance.random() < 0.5:
            self._world.platform.wall_offset += step
        else:
            self._node().wall_offset += step

    def _fill_node(self) -> None:
        node = self._node()
        node.disk_full = True
        self._later(30.0, lambda: setattr(node, "disk_full", False))

    def _fill_platform(self) -> None:
        database = self._world.platform.database
        database.full = True
        self._later(30.0, lambda: setattr(database, "full", False))

    def _slow_disk(self) -> None:
        loop = self._world.loop
        loop.disk_delay = self._chance.choice((0.05, 0.5, 3.0))
        self._later(20.0, lambda: setattr(loop, "disk_delay", 0.001))

    def _heal(self) -> None:
        """Everything works again, for good."""
        self.over = True
        world = self._world
        world.oracle.trace("healed")
        world.loop.disk_delay = 0.001
        world.platform.database.full = False
        platform = world.platform
        if platform.process is not None:
            platform.process.fuse = 0
            if platform.process.alive and platform.process.paused:
                self._resume_platform(platform.process, self._paused_at)
        # A program that was told to end, or that hangs in its start, is replaced as an operator would.
        if platform.up and (platform.engine is None or platform.leaving):
            platform.kill()
        platform.start()
        for node in world.nodes:
            node.disk_full = False
            link = node.link
            link.cut = False
            link.delay, link.jitter, link.per_byte = 0.001, 0.002, 0.0
            if link.blocked != [False, False]:
                link.unblock()
            process = node.process
            if process is not None and process.alive:
                process.fuse = 0
                if process.paused:
                    world.loop.resume(process)
                if node.leaving:
                    node.kill()
            node.start()
