"""The store on SQLite: one thread writes, one reads.

WAL and `synchronous=FULL`: when `commit` returns, the batch survives a crash of the machine. Reads have a
connection of their own and never wait for a write.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from ..core.batch import WriteBatch
from ..core.definition import Plan
from ..core.model import PriorRun, State
from ..core.settings import CoreSettings
from ..core.values import Instant
from . import loader
from .errors import StoreError, StoreFull, StoreUnavailable
from .migrate import migrate
from .writer import transaction, write

T = TypeVar("T")

_CHUNK = 500  # values in one IN list; SQLite's limit is far above


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that the durability of the store rests on."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 5000",
        "temp_store = MEMORY",
        "cache_size = -8192",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
    return connection


class SqliteStore:
    """Durable truth in one file. `open` before use, `close` at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Migrates and opens the database.

        Raises:
            NewerSchema: it was written by a newer version.
            StoreError: it cannot be opened.
        """

        def prepare() -> None:
            migrate(self._path)
            self._writer = connect(self._path)
            self._reader = connect(self._path)

        await self._run(self._writes, prepare)

    async def close(self) -> None:
        """Finishes what was begun and closes the file."""

        def finish() -> None:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

        await asyncio.get_running_loop().run_in_executor(self._writes, finish)
        self._writes.shutdown()
        self._reads.shutdown()

    async def commit(self, batch: WriteBatch) -> None:
        """Writes a batch whole and durably.

        Raises:
            StoreFull, StoreUnavailable: nothing of it was kept.
        """
        await self._run(self._writes, lambda: write(self._open(self._writer), batch))

    async def load(self, settings: CoreSettings, now: Instant) -> State | None:
        """The state as last committed; None for a database that was never used.

        Raises:
            StoreUnavailable: it cannot be read, or was changed by something else.
        """

        def load() -> State | None:
            try:
                return loader.load(self._open(self._writer), settings, now)
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise StoreUnavailable(
                    f"The database holds what this program never wrote ({type(error).__name__}: {error}); "
                    "put a backup in its place."
                ) from error

        return await self._run(self._writes, load)

    async def read_plan(self, definition_id: int) -> Plan | None:
        """The plan of a saved definition."""
        return await self._run(self._reads, lambda: loader.read_plan(self._open(self._reader), definition_id))

    async def read_prior(self, run_id: int) -> PriorRun:
        """A finished run, for a rerun."""
        return await self._run(self._reads, lambda: loader.read_prior(self._open(self._reader), run_id))

    async def read_payloads(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Inline payloads by digest; those that do not exist are left out."""
        wanted = list(dict.fromkeys(digests))

        def read() -> dict[str, bytes]:
            connection = self._open(self._reader)
            found: dict[str, bytes] = {}
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                marks = ", ".join("?" * len(part))
                found.update(
                    connection.execute(f"SELECT digest, data FROM payloads WHERE digest IN ({marks})", part)
                )
            return found

        return await self._run(self._reads, read)

    async def maintain(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a function in a short transaction of its own, between those of the engine.

        Raises:
            StoreFull, StoreUnavailable: nothing of it was kept.
        """

        def run() -> T:
            connection = self._open(self._writer)
            with transaction(connection):
                return work(connection)

        return await self._run(self._writes, run)

    async def log_owner(self, log_id: str) -> str | None:
        """The agent that made an attempt or build; None when there is none such."""

        def read() -> str | None:
            connection = self._open(self._reader)
            row = connection.execute(
                "SELECT agent_id FROM attempts WHERE attempt_id = ?1 "
                "UNION ALL SELECT agent_id FROM builds WHERE build_id = ?1",
                (log_id,),
            ).fetchone()
            return row[0] if row else None

        return await self._run(self._reads, read)

    @staticmethod
    def _open(connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise StoreUnavailable("The database is not open.")
        return connection

    @staticmethod
    async def _run(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, function)
        except StoreError:
            raise
        except SQLAlchemyError as error:
            # Migrations go through it; its own text is long and names its website.
            cause = getattr(error, "orig", None) or type(error).__name__
            raise StoreUnavailable(f"The database failed: {cause}") from error
        except (sqlite3.Error, OSError) as error:
            if "full" in str(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise StoreFull(f"The database cannot grow: {error}") from error
            raise StoreUnavailable(f"The database failed: {error}") from error
