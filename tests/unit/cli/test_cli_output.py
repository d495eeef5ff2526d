"""Texts for people, and the block of a watched run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from datatailr.cli import output
from datatailr.cli.watch import render, waiting_reasons
from datatailr.client.watching import WatchedRun
from datatailr.v1 import common_pb2, run_pb2

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (-1, "-"),
        (0, "0.00 s"),
        (250_000, "0.25 s"),
        (9_994_999, "9.99 s"),
        (12_340_000, "12.3 s"),
        (245 * SECOND, "4 min 05 s"),
        (59_990_000, "1 min 00 s"),
        (7380 * SECOND, "2 h 03 min"),
    ],
)
def test_durations(microseconds: int | None, text: str) -> None:
    assert output.duration_text(microseconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (64 << 30, "64 GiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert output.size_text(size) == text


def test_times() -> None:
    assert output.time_text(None) == "-"
    assert output.time_text(1_700_000_000_000_000, utc=True) == "2023-11-14 22:13:20Z"


def test_columns_align_in_any_script(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_aligned([("NAME", "X"), ("日本", "1"), ("abcd", "2"), ("e\u0301ab ", "3")])
    assert capsys.readouterr().out == "NAME  X\n日本  1\nabcd  2\ne\u0301ab   3\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_have_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = []

    for no_color in ("", "1"):
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setenv("NO_COLOR", no_color)
        output.print_table(("NAME", "STATE"), [("flow", "failed")], state="STATE")
        shown.append(terminal.getvalue())

    assert "\x1b[31mfailed" in shown[0]
    assert "\x1b[31m" not in shown[1] and "failed" in shown[1]


def a_watched_run(number: int) -> WatchedRun:
    watched = WatchedRun(
        run_pb2.Run(run_id=4, job_name="my-flow", job_version=2, state=common_pb2.STATE_RUNNING, start_time=1)
    )

    for task_id in range(number):
        watched.tasks[task_id] = run_pb2.RunTask(
            task_id=task_id,
            name=f"task-{task_id}",
            state=common_pb2.STATE_COMPLETED,
            dependencies=[task_id - 1] if task_id else [],
        )

    return watched


def rendered(watched: WatchedRun, *, is_cut: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=120, height=20, color_system=None)
    console.print(render(watched, console=console, is_cut=is_cut, clock=lambda: 3.000001))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_block_shows_run_and_tasks_as_a_tree() -> None:
    watched = a_watched_run(3)
    watched.tasks[2].state = common_pb2.STATE_RUNNING
    watched.tasks[2].start_time = SECOND
    watched.run.waiting_for.append("a node")
    lines = rendered(watched)
    assert lines[0].startswith("my-flow run 4, version 2  running  3.00 s  2 completed, 1 running")
    assert lines[1].startswith("✓ task-0")
    assert lines[2].startswith("  ✓ task-1")
    assert lines[3].startswith("    ● task-2") and "2.00 s" in lines[3]
    assert lines[4] == "waiting: a node"
    assert "reconnecting" in rendered(watched, is_cut=True)[0]


def test_ten_thousand_tasks_leave_room_for_what_matters() -> None:
    watched = a_watched_run(10_000)
    watched.tasks[7_000].state = common_pb2.STATE_FAILED
    watched.tasks[9_000].state = common_pb2.STATE_RUNNING
    lines = rendered(watched)
    assert len(lines) <= 20
    assert any("task-7000" in line for line in lines)
    assert any("task-9000" in line for line in lines)
    assert lines[-1] == "… and 9988 more tasks"


def test_each_reason_is_told_once() -> None:
    watched = a_watched_run(2)
    watched.run.waiting_for.append("room")
    watched.tasks[0].waiting_for.append("room")
    watched.tasks[1].waiting_for.append("3 GiB")
    assert waiting_reasons(watched) == ["room", "task-1: 3 GiB"]
