"""Desired sets: what changed for an agent since its last revision becomes one frame."""

from __future__ import annotations

from .effects import AttemptOrder, BuildOrder, Desired
from .model import Agent, Attempt, Build, State
from .placement import live


def flush(state: State) -> None:
    """Turns what changed since the last flush into effects; called once, after the last step of a commit."""
    for agent_id in state.outgoing:
        agent = state.agents[agent_id]
        if not agent.state.connected:
            agent.changed.clear()
            continue
        if agent.full_wanted:
            _full(state, agent)
        elif agent.changed:
            _delta(state, agent)
    state.outgoing.clear()


def _full(state: State, agent: Agent) -> None:
    base = agent.revision
    agent.revision += 1
    agent.full_revision = agent.revision
    agent.full_wanted = False
    agent.changed.clear()
    state.effects.items.append(
        Desired(
            agent.agent_id,
            agent.epoch,
            True,
            base,
            agent.revision,
            tuple(_order(state, attempt) for attempt in agent.attempts.values()),
            tuple(_build(state, build) for build in agent.builds.values()),
            (),
        )
    )


def _delta(state: State, agent: Agent) -> None:
    base = agent.revision
    agent.revision += 1
    attempts: list[AttemptOrder] = []
    builds: list[BuildOrder] = []
    removed: list[str] = []
    for key in agent.changed:
        attempt = agent.attempts.get(key)
        build = agent.builds.get(key)
        if attempt is not None:
            attempts.append(_order(state, attempt))
        elif build is not None:
            builds.append(_build(state, build))
        else:
            removed.append(key)
    agent.changed.clear()
    state.effects.items.append(
        Desired(
            agent.agent_id,
            agent.epoch,
            False,
            base,
            agent.revision,
            tuple(attempts),
            tuple(builds),
            tuple(removed),
        )
    )


def _order(state: State, attempt: Attempt) -> AttemptOrder:
    if attempt.stop_wanted or not live(attempt):
        return AttemptOrder(attempt.attempt_id, attempt.fence, True)
    run = state.runs[attempt.run_id]
    inputs = tuple(
        (upstream, result)
        for upstream in run.plan.tasks[attempt.task_id].depends_on
        if (result := run.tasks[upstream].result) is not None
    )
    return AttemptOrder(
        attempt.attempt_id,
        attempt.fence,
        False,
        run.run_id,
        attempt.task_id,
        run.job_id,
        run.environment,
        run.version,
        run.plan,
        inputs,
        run.run_as,
        run.run_date,
        run.submit_time,
        run.scheduled_time,
        run.start_time or attempt.assigned_time,
        run.original_run_id,
        run.partial_rerun,
    )


def _build(state: State, build: Build) -> BuildOrder:
    image = state.images[build.image_key]
    return BuildOrder(build.build_id, image.image_key, image.recipe, image.bundle)
