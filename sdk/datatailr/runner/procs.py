"""What Linux tells about processes, and how the leftovers of an attempt are found and ended.

An attempt's processes carry its mark: a variable of fixed length in the
environment that a process was started with, which anyone may read in /proc. A
fork keeps the environment area of its template; there the mark is overwritten
in place (`Mark`), so that also a child that forks twice, takes a session of its
own and never executes a program can be told from others.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from typing import NamedTuple

MARK_VARIABLE = "DATATAILR_ATTEMPT_MARK"
MARK_LENGTH = 32
NO_MARK = "0" * MARK_LENGTH
PAGE = os.sysconf("SC_PAGE_SIZE")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Stat(NamedTuple):
    """The part of /proc/PID/stat that matters here."""

    state: str
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks since the machine's start; with the pid it names a process for good."""


class Mark:
    """The mark in this process's environment area, as others see it in /proc."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        address = libc.getenv(MARK_VARIABLE.encode())
        intact = address is not None and len(ctypes.string_at(address)) == MARK_LENGTH
        self._address: int | None = address if intact else None

    def write(self, mark: str) -> None:
        """Overwrites the mark in place; must come before the environment is replaced."""
        if self._address is not None and len(mark) == MARK_LENGTH:
            ctypes.memmove(self._address, mark.encode("ascii"), MARK_LENGTH)


def become_subreaper() -> None:
    """Orphans below this process become its children from now on."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process as soon as its parent ends; `parent` is the pid it had."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}) failed: {os.strerror(number)}")


def boot_id() -> str:
    """Id of this start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def stat(pid: int) -> Stat | None:
    """State and kinship of a process, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in parentheses may hold anything, also parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_pids() -> list[int]:
    """Every process of the machine that this one may see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """Direct children of a process; empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
        except OSError:  # noqa: PERF203 - each thread may end meanwhile
            if not _kernel_lists_children():
                return [other for other in all_pids() if _parent_of(other) == pid]
    return found


def _kernel_lists_children() -> bool:
    """Whether /proc has the `children` files, a build option of the kernel."""
    own = os.getpid()
    return os.path.exists(f"/proc/{own}/task/{own}/children")


def _parent_of(pid: int) -> int:
    found = stat(pid)
    return found.parent if found is not None else 0


def descendants(roots: Iterable[int]) -> list[int]:
    """The given processes and all below them, parents before children."""
    found = list(dict.fromkeys(roots))
    seen = set(found)
    for pid in found:
        for child in children(pid):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found


def mark_of(pid: int) -> str | None:
    """The mark of a process's attempt, None when it has none or may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read()
    except OSError:
        return None
    for entry in text.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == MARK_VARIABLE.encode():
            return value.decode("ascii", "replace")
    return None


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process with all it shares with its template: cheap, and never too small."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * PAGE


def private_bytes(pid: int) -> int:
    """Memory that the process shares with nobody and that only its end gives back (B65a)."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith((b"Private_Dirty:", b"Swap:")):
                    total += int(line.split()[1]) << 10
    except OSError:
        return 0
    return total


def send(pid: int, number: int) -> bool:
    """Sends a signal to a process; False when it is gone."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def send_group(group: int, number: int) -> bool:
    """Sends a signal to a process group; False when it is gone."""
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def marked(marks: frozenset[str]) -> list[int]:
    """Living processes that carry one of the marks, and all below them."""
    own = os.getpid()
    roots = [pid for pid in all_pids() if pid != own and mark_of(pid) in marks]
    return [pid for pid in descendants(roots) if pid != own and _alive(pid)]


def _alive(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found.state not in "ZX"


def sweep(marks: frozenset[str], *, seconds: float = 10.0) -> bool:
    """Kills what carries one of the marks, and all below it; True when nothing is left."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        found = marked(marks)
        if not found:
            return True
        if time.monotonic() > deadline:
            return False
        for pid in found:
            send(pid, signal.SIGKILL)
        # A killed process needs a moment to leave; nothing reports it to a stranger.
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
