"""Ends of attempts that nobody asked the control plane for."""

from __future__ import annotations

from cp_world import World, task

from opentailr_controlplane.core.commands import CancelRun
from opentailr_controlplane.core.values import AttemptState, CauseKind, TaskState


def test_a_stop_that_nobody_asked_for_is_the_nodes() -> None:
    """A restarted agent does not know that its operator had ended the attempt; the control plane does."""
    world = World()
    world.join()
    run = world.ready(task(0))
    first = world.attempt(run)
    world.report(first, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    assert first.state is AttemptState.FAILED
    assert first.cause is not None and first.cause.kind is CauseKind.NODE_DRAINED
    assert run.tasks[0].infra_failures == 0
    assert world.attempt(run).fence > first.fence, "tried again at once"
    assert run.tasks[0].state is TaskState.ACTIVE


def test_a_stop_that_was_asked_for_is_a_stop() -> None:
    world = World()
    world.join()
    run = world.ready(task(0))
    first = world.attempt(run)
    world.do(CancelRun("alice", run.run_id))
    world.report(first, AttemptState.CANCELLED, kind=CauseKind.STOPPED)
    assert first.state is AttemptState.CANCELLED
