"""Watching a run: a block that collapses, Ctrl-C that means one thing, and where a rerun comes from."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_server import FakeState

from datatailr.cli.exits import Exit
from datatailr.client.words import lineage
from datatailr.v1 import common_pb2, job_pb2, run_pb2

Dt = Callable[..., tuple[int, bytes, str]]
SECONDS = 20.0


def story(state: FakeState, end: common_pb2.State, **more: Any) -> None:
    """A run whose second change, its end, comes when `hold_watch` is set."""
    run: dict[str, Any] = {"run_id": 4, "job_id": "job_1", "job_name": "flow", "job_version": 1, **more}
    task: dict[str, Any] = {"run_id": 4, "task_id": 0, "name": "load", "node": "n1"}
    begun = run_pb2.Run(**run, state=common_pb2.STATE_RUNNING, submit_time=1)
    ended = run_pb2.Run(**run, state=end, submit_time=1, end_time=1_000_001)
    cause = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_EXCEPTION,
        message="KeyError: 'price'",
        traceback="Traceback (most recent call last):\n"
        '  File "shop/flow.py", line 7, in load\n    return row["price"]\nKeyError: \'price\'\n',
    )
    last = run_pb2.RunTask(**task, state=end, cause=cause, tried_to_start_time=2)
    state.saved.append(job_pb2.JobDefinition(name="flow", environment=common_pb2.ENVIRONMENT_DEV))
    state.runs[4] = begun
    state.watch = [
        run_pb2.WatchRunResponse(
            run=begun, tasks=[run_pb2.RunTask(**task, state=common_pb2.STATE_RUNNING)], synced=True
        ),
        run_pb2.WatchRunResponse(run=ended, tasks=[last]),
    ]


@pytest.fixture
def watching(state: FakeState) -> Iterator[tuple[FakeState, subprocess.Popen[bytes], int]]:
    """`dt job watch` on a terminal, with the block on the screen, and the terminal to read from."""
    story(state, common_pb2.STATE_STOPPED)
    state.hold_watch.clear()
    terminal, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "datatailr.cli.dt", "job", "watch", "flow"],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)

    try:
        yield state, process, terminal
    finally:
        state.hold_watch.set()
        process.kill()
        process.wait(SECONDS)
        os.close(terminal)


def read_until(terminal: int, words: str) -> str:
    """What the terminal shows until these words came."""
    read = b""
    deadline = time.monotonic() + SECONDS

    while words.encode() not in read:
        assert time.monotonic() < deadline, read
        read += os.read(terminal, 4096)

    return read.decode()


def test_a_second_ctrl_c_ends_the_run_and_waits(
    watching: tuple[FakeState, subprocess.Popen[bytes], int],
) -> None:
    state, process, terminal = watching
    read_until(terminal, "load")
    process.send_signal(signal.SIGINT)
    text = read_until(terminal, "dt job stop -b 4")
    assert "run 4 goes on. Ctrl-C within 3 s ends it." in text
    assert not state.called("CancelRun"), "the first one only looks away"
    process.send_signal(signal.SIGINT)
    read_until(terminal, "Ending run 4")
    assert len(state.called("CancelRun")) == 1
    assert process.poll() is None, "it waits for the end"
    state.hold_watch.set()
    read_until(terminal, "run 4 of flow: stopped")
    assert process.wait(SECONDS) == Exit.INTERRUPTED


def test_a_third_ctrl_c_waits_no_longer(watching: tuple[FakeState, subprocess.Popen[bytes], int]) -> None:
    _, process, terminal = watching
    read_until(terminal, "load")
    process.send_signal(signal.SIGINT)
    read_until(terminal, "dt job stop -b 4")
    process.send_signal(signal.SIGINT)
    read_until(terminal, "Ending run 4")
    process.send_signal(signal.SIGINT)
    text = read_until(terminal, "dt job watch flow -i 4")
    assert "being ended" in text and "Traceback" not in text
    assert process.wait(SECONDS) == Exit.INTERRUPTED


def test_the_block_collapses_to_the_line_of_the_end(
    watching: tuple[FakeState, subprocess.Popen[bytes], int],
) -> None:
    state, process, terminal = watching
    read_until(terminal, "load")
    state.hold_watch.set()
    text = read_until(terminal, "stopped after 1.00 s")
    # The lines of the block are erased before the line that stays.
    assert "\x1b[1A" in text and "\x1b[2K" in text
    assert process.wait(SECONDS) == Exit.RUN_FAILED


def test_a_failure_reads_like_a_local_one(state: FakeState, dt: Dt) -> None:
    story(state, common_pb2.STATE_FAILED, original_run_id=3, partial_rerun=True)
    code, out, err = dt("job", "watch", "flow")
    text = out.decode()
    assert code == Exit.RUN_FAILED
    assert "run 4 of flow (version 1): failed after 1.00 s, goes on from run 3" in text
    heading, _, trace = text.partition("\ntask load (0) on n1, attempt 2: failed (exception) [DT0801]\n")
    assert trace.startswith("Traceback (most recent call last):") and heading
    assert trace.endswith("    return row[\"price\"]\nKeyError: 'price'\n")
    assert "datatailr" not in trace and "grpc" not in trace
    assert "hint: the traceback names the line" in err


def test_lineage() -> None:
    assert lineage(run_pb2.Run(run_id=4)) == lineage(run_pb2.Run(run_id=4, original_run_id=-1)) == ""
    assert lineage(run_pb2.Run(run_id=4, original_run_id=3)) == ", repeats run 3"
