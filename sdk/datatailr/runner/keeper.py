"""The keeper: runs attempts for an agent and outlives it.

One keeper serves one environment. It takes orders over a Unix socket in its own
folder, has attempts forked from prepared interpreters or started fresh, watches
their memory, ends all that an attempt leaves behind, and writes every outcome to
its log before it tells anyone. It runs no code of the user's in its own process
and unpickles nothing.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass

from . import procs, wire
from .attempt import Attempt
from .interpreters import spawn
from .loop import Loop
from .outlog import OutcomeLog
from .pool import Pool
from .sampler import Sampler
from .server import Client, Server, listen
from .state import RUNNER_VARIABLE
from .strays import Strays

IDENTITY = "keeper.json"
LOG = "outcomes.log"
ACCEPTED_FILE = "stdout"
"""Name in an attempt's folder that tells every later keeper that it was started once: a file that
every attempt has anyway, as one more would cost as much as the rest of the bookkeeping."""

CLEANUP_PAUSE = 0.005
RETRY_SECONDS = 1.0
"""Between tries to write outcomes to a full disk."""
LAST_WAIT = 5
"""Seconds that a leaving keeper waits for killed processes to go."""


@dataclass(frozen=True)
class Config:
    """What the agent fixes when it starts a keeper."""

    folder: str
    image_key: str
    idle_seconds: float = 300.0
    """A keeper without attempts and orders ends after this time."""
    sample_seconds: float = 0.05
    """Shortest pause between two looks at the memory of the attempts."""
    max_bases: int = 3
    """Prepared interpreters with foreign modules, at most."""
    max_prepared: int = 8
    """Prepared interpreters with user modules, at most, as long as idle ones can go."""


def launch(path: str) -> None:
    """Starts the keeper behind the back of its parent, which ends as soon as the socket listens."""
    with open(path, encoding="utf-8") as file:
        config = Config(**json.load(file))
    os.umask(0o077)
    listener = listen(config.folder)
    pid = os.fork()
    if pid:
        identity = {"pid": pid, "boot_id": procs.boot_id(), "image_key": config.image_key}
        found = procs.stat(pid)
        identity["started"] = found.started if found is not None else 0
        part = os.path.join(config.folder, IDENTITY + ".part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump(identity, file)
        os.rename(part, os.path.join(config.folder, IDENTITY))
        os._exit(0)
    os.setsid()
    os.chdir("/")
    Keeper(config, listener).run()


class Keeper:
    """The whole of a keeper's state, changed by one thread."""

    def __init__(self, config: Config, listener: socket.socket) -> None:
        self._config = config
        self._loop = Loop()
        self._server = Server(self._loop, listener, self._command)
        self._log = OutcomeLog(os.path.join(config.folder, LOG))
        self._attempts: dict[str, Attempt] = {}
        """Attempts that have not ended."""
        self._by_pid: dict[int, Attempt] = {}
        """Attempts by their main process, whoever is its parent now."""
        self._ended: dict[str, wire.Message] = {}
        """Outcomes that no agent has acknowledged."""
        self._number = 0
        self._last_use = time.monotonic()
        self._leaving = False
        self._done = False
        self._file_limit = 0
        self._retrying = False
        """A timer is set for what the log could not take."""
        self._wake_read, self._wake_write = os.pipe()
        self._pool = Pool(
            self._loop,
            scratch=config.folder,
            max_bases=config.max_bases,
            max_prepared=config.max_prepared,
            start_fresh=self._start_fresh,
            open_channel=self._open_channel,
            main_exited=self._main_exited,
            adopt_orphan=self._adopt_orphan,
            import_began=lambda: self._sampler.schedule(),
        )
        self._strays = Strays(self._pool.pids, self._by_pid, self._attempts)
        self._sampler = Sampler(
            self._loop,
            attempts=self._attempts,
            strays=self._strays,
            pool=self._pool,
            kill=self._kill,
            seconds=config.sample_seconds,
        )

    def run(self) -> None:
        """Serves until it is told to end or has nothing to do; leaves the process."""
        procs.become_subreaper()
        self._raise_file_limit()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._loop.watch(self._wake_read, self._on_signal)
        self._loop.later(self._config.idle_seconds, self._check_idle)
        while not self._done:
            self._loop.run_once()
        self._pool.close()
        self._end_children()
        os._exit(0)

    @staticmethod
    def _end_children() -> None:
        """Ends whatever is still below, so that nothing is left when the keeper is gone."""
        for pid in procs.descendants(procs.children(os.getpid())):
            procs.send(pid, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LAST_WAIT)
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            return

    def _raise_file_limit(self) -> None:
        """Each attempt takes a descriptor here; attempts get the limit back that was found."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._file_limit = soft
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    # Commands --------------------------------------------------------------

    def _command(self, client: Client, message: wire.Message) -> None:
        self._last_use = time.monotonic()
        operation = message.get("op")
        if operation == "hello":
            self._greet(client)
        elif operation == "start":
            self._start(client, message["order"])
        elif operation == "stop":
            attempt = self._attempts.get(message["id"])
            if attempt is not None:
                self._stop(attempt, float(message["grace"]))
        elif operation == "acknowledge":
            if self._ended.pop(message["id"], None) is not None:
                self._log.acknowledged(message["id"], all_done=not self._attempts and not self._ended)
                self._write_later()
        elif operation == "shutdown":
            self._shut_down(float(message["grace"]))

    def _greet(self, client: Client) -> None:
        client.greeted = True
        running = [
            {"id": attempt.id, "pid": attempt.pid, "started_at": attempt.started_at}
            for attempt in self._attempts.values()
        ]
        self._server.tell(
            client,
            {"op": "welcome", "pid": os.getpid(), "running": running, "ended": list(self._ended.values())},
        )

    # Attempts --------------------------------------------------------------

    def _start(self, client: Client, order: wire.Message) -> None:
        name = order["id"]
        if name in self._attempts or name in self._ended:
            self._server.tell(client, {"op": "accepted", "id": name})
            return
        if self._leaving:
            self._server.tell(client, {"op": "refused", "id": name, "reason": "leaving"})
            return
        try:
            os.makedirs(os.path.join(order["folder"], "work"), exist_ok=True)
            accepted = os.path.join(order["folder"], ACCEPTED_FILE)
            os.close(os.open(accepted, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            self._server.tell(client, {"op": "refused", "id": name, "reason": "started before"})
            return
        except OSError as error:
            self._server.tell(client, {"op": "refused", "id": name, "reason": "error", "error": str(error)})
            return
        try:
            self._log.accepted(name, order["mark"])
        except OSError as error:
            # Nothing was started: when there is room, the same order may come again.
            os.unlink(accepted)
            self._server.tell(client, {"op": "refused", "id": name, "reason": "error", "error": str(error)})
            return
        order["env"][procs.MARK_VARIABLE] = order["mark"]
        order["env"][RUNNER_VARIABLE] = "1"
        order["files"] = self._file_limit
        self._number += 1
        attempt = Attempt(self._number, order)
        self._attempts[name] = attempt
        self._server.tell(client, {"op": "accepted", "id": name})
        try:
            self._pool.submit(attempt)
        except OSError as error:
            attempt.trouble = f"the attempt could not be started: {error}"
            self._main_exited(attempt, None)

    def _open_channel(self, attempt: Attempt) -> list[int] | None:
        """Makes the pipe on which the attempt reports: its order and the end to write to.

        None when that fails; the attempt has ended then.
        """
        try:
            order = wire.to_memory(attempt.order)
            attempt.channel, write_end = os.pipe()
        except OSError as error:
            attempt.trouble = f"the attempt could not be started: {error}"
            self._main_exited(attempt, None)
            return None
        os.set_blocking(attempt.channel, False)
        self._loop.watch(attempt.channel, lambda: self._read_channel(attempt))
        attempt.sent = True
        return [order, write_end]

    def _start_fresh(self, attempt: Attempt, reason: str) -> None:
        """Starts a new interpreter for the attempt; the same code runs in it."""
        attempt.prepared = None
        if attempt.finished:
            return
        self._close_channel(attempt)
        attempt.order["note"] = reason
        descriptors = self._open_channel(attempt)
        if descriptors is None:
            return
        streams: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                path = os.path.join(attempt.folder, name)
                streams.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644))
            attempt.pid = spawn(
                attempt.order["python"],
                ["attempt", *map(str, descriptors)],
                environment=attempt.order["env"],
                inherited=descriptors,
                streams=(streams[0], streams[1]),
            )
        except (OSError, ValueError) as error:
            attempt.trouble = f"the interpreter {attempt.order['python']} could not be started: {error}"
            self._main_exited(attempt, None)
            return
        finally:
            for descriptor in [*descriptors, *streams]:
                os.close(descriptor)
        self._by_pid[attempt.pid] = attempt

    def _adopt_orphan(self, attempt: Attempt) -> None:
        """The template of an attempt is gone: the keeper is the parent now, if there is a process."""
        attempt.prepared = None
        self._read_channel(attempt)
        if attempt.pid:
            found = procs.stat(attempt.pid)
            if found is None or found.parent != os.getpid():
                self._main_exited(attempt, None)
        elif attempt.channel < 0:
            # Nobody holds its channel: user code has not begun, so starting it again is safe.
            self._start_fresh(attempt, "its template ended")

    def _read_channel(self, attempt: Attempt) -> None:
        """Takes what the attempt's process reports."""
        while attempt.channel >= 0:
            try:
                data = os.read(attempt.channel, 1 << 17)
                messages = attempt.reader.feed(data)
            except BlockingIOError:
                return
            except wire.FrameError as error:
                print(f"attempt {attempt.id}: {error}", file=sys.stderr, flush=True)
                self._close_channel(attempt)
                return
            if not data:
                self._close_channel(attempt)
                if attempt.sent and not attempt.pid and not attempt.exited and attempt.prepared is None:
                    self._start_fresh(attempt, "its template ended")
                return
            for message in messages:
                self._take_report(attempt, message)

    def _close_channel(self, attempt: Attempt) -> None:
        if attempt.channel >= 0:
            self._loop.forget(attempt.channel)
            os.close(attempt.channel)
            attempt.channel = -1

    def _take_report(self, attempt: Attempt, message: wire.Message) -> None:
        operation = message.get("op")
        if operation == "started" and not attempt.started_at:
            attempt.pid = int(message["pid"])
            attempt.started_at = float(message["at"])
            attempt.seen_at = time.monotonic()
            attempt.gauge.baseline = int(message["baseline"])
            attempt.importing = bool(message["importing"])
            self._by_pid[attempt.pid] = attempt
            self._server.tell_all(
                {"op": "started", "id": attempt.id, "pid": attempt.pid, "started_at": attempt.started_at}
            )
            if attempt.stopping:
                procs.send_group(attempt.pid, signal.SIGTERM)
            self._sampler.schedule()
        elif operation == "imported":
            attempt.importing = False
        elif operation == "outcome" and attempt.report is None:
            attempt.report = message
            if not attempt.stopping:
                # Written at once: if this keeper is killed now, the outcome is still known.
                self._log.outcome(attempt.outcome())
                attempt.logged = True
                self._write_later()

    def _main_exited(self, attempt: Attempt, status: int | None) -> None:
        """The main process is reaped, or never was; what it left behind goes next."""
        if attempt.exited:
            return
        self._read_channel(attempt)
        attempt.exited = True
        attempt.status = status
        self._by_pid.pop(attempt.pid, None)
        if attempt.prepared is not None:
            attempt.prepared.finished(attempt)
        self._close_channel(attempt)
        self._clean_up(attempt)

    def _clean_up(self, attempt: Attempt) -> None:
        """Kills what is left of the attempt and looks again until nothing is."""
        if attempt.pid and self._strays.kill(attempt):
            self._loop.later(CLEANUP_PAUSE, lambda: self._clean_up(attempt))
            return
        self._finish(attempt)

    def _finish(self, attempt: Attempt) -> None:
        if attempt.finished:
            return
        attempt.finished = True
        attempt.read_late_report()
        outcome = attempt.outcome()
        attempt.close_log(outcome)
        self._log.ended(attempt.id, None if attempt.logged else outcome)
        self._write_later()
        del self._attempts[attempt.id]
        self._ended[attempt.id] = outcome
        self._last_use = time.monotonic()
        self._server.tell_all({"op": "ended", "outcome": outcome})
        if self._leaving and not self._attempts:
            self._end(keep_log=True)

    def _write_later(self) -> None:
        """Tries again after a while when the disk has no room for what ended."""
        if self._log.behind and not self._retrying:
            self._retrying = True
            self._loop.later(RETRY_SECONDS, self._catch_up)

    def _catch_up(self) -> None:
        self._retrying = False
        self._log.catch_up()
        self._write_later()

    # Ending ----------------------------------------------------------------

    def _stop(self, attempt: Attempt, grace: float) -> None:
        if attempt.exited or attempt.report is not None:
            return
        first = not attempt.stopping
        attempt.stopping = True
        if not attempt.sent:
            if attempt.prepared is not None:
                attempt.prepared.withdraw(attempt)
                attempt.prepared = None
            self._main_exited(attempt, None)
            return
        if first and attempt.started_at:
            procs.send_group(attempt.pid, signal.SIGTERM)
            procs.send_group(attempt.pid, signal.SIGCONT)
        self._loop.later(max(0.0, grace), lambda: self._kill(attempt))

    def _kill(self, attempt: Attempt) -> None:
        if attempt.exited:
            return
        if not attempt.pid:
            # A fork is under way; its first message brings the pid.
            self._loop.later(CLEANUP_PAUSE, lambda: self._kill(attempt))
            return
        below = procs.descendants([attempt.pid])
        procs.send_group(attempt.pid, signal.SIGKILL)
        for pid in below:
            procs.send(pid, signal.SIGKILL)

    def _shut_down(self, grace: float) -> None:
        self._leaving = True
        for attempt in list(self._attempts.values()):
            self._stop(attempt, grace)
        if not self._attempts:
            self._end(keep_log=bool(self._ended))

    def _check_idle(self) -> None:
        rest = self._last_use + self._config.idle_seconds - time.monotonic()
        if self._attempts:
            rest = max(rest, self._config.idle_seconds)
        if rest > 0:
            self._loop.later(rest, self._check_idle)
            return
        # An order may be on its way: nothing that has arrived may be dropped unread.
        if self._server.receive():
            self._loop.later(self._config.idle_seconds, self._check_idle)
            return
        # Outcomes that no agent came for are found in the log; no process has to wait with them.
        self._end(keep_log=bool(self._ended))

    def _end(self, *, keep_log: bool) -> None:
        self._server.close()
        self._log.close()
        self._done = True
        if not keep_log:
            shutil.rmtree(self._config.folder, ignore_errors=True)

    # Processes -------------------------------------------------------------

    def _on_signal(self) -> None:
        data = os.read(self._wake_read, 4096)
        if signal.SIGTERM in data or signal.SIGINT in data:
            self._shut_down(2.0)
        self._on_child()

    def _on_child(self) -> None:
        for attempt, status in self._reap():
            self._main_exited(attempt, status)

    def _reap(self) -> list[tuple[Attempt, int]]:
        """Reaps every child that has ended; answers with the attempts among them."""
        ended: list[tuple[Attempt, int]] = []
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            pid = found.si_pid
            attempt = self._attempt_of(pid)
            if attempt is not None:
                # The group goes while the dead leader still keeps its number from being used again.
                procs.send_group(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if attempt is not None:
                del self._by_pid[pid]
                ended.append((attempt, status))
        return ended

    def _attempt_of(self, pid: int) -> Attempt | None:
        """The attempt with this main process, which may be an orphan whose first word is still unread."""
        if pid not in self._by_pid:
            for attempt in list(self._attempts.values()):
                if attempt.sent and not attempt.pid:
                    self._read_channel(attempt)
        return self._by_pid.get(pid)
