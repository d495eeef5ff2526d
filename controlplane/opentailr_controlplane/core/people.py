"""The one table between the core's states and those that people see (B107), and words for people."""

from __future__ import annotations

from .model import Image, Job, Run, Task, Version
from .values import ImageState, PeopleState, RunState, TaskState

RUN_STATES = {
    RunState.SUCCEEDED: PeopleState.COMPLETED,
    RunState.FAILED: PeopleState.FAILED,
    RunState.OUT_OF_MEMORY: PeopleState.OUT_OF_MEMORY,
    RunState.TIMED_OUT: PeopleState.FAILED_AFTER,
    RunState.CANCELLED: PeopleState.STOPPED,
    RunState.EXPIRED: PeopleState.EXPIRED,
}

TASK_STATES = {
    TaskState.BLOCKED: PeopleState.PENDING,
    TaskState.READY: PeopleState.PENDING,
    TaskState.BACKOFF: PeopleState.PENDING,
    TaskState.SUCCEEDED: PeopleState.COMPLETED,
    TaskState.FAILED: PeopleState.FAILED,
    TaskState.OUT_OF_MEMORY: PeopleState.OUT_OF_MEMORY,
    TaskState.TIMED_OUT: PeopleState.FAILED_AFTER,
    TaskState.SKIPPED: PeopleState.DID_NOT_RUN,
    TaskState.CACHED: PeopleState.DID_NOT_RUN,
}

IMAGE_STATES = {
    ImageState.QUEUED: PeopleState.CREATED,
    ImageState.BUILDING: PeopleState.BUILDING,
    ImageState.READY: PeopleState.READY,
    ImageState.FAILED: PeopleState.FAILED,
}


def run_state(run: Run) -> PeopleState:
    """State of a run; a run that is being ended still runs until its last task has ended."""
    ended = RUN_STATES.get(run.state)
    if ended is not None:
        return ended
    if run.start_time:
        return PeopleState.RUNNING
    return PeopleState.STARTING if run.start_provisioning_time else PeopleState.PENDING


def task_state(task: Task) -> PeopleState:
    """State of a task; taken over results and skipped tasks did not run (B151)."""
    if task.state is TaskState.ACTIVE:
        return PeopleState.RUNNING if task.start_time else PeopleState.STARTING
    if task.state is TaskState.CANCELLED:
        return PeopleState.STOPPED if task.attempts else PeopleState.DID_NOT_RUN
    return TASK_STATES[task.state]


def version_state(job: Job, version: Version, image: Image | None) -> PeopleState:
    """State of a version: on its schedule, or as far as its image (B100, B103)."""
    if job.scheduled_version == version.version:
        return PeopleState.SCHEDULED
    return IMAGE_STATES[image.state] if image is not None else PeopleState.CREATED


def size(count: int) -> str:
    """Bytes for people: `512m`, `1.5g`."""
    value, units = float(count), "bkmgt"
    position = 0
    while value >= 1024 and position < len(units) - 1:
        value /= 1024
        position += 1
    return f"{value:.4g}{units[position]}"
