"""The composition root: one process from flags to ready, and from a signal to clean.

Exit codes: 0 clean end, 2 bad configuration, 3 data directory in use by another
process, 4 data directory written by a newer release.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from . import __version__
from .config import ConfigError, Settings, parse
from .datadir import DataDirectory, DirectoryInUse, NewerFormat, bind
from .engine_setup import EngineFactory, EngineParts, open_engine
from .files import write_whole
from .logging_setup import configure
from .logstore import FileLogStore
from .metrics import Metrics
from .objects import FileObjectStore
from .ports import Engine
from .retention import HOLD_FILE, Retention
from .security.authentication import Authenticator
from .security.tokens import InsecureFile, Role, RunTokens, TokenTable, read_or_make_secret
from .security.users import ADMINISTRATOR_ID, UserDirectory, operating_system_user
from .services.identity import IdentityService
from .services.images import ImageService
from .services.interceptor import CallChain
from .services.jobs import JobService
from .services.logs import LogService
from .services.lookup import Lookup
from .services.nodes import NodeService
from .services.objects import ObjectService
from .services.registry import OPTIONS, add_services, set_health
from .services.runlog import RunLogWriter
from .services.runs import RunService
from .store.reads import Reads

if TYPE_CHECKING:
    from .http import HttpServer

EXIT_CONFIG = 2
EXIT_IN_USE = 3
EXIT_NEWER = 4

_CALL_GRACE = 0.5
"""Seconds that calls get to end when the server stops; followers are cut then and call again."""

_log = structlog.get_logger("opentailr.server")


class ControlPlane:
    """A whole control plane inside the running loop, from `start` to `close`.

    Args:
        settings: What it was told.
        engine_factory: Makes the engine; tests give others.
    """

    def __init__(self, settings: Settings, *, engine_factory: EngineFactory = open_engine) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.grpc_address = ""
        self.agent_address = ""
        self.http_url = ""
        self.admin_token = ""
        self.retention: Retention | None = None
        """What removes what is old, from `start` on."""
        self._engine_factory = engine_factory
        self._engine: Engine | None = None
        self._serving = False
        self._exits = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Returns when everything answers. What was begun is undone if it raises.

        Raises:
            ConfigError: A port is taken, or a secret can be read by others.
            DirectoryInUse: Another process owns the data directory.
            NewerFormat: A newer release wrote it.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends calls, agents' sessions and stores, in that order; may be called again."""
        self._serving = False
        await self._exits.aclose()

    async def _start(self) -> None:
        settings, exits = self.settings, self._exits
        directory = DataDirectory(settings.data_dir)
        exits.callback(directory.release)
        try:
            self.admin_token = read_or_make_secret(settings.data_dir / "admin.token")
            agent_token = read_or_make_secret(settings.data_dir / "agent.token")
            run_tokens = RunTokens.from_file(settings.data_dir / "run.key")
        except InsecureFile as error:
            raise ConfigError(str(error)) from None
        owner = operating_system_user()
        users = UserDirectory([owner])
        tokens = TokenTable()
        tokens.add(self.admin_token, Role.USER, user_id=ADMINISTRATOR_ID)
        tokens.add(agent_token, Role.AGENT)

        objects = FileObjectStore(
            settings.data_dir / "objects",
            max_bytes=settings.max_object_bytes,
            min_free_bytes=settings.min_free_disk_bytes,
        )
        exits.callback(objects.close)
        logs = FileLogStore(
            settings.data_dir / "logs",
            max_bytes=settings.max_log_bytes,
            min_free_bytes=settings.min_free_disk_bytes,
        )
        exits.push_async_callback(logs.close)

        # The address is part of what attempts are told, so the ports come before the engine.
        authenticator = Authenticator(tokens, run_tokens, users, run_is_active=self._run_is_active)
        self.chain = CallChain(authenticator, self.metrics)
        server = grpc.aio.server(interceptors=(self.chain,), options=OPTIONS)
        kept = directory.kept_ports()
        ports = {
            name: _add_port(server, settings.host, asked, kept.get(name, 0), flag)
            for name, asked, flag in (
                ("grpc", settings.grpc_port, "--grpc-port"),
                ("agent_grpc", settings.agent_port, "--agent-port"),
            )
        }
        http_socket = _bind(settings.host, settings.http_port, kept.get("http", 0), "--http-port")
        exits.callback(http_socket.close)
        ports["http"] = http_socket.getsockname()[1]
        directory.keep_ports(ports)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.grpc_address = f"{host}:{ports['grpc']}"
        self.agent_address = f"{host}:{ports['agent_grpc']}"
        self.http_url = f"http://{host}:{ports['http']}"

        database = settings.data_dir / "state.db"
        running = await self._engine_factory(
            EngineParts(database, objects, run_tokens, self.metrics, self.grpc_address)
        )
        exits.push_async_callback(running.close)
        engine = running.engine
        self._engine = engine
        reads = Reads(database)
        exits.push_async_callback(reads.close)
        run_logs = RunLogWriter(engine, reads, logs)
        self._measure(objects, logs, engine)

        lookup = Lookup(engine, reads)
        healthy = add_services(
            server,
            agents=running.agents,
            identity=IdentityService(version=__version__),
            images=ImageService(engine, reads, objects, logs),
            jobs=JobService(engine, reads, objects, users, lookup),
            logs=LogService(engine, reads, logs, lookup),
            nodes=NodeService(engine),
            objects=ObjectService(objects),
            runs=RunService(engine, reads, lookup),
        )
        await server.start()
        exits.push_async_callback(server.stop, _CALL_GRACE)
        exits.push_async_callback(running.disconnect)
        # From here on agents come back and work goes on. What only people need is loaded beside that: it
        # would have taken as long as all that is above.
        await asyncio.to_thread(_load_for_people)
        await run_logs.start()
        exits.push_async_callback(run_logs.close)
        if running.maintained is not None:
            self.retention = Retention(
                settings.policy(),
                engine=engine,
                maintained=running.maintained,
                database=database,
                objects=objects,
                logs=logs,
                hold=settings.data_dir / HOLD_FILE,
            )
            self.retention.start()
            exits.push_async_callback(self.retention.close)
            self._measure_retention(self.retention, database)
        exits.push_async_callback(set_health, healthy, serving=False)
        await set_health(healthy, serving=True)

        from .http import listen, make_app, make_server
        from .overview import overview_source

        app = make_app(
            self.metrics,
            authenticator,
            overview_source(engine, reads, __version__),
            lambda: self._serving and running.healthy,
        )
        await _start_http(make_server(app), listen(http_socket), exits)
        self._serving = True
        if settings.ready_file is not None:
            self._write_ready_file(settings.ready_file)
            exits.callback(settings.ready_file.unlink, missing_ok=True)
        _log.info(
            "serving", grpc=self.grpc_address, agents=self.agent_address, http=self.http_url, user=owner.name
        )

    @property
    def engine(self) -> Engine:
        """The engine, from `start` on."""
        assert self._engine is not None
        return self._engine

    def _run_is_active(self, run_id: int) -> bool:
        return self._engine is not None and self._engine.run_active(run_id)

    def _measure(self, objects: FileObjectStore, logs: FileLogStore, engine: Engine) -> None:
        self.metrics.gauges("opentailr_engine_", "See the engine.", engine.metrics)
        self.metrics.gauge(
            "opentailr_log_appended_bytes",
            "Bytes of logs taken since the start.",
            lambda: logs.appended_bytes,
        )
        self.metrics.gauge("opentailr_object_bytes", "Bytes of all objects.", lambda: objects.used_bytes)

    def _measure_retention(self, retention: Retention, database: Path) -> None:
        self.metrics.gauges("opentailr_retention_", "See docs/design/retention.md.", retention.metrics)
        self.metrics.gauge(
            "opentailr_database_bytes",
            "Size of the database file; room that removed rows left in it is used again.",
            lambda: database.stat().st_size,
        )

    def _write_ready_file(self, path: Path) -> None:
        content = {
            "grpc": self.grpc_address,
            "agent_grpc": self.agent_address,
            "http": self.http_url,
            "token": self.admin_token,
            "pid": os.getpid(),
        }
        write_whole(path, json.dumps(content).encode() + b"\n")


def _add_port(server: grpc.aio.Server, host: str, asked: int, kept: int, flag: str) -> int:
    for port in dict.fromkeys((asked or kept, asked)):
        # Asked first with a plain socket: gRPC itself would log the failure at length.
        probe = bind(host, port)
        if probe is None:
            continue
        probe.close()
        try:
            return server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            continue
    raise _taken(host, asked, flag)


def _bind(host: str, asked: int, kept: int, flag: str) -> socket.socket:
    for port in dict.fromkeys((asked or kept, asked)):
        bound = bind(host, port)
        if bound is not None:
            return bound
    raise _taken(host, asked, flag)


def _taken(host: str, port: int, flag: str) -> ConfigError:
    return ConfigError(f"{flag} {port} on {host} cannot be used, another program has it; give another, or 0")


def _load_for_people() -> None:
    """Imports, outside the loop, what the reading of history and the pages need."""
    for name in ("sqlalchemy.ext.asyncio", "aiosqlite", f"{__package__}.overview"):
        import_module(name)


async def _start_http(server: HttpServer, bound: socket.socket, exits: contextlib.AsyncExitStack) -> None:
    task = asyncio.create_task(server.serve(sockets=[bound]))

    async def stop() -> None:
        server.should_exit = True
        await asyncio.wait({task}, timeout=2)
        task.cancel()
        await asyncio.wait({task})

    exits.push_async_callback(stop)
    await server.ready(task)


async def _serve(settings: Settings) -> None:
    # The database holds users' variables, the objects their code and data: nobody else's to read.
    os.umask(0o077)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    plane = ControlPlane(settings)
    await plane.start()
    try:
        await stop.wait()
        _log.info("stopping")
    finally:
        await plane.close()
    _log.info("stopped")


def main(arguments: Sequence[str]) -> int:
    """Runs a control plane until a signal and returns the exit code."""
    try:
        settings = parse(arguments)
        configure(settings.log_level, as_json=settings.log_json)
        asyncio.run(_serve(settings))
    except (ConfigError, DirectoryInUse, NewerFormat) as error:
        print(f"error: {error}", file=sys.stderr)
        return {ConfigError: EXIT_CONFIG, DirectoryInUse: EXIT_IN_USE}.get(type(error), EXIT_NEWER)
    return 0
