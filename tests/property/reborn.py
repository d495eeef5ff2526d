"""A restart of the control plane without a store: the stored fields alone, and what follows from them.

That the store brings back exactly those is proved by `Cluster` after each commit; here it would only be slow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from opentailr_controlplane.core import fleet
from opentailr_controlplane.core.durable import durable_view
from opentailr_controlplane.core.model import EPHEMERAL, Agent, State
from opentailr_controlplane.core.values import BuildState, Instant
from opentailr_controlplane.store import loader


def reborn(old: State, now: Instant) -> State:
    """The state that a new process would begin with; the old one must not be used again."""
    before = durable_view(old)
    state = State(
        old.settings, old.installation, old.next_job, old.next_definition, old.next_run, old.next_build
    )
    for part in ("jobs", "job_names", "images", "builds", "runs", "job_runs", "attempts", "remembered"):
        setattr(state, part, getattr(old, part))
    state.plans = {run.plan.definition_id: run.plan for run in old.runs.values()}
    state.agents = {key: _agent(agent) for key, agent in old.agents.items()}
    state.build_queue = {
        build.build_id: None for build in old.builds.values() if build.state is BuildState.QUEUED
    }
    for image in state.images.values():
        image.waiting.clear()
    for run in state.runs.values():
        run.held = False
        run.open = run.active = run.running = run.completed = run.failed = run.other = 0
        run.failed_states = set()
        for task in run.tasks.values():
            task.queue_seq = 0
    loader._settle(state, now)
    fleet.recover(state, now)
    after = durable_view(state)
    assert all(after[part] == value for part, value in before.items()), [
        (part, value, after[part]) for part, value in before.items() if after[part] != value
    ]
    return state


def _agent(old: Agent) -> Agent:
    kept: dict[str, Any] = {
        field.name: getattr(old, field.name)
        for field in dataclasses.fields(Agent)
        if field.name not in EPHEMERAL["Agent"]
    }
    return Agent(**kept)
