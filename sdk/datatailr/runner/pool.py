"""The keeper's side of the prepared interpreters: which there are and what they may serve."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from . import procs, scan, wire
from .attempt import Attempt
from .interpreters import Process, spawn
from .loop import Loop
from .state import RUNNER_VARIABLE
from .template import STAGE_ORDER

SHARED_VARIABLES = frozenset(
    f"DATATAILR_{name}"
    for name in ("USER", "GROUP", "UID", "GID", "DOMAIN", "JOB_ENVIRONMENT", "JOB_TYPE", "ADDRESS")
) | {RUNNER_VARIABLE}
"""Platform variables with one value for many attempts; all others are an attempt's own."""

OWN_VARIABLES = frozenset({procs.MARK_VARIABLE, "PYTHONPATH", "TMPDIR", "TMP", "TEMP", "PWD", "OLDPWD"})

SCAN_SECONDS = 10.0
REMEMBERED_UNSOUND = 256


def is_own(name: str) -> bool:
    """Whether a variable belongs to the attempt, so that a template must not depend on it."""
    return name in OWN_VARIABLES or (name.startswith("DATATAILR_") and name not in SHARED_VARIABLES)


def shared_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an attempt's environment in which its template may be prepared."""
    return {name: value for name, value in environment.items() if not is_own(name)}


class Base:
    """A first stage: one environment and one list of foreign modules."""

    def __init__(self, key: tuple[Any, ...], pool: Pool, order: wire.Message, imports: list[str]) -> None:
        self.key = key
        self.ready = False
        self.waiting: list[Prepared] = []
        self.users: set[Prepared] = set()
        self._pool = pool
        self.process = Process(pool.loop, self._on_message, self._on_end)
        spec = wire.to_memory({"imports": imports, "scratch": pool.scratch, "keeper": os.getpid()})
        environment = shared_environment(order["env"])
        environment.update({"PYTHONIOENCODING": "UTF-8", procs.MARK_VARIABLE: procs.NO_MARK})
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            pid = spawn(
                order["python"],
                ["stage", str(self.process.far_end.fileno()), str(spec)],
                environment=environment,
                inherited=[self.process.far_end.fileno(), spec],
                streams=(null, null),
            )
        except (OSError, ValueError):
            self.process.close()
            raise
        finally:
            os.close(spec)
            os.close(null)
        self.process.far_end.close()
        self.process.know(pid)

    def attach(self, prepared: Prepared) -> None:
        self.users.add(prepared)
        if self.ready:
            prepared.begin(self)
        else:
            self.waiting.append(prepared)

    def _on_message(self, message: wire.Message) -> None:
        if message["unsound"]:
            self._pool.refuse(self.key, message["unsound"])
            self._fail(message["unsound"])
            return
        self.ready = True
        waiting, self.waiting = self.waiting, []
        for prepared in waiting:
            prepared.begin(self)

    def _on_end(self) -> None:
        self._fail("the prepared interpreter ended")

    def _fail(self, reason: str) -> None:
        self._pool.drop_base(self)
        self.waiting = []
        for prepared in list(self.users):
            # A second stage that exists dies with the first one and tells so itself.
            if not prepared.pid:
                prepared.give_up(reason)


class Prepared:
    """A second stage: one bundle's entrypoint module, imported in one environment."""

    def __init__(self, key: tuple[Any, ...], pool: Pool, order: wire.Message) -> None:
        self.key = key
        self.order = order
        self.waiting: deque[Attempt] = deque()
        self.live: dict[int, Attempt] = {}
        """Attempts that it was asked to fork, by number."""
        self.state = "new"
        """`new`, `importing`, `ready`, `spent` (its import failed, no further attempt joins) or `gone`."""
        self._pool = pool
        self._process: Process | None = None
        self._served = False

    @property
    def pid(self) -> int:
        """Its process, 0 before that has said hello."""
        return self._process.pid if self._process is not None else 0

    def submit(self, attempt: Attempt) -> None:
        """Has the attempt forked as soon as the import is done."""
        attempt.prepared = self
        self.waiting.append(attempt)
        if self.state == "ready":
            self._dispatch()

    def withdraw(self, attempt: Attempt) -> None:
        """Takes back an attempt that was not sent; an import that nobody waits for is given up."""
        self.waiting.remove(attempt)
        if not self.waiting and self.state == "importing":
            self.close()

    def begin(self, base: Base) -> None:
        """Has the second stage forked from its first stage."""
        if self.state == "gone":
            return
        self.state = "importing"
        order = self.order
        self._process = Process(self._pool.loop, self._on_message, self._on_end)
        spec = wire.to_memory(
            {
                "module": order["module"],
                "path": order["path"],
                "env": order["env"],
                "own": [name for name in order["env"] if is_own(name)],
                "cwd": os.path.realpath(os.path.join(order["folder"], "work")),
                "scratch": self._pool.scratch,
            }
        )
        base.process.order(STAGE_ORDER, [os.dup(self._process.far_end.fileno()), spec])
        self._process.far_end.close()

    def finished(self, attempt: Attempt) -> None:
        """The attempt's process is reaped."""
        self.live.pop(attempt.number, None)
        if self.state == "spent" and not self.live:
            self.close()

    def give_up(self, reason: str) -> None:
        """No fork is possible: what waits gets fresh interpreters."""
        waiting, self.waiting = list(self.waiting), deque()
        self.close()
        for attempt in waiting:
            self._pool.start_fresh(attempt, reason)

    def close(self) -> None:
        """Ends the second stage; attempts that it forked go on as children of the keeper."""
        self._pool.drop_prepared(self)
        self.state = "gone"
        if self._process is not None:
            self._process.kill()
            self._process.close()

    def _dispatch(self) -> None:
        while self.waiting and self._process is not None:
            attempt = self.waiting.popleft()
            attempt.order["first"] = not self._served
            self._served = True
            descriptors = self._pool.open_channel(attempt)
            if descriptors is None:
                continue
            self.live[attempt.number] = attempt
            self._process.order(wire.SEQUENCE.pack(attempt.number), descriptors)

    def _on_message(self, message: wire.Message) -> None:
        operation = message["op"]
        if operation == "exited":
            attempt = self.live.get(message["attempt"])
            if attempt is not None:
                self._pool.main_exited(attempt, message["status"])
        elif operation == "hello" and self._process is not None:
            self._process.know(message["pid"])
            self._pool.import_began()
        elif operation == "refused":
            attempt = self.live.get(message["attempt"])
            if attempt is not None:
                attempt.trouble = f"the operating system refused a new process: {message['error']}"
                self._pool.main_exited(attempt, None)
        elif operation == "ready":
            if message["unsound"]:
                self._pool.refuse(self.key, message["unsound"])
                self.give_up(message["unsound"])
                return
            self.state = "ready"
            self._dispatch()
            if message["failed"]:
                # A later attempt imports again: what made this import fail may have passed.
                self.state = "spent"
                self._pool.drop_prepared(self)
                if not self.live:
                    self.close()

    def _on_end(self) -> None:
        was_importing = self.state == "importing"
        self._pool.drop_prepared(self)
        self.state = "gone"
        live, self.live = list(self.live.values()), {}
        waiting, self.waiting = list(self.waiting), deque()
        for attempt in live:
            self._pool.adopt_orphan(attempt)
        for attempt in waiting:
            reason = "importing its module ended the process" if was_importing else "its template ended"
            self._pool.start_fresh(attempt, reason)


class Pool:
    """All prepared interpreters of a keeper, bounded, least recently used first out."""

    def __init__(
        self,
        loop: Loop,
        *,
        scratch: str,
        max_bases: int,
        max_prepared: int,
        start_fresh: Callable[[Attempt, str], None],
        open_channel: Callable[[Attempt], list[int] | None],
        main_exited: Callable[[Attempt, int | None], None],
        adopt_orphan: Callable[[Attempt], None],
        import_began: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.scratch = scratch
        self.start_fresh = start_fresh
        self.open_channel = open_channel
        self.main_exited = main_exited
        self.adopt_orphan = adopt_orphan
        self.import_began = import_began
        self._max_bases = max_bases
        self._max_prepared = max_prepared
        self._bases: OrderedDict[tuple[Any, ...], Base] = OrderedDict()
        self._prepared: OrderedDict[tuple[Any, ...], Prepared] = OrderedDict()
        self._refused: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._scanners: set[int] = set()

    def submit(self, attempt: Attempt) -> None:
        """Has the attempt run, in a fork if that is sound."""
        order = attempt.order
        environment = shared_environment(order["env"])
        text = json.dumps([order["python"], sorted(environment.items())])
        digest = hashlib.sha256(text.encode()).hexdigest()
        key = (digest, order["bundle"], order["module"], *order["path"])
        refused = self._refused.get(key)
        if order["fresh"] or refused is not None:
            self.start_fresh(attempt, refused or "it was ordered so")
            return
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = Prepared(key, self, order)
            prepared.submit(attempt)
            self._trim()
            self._scan(prepared, digest)
        else:
            self._prepared.move_to_end(key)
            prepared.submit(attempt)

    def refuse(self, key: tuple[Any, ...], reason: str) -> None:
        """Remembers that a fork is not sound for this key."""
        self._refused[key] = reason
        while len(self._refused) > REMEMBERED_UNSOUND:
            self._refused.popitem(last=False)

    def drop_base(self, base: Base) -> None:
        if self._bases.get(base.key) is base:
            del self._bases[base.key]
        base.process.close()

    def drop_prepared(self, prepared: Prepared) -> None:
        if self._prepared.get(prepared.key) is prepared:
            del self._prepared[prepared.key]
        for base in self._bases.values():
            base.users.discard(prepared)

    def pids(self) -> set[int]:
        """Children of the keeper that are no strays: first stages and readers of source."""
        return {base.process.pid for base in self._bases.values()} | self._scanners

    def importing(self) -> list[Prepared]:
        """Second stages whose import is under way."""
        return [
            prepared for prepared in self._prepared.values() if prepared.state == "importing" and prepared.pid
        ]

    def close(self) -> None:
        """Ends every prepared interpreter."""
        for prepared in list(self._prepared.values()):
            prepared.close()
        for base in list(self._bases.values()):
            base.process.kill()
            self.drop_base(base)

    def _scan(self, prepared: Prepared, digest: str) -> None:
        """Reads the bundle's imports in a process of its own: source of a user may crash a parser."""
        order = prepared.order
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            _scan_and_exit(order, write_end)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._scanners.add(pid)
        data = bytearray()
        deadline = self.loop.later(SCAN_SECONDS, lambda: _kill(pid))

        def collect() -> None:
            chunk = os.read(read_end, 1 << 16)
            data.extend(chunk)
            if chunk:
                return
            deadline.cancel()
            self._scanners.discard(pid)
            self.loop.forget(read_end)
            os.close(read_end)
            try:
                imports = json.loads(data)
            except ValueError:
                imports = []
            self._attach(prepared, digest, imports)

        self.loop.watch(read_end, collect)

    def _attach(self, prepared: Prepared, digest: str, imports: list[str]) -> None:
        if prepared.state == "gone":
            return
        key = (digest, *imports)
        refused = self._refused.get(key)
        if refused is not None:
            self.refuse(prepared.key, refused)
            prepared.give_up(refused)
            return
        base = self._bases.get(key)
        if base is None:
            try:
                base = self._bases[key] = Base(key, self, prepared.order, imports)
            except (OSError, ValueError) as error:
                # ValueError: a variable that no process can be given.
                prepared.give_up(f"the prepared interpreter cannot be started: {error}")
                return
        self._bases.move_to_end(key)
        base.attach(prepared)
        self._trim()

    def _trim(self) -> None:
        for prepared in list(self._prepared.values()):
            if len(self._prepared) <= self._max_prepared:
                break
            if not prepared.live and not prepared.waiting:
                prepared.close()
        for base in list(self._bases.values()):
            if len(self._bases) <= self._max_bases:
                break
            # A second stage dies with its first: the kernel sees to it.
            if not base.users:
                base.process.kill()
                self.drop_base(base)


def _kill(pid: int) -> None:
    procs.send(pid, signal.SIGKILL)


def _scan_and_exit(order: wire.Message, write_end: int) -> None:
    try:
        signal.set_wakeup_fd(-1)
        found = scan.foreign_imports(order["module"], order["path"])
        wire.write_all(write_end, json.dumps(found).encode())
    except BaseException as error:
        print(f"imports of {order['module']} could not be read: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)
