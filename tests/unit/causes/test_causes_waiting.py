"""Why tasks wait: every reason once, bounded in number and length, cheap for large runs."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from types import FrameType

import pytest
from cp_world import GIB, World, task

from opentailr_controlplane.core import waiting
from opentailr_controlplane.core.commands import SetNodeSchedulable
from opentailr_controlplane.core.model import Run
from opentailr_controlplane.core.values import AttemptState, CauseKind, ImageState, TaskState


def reason(world: World, run: Run, task_id: int = 0) -> str:
    """The one reason of a task, which both ways of asking must agree on."""
    (text,) = waiting.task_reasons(world.state, run, run.tasks[task_id])
    assert waiting.reasons_of(world.state, run, [task_id]) == {task_id: (text,)}
    return text


def test_tasks_before_it_are_named_and_the_rest_counted() -> None:
    world = World()
    run = world.ready(*(task(number) for number in range(6)), task(6, *range(6)), task(7, 0))
    assert reason(world, run, 6) == "Waits for 'task 0', 'task 1', 'task 2' and 3 more."
    assert reason(world, run, 7) == "Waits for 'task 0'."
    for number in range(3):
        world.report(world.attempt(run, number), AttemptState.SUCCEEDED)
    assert reason(world, run, 6) == "Waits for 'task 3', 'task 4', 'task 5'."
    assert waiting.task_reasons(world.state, run, run.tasks[3]) == ()
    assert waiting.run_reasons(world.state, run) == ()


def test_long_names_are_cut() -> None:
    world = World()
    run = world.ready(dataclasses.replace(task(0), name="x" * 200), task(1, 0))
    assert len(reason(world, run, 1)) < 90


def test_an_environment_that_is_being_built() -> None:
    world = World()
    world.save(task(0))
    run = world.start()
    assert "no node is connected to build it" in reason(world, run)
    world.join(builds=0)
    assert "all nodes are busy with other builds" in reason(world, run)
    world.beat(pressure="the disk is full")
    assert "no node takes builds now: node agt_1 takes none (the disk is full)." in reason(world, run)
    world.beat()
    world.join(builds=1)
    (build,) = world.state.builds.values()
    world.build(ImageState.BUILDING)
    assert reason(world, run) == (
        f"Waits for its environment: it is being built on node agt_1 ({build.build_id}, since "
        "2023-11-14 22:13:20Z)."
    )
    assert waiting.run_reasons(world.state, run) == (reason(world, run),)


def test_a_node_that_is_too_small() -> None:
    world = World()
    world.join(memory=8 * GIB)
    run = world.ready(task(0, memory=64 * GIB))
    assert "Asks for 64g of memory" in reason(world, run) and "largest node offers 8g" in reason(world, run)


def test_slots_that_are_taken_name_their_tenants() -> None:
    world = World()
    world.join(slots=4)
    run = world.ready(*(task(number) for number in range(5)))
    assert run.tasks[4].state is TaskState.READY
    assert reason(world, run, 4) == (
        "All nodes are busy (it asks for 128m of memory and 0.25 cores): all 4 slots of node agt_1 are "
        "taken by 'task 0' of run 1, 'task 1' of run 1, 'task 2' of run 1 and 1 more."
    )


def test_memory_that_is_taken_says_what_is_left() -> None:
    world = World()
    world.join(memory=GIB)
    run = world.ready(task(0, memory=GIB), task(1, memory=GIB))
    assert "node agt_1 has 0b and 15.75 cores left, the rest is taken by 'task 0' of run 1" in reason(
        world, run, 1
    )


def test_tasks_of_other_jobs_are_counted_and_never_named() -> None:
    world = World()
    world.join(slots=4)
    secrets = [dataclasses.replace(task(number), name=f"secret {number}") for number in range(4)]
    hidden = world.ready(*secrets)
    world.save(task(0), task(1), name="other")
    run = world.start(name="other")
    asks = (
        "All nodes are busy (it asks for 128m of memory and 0.25 cores): "
        "all 4 slots of node agt_1 are taken by "
    )
    assert reason(world, run) == f"{asks}4 tasks of other jobs."
    world.report(world.attempt(hidden, 0), AttemptState.SUCCEEDED)
    assert reason(world, run, 1) == f"{asks}'task 0' of run {run.run_id} and 3 tasks of other jobs."
    again = world.start(name="other")
    assert reason(world, again).startswith(f"{asks}'task 0' of run {run.run_id} and "), (
        "another run of the job"
    )


def test_memory_that_another_job_took_does_not_name_it() -> None:
    world = World()
    world.join(memory=GIB)
    world.ready(dataclasses.replace(task(0, memory=GIB), name="secret"))
    world.save(task(0, memory=GIB), name="other")
    text = reason(world, world.start(name="other"))
    assert text.endswith("the rest is taken by 1 task of another job.") and "secret" not in text


def test_nodes_that_take_nothing_say_why() -> None:
    world = World()
    world.join()
    world.save(task(0))
    world.build()
    world.beat(pressure="the disk is full.")
    run = world.start()
    assert reason(world, run) == "No node takes work: node agt_1 takes none (the disk is full)."
    assert waiting.run_reasons(world.state, run) == (reason(world, run),)
    world.beat()
    assert run.tasks[0].state is TaskState.ACTIVE


def test_a_drained_node_names_who_drained_it() -> None:
    world = World()
    world.join()
    world.save(task(0))
    world.build()
    world.do(SetNodeSchedulable("alice", "agt_1", False))
    run = world.start()
    assert reason(world, run) == "No node takes work: node agt_1 is drained (Drained by alice)."


def test_nobody_is_there() -> None:
    world = World()
    world.join()
    world.save(task(0))
    world.build()
    world.cut()
    run = world.start()
    assert reason(world, run) == (
        "No node is connected; the last one, node agt_1, was heard at 2023-11-14 22:13:20Z."
    )


def test_a_pause_after_a_failure_of_the_platform() -> None:
    world = World()
    run = world.ready(task(0))
    world.report(world.attempt(run), AttemptState.REJECTED, kind=CauseKind.NODE_FAULT)
    assert reason(world, run) == "Tried again at 2023-11-14 22:13:21Z: because"
    assert waiting.run_reasons(world.state, run) == (reason(world, run),)


def test_many_nodes_are_counted() -> None:
    world = World()
    for number in range(9):
        world.join(f"agt_{number}", slots=1, memory=GIB)
    run = world.ready(*(task(number, memory=GIB) for number in range(10)))
    text = reason(world, run, 9)
    assert text.endswith("; and 6 more nodes.") and len(text) < 400


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_ten_thousand_tasks_share_the_work(count: int) -> None:
    world = World()
    world.join(slots=1, credit=1)
    run = world.ready(*(task(number) for number in range(count - 1)), task(count - 1, *range(count - 1)))
    calls: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    sys.setprofile(watch)
    try:
        reasons = waiting.reasons_of(world.state, run, run.tasks)
    finally:
        sys.setprofile(None)
    assert len(reasons) == count - 1
    assert calls["_no_room"] == 1
    # One for each group that asks for the same and one for the task that waits for the others.
    assert calls["task_reasons"] == 2
    assert max(len(text) for texts in reasons.values() for text in texts) < 300
    assert waiting.waiting_tasks(run, 200) == list(range(1, 201))
