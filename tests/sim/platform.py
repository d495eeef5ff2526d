"""The control plane's machine: its disk, its clocks, and the process that comes and goes on it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatailr.v1 import agent_pb2, log_pb2
from opentailr_controlplane.core.batch import WriteBatch
from opentailr_controlplane.core.commands import AgentCredit, AgentEvent, AgentHeartbeat, AgentHello, Command
from opentailr_controlplane.core.effects import Effect
from opentailr_controlplane.core.values import Instant
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.engine_queue import Item
from opentailr_controlplane.engine_views import SessionSink
from opentailr_controlplane.logstore import FileLogStore
from opentailr_controlplane.services.agent_session import AgentSessions, SessionSettings
from opentailr_controlplane.services.logs import LogService
from opentailr_controlplane.store.migrate import migrate
from opentailr_controlplane.store.sqlite import SqliteStore

from .loop import Process

if TYPE_CHECKING:
    from .world import World

SESSIONS = "/datatailr.v1.AgentService/Connect"
LOGS = "/datatailr.v1.LogService/AppendLogs"


class Database(sqlite3.Connection):
    """The database's file: what is committed stays, whatever happens to the process."""

    world: World
    full = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
        if self.full and sql in ("BEGIN IMMEDIATE", "COMMIT"):
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *values)


@cache
def _template(folder: Path) -> sqlite3.Connection:
    path = folder / "template.db"
    migrate(path)
    source = sqlite3.connect(path)
    template = sqlite3.connect(":memory:")
    source.backup(template)
    source.close()
    path.unlink()
    return template


def new_database(world: World, folder: Path) -> Database:
    """An empty database with the present schema."""
    connection = sqlite3.connect(
        ":memory:", isolation_level=None, factory=Database, check_same_thread=False, cached_statements=256
    )
    _template(folder).backup(connection)
    connection.execute("PRAGMA foreign_keys = ON").close()
    connection.world = world
    return connection


class SimStore(SqliteStore):
    """The real store on the machine's database."""

    def __init__(self, database: Database) -> None:
        super().__init__(Path("state.db"))
        self._database = database

    async def open(self) -> None:
        self._writer = self._reader = self._database

    async def close(self) -> None:
        self._writer = self._reader = None


class SimEngine(Engine):
    """The real engine, looked at by the oracle."""

    world: World

    def _release(self, done: list[Item], effects: list[Effect], batch: WriteBatch | None) -> None:
        self.world.oracle.released(self._state, done, effects, batch, self._clock.now())
        super()._release(done, effects, batch)

    def _step(self, item: Item, now: Instant) -> bool:
        judge = self.world.oracle.before_step(self._state, item.event)
        done = super()._step(item, now)
        if judge is not None:
            judge()
        return done

    async def hello(self, event: AgentHello, sink: SessionSink) -> int:
        self.world.oracle.heard(event.agent_id)
        epoch = await super().hello(event, sink)
        self.world.oracle.epoch_given(event.agent_id, epoch)
        return epoch

    async def post(self, event: AgentEvent) -> None:
        if isinstance(event, AgentHeartbeat):
            # What still comes by a session that was ended for its silence counts for nothing: the agent has
            # to open another one.
            agent = self._state.agents.get(event.agent_id)
            if agent is not None and agent.state.connected:
                self.world.oracle.heard(event.agent_id)
        elif isinstance(event, AgentCredit):
            self.world.oracle.credited(event)
        await super().post(event)


class Objects:
    """The object store as the sessions see it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def has(self, digest: str) -> bool:
        await asyncio.sleep(0)
        return digest in self._world.objects

    async def put_bytes(self, data: bytes) -> str:
        await asyncio.sleep(0)
        digest = hashlib.sha256(data).hexdigest()
        self._world.objects[digest] = data
        return digest


class Tokens:
    def issue(self, run_id: int, user: str) -> str:
        return f"token-{run_id}-{user}"


class Clock:
    """The clocks of the machine, seen by one process."""

    def __init__(self, platform: Platform, process: Process) -> None:
        self._platform = platform
        self._process = process

    def now(self) -> Instant:
        true = self._platform.world.loop.now
        return Instant(
            round((self._platform.wall_offset + true) * 1e6), round(self._process.local(true) * 1e6)
        )


class Ids:
    def installation(self) -> str:
        return "sim"


class Platform:
    """The machine of the control plane."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rate = 1.0 + (world.chance.random() - 0.5) * 1.6e-3
        self.offset = 5000.0 * world.chance.random()
        self.wall_offset = 1.7e9
        self.database = new_database(world, world.arena)
        self.log_folder = world.arena / "logs"
        self.synced: dict[str, tuple[int, bool]] = {}
        """Length and end mark of each log file as last synced."""
        self.process: Process | None = None
        self.engine: SimEngine | None = None
        self.sessions: AgentSessions | None = None
        self.logs: FileLogStore | None = None
        self.starts = 0
        self.leaving = False
        """The process was told to end."""
        self.started_at = 0.0
        self.waiting: dict[asyncio.Future[Any], None] = {}
        """Calls of people that have no answer yet."""

    @property
    def up(self) -> bool:
        """True while the process exists."""
        return self.process is not None and self.process.alive

    def serving(self) -> bool:
        """True while requests would be answered."""
        return self.up and self.engine is not None and not self.process.paused  # type: ignore[union-attr]

    def start(self) -> None:
        """Starts the process unless it lives."""
        if self.up:
            return
        self.starts += 1
        self.leaving = False
        process = Process(f"cp.{self.starts}", rate=self.rate, offset=self.offset)
        self.process = process
        self.world.faults.arm(process)
        self.world.loop.spawn(process, self._main(process))

    async def _main(self, process: Process) -> None:
        world = self.world
        clock = Clock(self, process)
        store = SimStore(self.database)
        await store.open()
        engine = SimEngine(store, clock=clock, ids=Ids(), settings=world.settings)
        engine.world = world
        world.oracle.restarting(clock.now())
        while True:
            try:
                await engine.start()
                break
            except Exception as error:
                if not self.database.full:
                    world.oracle.fail(f"defect: the engine does not start: {error!r}")
                    return
                await asyncio.sleep(1.0)
        engine._state.observer = world.oracle.moved
        logs = FileLogStore(self.log_folder)
        self.logs = logs
        reads: Any = None
        lookup: Any = None
        service = LogService(engine, reads, logs, lookup)  # type: ignore[arg-type]
        self.sessions = AgentSessions(
            engine, clock=clock, objects=Objects(world), tokens=Tokens(), settings=SessionSettings("cp:7070")
        )
        world.network.handlers = {
            SESSIONS: (agent_pb2.ConnectRequest.FromString, self.sessions.Connect, False),
            LOGS: (log_pb2.AppendLogsRequest.FromString, service.AppendLogs, True),
        }
        self.engine = engine
        world.network.server = process

    async def stop(self) -> None:
        """SIGTERM: a clean end."""
        assert self.engine is not None
        await self.engine.close()
        self.world.loop.world_call(0.0, self.kill)

    def kill(self, *, power: bool = False) -> None:
        """SIGKILL; with `power` the machine crashes, and what was not synced may be gone."""
        process = self.process
        if process is None or not process.alive:
            return
        self.world.loop.kill(process)
        self.world.network.died(process)
        if self.logs is not None:
            for log in self.logs._open.values():
                os.close(log.file)
        self.engine = self.sessions = self.logs = None
        for future in list(self.waiting):
            if not future.done():
                future.set_exception(ConnectionError("the control plane is gone"))
        self.waiting.clear()
        if power:
            self._lose_logs()
            self.offset = -self.world.loop.now * self.rate + self.world.chance.random()

    def _lose_logs(self) -> None:
        for path in self.log_files():
            size, ended = self.synced.get(str(path), (0, False))
            present = path.stat().st_size
            if present > size:
                os.truncate(path, size + int((present - size) * self.world.chance.random()))
            if not ended:
                os.chmod(path, 0o600)

    def log_files(self) -> Iterable[Path]:
        """All files of the log store."""
        for shard in sorted(self.log_folder.iterdir()):
            yield from sorted(shard.iterdir())

    def synced_now(self, paths: Iterable[str]) -> None:
        """These files are on disk as they are."""
        for path in paths:
            found = os.stat(path)
            self.synced[path] = (found.st_size, not found.st_mode & 0o200)

    async def execute(self, command: Command) -> Any:
        """A call of a person's program: its answer, or what went wrong.

        Raises:
            ConnectionError: Nobody answered; it may have been carried out or not.
            CoreError: It was refused.
        """
        loop = self.world.loop
        engine, process = self.engine, self.process
        await asyncio.sleep(0.001 + 0.004 * self.world.chance.random())
        if engine is None or engine is not self.engine or process is None or not process.alive:
            raise ConnectionError("connection refused")
        future: asyncio.Future[Any] = loop.create_future()
        self.waiting[future] = None

        async def carry_out() -> None:
            try:
                reply = await engine.execute(command)
            except Exception as error:
                loop.world_call(0.002, _set_error, future, error)
            else:
                loop.world_call(0.002, _set, future, reply)

        loop.spawn(process, carry_out())
        try:
            async with asyncio.timeout(30.0):
                return await future
        except TimeoutError:
            raise ConnectionError("no answer") from None
        finally:
            self.waiting.pop(future, None)


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


__all__ = ["Platform"]
