"""Light stand-ins for what surrounds an agent: environments, packed code, objects, the journal's disk.

They keep the contracts of the real ones, take time and fail as the seed says.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentailr_agent.builder.venv import BuildError, BuiltEnvironment, Recipe
from opentailr_agent.core import effects as do
from opentailr_agent.flights import Flights
from opentailr_agent.journal import Journal
from opentailr_agent.transfer import ObjectError

from .network import round_trip

if TYPE_CHECKING:
    from .node import Node


class Builder:
    """Environments by key; what is built stays on the machine's disk."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._flights: Flights[BuiltEnvironment] = Flights()
        self._builds = node.folder / "builds"
        self._builds.mkdir(exist_ok=True)

    def ready(self, key: str) -> BuiltEnvironment | None:
        return BuiltEnvironment(key, Path("/env") / key) if key in self._node.images else None

    def keys(self) -> list[str]:
        return sorted(self._node.images)

    async def ensure(
        self, key: str, recipe: Recipe, *, code: object = None, build_id: str = ""
    ) -> BuiltEnvironment:
        ready = self.ready(key)
        if ready is not None:
            return ready
        return await self._flights.join(key, lambda: self._build(key, recipe, build_id))

    async def _build(self, key: str, recipe: Recipe, build_id: str) -> BuiltEnvironment:
        self._node.world.oracle.building(build_id, self._node.name)
        await asyncio.sleep(2.0 * self._node.chance.random() ** 3)
        if "broken" in recipe.requirements:
            raise BuildError("no version of broken fits")
        self._node.images.add(key)
        return BuiltEnvironment(key, Path("/env") / key)

    def open_log(self, build_id: str, key: str) -> Path:
        folder = self._builds / build_id
        folder.mkdir(exist_ok=True)
        (folder / "stdout").write_bytes(b"building\n")
        return folder

    def old_logs(self) -> list[Path]:
        return sorted(self._builds.iterdir())

    def drop_log(self, build_id: str) -> None:
        folder = self._builds / build_id
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    async def close(self) -> None:
        await self._flights.close()


class Bundles:
    """Packed code is always there."""

    async def get(self, digest: str, directory: str, *, owner: str) -> Path:
        return Path("/bundle") / digest

    def hold(self, digest: str, *, owner: str) -> None:
        pass

    def release(self, owner: str) -> None:
        pass


class Objects:
    """Fetches objects from the control plane each time."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def link(self, digest: str, target: Path, *, owner: str) -> None:
        data = await self._node.fetch(digest)
        target.write_bytes(data)

    def adopt(self, digest: str, source: Path, size: int) -> None:
        pass

    def release(self, owner: str) -> None:
        pass


class Transfer:
    """The way of objects to the control plane: tries again while the link is down, for a while."""

    def __init__(self, node: Node, serving: Callable[[], bool]) -> None:
        self._node = node
        self._serving = serving

    async def write(self, digest: str, source: Path, size: int) -> None:
        if not await round_trip(self._node.link, self._serving, within=60.0):
            raise ObjectError("the control plane does not answer")
        self._node.world.objects[digest] = source.read_bytes()
        if not await round_trip(self._node.link, self._serving, within=60.0):
            raise ObjectError("the control plane does not answer")


class SimJournal(Journal):
    """The real journal on a disk that can be full, and that forgets what was not synced in a crash."""

    def __init__(self, node: Node, path: Path, *, remembers: bool, **options: Any) -> None:
        self._node = node
        super().__init__(path, **options)
        self._boot_at_first = self._new_boot
        self._since: list[list[do.JournalEffect]] = []
        self._base: bytes | None = None
        if remembers:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            self._base = path.read_bytes()

    def commit(self, effects: Any) -> None:
        if self._node.disk_full:
            raise sqlite3.OperationalError("database or disk is full")
        effects = list(effects)
        super().commit(effects)
        if self._base is not None:
            self._since.append(effects)
        self._node.world.oracle.journalled(self._node, effects)

    def lose(self) -> None:
        """The machine crashed: the last commits may be gone."""
        self.close()
        if self._base is None:
            return
        kept = len(self._since) - min(len(self._since), int(self._node.chance.expovariate(0.3)))
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.path.write_bytes(self._base)
        with closing(sqlite3.connect(self.path)) as db:
            self._db, self._new_boot = db, self._boot_at_first
            for effects in self._since[:kept]:
                super().commit(effects)
