"""How the server gets its engine: what goes in, what comes out."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datatailr.v1 import agent_pb2_grpc

from .config import ConfigError
from .core.values import Instant
from .datadir import NewerFormat
from .engine import Engine as SingleWriter
from .metrics import Metrics
from .objects import FileObjectStore
from .ports import Engine, Maintained
from .security.tokens import RunTokens
from .services.agent_session import AgentSessions, SessionSettings
from .store.errors import NewerSchema, StoreError
from .store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine is made of."""

    database: Path
    objects: FileObjectStore
    run_tokens: RunTokens
    metrics: Metrics
    people_address: str
    """Where the code of attempts reaches the platform."""


class RunningEngine(Protocol):
    """An engine that was started, and what belongs to it."""

    @property
    def engine(self) -> Engine:
        """Its face for the services."""

    @property
    def agents(self) -> agent_pb2_grpc.AgentServiceServicer:
        """The service of its agents."""

    @property
    def healthy(self) -> bool:
        """False while it cannot commit."""

    @property
    def maintained(self) -> Maintained | None:
        """The store, for retention; None where that is somebody else's."""

    async def disconnect(self) -> None:
        """Sends the agents away and wakes everybody who follows; the first step of a stop."""

    async def close(self) -> None:
        """Ends it; the last step, when no call is left."""


EngineFactory = Callable[[EngineParts], Awaitable[RunningEngine]]


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> Instant:
        """Wall and monotonic time, in microseconds."""
        return Instant(time.time_ns() // 1000, time.monotonic_ns() // 1000)


class RandomIds:
    """Names drawn from the system's randomness."""

    def installation(self) -> str:
        """Eight lower-case letters and digits."""
        return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))


class EmbeddedEngine:
    """The engine on SQLite inside this process, with the service of its agents."""

    def __init__(
        self, engine: SingleWriter, store: SqliteStore, agents: agent_pb2_grpc.AgentServiceServicer
    ) -> None:
        self.engine = engine
        self.agents = agents
        self._store = store

    @property
    def healthy(self) -> bool:
        """False while it cannot commit."""
        return self.engine.healthy

    @property
    def maintained(self) -> Maintained:
        """The database."""
        return self._store

    async def disconnect(self) -> None:
        """Carries out what was accepted, sends the agents away, ends all subscriptions."""
        await self.engine.close()

    async def close(self) -> None:
        """Closes the database."""
        await self._store.close()


async def open_engine(parts: EngineParts) -> RunningEngine:
    """The engine on the database file, started.

    Raises:
        NewerFormat: A newer release wrote the database.
        ConfigError: The database cannot be opened.
    """
    store = SqliteStore(parts.database)
    clock = SystemClock()
    engine = SingleWriter(store, clock=clock, ids=RandomIds(), on_commit=parts.metrics.commits.observe)
    try:
        await store.open()
        await engine.start()
    except NewerSchema as error:
        await store.close()
        raise NewerFormat(str(error)) from None
    except StoreError as error:
        await store.close()
        raise ConfigError(f"{parts.database}: {error}") from None
    agents = AgentSessions(
        engine,
        clock=clock,
        objects=parts.objects,
        tokens=parts.run_tokens,
        settings=SessionSettings(parts.people_address),
    )
    return EmbeddedEngine(engine, store, agents)
