"""Random histories keep all invariants and reach every step of every table."""

from __future__ import annotations

from cp_machine import CoreMachine
from cp_world import World, task
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from opentailr_controlplane.core.commands import AgentBye, CancelRun, Rerun, SetNodeSchedulable
from opentailr_controlplane.core.model import PriorRun, PriorTask
from opentailr_controlplane.core.transitions import ATTEMPT, MACHINES
from opentailr_controlplane.core.values import (
    SECOND,
    AttemptState,
    CauseKind,
    ImageState,
    RunState,
    TaskState,
)


class _Counting(CoreMachine):
    seen: set[tuple[str, str, str]] = set()  # noqa: RUF012  (shared by all examples on purpose)

    def teardown(self) -> None:
        self.seen |= self.world.seen


def _walk_attempts(seen: set[tuple[str, str, str]]) -> None:
    """Each edge of an attempt that an agent makes, once: chance needs long for all fifty."""
    for source, target in ATTEMPT:
        if "agent" not in ATTEMPT[source, target]:
            continue
        world = World()
        attempt = world.attempt(world.ready(task(0)))
        if source is not AttemptState.ASSIGNED:
            world.report(attempt, source)
        assert attempt.state is source
        world.report(attempt, target, kind=CauseKind.EXCEPTION)
        assert attempt.state is target
        seen |= world.seen


def _backoff_ends(seen: set[tuple[str, str, str]]) -> None:
    """A task that waits to be tried again is cancelled, and timed out."""
    for fail_after in (0, 500_000):
        world = World()
        run = world.ready(task(0), task(1), fail_after=fail_after)
        world.report(world.attempt(run, 1), AttemptState.RUNNING)
        world.report(world.attempt(run, 0), AttemptState.FAILED, kind=CauseKind.NODE_FAULT)
        assert run.tasks[0].state is TaskState.BACKOFF
        if fail_after:
            world.pass_time(0.6)
            assert run.tasks[0].state is TaskState.SKIPPED
        else:
            world.do(CancelRun("bob", run.run_id))
            assert run.tasks[0].state is TaskState.CANCELLED
        seen |= world.seen


def _rare_ends(seen: set[tuple[str, str, str]]) -> None:
    """Ends that need several steps in a row."""
    for drained in (False, True):
        for leave in ("cut", "bye", "return"):
            world = World()
            run = world.ready(task(0))
            world.do(SetNodeSchedulable("admin", "agt_1", False))
            world.do(SetNodeSchedulable("admin", "agt_1", True))
            world.do(SetNodeSchedulable("admin", "agt_1", False))
            if drained:
                world.report(world.attempt(run), AttemptState.SUCCEEDED)
            if leave == "cut":
                world.cut()
            elif leave == "bye":
                world.do(AgentBye("agt_1", world.state.agents["agt_1"].epoch, False))
            else:
                world.hello()
            seen |= world.seen
    for end in ("cancel", "time"):
        world = World()
        run = world.ready(task(0), fail_after=SECOND)
        attempt = world.attempt(run)
        if end == "cancel":
            world.cut()
            world.do(CancelRun("bob", run.run_id))
            assert attempt.state is AttemptState.WITHDRAWN
        else:
            world.report(attempt, AttemptState.RUNNING)
            world.pass_time(1)
            world.report(attempt, AttemptState.CANCELLED)
            assert run.tasks[0].state is TaskState.TIMED_OUT
        seen |= world.seen
    for state, kind in (
        (ImageState.FAILED, CauseKind.BUILD_FAILED),
        (ImageState.FAILED, CauseKind.NODE_FAULT),
        (ImageState.READY, None),
    ):
        world = World()
        world.join()
        world.save(task(0))
        world.build(ImageState.BUILDING)
        world.build(state, kind)
        seen |= world.seen
    world = World()
    world.join()
    world.save(task(0), task(1, 0))
    waiting = world.start()
    world.build(ImageState.FAILED, CauseKind.BUILD_FAILED)
    assert waiting.state is RunState.FAILED
    seen |= world.seen
    world = World()
    run = world.ready(task(0), expire_after=SECOND)
    world.report(world.attempt(run), AttemptState.SUCCEEDED, result=b"1")
    world.pass_time(1)
    done = PriorTask(0, "task 0", (), TaskState.SUCCEEDED, run.tasks[0].result, "")
    prior = PriorRun(1, run.job_id, "flow", 1, RunState.SUCCEEDED, -1, {0: done})
    world.state.priors[1] = prior
    world.do(Rerun("alice", 1))
    assert not world.state.runs, "everything was taken over"
    seen |= world.seen


def test_random_histories_keep_the_invariants_and_reach_every_transition() -> None:
    _Counting.seen = set()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        _Counting,
        settings=settings(
            max_examples=200,
            stateful_step_count=45,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    reached = set(_Counting.seen)
    _walk_attempts(reached)
    _backoff_ends(reached)
    _rare_ends(reached)
    every = {(name, source.name, target.name) for name, table in MACHINES.items() for source, target in table}
    missing = sorted(every - reached)
    assert not missing, f"{len(reached)} of {len(every)} steps reached; missing: {missing}"
