"""What a platform's processes and folders take of the machine, over time."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

from . import facts
from .world import World


@dataclass(frozen=True)
class Reading:
    """One process at one time."""

    role: str
    """`controlplane`, `agent1`, `agent1 keeper`, `client` …"""
    pid: int
    at: float
    """Monotonic seconds."""
    resident: int
    """Kilobytes."""
    descriptors: int
    threads: int
    children: int


@dataclass(frozen=True)
class Disk:
    """All folders at one time, by name: files and kilobytes."""

    at: float
    folders: dict[str, facts.Usage]


@dataclass
class Figures:
    """Readings of a world: busy ones whenever asked, quiet ones when nothing runs."""

    world: World
    busy: list[Reading] = field(default_factory=list)
    quiet: list[Reading] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    """Quiet ones only."""
    most_disk: dict[str, int] = field(default_factory=dict)
    """Largest number of kilobytes ever seen of a folder."""

    def sample(self, *, quiet: bool = False) -> None:
        """Reads everything once."""
        now = time.monotonic()
        readings = [
            Reading(
                role,
                pid,
                now,
                facts.resident_kilobytes(pid),
                facts.descriptors_of(pid),
                facts.threads_of(pid),
                len(facts.children_of(pid)),
            )
            for role, pid in self._processes()
        ]
        readings = [reading for reading in readings if reading.resident]
        (self.quiet if quiet else self.busy).extend(readings)
        disk = Disk(now, self._folders())
        for name, usage in disk.folders.items():
            self.most_disk[name] = max(self.most_disk.get(name, 0), usage.kilobytes)
        if quiet:
            self.disks.append(disk)

    def processor_seconds(self) -> float:
        """Processor time of all processes of the platform so far; falls when one is replaced."""
        return sum(facts.processor_seconds(pid) for _, pid in self._processes())

    def of(self, role: str, what: str, *, quiet: bool = True) -> list[int]:
        """The values of one figure, in time; those of several keepers of an agent at one time are added."""
        source = self.quiet if quiet else self.busy
        by_time: dict[float, int] = defaultdict(int)
        for reading in source:
            if reading.role == role:
                by_time[reading.at] += getattr(reading, what)
        return [by_time[at] for at in sorted(by_time)]

    @property
    def roles(self) -> list[str]:
        """All roles with quiet readings, in the order in which they were seen."""
        return list(dict.fromkeys(reading.role for reading in self.quiet))

    def growth_an_hour(
        self, role: str, *, warm_minutes: float = 5, least_minutes: float = 20
    ) -> float | None:
        """Kilobytes an hour that the longest-lived process of a role grew by; None if none lived long enough.

        The first minutes of a life do not count: caches with bounds are being filled.
        Theil and Sen's slope (the median of the slopes of all pairs) over the quiet readings, so that single
        peaks do not count.
        """
        lives: dict[int, list[Reading]] = defaultdict(list)
        for reading in self.quiet:
            if reading.role == role:
                lives[reading.pid].append(reading)
        life = max(lives.values(), key=lambda readings: readings[-1].at - readings[0].at, default=[])
        life = [reading for reading in life if reading.at - life[0].at >= warm_minutes * 60]
        if not life or life[-1].at - life[0].at < least_minutes * 60:
            return None
        slopes = [
            (later.resident - earlier.resident) / (later.at - earlier.at) * 3600
            for number, earlier in enumerate(life)
            for later in life[number + 1 :]
        ]
        return statistics.median(slopes)

    def _processes(self) -> list[tuple[str, int]]:
        world = self.world
        found = [(server.name, server.pid) for server in world.servers if server.pid]
        found += [(f"{node.name} keeper", keeper.pid) for node in world.nodes for keeper in node.keepers]
        if world.deployer.pid:
            found.append(("client", world.deployer.pid))
        return found

    def _folders(self) -> dict[str, facts.Usage]:
        found: dict[str, facts.Usage] = {}
        data = self.world.controlplane.data
        database = facts.Usage()
        for path in data.glob("state.db*"):
            size = path.stat().st_blocks // 2
            if path.name.endswith("-wal"):
                found["controlplane wal"] = facts.Usage(1, size)
            else:
                database.files += 1
                database.kilobytes += size
        found["controlplane database"] = database
        for name in ("objects", "logs"):
            found[f"controlplane {name}"] = facts.disk_usage(data / name)
        for node in self.world.nodes:
            for name in ("attempts", "objects", "bundles", "runtime"):
                found[f"{node.name} {name}"] = facts.disk_usage(node.server.data / name)
            journal = [path.stat().st_blocks // 2 for path in node.server.data.glob("journal.db*")]
            found[f"{node.name} journal"] = facts.Usage(len(journal), sum(journal))
        found["temporary files"] = facts.disk_usage(self.world.folder / "tmp")
        return found
