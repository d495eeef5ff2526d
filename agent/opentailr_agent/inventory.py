"""What this node is and has."""

from __future__ import annotations

import grp
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MEMINFO: Final = Path("/proc/meminfo")


def agent_id(data_dir: Path) -> str:
    """The permanent id of the agent in this data directory; chosen at the first call."""
    path = data_dir / "agent_id"

    try:
        known = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        known = ""

    if known.startswith("agt_"):
        return known

    chosen = f"agt_{uuid4().hex}"
    incoming = path.with_name("agent_id.incoming")
    incoming.write_text(chosen + "\n", encoding="ascii")
    incoming.replace(path)
    return chosen


def machine_boot() -> str:
    """Identity of the present boot of the machine."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def free_memory() -> int:
    """Bytes that new processes could use without swapping."""
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024

    return 0


def free_disk(folder: Path) -> int:
    """Bytes free for us on the disk of a folder."""
    return shutil.disk_usage(folder).free


def pressure(free: int, least: int) -> str:
    """Why the node takes nothing new, or nothing."""
    if free >= least:
        return ""

    return f"disk: {free >> 20} MiB free, at least {least >> 20} MiB are needed"


@cache
def group_name() -> str:
    """Name of this process's group, or its number where the system has no name for it (B227)."""
    number = os.getgid()

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def labels() -> dict[str, str]:
    """Facts about the host for people and for placement."""
    system = os.uname()
    return {"os": system.sysname.lower(), "arch": system.machine, "host": system.nodename}
