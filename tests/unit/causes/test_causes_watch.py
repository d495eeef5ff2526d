"""What somebody who follows a run reads of retries and of reasons to wait."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pytest
from rich.console import Console

from datatailr.cli.watch import _PlainView, render, waiting_reasons
from datatailr.client.watching import RETRIES_KEPT, WatchedRun
from datatailr.client.words import cause_label, retry_text
from datatailr.v1 import common_pb2, run_pb2

PENDING, RUNNING = common_pb2.STATE_PENDING, common_pb2.STATE_RUNNING
LOST = common_pb2.Cause(
    kind=common_pb2.CAUSE_KIND_LEASE_LOST, message="Lost node n1 (no heartbeat for 20 s).", node="n1"
)


def a_task(task_id: int, state: common_pb2.State = PENDING, **fields: Any) -> run_pb2.RunTask:
    return run_pb2.RunTask(task_id=task_id, name=f"t{task_id}", state=state, **fields)


def failed_once(state: common_pb2.State, tries: int, failures: int = 1) -> run_pb2.RunTask:
    return a_task(
        0,
        state,
        tried_to_start_time=tries,
        platform_failures=failures,
        platform_failure_limit=3,
        last_failure=LOST,
    )


def followed(*answers: Iterable[run_pb2.RunTask], waiting_for: Iterable[str] = ()) -> WatchedRun:
    watched = WatchedRun(run_pb2.Run(run_id=1, job_name="flow", state=RUNNING, waiting_for=waiting_for))
    for tasks in answers:
        watched.update(run_pb2.WatchRunResponse(tasks=tasks))
    return watched


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_retry_is_told_once_whether_the_task_waits_or_runs_again() -> None:
    watched = followed([failed_once(PENDING, 1)])
    assert list(watched.retries.values()) == ["lost node n1 (no heartbeat for 20 s), trying again 2 of 4"]
    watched.update(run_pb2.WatchRunResponse(tasks=[failed_once(RUNNING, 2)]))
    assert len(watched.retries) == 1
    watched.update(run_pb2.WatchRunResponse(tasks=[failed_once(RUNNING, 3, 2)]))
    assert list(watched.retries.values())[1].endswith("trying again 3 of 4")


def test_the_memory_of_retries_is_bounded() -> None:
    watched = followed([failed_once(PENDING, tries) for tries in range(1, 2)])
    for tries in range(2, 2 * RETRIES_KEPT):
        watched.update(run_pb2.WatchRunResponse(tasks=[failed_once(PENDING, tries)]))
    assert len(watched.retries) == RETRIES_KEPT


def test_a_planned_drain_is_charged_to_no_budget() -> None:
    drained = common_pb2.Cause(kind=common_pb2.CAUSE_KIND_NODE_DRAINED, message="ended", node="n1")
    task = a_task(0, tried_to_start_time=1, platform_failure_limit=3, last_failure=drained)
    assert retry_text(task) == "ended (node n1), trying again"


def test_plain_lines_tell_retries_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = _PlainView()
    watched = followed([failed_once(RUNNING, 2)])
    view.show(watched)
    view.show(watched)
    lines = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "run 1 of flow: running",
        "task t0 (0): running",
        "task t0 (0): lost node n1 (no heartbeat for 20 s), trying again 2 of 4",
    ]


def test_plain_lines_do_not_repeat_a_reason_of_which_only_numbers_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    view = _PlainView(clock=clock)
    shown = []
    for now, left in ((0, "3g"), (1, "2g"), (2, "1g"), (20, "1g"), (21, "1g"), (22, "2g")):
        clock.now = now
        view.show(followed([a_task(0, waiting_for=[f"All nodes are busy (n1 has {left} left)."])]))
        shown.append([line for line in capsys.readouterr().out.splitlines() if "waiting" in line])
    assert [len(lines) for lines in shown] == [1, 0, 0, 1, 0, 0]
    clock.now = 23
    view.show(followed([a_task(0, waiting_for=["No node is connected."])]))
    assert "waiting: t0: No node is connected." in capsys.readouterr().out


def test_equal_reasons_are_told_together_and_blocked_tasks_not_at_all() -> None:
    watched = followed(
        [
            a_task(0, waiting_for=["room"]),
            a_task(1, waiting_for=["room"]),
            a_task(2, waiting_for=["Waits for 't0'."], dependencies=[0]),
            a_task(3, waiting_for=["big"]),
        ],
        waiting_for=["big"],
    )
    assert waiting_reasons(watched) == ["big", "t0 and 1 more: room"]


def test_what_a_task_waits_for_is_up_to_date_without_news_of_it() -> None:
    done = common_pb2.STATE_COMPLETED
    first = [a_task(number, RUNNING) for number in range(5)]
    watched = followed([a_task(5, dependencies=range(5), waiting_for=["Waits for 't0'."]), *first])
    assert watched.waits_for(watched.tasks[5]) == "waits for t0, t1, t2 (+2 more)"
    watched.update(run_pb2.WatchRunResponse(tasks=[a_task(number, done) for number in range(4)]))
    assert watched.waits_for(watched.tasks[5]) == "waits for t4"
    watched.update(run_pb2.WatchRunResponse(tasks=[a_task(4, done)]))
    assert watched.waits_for(watched.tasks[5]) == "" and waiting_reasons(watched) == []


def test_the_live_block_has_retries_and_reasons() -> None:
    watched = followed([failed_once(RUNNING, 2), a_task(1, dependencies=[0])])
    watched.tasks[0].node = "n2"
    console = Console(file=io.StringIO(), width=100, height=20, color_system=None)
    console.print(render(watched, console=console, clock=lambda: 1.0))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "n2, attempt 2" in lines[1] and "waits for t0" in lines[2]
    assert lines[3].strip() == "t0: lost node n1 (no heartbeat for 20 s), trying again 2 of 4"


@pytest.mark.parametrize(
    ("cause", "label"),
    [
        (common_pb2.Cause(kind=common_pb2.CAUSE_KIND_EXIT_CODE, exit_code=3), "exit code 3"),
        (
            common_pb2.Cause(kind=common_pb2.CAUSE_KIND_SIGNAL, signal=9, signal_name="SIGKILL"),
            "signal SIGKILL",
        ),
        (
            common_pb2.Cause(
                kind=common_pb2.CAUSE_KIND_OUT_OF_MEMORY,
                peak_memory_bytes=99 << 20,
                memory_limit_bytes=64 << 20,
            ),
            "out of memory, 99 MiB of 64 MiB",
        ),
        (common_pb2.Cause(kind=common_pb2.CAUSE_KIND_STOPPED, user="alice"), "stopped by alice"),
        (common_pb2.Cause(kind=common_pb2.CAUSE_KIND_BUILD_FAILED, build_id="bld_1"), "build failed, bld_1"),
        (common_pb2.Cause(), ""),
    ],
)
def test_the_label_has_the_most_telling_field(cause: common_pb2.Cause, label: str) -> None:
    assert cause_label(cause) == label
