"""What the tests of restarted, paused and killed agents share: workloads, and who runs where."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2e_harness import Platform, base_environment, eventually, process_alive

GATED = """
    import os
    import pathlib
    import time

    from datatailr import task, workflow

    FOLDER = pathlib.Path({folder!r})


    @task(memory="16m", cpu=0.1)
    def wait(number):
        with open(FOLDER / f"{{number}}", "a") as starts:
            starts.write(f"{{os.getpid()}}\\n")
        tick = 0
        while not (FOLDER / "gate").exists():
            print(f"{{number}} ticks {{tick}}", flush=True)
            tick += 1
            time.sleep(0.2)
        with open(FOLDER / f"{{number}}.ticks", "w") as told:
            told.write(str(tick))
        return number * 3


    @workflow(name="@NAME@")
    def flow():
        for number in range({count}):
            wait(number).alias(f"wait {{number}}")
"""
"""Tasks that run until the file `gate` exists, note each start by their pid, and count what they print."""


def starts(folder: Path) -> dict[int, list[int]]:
    """The pids of all starts, by task number."""
    return {
        int(path.name): [int(line) for line in path.read_text().split()]
        for path in folder.iterdir()
        if path.name.isdigit()
    }


def all_running(folder: Path, count: int) -> dict[int, list[int]]:
    """Waits until each of `count` tasks has started."""
    return eventually(
        lambda: found if len(found := starts(folder)) == count and all(found.values()) else None,
        seconds=90,
        what=f"{count} running tasks",
    )


def wanted_log(folder: Path, number: int) -> str:
    """What the task has printed, byte for byte."""
    ticks = int((folder / f"{number}.ticks").read_text())
    return "".join(f"{number} ticks {tick}\n" for tick in range(ticks))


def wait_for_another(platform: Platform, name: str, pid: int) -> None:
    """Waits until another process of `up` has taken the place of one that died."""

    def replaced() -> bool:
        platform.refresh()
        return bool(platform.ready[name] != pid) and process_alive(int(platform.ready[name]))

    eventually(replaced, seconds=60, what=f"another {name}")


def kill(platform: Platform, name: str) -> None:
    """Kills a child of `up` hard; another one takes its place."""
    pid = int(platform.ready[name])
    os.kill(pid, signal.SIGKILL)
    wait_for_another(platform, name, pid)


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stops a process for the length of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def let_time_pass(seconds: float) -> None:
    """The subject of these tests is time itself: a pause that is longer or shorter than a lease."""
    time.sleep(seconds)


@contextlib.contextmanager
def second_node(platform: Platform, name: str = "second") -> Iterator[int]:
    """Another agent on this machine; its pid."""
    ready = platform.folder / f"{name}.json"
    serving: dict[str, Any] = json.loads((platform.data / "run" / "controlplane.json").read_text())
    command = [
        *(sys.executable, "-m", "opentailr_agent", "--data-dir", str(platform.data / name)),
        *("--address", serving["agent_grpc"], "--ready-file", str(ready), "--name", name),
        *("--token-file", str(platform.data / "controlplane" / "agent.token"), "--stop-attempts-on-exit"),
    ]
    with (platform.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=base_environment(platform.folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(ready.exists, seconds=60, what="the second node")
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def node_states(platform: Platform) -> dict[str, str]:
    """State by name, as `dt node ls` tells it."""
    return {node["name"]: node["state"] for node in platform.dt("node", "ls", "--json").json()}
