"""The composition root: makes all parts of an agent from its settings and runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc.aio
import structlog

from datatailr.v1 import agent_pb2 as pb
from opentailr_agent import inventory
from opentailr_agent.backoff import Backoff
from opentailr_agent.builder.venv import VenvBuilder
from opentailr_agent.bundles import BundleStore, remove_tree
from opentailr_agent.config import Settings
from opentailr_agent.datadir import DataDir
from opentailr_agent.journal import Journal
from opentailr_agent.logs.budget import SpoolBudget
from opentailr_agent.logs.shipper import LogShipper
from opentailr_agent.objects import ObjectCache
from opentailr_agent.ports import Runtime
from opentailr_agent.preparation import Preparation
from opentailr_agent.runtimes.process import ProcessRuntime
from opentailr_agent.session import CHANNEL_OPTIONS, NEAR_OPTIONS, PROTOCOL, Session, is_loopback
from opentailr_agent.supervisor import Parts, Supervisor
from opentailr_agent.transfer import ObjectTransfer

_DRAIN: Final = 4.0
"""Seconds for attempts to end and be acknowledged when the operator ends the agent with them."""
_NEAR_PAUSE: Final = 0.3
"""Longest pause, seconds, between two dials of a control plane on this machine."""
_FAR_PAUSE: Final = 8.0
"""The same for one elsewhere: many agents come back to it at once."""


class Agent:
    """An agent, from its data directory to its session.

    Args:
        settings: What it is told.
        data: Locked data directory.
        runtime: How attempts run; None means processes.
    """

    def __init__(self, settings: Settings, data: DataDir, *, runtime: Runtime | None = None) -> None:
        self._settings = settings
        self._data = data
        self._log = structlog.get_logger("agent")
        self.agent_id = inventory.agent_id(data.path)
        self._boot_id = uuid4().hex
        self._stop = asyncio.Event()
        # Dialling the own machine costs nobody anything: after a restart of the control plane every
        # tenth of a second counts, and there is no crowd to be spread.
        near = is_loopback(settings.address)
        options = list({**CHANNEL_OPTIONS, **(NEAR_OPTIONS if near else {})}.items())
        self._channels = (
            grpc.aio.insecure_channel(settings.address, options=options),
            # Bulk has a connection of its own, so that it never delays a stop.
            grpc.aio.insecure_channel(
                settings.address, options=[*options, ("grpc.use_local_subchannel_pool", 1)]
            ),
        )
        control, bulk = self._channels
        metadata_ = (("authorization", f"Bearer {settings.token}"), ("opentailr-protocol", str(PROTOCOL)))
        self._journal = Journal(
            data.path / "journal.db",
            machine_boot=inventory.machine_boot(),
            new_id=lambda: f"jrn_{uuid4().hex}",
        )

        if self._journal.opened.rebooted:
            # Caches are not synced: after a crash of the machine a file may be torn.
            for name in ("objects", "bundles"):
                remove_tree(data.path / name)

        transfer = ObjectTransfer(bulk, metadata_)
        objects = ObjectCache(data.folder("objects"), transfer, limit_bytes=settings.object_cache_bytes)
        self._builder = VenvBuilder(
            data.path, allow_pre_scripts=settings.allow_pre_scripts, strict=settings.strict_python
        )
        self._runtime = runtime if runtime is not None else ProcessRuntime(data.folder("runtime"))
        preparation = Preparation(
            data.folder("attempts"),
            builder=self._builder,
            objects=objects,
            bundles=BundleStore(data.folder("bundles"), objects),
            soft_memory_limit=settings.soft_memory_limit,
        )
        self._python_versions: list[str] = []
        self._supervisor = Supervisor(
            Parts(
                attempts=data.folder("attempts"),
                journal=self._journal,
                runtime=self._runtime,
                builder=self._builder,
                preparation=preparation,
                objects=objects,
                transfer=transfer,
                send=lambda frame: self._session.send(frame),
                hello=self._hello,
                free_disk=lambda: inventory.free_disk(data.path),
                min_free_disk=settings.min_free_disk,
                slots=settings.slots,
                ready=self._write_ready_file,
                leased=lambda: self._session.leased,
            )
        )
        longest = _NEAR_PAUSE if near else _FAR_PAUSE
        self._shipper = LogShipper(
            bulk,
            metadata_,
            self._supervisor.shipped,
            agent_id=self.agent_id,
            longest_pause=longest,
            budget=SpoolBudget(limit=settings.log_spool_bytes),
        )
        self._supervisor.attach(self._shipper)
        self._session = Session(control, metadata_, self._supervisor, backoff=Backoff(longest=longest))

    def stop(self) -> None:
        """Asks `run` to end cleanly."""
        self._stop.set()

    async def run(self) -> None:
        """Works until `stop`, then ends as the settings say: with the attempts, or leaving them alone."""
        work: list[asyncio.Task[None]] = []
        drained = False

        try:
            self._python_versions = await self._builder.python_versions()
            await self._supervisor.recover()
            work = [
                asyncio.create_task(self._supervisor.run()),
                asyncio.create_task(self._shipper.run()),
                asyncio.create_task(self._session.run()),
            ]
            stopping = asyncio.create_task(self._stop.wait())
            done, _ = await asyncio.wait([*work, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()

            for task in done - {stopping}:
                # None of them ends by itself: this raises what went wrong.
                task.result()

            drained = self._settings.stop_attempts_on_exit
            await self._leave()
        finally:
            self._remove_ready_file()

            for task in work:
                task.cancel()

            await asyncio.gather(*work, return_exceptions=True)
            await self._builder.close()
            await self._runtime.close(stop_attempts=drained)
            self._shipper.close()
            self._journal.close()

            for channel in self._channels:
                await channel.close()

    async def _leave(self) -> None:
        keep = not self._settings.stop_attempts_on_exit
        self._log.info("ending", attempts_keep_running=keep)

        if not keep and not await self._supervisor.drain(within=_DRAIN):
            self._log.warning("not all attempts could be ended and reported in time")
            # Bye says that nothing runs here any more, and what it held is given away at once.
            await self._runtime.close(stop_attempts=True)

        await self._session.bye(attempts_keep_running=keep, timeout=0.5)

    def _hello(self) -> pb.Hello:
        settings = self._settings
        return pb.Hello(
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            agent_id=self.agent_id,
            name=settings.name,
            boot_id=self._boot_id,
            software_version=metadata.version("opentailr"),
            capacity=pb.Capacity(memory_bytes=settings.memory_bytes, cpu=settings.cpu, slots=settings.slots),
            labels=inventory.labels(),
            runtime=self._runtime.name,
            python_versions=self._python_versions,
            allows_pre_scripts=settings.allow_pre_scripts,
        )

    def _write_ready_file(self) -> None:
        path = self._settings.ready_file
        self._log.info("ready", agent_id=self.agent_id, name=self._settings.name)

        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            incoming = path.with_name(path.name + ".incoming")
            told = {"agent_id": self.agent_id, "name": self._settings.name, "pid": os.getpid()}
            incoming.write_text(json.dumps(told) + "\n", encoding="utf-8")
            incoming.replace(path)

    def _remove_ready_file(self) -> None:
        if self._settings.ready_file is not None:
            self._settings.ready_file.unlink(missing_ok=True)


async def run_agent(settings: Settings, *, runtime: Callable[[Path], Runtime] = ProcessRuntime) -> None:
    """Runs an agent until SIGTERM or SIGINT.

    Args:
        settings: What it is told.
        runtime: Makes the runtime, given a folder of its own.

    Raises:
        DataDirError: The data directory cannot be used.
        NewerJournalError: The journal was written by a newer version.
    """
    data = DataDir(settings.data_dir)

    try:
        agent = Agent(settings, data, runtime=runtime(data.folder("runtime")))
        loop = asyncio.get_running_loop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)

        await agent.run()
    finally:
        data.close()
