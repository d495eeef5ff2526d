"""A worker machine: its disk, its clocks, its processes, and the agent that comes and goes on it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatailr.v1 import agent_pb2 as pb
from opentailr_agent.bundles import remove_tree
from opentailr_agent.logs.shipper import LogShipper
from opentailr_agent.preparation import Preparation
from opentailr_agent.session import Session
from opentailr_agent.supervisor import Parts, Supervisor
from opentailr_agent.transfer import ObjectError

from .keepers import Keepers, Runtime
from .loop import Process
from .network import Channel, Link, round_trip
from .standins import Builder, Bundles, Objects, SimJournal, Transfer

if TYPE_CHECKING:
    from .world import World

GIB = 1 << 30


class Watch:
    """Stands in for inotify: told by the machine, in the time of the world."""

    def __init__(self, changed: Callable[[str | None], None]) -> None:
        process = asyncio.get_running_loop().current  # type: ignore[attr-defined]
        self.changed = changed
        self.process: Process = process
        self.names: dict[str, None] = {}
        process.node.watch = self

    def add(self, name: str, folder: Path) -> None:
        self.names[name] = None

    def remove(self, name: str) -> None:
        self.names.pop(name, None)

    def close(self) -> None:
        self.names.clear()


class SimSupervisor(Supervisor):
    """The real supervisor, looked at by the oracle after each turn."""

    node: Node

    async def _turn(self) -> None:
        await super()._turn()
        self.node.world.oracle.agent_turned(self.node)


class Node:
    """One machine with an agent."""

    def __init__(self, world: World, number: int, *, memory: int, slots: int) -> None:
        self.world = world
        self.name = f"n{number}"
        self.agent_id = f"agt_{number}"
        self.chance = random.Random(world.chance.random())
        self.folder = world.folder / self.name
        self.folder.mkdir()
        (self.folder / "attempts").mkdir()
        self.memory = memory
        self.slots = slots
        self.link: Link = world.network.link(self.agent_id)
        self.rate = 1.0 + (self.chance.random() - 0.5) * 1.6e-3
        self.offset = 1000.0 * self.chance.random()
        self.wall_offset = 1.7e9 + self.chance.random()
        self.boot = 1
        self.boots = 0
        self.journals = 0
        self.images: set[str] = set()
        self.disk_full = False
        self.keepers = Keepers(self)
        self.process: Process | None = None
        self.supervisor: SimSupervisor | None = None
        self.session: Session | None = None
        self.journal: SimJournal | None = None
        self.shipper: LogShipper | None = None
        self.watch: Watch | None = None
        self.leaving = False
        """The agent was told to end."""

    # ------------------------------------------------------------------ the machine

    def wall(self) -> float:
        """Seconds since the epoch, as this machine believes."""
        return self.wall_offset + self.world.loop.now

    def grown(self, attempt_id: str) -> None:
        """A spool grew: the agent is told, if it watches."""
        watch = self.watch
        if watch is not None and watch.process.alive and attempt_id in watch.names:
            self.world.loop.call_in(watch.process, watch.changed, attempt_id)

    async def fetch(self, digest: str) -> bytes:
        """An object from the control plane."""
        if not await round_trip(self.link, self.world.serving, within=60.0):
            raise ObjectError("the control plane does not answer")
        if digest not in self.world.objects:
            raise ObjectError(f"there is no object {digest}")
        return self.world.objects[digest]

    def power_cut(self) -> None:
        """The machine crashes; it is on again when the agent is started the next time."""
        journal = self.journal
        self.kill()
        self.keepers.crash()
        if journal is not None:
            journal.lose()
        self.boot += 1
        self.offset = -self.world.loop.now * self.rate + self.chance.random()

    # ------------------------------------------------------------------ the agent

    @property
    def up(self) -> bool:
        """True while the agent's process exists."""
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Starts the agent unless it lives."""
        if self.up:
            return
        self.boots += 1
        self.leaving = False
        process = Process(f"{self.name}.{self.boots}", rate=self.rate, offset=self.offset)
        process.node = self  # type: ignore[attr-defined]
        self.process = process
        self.world.faults.arm(process)
        self.world.loop.spawn(process, self._main(process))

    def kill(self) -> None:
        """SIGKILL of the agent: nothing is cleaned up."""
        process = self.process
        if process is None or not process.alive:
            return
        self.world.loop.kill(process)
        self.world.network.died(process)
        self.keepers.runtime = None
        if self.journal is not None:
            self.journal.close()
        if self.shipper is not None:
            self._close_files(self.shipper)
        self.supervisor = self.session = self.journal = self.shipper = self.watch = None

    @staticmethod
    def _close_files(shipper: LogShipper) -> None:
        # The system closes a dead process's descriptors.
        for spools in shipper._logs.values():
            for spool in spools.values():
                spool.close()

    def leave(self, *, keep: bool) -> None:
        """SIGTERM: a clean end, with the attempts or without them."""
        if self.up and self.supervisor is not None and self.process is not None:
            self.leaving = True
            self.world.loop.spawn(self.process, self._leave(keep))

    async def _leave(self, keep: bool) -> None:
        supervisor, session = self.supervisor, self.session
        assert supervisor is not None and session is not None
        runtime = self.keepers.runtime
        if not keep and not await supervisor.drain(within=4.0) and runtime is not None:
            await runtime.close(stop_attempts=True)
        await session.bye(attempts_keep_running=keep, timeout=0.5)
        if not keep and runtime is not None:
            await runtime.close(stop_attempts=True)
        self.world.loop.world_call(0.0, self.kill)

    async def _main(self, process: Process) -> None:
        world = self.world
        try:
            journal = SimJournal(
                self,
                self.folder / "journal.db",
                remembers=world.plan.power_cuts,
                machine_boot=f"{self.name}-{self.boot}",
                new_id=self._new_journal,
            )
        except sqlite3.OperationalError:
            world.loop.world_call(0.0, self.kill)
            return
        self.journal = journal
        if journal.opened.rebooted:
            for name in ("objects", "bundles"):
                remove_tree(self.folder / name)
        builder: Any = Builder(self)
        runtime = Runtime(self)
        objects: Any = Objects(self)
        bundles: Any = Bundles()
        transfer: Any = Transfer(self, world.serving)
        self.supervisor = SimSupervisor(
            Parts(
                attempts=self.folder / "attempts",
                journal=journal,
                runtime=runtime,
                builder=builder,
                preparation=Preparation(
                    self.folder / "attempts",
                    builder=builder,
                    objects=objects,
                    bundles=bundles,
                    soft_memory_limit=GIB,
                ),
                objects=objects,
                transfer=transfer,
                send=lambda frame: session.send(frame),
                hello=lambda: self._hello(process),
                free_disk=lambda: 0 if self.disk_full else 100 * GIB,
                min_free_disk=GIB,
                slots=self.slots,
                ready=lambda: None,
                clock=self.wall,
                leased=lambda: session.leased,
            )
        )
        self.supervisor.node = self
        metadata = (("authorization", "Bearer token"),)
        self.shipper = LogShipper(
            Channel(self.link, process),  # type: ignore[arg-type]
            metadata,
            self.supervisor.shipped,
            agent_id=self.agent_id,
        )
        self.supervisor.attach(self.shipper)
        session = Session(
            Channel(self.link, process),  # type: ignore[arg-type]
            metadata,
            self.supervisor,
            draw=self.chance.random,
        )
        self.session = session
        await self.supervisor.recover()
        work = [
            asyncio.create_task(self.supervisor.run()),
            asyncio.create_task(self.shipper.run()),
            asyncio.create_task(session.run()),
        ]
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None:
                world.oracle.fail(f"defect: the agent ends by {error!r}")

    def _new_journal(self) -> str:
        self.journals += 1
        return f"jrn_{self.name}_{self.journals}"

    def _hello(self, process: Process) -> pb.Hello:
        return pb.Hello(
            protocol_min=1,
            protocol_max=1,
            agent_id=self.agent_id,
            name=self.name,
            boot_id=process.name,
            software_version="1",
            capacity=pb.Capacity(memory_bytes=self.memory, cpu=64.0, slots=self.slots),
            runtime="process",
            python_versions=["3.11"],
        )
