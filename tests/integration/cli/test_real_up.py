"""`datatailr up` with the real servers: ready, looked at, hurt, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datatailr.runner import procs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="servers need Python 3.11"),
]

SECONDS = 30.0

FLOW = """
from datatailr.scheduler import task, workflow

@task()
def double(number):
    print("doubling", number)
    return 2 * number

@workflow(name="Doubling", python_version="{version}", python_requirements="")
def doubling():
    double(double(21)).alias("again")

doubling()
"""


def eventually(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS

    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)

    return answer


def lives(pid: int) -> bool:
    found = procs.stat(pid)
    return found is not None and found.state not in "ZX"


def processes_of(directory: Path) -> list[int]:
    """Every process with a path below the directory in its command line."""
    found = []

    for pid in procs.all_pids():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue

        if os.fsencode(f"{directory}/") in line and pid != os.getpid():
            found.append(pid)

    return found


def test_a_whole_platform(tmp_path: Path) -> None:
    data, ready = tmp_path / "data", tmp_path / "ready.json"
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "DATATAILR_PROGRESS": "1"}

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"datatailr.cli.{module}", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )

    flags = ["--grpc-port", "0", "--http-port", "0", "--ready-file", str(ready)]
    up = subprocess.Popen(
        [sys.executable, "-m", "datatailr.cli.platform", "up", "--data-dir", str(data), *flags],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    try:
        eventually(ready.exists)
        document = json.loads(ready.read_text())
        environ |= {"DATATAILR_ADDRESS": document["grpc"], "DATATAILR_TOKEN": document["token"]}
        status = run("platform", "status", "--data-dir", str(data), "--json")
        answer = json.loads(status.stdout)
        assert status.returncode == 0 and answer["reachable"] and answer["error"] is None
        assert [node["state"] for node in answer["nodes"]] == ["ready"]

        flow = tmp_path / "flow" / "flow.py"
        flow.parent.mkdir()
        flow.write_text(FLOW.format(version=f"{sys.version_info[0]}.{sys.version_info[1]}"))
        deployed = subprocess.run(
            [sys.executable, str(flow)], env=environ, capture_output=True, text=True, timeout=SECONDS
        )
        assert deployed.returncode == 0
        assert "environment: " in deployed.stderr
        assert "started: run 1 of doubling version 1 in dev" in deployed.stderr
        watched = run("dt", "job", "watch", "doubling")
        assert watched.returncode == 0, watched.stdout + watched.stderr
        assert "run 1 of doubling (version 1): completed after" in watched.stdout
        assert "doubling 42" in run("dt", "log", "read", "doubling", "-c", "again").stdout

        for who in ("agent_pid", "controlplane_pid"):
            before = json.loads(ready.read_text())
            os.kill(before[who], signal.SIGKILL)
            after = eventually(lambda old=before: (new := json.loads(ready.read_text())) != old and new)
            assert after[who] != before[who] and after["grpc"] == before["grpc"]

        again = run("dt", "job", "start", "doubling", "-w")
        assert again.returncode == 0, again.stdout + again.stderr
        begin = time.monotonic()
        down = run("platform", "down", "--data-dir", str(data))
        assert down.returncode == 0 and time.monotonic() - begin < 12
        assert up.wait(SECONDS) == 0
        assert not any(map(lives, processes_of(data)))
        assert run("dt", "job", "ls").returncode == 7
    finally:
        up.terminate()
        up.communicate(timeout=SECONDS)
