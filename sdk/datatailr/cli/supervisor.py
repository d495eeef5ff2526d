"""`datatailr up`: a control plane and an agent, kept running until told to stop."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datatailr.cli.children import CONFIGURATION_CODES, Child, module_command, sweep
from datatailr.cli.places import Places, UpError, read_json, start_of, write_json

START_SECONDS: Final = 60.0
"""How long a process may take to get ready before it is killed and started again."""

# Stopping takes 10 s at most: the agent ends its attempts, reports them and leaves within 6 s,
# the control plane within 3 s.
AGENT_STOP_SECONDS: Final = 6.0
SWEEP_SECONDS: Final = 0.4
CONTROLPLANE_STOP_SECONDS: Final = 2.8

_LOOK: Final = 0.05
"""Seconds between two looks for a ready file while a process starts."""


@dataclass(frozen=True)
class UpOptions:
    """What `up` is told.

    Attributes:
        places: The data directory.
        grpc_port: Port for people; 0 for any free one, kept over restarts.
        agent_port: Port for agents; 0 likewise.
        http_port: Port of the pages; 0 likewise.
        ready_file: Written when both processes are ready.
        runtime: `process` or `docker`.
        agent_arguments: Further arguments for the agent.
        controlplane_arguments: Further arguments for the control plane.
    """

    places: Places
    grpc_port: int = 7070
    agent_port: int = 7071
    http_port: int = 7080
    ready_file: Path | None = None
    runtime: str = "process"
    agent_arguments: tuple[str, ...] = ()
    controlplane_arguments: tuple[str, ...] = ()


def end_leftovers(places: Places) -> int:
    """Ends the tasks and keepers that an `up` which was killed has left running, if none runs now.

    Returns how many processes there were.
    """
    if read_json(places.state_file) is None:
        return 0

    try:
        lock = places.lock()
    except UpError:
        return 0

    try:
        ended = sweep(places.agent, SWEEP_SECONDS)
        places.state_file.unlink(missing_ok=True)
    finally:
        os.close(lock)

    return ended


class Supervisor:
    """Runs in the foreground until a signal comes or a process cannot be kept running.

    Args:
        options: What to run.
        on_ready: Called with what the ready file holds, each time both processes are ready.
        say: Prints one line for people.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        options: UpOptions,
        *,
        on_ready: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._on_ready = on_ready
        self._say = say
        self._clock = clock
        self._signals: list[int] = []
        self._published: dict[str, Any] = {}
        self._served: dict[str, Any] = {}
        self._agent_address = ""
        places = options.places
        self._controlplane = Child(
            "controlplane",
            self._controlplane_command,
            log=places.log("controlplane"),
            ready=places.ready("controlplane"),
            clock=clock,
        )
        self._agent = Child(
            "agent",
            self._agent_command,
            log=places.log("agent"),
            ready=places.ready("agent"),
            # Told to end it would end its tasks. Killed with a killed `up` it leaves them to the next one.
            orphaned=signal.SIGKILL,
            clock=clock,
        )

    def run(self) -> int:
        """Supervise until told to stop; returns the exit code.

        Raises:
            UpError: the directory is in use, or a process ended in a way that a new start
                would repeat. Everything that was started has been stopped again.
        """
        places = self._options.places
        places.make()
        lock = places.lock()

        try:
            with self._signals_caught() as wakeup:
                # The state is known before anything is started, so that `down` works at any time.
                self._write_state()

                try:
                    self._supervise(wakeup)
                finally:
                    self._stop()
        finally:
            os.close(lock)

        return 0

    def _supervise(self, wakeup: int) -> None:
        self._start(self._controlplane)

        while not self._signals:
            for child in (self._controlplane, self._agent):
                self._look_after(child)

            self._publish()
            select.select([wakeup], [], [], self._pause())

            try:
                os.read(wakeup, 4096)
            except BlockingIOError:
                continue

    def _look_after(self, child: Child) -> None:
        """Notice a death, start again what is due, give up on what never gets ready."""
        if child.pid:
            code = child.exit_code()

            if code is not None:
                self._died(child, code)
            elif child.ready_document() is None and child.age > START_SECONDS:
                self._say(f"{child.name} was not ready after {START_SECONDS:.0f} s: killing it")
                child.terminate(0.5)

            return

        # The agent needs the address and the token of a control plane that serves.
        if child.restart_at <= self._clock() and (child is self._controlplane or self._served):
            self._start(child)

    def _start(self, child: Child) -> None:
        child.start()
        self._write_state()

    def _died(self, child: Child, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"code {code}"

        if code in CONFIGURATION_CODES:
            words = child.last_words().removeprefix("error: ")
            raise UpError(words or f"{child.name} ended with {how}", code=code)

        if not self._published and code >= 0:
            words = child.last_words(10) or "it said nothing"
            raise UpError(f"{child.name} ended with {how} before it was ready:\n{words}\nlog: {child.log}")

        pause = child.plan_restart()
        self._say(f"{child.name} ended with {how}; starting it again in {pause:.1f} s (log: {child.log})")

    def _publish(self) -> None:
        """Write the ready file whenever both processes are ready and it does not say so yet."""
        served = self._controlplane.ready_document() if self._controlplane.pid else None

        if served is None:
            return

        if self._agent.pid and served["agent_grpc"] != self._agent_address:
            self._say("the control plane has another port now; starting the agent again")
            self._agent.terminate(AGENT_STOP_SECONDS)

        if served != self._served:
            self._served = served
            self._write_state()

        agent = self._agent.ready_document() if self._agent.pid else None

        if agent is None:
            return

        document = {
            "grpc": served["grpc"],
            "http": served["http"],
            "token": served["token"],
            "controlplane_pid": self._controlplane.pid,
            "agent_pid": self._agent.pid,
        }

        if document == self._published:
            return

        self._published = document
        self._write_state()

        if self._options.ready_file is not None:
            write_json(self._options.ready_file, document)

        self._on_ready(document)

    def _pause(self) -> float | None:
        """Seconds until something is due that no signal announces."""
        pauses: list[float] = []

        for child in (self._controlplane, self._agent):
            if not child.pid:
                pauses.append(max(_LOOK, child.restart_at - self._clock()))
            elif child.ready_document() is None:
                pauses.append(_LOOK)

        return min(pauses, default=None)

    def _stop(self) -> None:
        """Stop the agent, what it left, then the control plane; a second signal hastens it."""
        options = self._options
        told = len(self._signals)

        def patience(seconds: float) -> float:
            return seconds if len(self._signals) <= max(told, 1) else 0.0

        self._agent.terminate(patience(AGENT_STOP_SECONDS))
        sweep(options.places.agent, SWEEP_SECONDS)
        self._controlplane.terminate(patience(CONTROLPLANE_STOP_SECONDS))

        for path in (options.ready_file, options.places.state_file):
            if path is not None:
                path.unlink(missing_ok=True)

    def _write_state(self) -> None:
        pid = os.getpid()
        write_json(
            self._options.places.state_file,
            {
                "pid": pid,
                "started": start_of(pid),
                "controlplane_pid": self._controlplane.pid,
                "agent_pid": self._agent.pid,
                "grpc": self._served.get("grpc", ""),
                "http": self._served.get("http", ""),
                "runtime": self._options.runtime,
            },
        )

    def _controlplane_command(self) -> list[str]:
        options = self._options
        return module_command(
            "opentailr_controlplane",
            [
                *("--data-dir", str(options.places.controlplane)),
                *("--grpc-port", str(options.grpc_port)),
                *("--agent-port", str(options.agent_port)),
                *("--http-port", str(options.http_port)),
                *("--ready-file", str(options.places.ready("controlplane"))),
                *options.controlplane_arguments,
            ],
        )

    def _agent_command(self) -> list[str]:
        options = self._options
        self._agent_address = str(self._served["agent_grpc"])
        return module_command(
            "opentailr_agent",
            [
                *("--data-dir", str(options.places.agent)),
                *("--address", self._agent_address),
                *("--token-file", str(options.places.agent_token)),
                *("--ready-file", str(options.places.ready("agent"))),
                *("--runtime", options.runtime),
                "--stop-attempts-on-exit",
                *options.agent_arguments,
            ],
        )

    @contextmanager
    def _signals_caught(self) -> Iterator[int]:
        """Collect signals; the descriptor becomes readable with each one."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def remember(number: int, _frame: object) -> None:
            self._signals.append(number)

        handlers = {
            number: signal.signal(number, remember)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        # Only wakes the loop up: the death itself is seen by asking the child.
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

            signal.set_wakeup_fd(before_fd)
            os.close(reader)
            os.close(writer)
