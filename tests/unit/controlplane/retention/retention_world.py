"""A real engine on a real store with real logs and objects, runs in them, and a retention to let loose."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cp_engine import FailingStore, FakeAgent, FixedIds, RealClock, until
from cp_world import definition, task

from opentailr_controlplane.core.commands import Rerun, RerunReply, SaveVersion, StartReply, StartVersion
from opentailr_controlplane.engine import Engine
from opentailr_controlplane.logstore import FileLogStore, Stream
from opentailr_controlplane.objects import FileObjectStore
from opentailr_controlplane.retention import Retention
from opentailr_controlplane.retention_policy import Policy
from opentailr_controlplane.services.runlog import run_log_id
from opentailr_controlplane.store import schema
from opentailr_controlplane.store.reads import Reads

DAY = 86_400


class Place:
    """One data directory and what works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "state.db"
        self.store = FailingStore(self.database)
        self.engine = Engine(self.store, clock=RealClock(), ids=FixedIds())
        self.objects = FileObjectStore(folder / "objects", min_free_bytes=0)
        self.logs = FileLogStore(folder / "logs")
        self.agent = FakeAgent(self.engine)
        self.reads: Reads | None = None

    async def open(self) -> None:
        await self.store.open()
        await self.engine.start()
        await self.agent.connect()
        self.reads = Reads(self.database)

    async def close(self) -> None:
        await self.agent.leave()
        assert self.reads is not None
        await self.reads.close()
        await self.engine.close()
        await self.store.close()
        await self.logs.close()
        self.objects.close()

    async def save(self, name: str = "flow", **changes: Any) -> None:
        await self.engine.execute(SaveVersion("alice", definition(task(0), task(1, 0), name=name, **changes)))

    async def run(self, name: str = "flow") -> int:
        """A finished run of two tasks, with logs."""
        reply = await self.engine.execute(StartVersion("alice", name))
        assert isinstance(reply, StartReply)
        return await self._finished(reply.run_id)

    async def rerun(self, run_id: int, *, full: bool = False) -> int:
        reply = await self.engine.execute(Rerun("alice", run_id, full=full))
        assert isinstance(reply, RerunReply)
        return await self._finished(reply.run_id)

    async def _finished(self, run_id: int) -> int:
        await until(lambda: not self.engine.run_active(run_id))
        for row in self.rows("SELECT attempt_id FROM attempts WHERE run_id = ?", run_id):
            await self.write_log(row[0])
        await self.logs.append_own(run_log_id(run_id), b"it ran\n", end=True)
        return run_id

    async def write_log(self, log_id: str) -> None:
        for stream in Stream:
            await self.logs.append(log_id, stream, offset=0, data=f"{log_id}\n".encode(), end=True)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def write(self, sql: str, *values: object) -> None:
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                connection.execute(sql, values)
        finally:
            connection.close()

    def runs(self) -> list[int]:
        return [row[0] for row in self.rows("SELECT run_id FROM runs ORDER BY run_id")]

    def log_files(self) -> set[str]:
        return {path.name for path in (self.folder / "logs").rglob("*.*") if path.is_file()}

    def age(self, run_id: int, days: float) -> None:
        """Lets a run have ended some days ago."""
        self.write(
            "UPDATE runs SET end_time = ? WHERE run_id = ?", int((time.time() - days * DAY) * 1e6), run_id
        )

    def trace_of(self, run_id: int) -> dict[str, int]:
        """Everything that is left of a run, by table or kind."""
        found = {}
        for table in schema.metadata.sorted_tables:
            if "run_id" in table.c:
                count = self.rows(f"SELECT count(*) FROM {table.name} WHERE run_id = ?", run_id)[0][0]
                found[table.name] = count
        found["logs"] = sum(
            name.startswith((f"att_test_{run_id}_", f"run_{run_id}.")) for name in self.log_files()
        )
        return {kind: count for kind, count in found.items() if count}

    def retention(self, *, runs: list[str] | None = None, logs: list[str] | None = None) -> Retention:
        async def no_pause(_seconds: float) -> None:
            await asyncio.sleep(0)

        return Retention(
            Policy.parse(runs or [], logs or []),
            engine=self.engine,
            maintained=self.store,
            database=self.database,
            objects=self.objects,
            logs=self.logs,
            hold=self.folder / "backup.lock",
            sleep=no_pause,
        )

    def make_old(self, digest: str, days: float = 3) -> None:
        """Lets an object have been written, and last asked for, some days ago."""
        when = time.time() - days * DAY
        os.utime(self.objects.path(digest), (when, when))


async def with_retention(place: Place, work: Callable[[Retention], Any], **rules: list[str]) -> Retention:
    """Lets a retention do something and closes it."""
    retention = place.retention(**rules)
    try:
        await work(retention)
    finally:
        await retention.close()
    return retention


async def one_pass(place: Place, **rules: list[str]) -> Retention:
    """One pass by rules as on the command line."""
    return await with_retention(place, lambda retention: retention.run_once(), **rules)
