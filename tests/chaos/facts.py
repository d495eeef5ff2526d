"""What /proc and the disk say; the standard library only."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

MARK = b"DATATAILR_ATTEMPT_MARK="
NO_MARK = b"0" * 32


def alive(pid: int) -> bool:
    """Whether a process of this id exists and is no zombie."""
    found = stat_of(pid)
    return found is not None and found.state not in "ZX"


@dataclass(frozen=True)
class Stat:
    """The part of /proc/PID/stat that matters here."""

    state: str
    parent: int
    started: int
    """Clock ticks since the machine's start; with the pid it names a process for good."""


def stat_of(pid: int) -> Stat | None:
    """State and parent of a process, None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[1]), int(fields[19]))


def all_pids() -> list[int]:
    """Every process of the machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(pid: int) -> list[int]:
    """Direct children."""
    return [other for other in all_pids() if (found := stat_of(other)) is not None and found.parent == pid]


def processes_of(folder: str) -> dict[int, str]:
    """Live processes that have to do with a folder: by command line, directory, environment or open files."""
    found: dict[int, str] = {}
    for pid in all_pids():
        if pid == os.getpid() or not alive(pid):
            continue
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{pid}")
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if not command or "chaos.watchdog" in command:
                continue
            links = [os.readlink(place / "cwd"), *_open_files(place)]
            environment = (place / "environ").read_bytes().decode(errors="replace")
            if folder in command or folder in environment or any(folder in link for link in links):
                found[pid] = command
    return found


def _open_files(place: Path) -> list[str]:
    found = []
    for name in os.listdir(place / "fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(place / "fd" / name))
    return found


def marked_processes(folder: str) -> dict[int, str]:
    """Live processes of attempts (those with a mark) whose directory or files lie below a folder."""
    found = {}
    for pid, command in processes_of(folder).items():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            mark = environment.partition(MARK)[2][:32]
            if mark and mark != NO_MARK:
                found[pid] = command
    return found


def resident_kilobytes(pid: int) -> int:
    """Resident memory; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def threads_of(pid: int) -> int:
    """Threads; 0 when the process is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def descriptors_of(pid: int) -> int:
    """Open descriptors; 0 when the process is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def processor_seconds(pid: int) -> float:
    """Time on the processor, that of reaped children included; 0 when the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """Files below a folder."""

    files: int = 0
    kilobytes: int = 0
    """Space that they really take."""


def disk_usage(folder: Path) -> Usage:
    """What lies below a folder; what vanishes meanwhile does not count. Hard links count once."""
    usage = Usage()
    seen: set[int] = set()
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    if found.st_ino not in seen:
                        seen.add(found.st_ino)
                        usage.files += 1
                        usage.kilobytes += found.st_blocks // 2
    return usage
