"""Logs: byte for byte, of all tasks as one, of what failed, and safe to show."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from fake_server import FakeState
from hypothesis import given
from hypothesis import strategies as st

from datatailr.client.lines import LineCutter, shown
from datatailr.v1 import common_pb2, job_pb2, log_pb2, run_pb2

Dt = Callable[..., tuple[int, bytes, str]]
OUT, ERR = log_pb2.LOG_STREAM_STDOUT, log_pb2.LOG_STREAM_STDERR


def task(number: int, name: str, state: common_pb2.State, **more: object) -> run_pb2.RunTask:
    return run_pb2.RunTask(run_id=4, task_id=number, name=name, state=state, **more)  # type: ignore[arg-type]


@pytest.fixture
def ended(state: FakeState) -> FakeState:
    """A run of which one task completed, one failed and one never ran; the second started first."""
    run = run_pb2.Run(
        run_id=4, job_id="job_1", job_name="flow", job_version=1, state=common_pb2.STATE_FAILED, submit_time=1
    )
    state.saved.append(job_pb2.JobDefinition(name="flow", environment=common_pb2.ENVIRONMENT_DEV))
    state.runs[4] = run
    cause = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_OUT_OF_MEMORY,
        message="It used 600 MiB of 512 MiB.",
        memory_limit_bytes=512 << 20,
        peak_memory_bytes=600 << 20,
    )
    state.tasks[4] = [
        task(0, "load", common_pb2.STATE_COMPLETED, start_time=20),
        task(1, "train", common_pb2.STATE_OUT_OF_MEMORY, start_time=10, node="n1", cause=cause),
        task(2, "report", common_pb2.STATE_DID_NOT_RUN),
    ]
    state.task_logs = {
        (0, OUT): b"reading\nread 3 rows\n",
        (
            1,
            OUT,
        ): b"epoch 1\repoch 2\repoch 3\r\n\x1b[31mred\x1b[0m\n\x1b]0;title\x07bell\x07 ends without newline",
        (0, ERR): b"",
        (1, ERR): b"".join(b"warning %d\n" % number for number in range(60)),
    }
    return state


def test_all_tasks_are_one_log_with_a_column(ended: FakeState, dt: Dt) -> None:
    code, out, err = dt("log", "read", "flow", "--all-tasks")
    assert (code, err) == (0, "")
    assert out.decode().splitlines() == [
        "train | epoch 3",
        "train | red",
        "train | bell ends without newline",
        "load  | reading",
        "load  | read 3 rows",
    ]
    assert dt("log", "read", "flow", "-a", "-l", "1")[1].decode().splitlines() == [
        "train | bell ends without newline",
        "load  | read 3 rows",
    ]
    assert {request.task.task_id for request in ended.log_requests} == {0, 1}, "what never ran has no log"


def test_the_merged_log_is_followed_from_the_first_byte(ended: FakeState, dt: Dt) -> None:
    run = ended.runs[4]
    going = run_pb2.Run()
    going.CopyFrom(run)
    going.state = common_pb2.STATE_RUNNING
    ended.runs[4] = going
    load = task(0, "load", common_pb2.STATE_RUNNING)
    ended.watch = [
        run_pb2.WatchRunResponse(run=going, tasks=[load], synced=True),
        run_pb2.WatchRunResponse(run=run, tasks=list(ended.tasks[4])),
    ]
    before = set(threading.enumerate())
    code, out, _ = dt("log", "read", "flow", "-a", "-f", "-l", "1")
    lines = out.decode().splitlines()
    assert code == 0
    assert [line.split() for line in lines if line.startswith("load")] == [["load", "|", "read", "3", "rows"]]
    # It started while the log was followed: all of it is shown, whatever --lines says.
    assert [line.partition("| ")[2] for line in lines if line.startswith("train")] == [
        "epoch 3",
        "red",
        "bell ends without newline",
    ]
    left = [thread.name for thread in set(threading.enumerate()) - before if "dt-log" in thread.name]
    assert left == []


def test_failed_shows_cause_and_last_lines(ended: FakeState, dt: Dt) -> None:
    code, out, _ = dt("log", "read", "flow", "--failed")
    lines = out.decode().splitlines()
    assert code == 0
    assert lines[:3] == [
        "task train (1) on n1: out_of_memory (out of memory, 600 MiB of 512 MiB) [DT0804]",
        "because: It used 600 MiB of 512 MiB.",
        "hint: give the task more with @task(memory=...)",
    ]
    assert lines[3:7] == ["-- output, last 3 lines", "epoch 3", "red", "bell ends without newline"]
    assert lines[7:] == ["-- errors, last 50 lines", *(f"warning {number}" for number in range(10, 60))]


def test_no_failure_is_told(ended: FakeState, dt: Dt) -> None:
    del ended.tasks[4][1]
    assert dt("log", "read", "flow", "--failed") == (0, b"", "No task of run 4 failed.\n")


def test_one_log_is_the_same_bytes(ended: FakeState, dt: Dt) -> None:
    for child in (0, 1):
        code, out, _ = dt("log", "read", "flow", "-c", str(child), "--whole")
        assert (code, out) == (0, ended.task_logs[child, OUT])
    assert ended.log_requests[-1].WhichOneof("start") == "offset"
    assert dt("log", "read", "flow", "-c", "1", "-w", "-f")[1] == ended.task_logs[1, OUT]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-a", "-c", "1"], "--all-tasks is for all tasks"),
        (["--failed", "-c", "1"], "--failed is for all tasks"),
        (["--failed", "-f"], "leave --follow out"),
        (["--failed", "-r"], "leave --stderr out"),
        (["-w", "-l", "3"], "exclude one another"),
    ],
)
def test_what_cannot_be_meant_together(state: FakeState, dt: Dt, options: list[str], words: str) -> None:
    code, out, err = dt("log", "read", "flow", *options)
    assert (code, out) == (2, b"")
    assert words in " ".join(err.split())
    assert not state.calls, "nothing was sent"


@pytest.mark.parametrize(
    ("line", "plain", "coloured"),
    [
        (b"10%\r20%\r30%", "30%", "30%"),
        (b"windows\r", "windows", "windows"),
        (b"\x1b[1;38;2;1;2;3mx", "x", "\x1b[1;38;2;1;2;3mx\x1b[0m"),
        (b"\x1b[2J\x1b[Hclean", "clean", "clean"),
        (b"\x1b]0;t\x1b\\a\x1bPq\x1b\\b\x1b(Bc", "abc", "abc"),
        (b"tab\tstays\x00\x08\x7f", "tab\tstays", "tab\tstays"),
        ("日本 ü ‍".encode(), "日本 ü ‍", "日本 ü ‍"),
        (b"\xff", "�", "�"),
    ],
)
def test_a_line_is_safe_to_show(line: bytes, plain: str, coloured: str) -> None:
    assert shown(line, colours=False) == plain
    assert shown(line, colours=True) == coloured


@given(st.binary(max_size=60))
def test_no_control_character_is_shown(line: bytes) -> None:
    text = shown(line.replace(b"\n", b""), colours=False)
    assert not [one for one in text if one != "\t" and (one < " " or "\x7f" <= one <= "\x9f")]


@given(st.lists(st.binary(max_size=8)))
def test_lines_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    cutter = LineCutter()
    lines = [line for piece in pieces for line in cutter.feed(piece)] + list(cutter.flush())
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])
