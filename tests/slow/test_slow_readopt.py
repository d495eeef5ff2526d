"""Agents that are killed, paused and replaced while their tasks run."""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from e2e_harness import Platform, Project, client_variables, eventually, process_alive
from readopt_scenes import (
    GATED,
    all_running,
    kill,
    let_time_pass,
    node_states,
    paused,
    second_node,
    starts,
    wait_for_another,
    wanted_log,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "visits"
    folder.mkdir()
    return folder


def test_sixty_attempts_are_found_again_by_the_next_agent(
    project: Project, platform: Platform, folder: Path
) -> None:
    """As many as a node takes by default. How long it took is printed, and not judged here."""
    count = 60
    flow = project.deploy(GATED.format(folder=str(folder), count=count))
    run_id = flow.run_ids()[0]
    before = all_running(folder, count)
    killed = time.time()
    kill(platform, "agent_pid")
    log = (platform.data / "logs" / "agent.log").read_text()
    stamp, found = re.findall(r"timestamp=(\S+) level=info event=recovered attempts=\d+ running=(\d+)", log)[
        -1
    ]
    took = datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() - killed
    print(f"\n{found} attempts found again {took:.2f} s after kill -9, start of the process included")
    assert int(found) == count
    (folder / "gate").touch()
    run = flow.wait(run_id, seconds=120)
    assert starts(folder) == before, "no task was started again"
    for number in range(count):
        assert run.result(f"wait {number}") == number * 3
        wanted = wanted_log(folder, number)
        eventually(
            lambda n=number, w=wanted: run.out(f"wait {n}") == w, what=f"the whole log of wait {number}"
        )  # type: ignore[misc]


def test_what_ended_while_no_agent_was_there_is_told_in_full(
    project: Project, platform: Platform, folder: Path
) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=5))
    run_id = flow.run_ids()[0]
    before = all_running(folder, 5)
    agent = int(platform.ready["agent_pid"])
    with paused(platform.process.pid):
        os.kill(agent, signal.SIGKILL)
        (folder / "gate").touch()
        os.kill(before[3][0], signal.SIGKILL)
        pids = [pid for (pid,) in before.values()]
        eventually(lambda: not any(map(process_alive, pids)), what="the end of all tasks without an agent")
    wait_for_another(platform, "agent_pid", agent)
    run = flow.wait(run_id, state="failed", seconds=60)
    assert starts(folder) == before
    assert run.states == {f"wait {n}": "failed" if n == 3 else "completed" for n in range(5)}
    for number in (0, 1, 2, 4):
        wanted = wanted_log(folder, number)
        eventually(
            lambda n=number, w=wanted: run.out(f"wait {n}") == w, what=f"the whole log of wait {number}"
        )  # type: ignore[misc]


def test_a_pause_below_the_lease_is_not_noticed(project: Project, platform: Platform, folder: Path) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=3))
    before = all_running(folder, 3)
    with paused(int(platform.ready["agent_pid"])):
        let_time_pass(8)
        assert list(node_states(platform).values()) == ["ready"]
    (folder / "gate").touch()
    flow.wait(seconds=60)
    assert starts(folder) == before


def test_the_only_node_keeps_its_tasks_over_a_pause_beyond_the_lease(
    project: Project, platform: Platform, folder: Path
) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=3))
    before = all_running(folder, 3)
    with paused(int(platform.ready["agent_pid"])):
        # Not within 30 s of the control plane's start: until then no lease ends at all.
        eventually(
            lambda: list(node_states(platform).values()) == ["suspect"],
            seconds=60,
            what="the end of the lease",
        )
        let_time_pass(7)
        assert list(node_states(platform).values()) == ["suspect"], "the grace is over, too"
    eventually(lambda: list(node_states(platform).values()) == ["ready"], what="the node's return")
    (folder / "gate").touch()
    run = flow.wait(seconds=60)
    assert starts(folder) == before
    assert [run.result(f"wait {number}") for number in range(3)] == [0, 3, 6]


def test_beyond_the_lease_another_node_takes_over_and_the_late_outcome_changes_nothing(
    project: Project, platform: Platform, folder: Path
) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=2))
    before = all_running(folder, 2)
    with second_node(platform):
        with paused(int(platform.ready["agent_pid"])):
            eventually(
                lambda: all(len(pids) == 2 for pids in starts(folder).values()),
                seconds=60,
                what="the second start on the other node",
            )
            both = starts(folder)
            # The first of the two ends while its node is away: its outcome comes too late.
            os.kill(before[0][0], signal.SIGKILL)
        eventually(
            lambda: not any(process_alive(pids[0]) for pids in both.values()),
            what="the end of what was given up on the first node",
        )
        assert all(process_alive(pids[1]) for pids in both.values())
        (folder / "gate").touch()
        run = flow.wait(seconds=60)
        assert starts(folder) == both, "one replacement each, no more"
        assert [run.result(f"wait {number}") for number in (0, 1)] == [0, 3]
    eventually(lambda: node_states(platform).get("second") == "down", what="the second node's leave")


def test_restarts_of_up_never_fail_a_run(project: Project, platform: Platform, folder: Path) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=2))
    run_id = flow.run_ids()[0]
    running = platform
    for number in range(1, 6):
        eventually(
            lambda n=number: len(found := starts(folder)) == 2 and all(len(p) >= n for p in found.values()),  # type: ignore[misc]
            seconds=60,
            what=f"start {number}",
        )
        running.stop()
        running = Platform.start(platform.folder)
    try:
        with client_variables(running):
            (folder / "gate").touch()
            run = flow.wait(run_id, seconds=60)
            assert [run.result(f"wait {number}") for number in (0, 1)] == [0, 3]
        running.stop()
    finally:
        running.kill()


def test_tasks_go_on_when_up_itself_is_killed(project: Project, platform: Platform, folder: Path) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=4))
    run_id = flow.run_ids()[0]
    before = all_running(folder, 4)
    servers = [int(platform.ready[name]) for name in ("controlplane_pid", "agent_pid")]
    platform.process.kill()
    platform.process.wait()
    eventually(lambda: not any(map(process_alive, servers)), what="the end of both servers")
    assert all(process_alive(pid) for (pid,) in before.values())
    again = Platform.start(platform.folder)
    try:
        with client_variables(again):
            (folder / "gate").touch()
            run = flow.wait(run_id, seconds=60)
            assert starts(folder) == before
            for number in range(4):
                wanted = wanted_log(folder, number)
                eventually(lambda n=number, w=wanted: run.out(f"wait {n}") == w, what="the whole log")  # type: ignore[misc]
        again.stop()
    finally:
        again.kill()


def test_a_node_is_drained_within_its_deadline_and_resumed(
    project: Project, platform: Platform, folder: Path
) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=2))
    before = all_running(folder, 2)
    name = next(iter(node_states(platform)))
    told = platform.dt("node", "drain", name, "--within", "3s", "--reason", "new disk")
    assert told.out == f"{name} is draining, 2 tasks on it\n"
    listed = platform.dt("node", "ls").out
    assert "new disk" in listed and "stopped at" in listed
    assert all(process_alive(pid) for (pid,) in before.values())
    eventually(lambda: node_states(platform)[name] == "drained", what="the drained node")
    assert not any(process_alive(pid) for (pid,) in before.values())
    assert starts(folder) == before
    assert platform.dt("node", "resume", name).out.startswith(f"{name} is ready")
    (folder / "gate").touch()
    run = flow.wait(seconds=60)
    assert [run.result(f"wait {number}") for number in (0, 1)] == [0, 3]
    assert all(len(pids) == 2 for pids in starts(folder).values())


def test_a_stop_reaches_a_node_that_was_away_when_it_was_asked_for(
    project: Project, platform: Platform, folder: Path
) -> None:
    flow = project.deploy(GATED.format(folder=str(folder), count=2))
    run_id = flow.run_ids()[0]
    before = all_running(folder, 2)
    agent = int(platform.ready["agent_pid"])
    with paused(platform.process.pid):
        os.kill(agent, signal.SIGKILL)
        assert flow.job.stop()[0] is True
        os.kill(int(platform.ready["controlplane_pid"]), signal.SIGKILL)
        assert all(process_alive(pid) for (pid,) in before.values())
    wait_for_another(platform, "agent_pid", agent)
    flow.wait(run_id, state="stopped", seconds=60)
    assert not any(process_alive(pid) for (pid,) in before.values())
    assert starts(folder) == before
