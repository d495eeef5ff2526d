"""What one transaction writes: rows as they stood when the round of steps ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import snapshots
from .definition import CheckedDefinition
from .model import Dirty, Retired, State
from .rows import (
    AgentRow,
    AttemptRow,
    BuildRow,
    CountersRow,
    IdempotencyRow,
    ImageRow,
    JobRow,
    LateRow,
    OutcomeRow,
    RunRow,
    TaskRow,
    VersionRow,
)


@dataclass(slots=True)
class WriteBatch:
    """Rows to write, in an order that keeps references whole.

    `new_runs` maps a run to the definition whose tasks it gets; the store makes those rows itself, as all of
    them begin alike. `definitions` are turned into rows by the store, outside the engine's loop.
    """

    counters: CountersRow | None = None
    definitions: dict[int, CheckedDefinition] = field(default_factory=dict)
    payloads: dict[str, bytes] = field(default_factory=dict)
    jobs: list[JobRow] = field(default_factory=list)
    versions: list[VersionRow] = field(default_factory=list)
    images: list[ImageRow] = field(default_factory=list)
    builds: list[BuildRow] = field(default_factory=list)
    agents: list[AgentRow] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    new_runs: dict[int, int] = field(default_factory=dict)
    tasks: list[TaskRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    remembered: list[IdempotencyRow] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    expired_runs: list[int] = field(default_factory=list)
    retired: Retired = field(default_factory=Retired)
    late: list[LateRow] = field(default_factory=list)


def collect(state: State) -> WriteBatch | None:
    """Takes what changed out of the state; None when nothing did."""
    dirty = state.dirty
    if not dirty:
        return None
    state.dirty = Dirty()
    return WriteBatch(
        snapshots.counters_row(state) if dirty.counters else None,
        dirty.definitions,
        dirty.payloads,
        [snapshots.job_row(job) for job in dirty.jobs.values()],
        [snapshots.version_row(version) for version in dirty.versions.values()],
        [snapshots.image_row(image) for image in dirty.images.values()],
        [snapshots.build_row(build) for build in dirty.builds.values()],
        [snapshots.agent_row(agent) for agent in dirty.agents.values()],
        [snapshots.run_row(run) for run in dirty.runs.values()],
        {run.run_id: run.plan.definition_id for run in dirty.new_runs.values()},
        [snapshots.task_row(run, task) for run, task in dirty.tasks.values()],
        [snapshots.attempt_row(attempt) for attempt in dirty.attempts.values()],
        dirty.outcomes,
        [snapshots.idempotency_row(key, kept) for key, kept in dirty.remembered.items()],
        dirty.forgotten,
        dirty.expired_runs,
        dirty.retired,
        dirty.late,
    )
