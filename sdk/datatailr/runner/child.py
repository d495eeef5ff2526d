"""The process of one attempt: from its order to its last message.

Runs in a fork of a prepared interpreter or, with the same code, in a fresh one.
The last message to the keeper is the outcome; the process then leaves by
`os._exit`, so nothing of the user's can run after it.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import importlib
import os
import resource
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import binding, pickles, procs, spools, state, tracebacks, wire
from .preview import preview

START_MARKER = "====== DT USER LOGS START ======\n"
END_MARKER = "====== DT USER LOGS END ======\n"
REPORT_FILE = "report"
"""Name in the attempt's folder of the last message when its channel was closed by user code."""
RESULT_FILE = "result.pkl"
ROOM_SECONDS = 600.0
"""How long a task with a finished result waits for room on a full disk; it fails then."""
LONGEST_PAUSE = 8.0
"""Seconds between two tries to write it, doubled from 1."""


@dataclass
class Prepared:
    """What importing the entrypoint's module in the template left behind."""

    module: types.ModuleType | None
    failure: BaseException | None = None
    """What the import raised; each attempt reports it as its own."""
    captured: tuple[int, int] = (-1, -1)
    """Files with what importing printed to the two streams, for the log of the first attempt."""
    moved: bool = False
    """The import changed the working directory; it stays changed, as in a fresh interpreter."""
    environment: dict[str, str | None] = field(default_factory=dict)
    """Variables that the import set, or removed (None)."""


class _Descriptor:
    """A file descriptor that notices when user code closed it or put another file in its place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self.number)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def write(self, data: bytes) -> bool:
        """Writes all bytes; False when the descriptor is no longer what it was."""
        if self._identity is None or self._look() != self._identity:
            return False
        try:
            wire.write_all(self.number, data)
        except OSError:
            return False
        return True


class Streams:
    """The two spools of an attempt, through descriptors of the platform's own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._out = _Descriptor(_duplicate(1))
        self._err = _Descriptor(_duplicate(2))

    def write(self, text: str) -> None:
        """Writes a line of the platform to both streams."""
        flush()
        data = text.encode()
        self._out.write(data)
        self._err.write(data)

    def close(self, text: str) -> None:
        """Writes the last line of the platform to both streams, on a line of its own (B267)."""
        flush()
        for target, name in ((self._out, "stdout"), (self._err, "stderr")):
            broken = spools.has_open_line(os.path.join(self._folder, name))
            target.write(("\n" * broken + text).encode())

    def write_error(self, text: str) -> None:
        flush()
        self._err.write(text.encode("utf-8", "backslashreplace"))

    def replay(self, captured: tuple[int, int]) -> None:
        """Copies what importing printed."""
        for source, target in zip(captured, (self._out, self._err)):
            offset = 0
            while source >= 0 and (data := os.pread(source, 1 << 16, offset)):
                offset += len(data)
                if not target.write(data):
                    break


def _duplicate(number: int) -> int:
    """A copy above the numbers that user code is likely to close by hand."""
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100)


def flush() -> None:
    """Flushes the user's streams, in whatever state they are."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: PERF203 - each stream for itself
            continue


def harmless_main() -> None:
    """A `__main__` that pools of processes can import again without starting anything."""
    sys.modules["__main__"] = types.ModuleType("__main__")


def add_to_path(order: wire.Message) -> None:
    """Puts the folders of the bundle, then those of the ordered PYTHONPATH, in front of `sys.path`."""
    wanted = list(order["path"])
    wanted += [entry for entry in order["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    front = list(dict.fromkeys(wanted))
    sys.path[:] = front + [entry for entry in sys.path if entry not in front]


def replace_environment(wanted: dict[str, str]) -> None:
    """Makes the environment exactly `wanted`."""
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def reseed() -> None:
    """Children of one template would draw equal numbers; what is not loaded yet seeds itself."""
    for name in ("random", "numpy.random"):
        generator = sys.modules.get(name)
        if generator is not None:
            generator.seed()
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.__dict__["tempdir"] = None


def run_fresh(order_descriptor: int, channel: int) -> NoReturn:
    """Entry of a fresh interpreter; its streams, session and environment are those of the attempt."""
    os.set_inheritable(channel, False)
    os.set_inheritable(order_descriptor, False)
    order = wire.from_memory(order_descriptor)
    os.umask(0o022)
    os.chdir(os.path.join(order["folder"], "work"))
    harmless_main()
    state.enter_platform_process()
    add_to_path(order)
    Attempt(order, channel, prepared=None).run()


def run_forked(order: wire.Message, channel: int, prepared: Prepared) -> NoReturn:
    """Entry of a fork, after its template made it a process of its own."""
    environment = dict(order["env"])
    for name, value in prepared.environment.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    replace_environment(environment)
    if not prepared.moved:
        os.chdir(os.path.join(order["folder"], "work"))
    state.enter_platform_process()
    reseed()
    Attempt(order, channel, prepared=prepared).run()


class Attempt:
    """Calls the user's function and reports how that ended."""

    def __init__(self, order: wire.Message, channel: int, *, prepared: Prepared | None) -> None:
        self._order = order
        self._prepared = prepared
        self._channel = _Descriptor(channel)
        self._streams = Streams(order["folder"])
        self._pid = os.getpid()
        self._baseline = procs.anonymous_bytes(self._pid) if prepared is not None else 0
        self._root: str | None = None
        self._full_since = 0.0
        """Monotonic clock when the disk was first too full for the result."""

    def run(self) -> NoReturn:
        """Runs everything; leaves the process."""
        sys.argv = [self._order["module"]]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != self._order["files"]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._order["files"], hard))
        self._report(
            {
                "op": "started",
                "pid": self._pid,
                "at": time.time(),
                "baseline": self._baseline,
                "importing": self._prepared is None,
            }
        )
        self._streams.write(START_MARKER)
        if self._prepared is not None and self._order.get("first"):
            self._streams.replay(self._prepared.captured)
        ending = self._guarded(self._execute)
        if os.getpid() != self._pid:
            # A fork made by user code came back here: it is not the attempt.
            flush()
            os._exit(0 if ending["state"] == "succeeded" else 1)
        self._leave()
        ending.update(
            op="outcome",
            at=time.time(),
            memory=max(0, procs.anonymous_bytes(self._pid) - self._baseline),
        )
        self._streams.close(END_MARKER)
        self._report(ending)
        os._exit(ending["exit_code"] & 0xFF)

    def _guarded(self, step: Callable[[], wire.Message]) -> wire.Message:
        """Turns whatever the user's code raises into an ending."""
        try:
            return step()
        except SystemExit as error:
            return self._exit_request(error)
        except BaseException as error:
            return self._failed(error, kind=type(error).__name__)

    def _execute(self) -> wire.Message:
        function = self._load()
        if isinstance(function, dict):
            return function
        order = self._order
        inputs = {int(task): path for task, path in order["inputs"].items()}
        with state.importing():
            arguments = pickles.read_arguments(order["arguments"], inputs)
        positional, keywords = binding.bind(function, arguments, os.environ)
        del arguments
        with state.task_scope(f"{order['module']}:{order['function']}"):
            value = function(*positional, **keywords)
        del positional, keywords
        if os.getpid() != self._pid:
            return {"state": "succeeded", "exit_code": 0}
        return self._succeeded(value)

    def _load(self) -> Callable[..., Any] | wire.Message:
        """The plain function of the entrypoint, or the ending of an import that failed."""
        order = self._order
        failure: BaseException | None = None
        module: types.ModuleType | None = None
        if self._prepared is not None:
            module, failure = self._prepared.module, self._prepared.failure
        else:
            try:
                with state.importing():
                    module = importlib.import_module(order["module"])
            except BaseException as error:
                failure = error
        self._root = _root_of(order, module)
        if failure is None and module is not None:
            try:
                target: Any = module
                for part in order["function"].split("."):
                    target = getattr(target, part)
                if getattr(target, "__datatailr_task__", False) is True:
                    target = target.__wrapped__
                if not callable(target):
                    raise TypeError(
                        f"{order['module']}:{order['function']} is a {type(target).__name__}, not a function"
                    )
            except BaseException as error:
                failure = error
        if failure is not None:
            return self._failed(failure, kind="import", message=tracebacks.last_line(failure))
        if self._prepared is None:
            self._report({"op": "imported"})
        return target  # type: ignore[no-any-return]

    def _succeeded(self, value: Any) -> wire.Message:
        function = f"{self._order['module']}:{self._order['function']}"
        name = os.environ.get("DATATAILR_JOB_NAME")
        task = f"task {name!r} ({function})" if name else f"task {function}"
        path = os.path.join(self._order["folder"], RESULT_FILE)
        try:
            data, size = pickles.write_result(value, path, task=task, wait=self._wait_for_room)
        except pickles.ResultError as error:
            return self._failed(error.__cause__ or error, kind="result", remark=str(error))
        return {
            "state": "succeeded",
            "exit_code": 0,
            "result": None if data is None else base64.b64encode(data).decode(),
            "size": size,
            "preview": preview(value),
        }

    def _wait_for_room(self, size: int) -> bool:
        """Waits a moment because the disk is full; False when it was for too long."""
        now = time.monotonic()
        if not self._full_since:
            self._full_since = now
            self._streams.write_error(
                f"the disk of the node is full: the result ({size} bytes so far) waits for room\n"
            )
        if now - self._full_since >= ROOM_SECONDS:
            return False
        time.sleep(min(LONGEST_PAUSE, max(1.0, now - self._full_since)))
        return True

    def _failed(
        self, error: BaseException, *, kind: str, message: str | None = None, remark: str = ""
    ) -> wire.Message:
        """The ending of a failure, which goes to the error stream too.

        `message` is what people are told, by default the exception's own words. A `remark` is told
        instead, and stands below the traceback as well.
        """
        text = tracebacks.format_failure(error, root=self._root)
        if remark:
            text = f"{text}\n{remark}\n"
            message = remark
        self._streams.write_error(text)
        data = pickles.pickle_exception(error)
        return {
            "state": "failed",
            "exit_code": 1,
            "failure": {
                "kind": kind,
                "message": tracebacks.message_of(error) if message is None else message,
                "traceback": text,
                "exception": None if data is None else base64.b64encode(data).decode(),
            },
        }

    def _exit_request(self, error: SystemExit) -> wire.Message:
        code = error.code
        if code is None or code == 0:
            return self._succeeded(None)
        if not isinstance(code, int):
            self._streams.write_error(f"{tracebacks.message_of(error)}\n")
        return {
            "state": "failed",
            "exit_code": code if isinstance(code, int) else 1,
            "failure": {
                "kind": "exit",
                "message": f"the task ended itself by sys.exit({tracebacks.message_of(error)})",
                "traceback": tracebacks.format_failure(error, root=self._root),
                "exception": None,
            },
        }

    def _leave(self) -> None:
        """What the interpreter does at its end: waits for threads, runs exit handlers, flushes."""
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        except BaseException as error:
            self._streams.write_error(tracebacks.format_failure(error, root=self._root))
        flush()

    def _report(self, message: wire.Message) -> None:
        data = wire.pack(message)
        if len(data) > wire.MAX_REPORT:
            message = {**message, "failure": {**message["failure"], "traceback": "", "exception": None}}
            data = wire.pack(message)
        if self._channel.write(data) or message["op"] != "outcome":
            return
        path = os.path.join(self._order["folder"], REPORT_FILE)
        with open(path + ".part", "wb") as file:
            file.write(data)
        os.rename(path + ".part", path)


def _root_of(order: wire.Message, module: types.ModuleType | None) -> str | None:
    if module is not None:
        return tracebacks.code_root(module.__name__, getattr(module, "__file__", None))
    relative = order["module"].replace(".", os.sep)
    for folder in order["path"]:
        path = os.path.join(folder, relative)
        if os.path.exists(path + ".py") or os.path.isdir(path):
            return str(folder)
    return None
