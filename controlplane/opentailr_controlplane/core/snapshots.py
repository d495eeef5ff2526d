"""Rows of records as they stand now."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from . import people
from .causes import encode_detail
from .model import Agent, Attempt, Build, Image, Job, Remembered, Run, State, Task, Version
from .remembering import encode_reply
from .rows import (
    AgentRow,
    AttemptRow,
    BuildRow,
    CountersRow,
    IdempotencyRow,
    ImageRow,
    JobRow,
    RunRow,
    TaskRow,
    VersionRow,
)
from .values import Cause


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cause(cause: Cause | None) -> tuple[int, str, int, int]:
    return (int(cause.kind), cause.message, cause.exit_code, cause.signal) if cause else (0, "", 0, 0)


def counters_row(state: State) -> CountersRow:
    """The numbers that are never given twice."""
    return CountersRow(
        1, state.installation, state.next_job, state.next_definition, state.next_run, state.next_build
    )


def run_row(run: Run) -> RunRow:
    """A run's summary."""
    definition = run.plan.definition
    kind, message, _, _ = _cause(run.cause)
    total = len(run.tasks)
    return RunRow(
        run.run_id,
        run.job_id,
        run.version,
        run.plan.definition_id,
        definition.name,
        definition.display_name,
        int(run.environment),
        int(definition.type),
        int(run.state),
        int(people.run_state(run)),
        run.run_as,
        run.started_by,
        run.run_date,
        run.original_run_id,
        run.partial_rerun,
        run.submit_time,
        run.start_provisioning_time,
        run.start_time,
        run.end_time,
        run.scheduled_time,
        run.expire_time,
        run.cancel_requested,
        kind,
        message,
        total,
        run.open - run.running,
        run.running,
        run.completed,
        run.failed,
        run.other,
        encode_detail(run.cause),
    )


def task_row(run: Run, task: Task) -> TaskRow:
    """A task of a run."""
    kind, message, exit_code, signal = _cause(task.cause)
    result = task.result
    return TaskRow(
        run.run_id,
        task.task_id,
        int(task.state),
        int(people.task_state(task)),
        task.fence,
        task.attempts,
        task.infra_failures,
        task.attempt_id,
        task.not_before,
        task.start_provisioning_time,
        task.start_time,
        task.end_time,
        kind,
        message,
        exit_code,
        signal,
        result.digest if result else None,
        result.size if result else 0,
        result.inline if result else False,
        task.peak_memory_bytes,
        task.node,
        encode_detail(task.cause),
    )


def attempt_row(attempt: Attempt) -> AttemptRow:
    """One try of a task."""
    kind, message, exit_code, signal = _cause(attempt.cause)
    return AttemptRow(
        attempt.attempt_id,
        attempt.run_id,
        attempt.task_id,
        attempt.fence,
        attempt.agent_id,
        int(attempt.state),
        attempt.stop_wanted,
        attempt.memory_bytes,
        attempt.cpu,
        attempt.assigned_time,
        attempt.start_time,
        attempt.end_time,
        kind,
        message,
        exit_code,
        signal,
        attempt.peak_memory_bytes,
        attempt.gone,
        encode_detail(attempt.cause),
    )


def image_row(image: Image) -> ImageRow:
    """An image."""
    kind, message, _, _ = _cause(image.cause)
    return ImageRow(
        image.image_key,
        _json(dataclasses.asdict(image.recipe)),
        _json(dataclasses.asdict(image.bundle)) if image.bundle else "",
        int(image.state),
        kind,
        message,
        image.notice,
        image.build_id,
        image.agent_id,
        image.tries,
        image.create_time,
        image.start_time,
        image.end_time,
    )


def build_row(build: Build) -> BuildRow:
    """One build."""
    kind, message, _, _ = _cause(build.cause)
    return BuildRow(
        build.build_id,
        build.image_key,
        int(build.state),
        build.agent_id,
        build.create_time,
        build.start_time,
        build.end_time,
        kind,
        message,
    )


def agent_row(agent: Agent) -> AgentRow:
    """What is kept of an agent."""
    return AgentRow(
        agent.agent_id,
        agent.name,
        agent.epoch,
        agent.journal_id,
        agent.acked_seq,
        agent.schedulable,
        agent.reason,
        agent.memory_bytes,
        agent.cpu,
        agent.slots,
        agent.software_version,
        agent.runtime,
        _json(agent.labels),
        _json(agent.python_versions),
        agent.allows_pre_scripts,
        agent.first_seen,
        agent.last_heard,
        agent.drain_by,
    )


def job_row(job: Job) -> JobRow:
    """A job."""
    return JobRow(
        job.job_id,
        job.name,
        job.display_name,
        int(job.environment),
        int(job.type),
        _json(dataclasses.asdict(job.acl)),
        job.next_version,
        job.scheduled_version,
        job.create_time,
    )


def version_row(version: Version) -> VersionRow:
    """A version."""
    return VersionRow(
        version.job_id,
        version.version,
        version.definition_id,
        version.image_key,
        version.task_count,
        version.verified,
        version.has_schedule,
        version.removed,
        version.create_time,
        version.created_by,
        version.instant,
    )


def idempotency_row(key: tuple[str, str], kept: Remembered) -> IdempotencyRow:
    """A kept answer."""
    kind, text = encode_reply(kept.reply)
    return IdempotencyRow(key[0], key[1], kept.request_digest, kind, text, kept.expire_time)
