"""From messages of the wire to the plain dictionaries of the contract (clauses B270, B271).

Times are integer microseconds since the epoch, None where not reached. Both the port to the
platform and `dt --json` hand these out, so that a person, a script and the SDK see one thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from datatailr.catalogue import code_of_cause
from datatailr.client.words import (
    CAUSE_HINTS,
    PERMISSIONS,
    cause_word,
    environment_word,
    job_type_word,
    node_state_word,
    outcome_word,
    state_word,
)
from datatailr.v1 import common_pb2, identity_pb2, job_pb2, node_pb2, run_pb2

JOB_KEYS: Final = (
    *("id", "name", "display_name", "type", "state", "environment", "version", "run_as", "create_time"),
    *("memory", "cpu", "num_cpus", "schedule", "app_section", "acl", "image", "entrypoint", "env"),
    "exit_code",
)
"""Keys of a job, in order (clause B270)."""

RUN_KEYS: Final = (
    *("id", "run_id", "job_id", "name", "job_name", "type", "environment", "state", "priority"),
    *("error_message", "job_version", "original_run_id", "partial_rerun", "cost", "submit_time"),
    *("start_provisioning_time", "start_time", "end_time", "scheduled_time", "tried_to_start_time"),
)
"""Keys of a run, in order (clause B271)."""

ENV_PREFIX: Final = "DATATAILR_JOB_ENV_"
"""Stands before the name of every user variable in documents (clause B68)."""


def job_answer(job: job_pb2.Job, tasks: Iterable[job_pb2.TaskDefinition] | None = None) -> dict[str, Any]:
    """One version as `job ls` and `job get` show it, exactly the keys of clause B270.

    Args:
        job: The version.
        tasks: Its tasks; if given, they stand under `children_full`.
    """
    definition = job.definition
    answer: dict[str, Any] = {
        "id": job.id,
        "name": definition.name,
        "display_name": definition.display_name,
        "type": job_type_word(definition.type),
        "state": state_word(job.state),
        "environment": environment_word(definition.environment),
        "version": job.version,
        "run_as": definition.run_as,
        "create_time": _time(job.create_time),
        **_resources(definition.resources),
        "schedule": definition.schedule.cron or None,
        "app_section": definition.app_section,
        "acl": {name: list(getattr(definition.acl, name)) for name in PERMISSIONS},
        "image": _image(definition),
        "entrypoint": definition.entrypoint or None,
        "env": _env(definition.env),
        "exit_code": _exit_code(job.cause),
    }

    if tasks is not None:
        answer["children_full"] = [_child(task) for task in tasks]

    return answer


def stored_job_answer(
    job: job_pb2.Job, tasks: Iterable[job_pb2.TaskDefinition] | None = None
) -> dict[str, Any]:
    """`job_answer` with what the SDK needs beside to load a version again (clause B112).

    That is `schedule_args` (clause B75), `fail_after` and `expire_after` in microseconds or None,
    and `error_message`, why the build failed.
    """
    definition = job.definition
    return job_answer(job, tasks) | {
        "schedule_args": schedule_args(definition.schedule),
        "fail_after": definition.fail_after or None,
        "expire_after": definition.expire_after or None,
        "error_message": job.cause.message,
    }


def run_answer(run: run_pb2.Run) -> dict[str, Any]:
    """A mother run, exactly the keys of clause B271."""
    return {
        "id": run.run_id,
        "run_id": run.run_id,
        "job_id": run.job_id,
        "name": run.display_name or run.job_name,
        "job_name": run.job_name,
        "type": job_type_word(run.type),
        "environment": environment_word(run.environment),
        "state": state_word(run.state),
        "priority": 0,
        "error_message": run.cause.message,
        "job_version": run.job_version,
        "original_run_id": run.original_run_id,
        "partial_rerun": run.partial_rerun,
        "cost": run.cost,
        **_times(run),
    }


def task_answer(run: run_pb2.Run, task: run_pb2.RunTask) -> dict[str, Any]:
    """A task of a run: the keys of clause B271 and beside them what tells of this task.

    Those are `child_number`, `dependencies`, `memory` (bytes), `cpu`, `num_cpus`, `reused`,
    `node`, `waiting_for` (sentences), `cause` and `last_failure` (see `cause_answer`), and
    `platform_failures`, how many attempts the platform itself failed.
    """
    return run_answer(run) | {
        "name": task.name,
        "job_name": f"{run.job_name}-{task.task_id}",
        "state": state_word(task.state),
        "error_message": task.cause.message,
        "cost": task.cost,
        **_times(task),
        "child_number": task.task_id,
        "dependencies": list(task.dependencies),
        **_resources(task.resources),
        "reused": task.reused,
        "node": task.node,
        "waiting_for": list(task.waiting_for),
        "cause": cause_answer(task.cause),
        "last_failure": cause_answer(task.last_failure),
        "platform_failures": task.platform_failures,
    }


_CAUSE_FIELDS: Final = (
    "exit_code",
    "signal",
    "signal_name",
    "node",
    "since",
    "memory_limit_bytes",
    "peak_memory_bytes",
    "time_limit",
    "user",
    "build_id",
    "task",
)


def cause_answer(cause: common_pb2.Cause) -> dict[str, Any] | None:
    """Why something ended, None where there is no cause.

    `kind` (see `cause_word`), `code` (for `dt explain`), `message`, `hint`, and those fields that say
    something; times and lengths of time in microseconds.
    """
    if not cause.kind and not cause.message:
        return None

    answer: dict[str, Any] = {
        "kind": cause_word(cause.kind),
        "code": code_of_cause(cause_word(cause.kind)),
        "message": cause.message,
        "hint": CAUSE_HINTS.get(cause.kind, ""),
    }
    answer.update({name: value for name in _CAUSE_FIELDS if (value := getattr(cause, name))})

    if cause.kind != common_pb2.CAUSE_KIND_EXIT_CODE:
        answer.pop("exit_code", None)

    if cause.traceback:
        answer["traceback"] = cause.traceback

    return answer


def attempt_answer(attempt: run_pb2.Attempt) -> dict[str, Any]:
    """One try of a task; `late` is what its node told after it had been given up, else None."""
    answer: dict[str, Any] = {
        "attempt_id": attempt.attempt_id,
        "attempt": attempt.fence,
        "state": outcome_word(attempt.outcome),
        "node": attempt.node,
        "assigned_time": _time(attempt.assigned_time),
        "start_time": _time(attempt.start_time),
        "end_time": _time(attempt.end_time),
        "cause": cause_answer(attempt.cause),
        "peak_memory_bytes": attempt.peak_memory_bytes,
        "late": None,
    }

    if attempt.HasField("late"):
        late = attempt.late
        answer["late"] = {
            "state": outcome_word(late.outcome),
            "heard_time": _time(late.heard_time),
            "start_time": _time(late.start_time),
            "end_time": _time(late.end_time),
            "cause": cause_answer(late.cause),
        }

    return answer


def run_story_answer(
    run: run_pb2.Run, tasks: Iterable[run_pb2.RunTask], attempts: Iterable[run_pb2.Attempt]
) -> dict[str, Any]:
    """A run with why it ended or waits, its tasks, and the attempts of each under `attempts`."""
    tries: dict[int, list[dict[str, Any]]] = {}

    for attempt in attempts:
        tries.setdefault(attempt.task_id, []).append(attempt_answer(attempt))

    return run_answer(run) | {
        "cause": cause_answer(run.cause),
        "waiting_for": list(run.waiting_for),
        "tasks": [task_answer(run, task) | {"attempts": tries.get(task.task_id, [])} for task in tasks],
    }


def user_answer(user: identity_pb2.User) -> dict[str, Any]:
    """A user with the keys of clause B272."""
    return {
        "name": user.name,
        "user_id": user.user_id,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "email": user.email,
        "groups": ",".join(user.groups),
        "is_system": user.is_system,
    }


def node_answer(node: node_pb2.Node) -> dict[str, Any]:
    """A worker host; memory in bytes."""
    return {
        "id": node.agent_id,
        "name": node.name,
        "state": node_state_word(node.state),
        "runtime": node.runtime,
        "memory": node.memory_bytes,
        "memory_reserved": node.memory_reserved_bytes,
        "cpu": node.cpu,
        "cpu_reserved": node.cpu_reserved,
        "attempts": node.attempts,
        "version": node.software_version,
        "python_versions": list(node.python_versions),
        "labels": dict(node.labels),
        "last_heard": _time(node.last_heard),
        "reason": node.reason,
        "drain_deadline": _time(node.drain_deadline),
    }


def _child(task: job_pb2.TaskDefinition) -> dict[str, Any]:
    return {
        "display_name": task.name,
        "name": task.name,
        "child_number": task.id,
        "entrypoint": task.entrypoint,
        "depends_on": list(task.depends_on),
        **_resources(task.resources),
        "env": _env(task.env),
    }


def _resources(resources: common_pb2.Resources) -> dict[str, Any]:
    return {"memory": resources.memory_bytes, "cpu": resources.cpu, "num_cpus": resources.cpu}


def _image(definition: job_pb2.JobDefinition) -> dict[str, Any]:
    recipe, origin = definition.image, definition.origin
    return {
        "python_version": recipe.python_version,
        "python_requirements": recipe.python_requirements,
        "build_script_pre": recipe.build_script_pre,
        "build_script_post": recipe.build_script_post,
        "branch_name": origin.branch_name or None,
        "commit_hash": origin.commit_hash or None,
        "path_to_repo": origin.path_to_repo or None,
        "path_to_module": origin.path_to_module or None,
    }


def _env(env: Iterable[job_pb2.EnvVar]) -> list[dict[str, str]]:
    return [{f"{ENV_PREFIX}{variable.name}": variable.value} for variable in env]


def schedule_args(schedule: job_pb2.ScheduleDefinition) -> dict[str, Any]:
    """The schedule fields that were given, as values again (clause B75)."""
    return {name: _decoded(text) for name, text in schedule.fields.items()}


def _decoded(text: str) -> Any:
    """The value of a schedule field; other clients may have written plain text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _exit_code(cause: common_pb2.Cause) -> int | None:
    return cause.exit_code if cause.kind == common_pb2.CAUSE_KIND_EXIT_CODE else None


def _times(source: run_pb2.Run | run_pb2.RunTask) -> Mapping[str, Any]:
    return {
        "submit_time": _time(source.submit_time),
        "start_provisioning_time": _time(source.start_provisioning_time),
        "start_time": _time(source.start_time),
        "end_time": _time(source.end_time),
        "scheduled_time": _time(source.scheduled_time),
        "tried_to_start_time": source.tried_to_start_time,
    }


def _time(microseconds: int) -> int | None:
    return microseconds or None
