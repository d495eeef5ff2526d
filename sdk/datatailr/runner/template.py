"""Prepared interpreters: one per set of foreign modules, one per bundle forked from it.

The first stage has imported what the user's module imports from elsewhere, the
second the user's module itself; each attempt is a fork of the second. Both are
single-threaded loops without user code after their import. The second stage is
the parent of its attempts: only it can reap them, so it does, and reports.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import types
import warnings
from typing import Any, NoReturn

from . import child, procs, state, wire

STAGE_ORDER = b"stage"
FORK_WARNS = bool(sys.version_info >= (3, 12))


def run_base(control_descriptor: int, spec_descriptor: int) -> NoReturn:
    """The first stage: imports foreign modules, then forks second stages until its socket closes."""
    for descriptor in (control_descriptor, spec_descriptor):
        os.set_inheritable(descriptor, False)
    spec = wire.from_memory(spec_descriptor)
    procs.die_with_parent(spec["keeper"])
    control = socket.socket(fileno=control_descriptor)
    mark = procs.Mark()
    os.umask(0o022)
    os.chdir("/")
    os.environ.pop(procs.MARK_VARIABLE, None)
    state.enter_platform_process()
    child.harmless_main()
    _capture(spec["scratch"])
    before = dict(os.environ)
    with state.importing():
        for name in spec["imports"]:
            _import_quietly(name)
    changed = _difference(before, dict(os.environ))
    os.chdir("/")
    child.flush()
    gc.collect()
    gc.freeze()
    unsound = _why_no_fork()
    on_child = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    kept = frozenset(_descriptors()) - {control.fileno()}
    _send(control, {"op": "ready", "pid": os.getpid(), "unsound": unsound})
    first = True
    own = os.getpid()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 64, 2)
        if not data:
            os._exit(0)
        if _fork() == 0:
            control.close()
            procs.die_with_parent(own)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if on_child is None else on_child)
            stage = Stage(descriptors[0], mark=mark, kept=kept, changed=changed)
            stage.run(wire.from_memory(descriptors[1]), new_capture=not first)
        first = False
        for descriptor in descriptors:
            os.close(descriptor)


class Stage:
    """The second stage: imports the entrypoint's module, then forks and reaps attempts."""

    def __init__(
        self, control: int, *, mark: procs.Mark, kept: frozenset[int], changed: dict[str, str | None]
    ) -> None:
        self._control = socket.socket(fileno=control)
        self._mark = mark
        self._kept = kept
        self._changed = changed
        self._children: dict[int, tuple[int, int]] = {}
        """pidfd to (number of the attempt, pid)."""

    def run(self, spec: wire.Message, *, new_capture: bool) -> NoReturn:
        """Imports and serves until the socket closes."""
        _send(self._control, {"op": "hello", "pid": os.getpid()})
        if new_capture:
            _capture(spec["scratch"])
        prepared, unsound = self._prepare(spec)
        _send(
            self._control,
            {"op": "ready", "unsound": unsound, "failed": prepared.failure is not None},
        )
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._control.fileno():
                    self._take_order(poll, prepared)
                else:
                    poll.unregister(descriptor)
                    self._reap(descriptor)

    def _prepare(self, spec: wire.Message) -> tuple[child.Prepared, str | None]:
        child.add_to_path(spec)
        own_names = frozenset(spec["own"])
        os.environ.update({name: value for name, value in spec["env"].items() if name in own_names})
        os.chdir(spec["cwd"])
        before = dict(os.environ)
        threads = len(os.listdir("/proc/self/task"))
        files = _descriptors()
        failure: BaseException | None = None
        module: types.ModuleType | None = None
        with _WatchedEnvironment(own_names) as watched, state.importing():
            try:
                module = importlib.import_module(spec["module"])
            except BaseException as error:
                failure = error
        child.flush()
        unsound = _why_no_fork()
        if watched.read:
            unsound = f"importing it reads the variable {sorted(watched.read)[0]} of the attempt"
        elif len(os.listdir("/proc/self/task")) > threads:
            unsound = "importing it started native threads"
        elif _descriptors() - files:
            unsound = "importing it left files or connections open"
        elif started := procs.children(os.getpid()):
            unsound = "importing it started processes"
            for pid in procs.descendants(started):
                procs.send(pid, signal.SIGKILL)
        try:
            moved = os.getcwd() != spec["cwd"]
        except OSError:
            moved = False
        changed = {**self._changed, **_difference(before, dict(os.environ))}
        prepared = child.Prepared(module, failure, _release_capture(), moved, changed)
        if not moved:
            os.chdir("/")
        gc.collect()
        gc.freeze()
        return prepared, unsound

    def _take_order(self, poll: Any, prepared: child.Prepared) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, 64, 2)
        if not data:
            os._exit(0)
        (number,) = wire.SEQUENCE.unpack(data)
        try:
            pid = _fork()
        except OSError as error:
            _send(self._control, {"op": "refused", "attempt": number, "error": str(error)})
        else:
            if pid == 0:
                self._become_attempt(descriptors[0], descriptors[1], prepared)
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (number, pid)
            poll.register(pidfd, select.POLLIN)
        for descriptor in descriptors:
            os.close(descriptor)

    def _become_attempt(self, order_descriptor: int, channel: int, prepared: child.Prepared) -> NoReturn:
        os.setsid()
        order = wire.from_memory(order_descriptor)
        self._mark.write(order["mark"])
        for number, name in ((1, "stdout"), (2, "stderr")):
            spool = os.open(
                os.path.join(order["folder"], name),
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
                0o644,
            )
            os.dup2(spool, number)
            os.close(spool)
        self._control.detach()
        wanted = self._kept | {0, 1, 2, channel, *prepared.captured}
        for descriptor in _descriptors() - wanted:
            os.close(descriptor)
        child.run_forked(order, channel, prepared)

    def _reap(self, pidfd: int) -> None:
        number, pid = self._children.pop(pidfd)
        # The group goes while the dead leader still keeps its number from being used again.
        procs.send_group(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        _send(self._control, {"op": "exited", "attempt": number, "status": status})


class _WatchedEnvironment:
    """Notices that code reads variables whose values differ from attempt to attempt.

    What such code does depends on the attempt, so its import cannot be shared.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = {os.fsencode(name) for name in names}
        self._original: dict[bytes, bytes] = {}
        self.read: set[str] = set()

    def __enter__(self) -> _WatchedEnvironment:
        names, read = self._names, self.read

        class Watched(dict):  # type: ignore[type-arg]
            def __getitem__(self, key: bytes) -> Any:
                if key in names:
                    read.add(os.fsdecode(key))
                return super().__getitem__(key)

        self._original = os.environ._data  # type: ignore[attr-defined]
        os.environ._data = Watched(self._original)  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        now = dict(os.environ._data)  # type: ignore[attr-defined]
        self._original.clear()
        self._original.update(now)
        os.environ._data = self._original  # type: ignore[attr-defined]


def _fork() -> int:
    """Forks without the notice about native threads: whether a fork is sound was checked before."""
    if not FORK_WARNS:
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _import_quietly(name: str) -> None:
    """Imports a foreign module if it exists; what is wrong with it the user's own import will tell."""
    parent, _, last = name.rpartition(".")
    if parent and hasattr(sys.modules.get(parent), last):
        return
    try:
        importlib.import_module(name)
    except BaseException:
        return


def _why_no_fork() -> str | None:
    """Why a fork of this process would not be sound, None when it is."""
    if threading.active_count() > 1 or len(sys._current_frames()) > 1:
        return "it runs a second Python thread"
    if "grpc._cython.cygrpc" in sys.modules:
        return "it has loaded gRPC"
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        if any("/libcuda.so" in line for line in file):
            return "it has loaded CUDA"
    return None


def _difference(before: dict[str, str], after: dict[str, str]) -> dict[str, str | None]:
    changed: dict[str, str | None] = {
        name: value for name, value in after.items() if before.get(name) != value
    }
    changed.update({name: None for name in before if name not in after})
    return changed


def _descriptors() -> set[int]:
    """Open descriptors, without the one that reads this list."""
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    return {number for number in found if _is_open(number)}


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _capture(scratch: str) -> None:
    """Sends both streams to nameless files until the first attempt takes them over."""
    for number in (1, 2):
        path = os.path.join(scratch, f"capture-{os.getpid()}-{number}")
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        os.dup2(file, number)
        os.close(file)


def _release_capture() -> tuple[int, int]:
    """Ends the capture: descriptors of the two files."""
    captured = (os.dup(1), os.dup(2))
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)
    return captured


def _send(control: socket.socket, message: wire.Message) -> None:
    try:
        control.send(wire.pack(message)[wire.LENGTH.size :])
    except OSError:
        os._exit(1)
