"""What both stand-ins share: arguments, ready files, signals, failures on demand."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def serve(name: str, arguments: list[str]) -> None:
    """Be the process until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)

    if name == "controlplane":
        for port in ("--grpc-port", "--agent-port", "--http-port"):
            parser.add_argument(port, type=int, required=True)
    else:
        parser.add_argument("--address", required=True)
        parser.add_argument("--token-file", type=Path, required=True)
        parser.add_argument("--runtime", required=True)
        parser.add_argument("--memory")
        parser.add_argument("--stop-attempts-on-exit", action="store_true")

    options = parser.parse_args(arguments)
    options.data_dir.mkdir(exist_ok=True)
    failure = _failure(name)

    if failure.startswith("exit:"):
        sys.exit(_complain(name, int(failure.removeprefix("exit:"))))

    stop = _Stop()

    if failure != "deaf":
        signal.signal(signal.SIGTERM, stop.ask)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    document = _controlplane(options) if name == "controlplane" else _agent(options)
    _write(options.ready_file, document | {"pid": os.getpid()})

    while not stop.asked:
        time.sleep(0.01)

    if name == "agent":
        os.kill(document["keeper"], signal.SIGKILL)

    options.ready_file.unlink()
    _note(options.data_dir.parent / "order.txt", f"{name} ended")


class _Stop:
    """Remembers that SIGTERM came."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _number: int, _frame: object) -> None:
        self.asked = True


def _failure(name: str) -> str:
    plan = os.environ.get("STAND_IN_FAILURES")

    if plan is None:
        return ""

    lines = Path(plan).read_text().splitlines()

    for line in lines:
        owner, _, what = line.partition(" ")

        if owner == name:
            lines.remove(line)
            Path(plan).write_text("\n".join(lines))
            return what

    return ""


def _complain(name: str, code: int) -> int:
    print("a line of the log", file=sys.stderr)
    print(f"error: {name} cannot start for reason {code}", file=sys.stderr)
    return code


def _controlplane(options: argparse.Namespace) -> dict[str, object]:
    kept = options.data_dir / "ports.json"
    ports = json.loads(kept.read_text()) if kept.exists() else {}

    for name in ("grpc", "agent", "http"):
        wanted = getattr(options, f"{name}_port") or ports.get(name, 0)

        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            ports[name] = probe.getsockname()[1]

    kept.write_text(json.dumps(ports))

    for name in ("admin", "agent"):
        (options.data_dir / f"{name}.token").write_text(f"token-of-{name}\n")

    return {
        "grpc": f"127.0.0.1:{ports['grpc']}",
        "agent_grpc": f"127.0.0.1:{ports['agent']}",
        "http": f"http://127.0.0.1:{ports['http']}",
        "token": "token-of-admin",
    }


def _agent(options: argparse.Namespace) -> dict[str, object]:
    assert options.token_file.read_text() == "token-of-agent\n"
    config = options.data_dir / "keepers" / "keeper.json"
    config.parent.mkdir(exist_ok=True)
    # The command line of a real keeper: its mode and a file of the agent's.
    code = "import time; time.sleep(300)"
    keeper = subprocess.Popen(
        [sys.executable, "-c", code, "keeper", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _note(options.data_dir / "seen.txt", f"{options.address} {options.runtime} {options.memory}")
    return {"agent_id": "agt_1", "name": "here", "keeper": keeper.pid}


def _write(path: Path, document: dict[str, object]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    part.rename(path)


def _note(path: Path, line: str) -> None:
    with path.open("a") as stream:
        stream.write(f"{line}\n")
