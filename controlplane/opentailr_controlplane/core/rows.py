"""Immutable snapshots of records, field for field the rows of the tables of the same name.

The engine hands them to the writer and, after the commit, to whoever follows a run; a record itself goes on
changing meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple


class RunRow(NamedTuple):
    """A run without its tasks: table `runs`."""

    run_id: int
    job_id: str
    version: int
    definition_id: int
    job_name: str
    display_name: str
    environment: int
    type: int
    state: int
    people_state: int
    run_as: str
    started_by: str
    run_date: str
    original_run_id: int
    partial_rerun: bool
    submit_time: int
    start_provisioning_time: int
    start_time: int
    end_time: int
    scheduled_time: int
    expire_time: int
    cancel_requested: bool
    cause_kind: int
    cause_message: str
    tasks_total: int
    tasks_pending: int
    tasks_running: int
    tasks_completed: int
    tasks_failed: int
    tasks_other: int
    cause_detail: str = ""


class TaskRow(NamedTuple):
    """A task of a run: table `run_tasks`."""

    run_id: int
    task_id: int
    state: int
    people_state: int
    fence: int
    attempts: int
    infra_failures: int
    attempt_id: str
    not_before: int
    start_provisioning_time: int
    start_time: int
    end_time: int
    cause_kind: int
    cause_message: str
    exit_code: int
    signal: int
    result_digest: str | None
    result_size: int
    result_inline: bool
    peak_memory_bytes: int
    node: str
    cause_detail: str = ""


class OutcomeRow(NamedTuple):
    """The long parts of a task's outcome: table `outcomes`."""

    run_id: int
    task_id: int
    preview: str
    traceback: str
    exception: bytes


class AttemptRow(NamedTuple):
    """One try of a task: table `attempts`."""

    attempt_id: str
    run_id: int
    task_id: int
    fence: int
    agent_id: str
    state: int
    stop_wanted: bool
    memory_bytes: int
    cpu: float
    assigned_time: int
    start_time: int
    end_time: int
    cause_kind: int
    cause_message: str
    exit_code: int
    signal: int
    peak_memory_bytes: int
    gone: bool
    cause_detail: str = ""


class LateRow(NamedTuple):
    """What a node told of an attempt after it had been given up: table `late_outcomes`.

    `fence` and `agent_id` are not kept: the store takes the row only if they are those of the attempt.
    """

    attempt_id: str
    fence: int
    agent_id: str
    state: int
    heard_time: int
    start_time: int
    end_time: int
    cause_kind: int
    cause_message: str
    cause_detail: str


class ImageRow(NamedTuple):
    """An image: table `images`; `recipe` and `bundle` are JSON text."""

    image_key: str
    recipe: str
    bundle: str
    state: int
    cause_kind: int
    cause_message: str
    notice: str
    build_id: str
    agent_id: str
    tries: int
    create_time: int
    start_time: int
    end_time: int


class BuildRow(NamedTuple):
    """One build of an image: table `builds`."""

    build_id: str
    image_key: str
    state: int
    agent_id: str
    create_time: int
    start_time: int
    end_time: int
    cause_kind: int
    cause_message: str


class AgentRow(NamedTuple):
    """What is kept of an agent: table `agents`."""

    agent_id: str
    name: str
    epoch: int
    journal_id: str
    acked_seq: int
    schedulable: bool
    reason: str
    memory_bytes: int
    cpu: float
    slots: int
    software_version: str
    runtime: str
    labels: str
    python_versions: str
    allows_pre_scripts: bool
    first_seen: int
    last_heard: int
    drain_by: int


class JobRow(NamedTuple):
    """A job: table `jobs`; `acl` is JSON text."""

    job_id: str
    name: str
    display_name: str
    environment: int
    type: int
    acl: str
    next_version: int
    scheduled_version: int
    create_time: int


class VersionRow(NamedTuple):
    """A version: table `versions`."""

    job_id: str
    version: int
    definition_id: int
    image_key: str
    task_count: int
    verified: bool
    has_schedule: bool
    removed: bool
    create_time: int
    created_by: str
    instant: bool = False


class IdempotencyRow(NamedTuple):
    """The answer to a command with a key: table `idempotency`; `reply` is JSON text."""

    actor: str
    key: str
    request_digest: str
    kind: str
    reply: str
    expire_time: int


class CountersRow(NamedTuple):
    """Numbers that are never given twice: table `counters`."""

    id: int
    installation: str
    next_job: int
    next_definition: int
    next_run: int
    next_build: int
