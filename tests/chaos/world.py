"""A whole platform of separate processes, with a proxy between the control plane and each agent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from datatailr.client.connection import Connection, RetryPolicy

from . import facts
from .ledger import Ledger
from .proxy import Proxy
from .servers import Keeper, Server, environment_of, eventually, keepers_of, module

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Leases:
    """Times of the control plane's core, in seconds."""

    heartbeat_interval: float = 5.0
    lease_ttl: float = 15.0
    lease_grace: float = 5.0
    recovery_grace: float = 30.0

    @property
    def harmless(self) -> float:
        """A fault of this length cannot cost a lease, with the last heartbeat and the way back counted."""
        return (self.lease_ttl + self.lease_grace - self.heartbeat_interval) / 3

    @property
    def deadly(self) -> float:
        """After a fault of this length the lease and its grace are over, but for a young control plane."""
        return (self.lease_ttl + self.lease_grace) * 1.1 + 1

    @property
    def real(self) -> bool:
        """Whether these are the product's own, so that the program itself can run."""
        return self == Leases()


REAL: Final = Leases()
SHORT: Final = Leases(heartbeat_interval=1.0, lease_ttl=5.0, lease_grace=2.0, recovery_grace=10.0)
"""For tests that need to be longer than a lease several times."""


@dataclass
class Node:
    """An agent with its proxy."""

    server: Server
    proxy: Proxy
    stops_attempts: bool = False
    """Whether its next start has `--stop-attempts-on-exit`."""

    @property
    def name(self) -> str:
        """Of the agent."""
        return self.server.name

    @property
    def keepers(self) -> list[Keeper]:
        """Its living keepers."""
        return keepers_of(self.server)


@dataclass
class World:
    """A platform below one folder; use it as a context.

    Args:
        folder: Empty or missing; holds everything, its contents are removed at the end.
        agents: How many.
        leases: Times of the control plane.
        slots: Most attempts at once on each agent.
        flags: More flags of the control plane.
    """

    folder: Path
    agents: int = 1
    leases: Leases = REAL
    slots: int = 8
    flags: Sequence[str] = ()
    nodes: list[Node] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What was wrong with processes along the way."""

    def __enter__(self) -> World:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.watchdog", str(self.folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _start(self) -> None:
        self.ledger_file = self.folder / "ledger"
        self.ledger = Ledger(self.ledger_file, self.folder)
        self.controlplane = Server("controlplane", self.folder, self._controlplane_command)
        self.controlplane.start()
        self.ready = self.controlplane.wait_ready()
        self.connection = Connection(
            self.ready["grpc"], self.ready["token"], retry=RetryPolicy(repetitions=12, longest_pause=1.0)
        )
        host, _, port = self.ready["agent_grpc"].rpartition(":")
        for number in range(1, self.agents + 1):
            node = Node(Server(f"agent{number}", self.folder, list), Proxy(host, int(port)))
            node.server = Server(node.name, self.folder, self._agent_command(node))
            self.nodes.append(node)
            node.server.start()
        self.deployer = Deployer(self)

    def _controlplane_command(self) -> list[str]:
        times = {
            name: getattr(self.leases, name)
            for name in ("heartbeat_interval", "lease_ttl", "lease_grace", "recovery_grace")
        }
        arguments = ["--data-dir", str(self.folder / "controlplane"), *self.flags]
        for flag in ("--grpc-port", "--agent-port", "--http-port"):
            arguments += [flag, "0"]
        if self.leases.real:
            return module("opentailr_controlplane", *arguments)
        return [sys.executable, "-P", str(HERE / "shortlease.py"), json.dumps(times), *arguments]

    def _agent_command(self, node: Node) -> Callable[[], list[str]]:
        def command() -> list[str]:
            arguments = ["--data-dir", str(node.server.data), "--address", node.proxy.address]
            arguments += ["--token-file", str(self.folder / "controlplane" / "agent.token")]
            arguments += ["--name", node.name, "--memory", "4g", "--slots", str(self.slots)]
            if node.stops_attempts:
                arguments.append("--stop-attempts-on-exit")
            return module("opentailr_agent", *arguments)

        return command

    @property
    def servers(self) -> list[Server]:
        """Control plane first."""
        return [self.controlplane, *(node.server for node in self.nodes)]

    @property
    def ports(self) -> list[int]:
        """Everything that listens."""
        told = [self.ready[name] for name in ("grpc", "agent_grpc", "http")]
        return [int(address.rpartition(":")[2]) for address in told] + [
            node.proxy.port for node in self.nodes
        ]

    def heal(self) -> None:
        """Ends all faults that last: everything runs, nothing is held."""
        for node in self.nodes:
            node.proxy.heal()
            for keeper in node.keepers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(keeper.pid, signal.SIGCONT)
        for server in self.servers:
            server.resume()
            if not server.running:
                server.start(wait=False)
        for server in self.servers:
            server.wait_ready()

    def leftovers(self, *, seconds: float = 30.0) -> list[str]:
        """With all runs ended and everything healthy: what is there that should not be (invariant 16)."""
        found: list[str] = []

        def clean() -> bool:
            marked = facts.marked_processes(str(self.folder))
            found[:] = [f"process {pid} of an attempt: {command}" for pid, command in marked.items()]
            for node in self.nodes:
                folders = list((node.server.data / "attempts").glob("*"))
                found.extend(f"folder of an attempt: {path}" for path in folders)
                images = [keeper.image for keeper in node.keepers]
                found.extend(
                    f"{node.name} has {images.count(image)} keepers of image {image}"
                    for image in sorted(set(images))
                    if images.count(image) > 1
                )
            return not found

        with contextlib.suppress(AssertionError):
            eventually(clean, seconds=seconds, what="nothing left of the attempts", pause=0.3)
        return found

    def shut_down(self) -> list[str]:
        """Ends everything in order; what was left behind of processes, ports and temporary files."""
        found: list[str] = []
        for node in self.nodes:
            if not node.stops_attempts:
                # Only with the flag an agent takes its keepers with it.
                node.server.terminate()
                node.stops_attempts = True
                node.server.start()
        for server in reversed(self.servers):
            took = server.terminate()
            # Three times what is promised: the machine may be busy, a server that hangs may not.
            if took > (9 if server is self.controlplane else 18):
                found.append(f"{server.name} took {took:.1f} s to end")
        self.connection.close()
        self.deployer.close()
        for node in self.nodes:
            node.proxy.close()
        left = facts.processes_of(str(self.folder))
        found += [f"process {pid}: {command}" for pid, command in left.items()]
        found += [f"port {port} still listens" for port in self.ports if _listens(port)]
        found += [f"temporary file {path}" for path in (self.folder / "tmp").iterdir()]
        found += [f"ready file {server.ready_file}" for server in self.servers if server.ready_file.exists()]
        return found

    def end(self) -> None:
        """Ends whatever is there, hard. `shut_down` first, where it is to be judged."""
        with contextlib.suppress(AttributeError):
            self.deployer.close()
        with contextlib.suppress(AttributeError):
            self.connection.close()
        with contextlib.suppress(AttributeError):
            self.controlplane.kill()
        for node in self.nodes:
            node.server.kill()
            node.proxy.close()
        for _ in range(3):
            for pid in facts.processes_of(str(self.folder)):
                if pid != self._watchdog.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Deployer:
    """A user's process that saves workflows, started again when it is gone."""

    def __init__(self, world: World) -> None:
        self._folder = world.folder / "project"
        if not self._folder.exists():
            shutil.copytree(
                HERE / "payload", self._folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        self._environment = {
            **environment_of(world.folder),
            "DATATAILR_ADDRESS": world.ready["grpc"],
            "DATATAILR_TOKEN": world.ready["token"],
            "DATATAILR_PROGRESS": "0",
        }
        self._log = world.folder / "deployer.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def save(self, definition: dict[str, object]) -> tuple[bool, str]:
        """Saves one workflow; the SDK's own answer, or what became of the process."""
        with self._lock:
            process = self._process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(definition).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                answer = b""
            if not answer:
                self._end()
                return False, f"the deployer ended:\n{self._log.read_text(errors='replace')[-2000:]}"
            ok, text = json.loads(answer)
            return bool(ok), str(text)

    @property
    def pid(self) -> int:
        """Of the process, 0 when there is none."""
        process = self._process
        return process.pid if process is not None else 0

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "deployer.py"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
