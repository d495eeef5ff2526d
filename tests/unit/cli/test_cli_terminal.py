"""`dt` as a process: on a terminal, into a pipe, and interrupted."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_server import FakeState

from datatailr.cli.exits import Exit
from datatailr.v1 import common_pb2, job_pb2, run_pb2

SECONDS = 20.0


@pytest.fixture
def running(state: FakeState) -> Iterator[FakeState]:
    """A run whose second change comes when `hold_watch` is set."""
    run: dict[str, Any] = {"run_id": 4, "job_id": "job_1", "job_name": "flow", "job_version": 1}
    task = {"run_id": 4, "task_id": 0, "name": "load"}
    state.saved.append(job_pb2.JobDefinition(name="flow", environment=common_pb2.ENVIRONMENT_DEV))
    state.runs[4] = run_pb2.Run(**run, state=common_pb2.STATE_RUNNING, submit_time=1)
    state.watch = [
        run_pb2.WatchRunResponse(
            run=state.runs[4],
            tasks=[run_pb2.RunTask(**task, state=common_pb2.STATE_RUNNING)],
            synced=True,
        ),
        run_pb2.WatchRunResponse(
            run=run_pb2.Run(**run, state=common_pb2.STATE_COMPLETED, submit_time=1, end_time=1_000_001),
            tasks=[run_pb2.RunTask(**task, state=common_pb2.STATE_COMPLETED)],
        ),
    ]
    state.hold_watch.clear()
    yield state


def start(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    return subprocess.Popen(
        [sys.executable, "-m", "datatailr.cli.dt", *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        **streams,
    )


def read_until(descriptor: int, words: bytes) -> bytes:
    """Read until `words` came."""
    read = b""
    deadline = time.monotonic() + SECONDS

    while words not in read:
        assert time.monotonic() < deadline, read
        read += os.read(descriptor, 4096)

    return read


def read_rest(descriptor: int) -> bytes:
    """Read to the end of a terminal, which is an error on Linux."""
    read = b""

    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:
            return read

        if not piece:
            return read

        read += piece


def test_a_terminal_shows_a_live_block(running: FakeState) -> None:
    terminal, slave = pty.openpty()

    try:
        process = start("job", "watch", "flow", stdout=slave, stderr=slave)
        os.close(slave)
        live = read_until(terminal, b"load")
        assert b"\x1b[" in live
        running.hold_watch.set()
        rest = read_rest(terminal)
        assert process.wait(SECONDS) == 0
    finally:
        os.close(terminal)

    assert "✓ load".encode() in rest
    assert b"run 4 of flow (version 1): completed after 1.00 s" in rest
    # The cursor is shown again.
    assert b"\x1b[?25h" in rest


def test_ctrl_c_ends_the_watching_and_tells_how_to_go_on(running: FakeState) -> None:
    process = start("job", "watch", "flow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"task load (0): running")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == Exit.INTERRUPTED
    text = err.decode()
    assert "Stopped watching; run 4 goes on." in text
    assert "dt job watch flow -i 4" in text and "dt job stop -b 4" in text
    assert "Traceback" not in text


def test_a_closed_pipe_is_no_traceback(state: FakeState) -> None:
    state.answers["jobs"] = [job_pb2.Job(id=f"job_{number}", version=1) for number in range(2000)]
    process = start("job", "ls", "-p", "-b", "2000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(SECONDS)
    assert b"Traceback" not in err, err
