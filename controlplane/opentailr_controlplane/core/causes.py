"""Causes: the one place where the control plane words an end, and how its fields are kept.

A cause has a kind, one sentence, and fields that a program can read. `docs/design/causes.md` is the table of
kinds, fields and budgets.
"""

from __future__ import annotations

import dataclasses
import json

from .values import INFRASTRUCTURE, Cause, CauseKind, Resources

KEPT = (
    "exit_code",
    "signal",
    "node",
    "since",
    "memory_limit_bytes",
    "peak_memory_bytes",
    "time_limit",
    "user",
    "build_id",
    "task",
)
"""Fields of a cause that are kept as JSON text beside its kind and message."""


def encode_detail(cause: Cause | None) -> str:
    """The fields of a cause that say something, as compact JSON; empty when none does."""
    if cause is None:
        return ""
    detail = {name: value for name in KEPT if (value := getattr(cause, name))}
    return json.dumps(detail, separators=(",", ":")) if detail else ""


def decode_cause(
    kind: int, message: str, detail: str, *, exit_code: int = 0, signal: int = 0
) -> Cause | None:
    """A cause from its columns; None for no cause.

    `exit_code` and `signal` are those of the columns of the same name; they count where an older version
    wrote no detail.
    """
    if not kind:
        return None
    fields = json.loads(detail) if detail else {}
    known = {name: fields[name] for name in KEPT if name in fields}
    known.setdefault("exit_code", exit_code)
    known.setdefault("signal", signal)
    return Cause(CauseKind(kind), message, **known)


def lease_lost(node: str, since: int, seconds: float) -> Cause:
    """Nothing was heard of a node for longer than its lease; `since` is when it was last heard."""
    message = f"Lost node {node} (no heartbeat for {seconds:.0f} s)."
    return Cause(CauseKind.LEASE_LOST, message, node=node, since=since)


def stopped(user: str) -> Cause:
    """A person ended the run."""
    return Cause(CauseKind.STOPPED, f"Stopped by {user}.", user=user)


def timed_out(limit: int) -> Cause:
    """The run's `fail_after`, in microseconds, passed."""
    message = f"It ran longer than its fail_after of {limit / 1e6:g} s."
    return Cause(CauseKind.FAIL_AFTER, message, time_limit=limit)


def upstream(task: str) -> Cause:
    """A task before it did not complete."""
    return Cause(CauseKind.UPSTREAM, f"Task {task!r} did not complete.", task=task)


def of_run(task: str, cause: Cause) -> Cause:
    """Why a run fails: the task that failed first, and why."""
    message = f"Task {task!r}: {cause.message}"[:4096]
    return dataclasses.replace(cause, message=message, traceback="", task=task)


def of_build(message: str, build_id: str) -> Cause:
    """A build that runs waited for failed."""
    return Cause(CauseKind.BUILD_FAILED, message[:4096], build_id=build_id)


def not_again(cause: Cause, failures: int) -> Cause:
    """The platform failed a task more often than its budget allows."""
    why = cause.message.rstrip(".")
    message = f"{why}. This was failure {failures} of the platform; it is not tried again."
    return dataclasses.replace(cause, message=message, traceback="")


def completed(cause: Cause, *, node: str, resources: Resources, peak_memory_bytes: int) -> Cause:
    """A cause as a node told it, with what the control plane knows beside it."""
    if cause.kind in INFRASTRUCTURE and not cause.node:
        return dataclasses.replace(cause, node=node)
    if cause.kind is CauseKind.OUT_OF_MEMORY:
        limit = 0 if resources.memory_is_default else resources.memory_bytes
        return dataclasses.replace(
            cause,
            memory_limit_bytes=cause.memory_limit_bytes or limit,
            peak_memory_bytes=max(cause.peak_memory_bytes, peak_memory_bytes),
        )
    return cause
