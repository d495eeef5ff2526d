"""Frames of the agents' session between protobuf and the core."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timezone

from datatailr.v1 import agent_pb2, common_pb2

from ..core.commands import (
    AgentApplied,
    AgentBye,
    AgentCredit,
    AgentHeartbeat,
    AgentHello,
    AttemptReport,
    BuildReport,
    InventoryEntry,
)
from ..core.effects import AttemptOrder, BuildOrder
from ..core.values import (
    INLINE_LIMIT,
    AttemptState,
    Bundle,
    Cause,
    CauseKind,
    ImageState,
    Payload,
    PayloadRef,
    Recipe,
    Resources,
)

USER_PREFIX = "DATATAILR_JOB_ENV_"
KEPT_BY_USER = frozenset({"DATATAILR_FRAMEWORK", "DATATAILR_LOCAL"})
"""Platform names that a user's variable may replace (B228)."""

_EPOCH_LIMIT = 1 << 30
"""Largest epoch that an agent is believed: revisions, which grow by it, must stay within 64 bits."""

_MESSAGE_LIMIT = 4096
_TEXT_LIMIT = 256 * 1024


def decode_hello(hello: agent_pb2.Hello) -> AgentHello:
    """The first frame. Entries of the inventory with an unknown state count as running."""
    capacity = hello.capacity
    return AgentHello(
        hello.agent_id,
        hello.name,
        hello.boot_id,
        hello.journal_id,
        max(capacity.memory_bytes, 0),
        max(capacity.cpu, 0.0) if math.isfinite(capacity.cpu) else 0.0,
        max(capacity.slots, 0),
        hello.software_version,
        hello.runtime,
        tuple(sorted(hello.labels.items())),
        tuple(hello.python_versions),
        tuple(hello.image_keys),
        hello.allows_pre_scripts,
        tuple(
            InventoryEntry(entry.attempt_id, entry.fence, _attempt_state(entry.state) or AttemptState.RUNNING)
            for entry in hello.inventory
        ),
        min(max(hello.last_epoch, 0), _EPOCH_LIMIT),
    )


def decode_heartbeat(agent_id: str, epoch: int, frame: agent_pb2.Heartbeat, received: int) -> AgentHeartbeat:
    """A sign of life; `received` is the monotonic time at which it came."""
    return AgentHeartbeat(
        agent_id,
        epoch,
        frame.counter,
        received,
        frame.pressure[:_MESSAGE_LIMIT],
        frame.disk_free_bytes,
        frame.memory_free_bytes,
        frame.loop_delay,
    )


def decode_credit(agent_id: str, epoch: int, frame: agent_pb2.Credit) -> AgentCredit:
    """New limits."""
    return AgentCredit(agent_id, epoch, frame.attempt_limit, frame.build_limit)


def decode_applied(agent_id: str, epoch: int, frame: agent_pb2.Applied) -> AgentApplied:
    """A revision that the journal reflects."""
    return AgentApplied(agent_id, epoch, frame.revision, frame.need_full)


def decode_bye(agent_id: str, epoch: int, frame: agent_pb2.Bye) -> AgentBye:
    """A clean end."""
    return AgentBye(agent_id, epoch, frame.attempts_keep_running)


def decode_attempt_report(entry: agent_pb2.ReportEntry, *, result_present: bool) -> AttemptReport:
    """A report of an attempt; one with a state that is not known names no attempt and so is inert."""
    report = entry.attempt
    state = _attempt_state(report.state)
    result = decode_payload(report.result) if report.HasField("result") else None
    if result is not None and result.data is not None and len(result.data) > INLINE_LIMIT:
        result, result_present = None, False
    return AttemptReport(
        entry.report_seq,
        report.attempt_id if state is not None else "",
        report.fence,
        state or AttemptState.RUNNING,
        report.observed_at,
        decode_cause(report.cause) if report.HasField("cause") else None,
        report.started_at,
        report.ended_at,
        result,
        result_present,
        report.preview,
        max(report.peak_memory_bytes, 0),
        report.exception[:INLINE_LIMIT],
    )


def decode_build_report(entry: agent_pb2.ReportEntry) -> BuildReport:
    """A report of a build; as `decode_attempt_report` for states that are not known."""
    report = entry.build
    known = report.state in (ImageState.BUILDING, ImageState.READY, ImageState.FAILED)
    return BuildReport(
        entry.report_seq,
        report.build_id if known else "",
        report.image_key,
        ImageState(report.state) if known else ImageState.BUILDING,
        report.observed_at,
        decode_cause(report.cause) if report.HasField("cause") else None,
        report.notice,
    )


def decode_cause(cause: common_pb2.Cause) -> Cause:
    """Why something ended; a kind that is not known counts as the node's fault."""
    try:
        kind = CauseKind(cause.kind)
    except ValueError:
        kind = CauseKind.NODE_FAULT
    return Cause(
        kind,
        cause.message[:_MESSAGE_LIMIT],
        cause.traceback[-_TEXT_LIMIT:],
        cause.exit_code,
        cause.signal,
    )


def decode_payload(payload: common_pb2.Payload) -> Payload | None:
    """Opaque bytes or their digest."""
    kind = payload.WhichOneof("content")
    if kind == "inline":
        data = payload.inline
        return Payload(hashlib.sha256(data).hexdigest(), len(data), data)
    return Payload(payload.digest, payload.size) if kind == "digest" else None


def encode_payload(reference: PayloadRef, data: bytes | None) -> common_pb2.Payload:
    """Inline when the bytes are given, else by digest."""
    if data is not None:
        return common_pb2.Payload(inline=data, size=len(data))
    return common_pb2.Payload(digest=reference.digest, size=reference.size)


def encode_recipe(recipe: Recipe) -> common_pb2.ImageRecipe:
    """What code runs in."""
    return common_pb2.ImageRecipe(
        python_version=recipe.python_version,
        python_requirements=recipe.python_requirements,
        build_script_pre=recipe.build_script_pre,
        build_script_post=recipe.build_script_post,
    )


def encode_bundle(bundle: Bundle) -> common_pb2.Bundle:
    """Packaged code."""
    return common_pb2.Bundle(
        digest=bundle.digest, size=bundle.size, directory=bundle.directory, top_level=bundle.top_level
    )


def encode_resources(resources: Resources) -> common_pb2.Resources:
    """What an attempt asks for."""
    return common_pb2.Resources(
        memory=resources.memory,
        memory_bytes=resources.memory_bytes,
        cpu=resources.cpu,
        memory_is_default=resources.memory_is_default,
    )


def encode_build(order: BuildOrder) -> agent_pb2.BuildAssignment:
    """A build in the desired set."""
    assignment = agent_pb2.BuildAssignment(
        build_id=order.build_id, image_key=order.image_key, recipe=encode_recipe(order.recipe)
    )
    if order.bundle is not None:
        assignment.bundle.CopyFrom(encode_bundle(order.bundle))
    return assignment


def environment(order: AttemptOrder, *, token: str, address: str, domain: str) -> dict[str, str]:
    """An attempt's variables: the user's, and the platform's, which win (B226, B228, B229, B42, B130)."""
    assert order.plan is not None
    definition = order.plan.definition
    task = order.plan.tasks[order.task_id]
    name = f"{definition.name}-{order.task_id}"
    scheduled = order.scheduled_time or order.submit_time
    platform = {
        "DATATAILR_JOB_TYPE": definition.type.text,
        "DATATAILR_JOB_NAME": name,
        "DATATAILR_JOB_ID": str(order.task_id),
        "DATATAILR_JOB_ENVIRONMENT": order.environment.text,
        "DATATAILR_USER": order.run_as,
        "DATATAILR_DOMAIN": domain,
        "DATATAILR_ADDRESS": address,
        "DATATAILR_TOKEN": token,
        "DATATAILR_BATCH_RUN_ID": str(order.run_id),
        "DATATAILR_BATCH_ID": order.job_id,
        "DATATAILR_BATCH_ENTRYPOINT": task.entrypoint,
        "DATATAILR_BATCH_VERSION": str(order.version),
        "DATATAILR_BATCH_CHILD_NUMBER": str(order.task_id),
        "DATATAILR_BATCH_ARG_RUNDATE": order.run_date or _time(scheduled)[:10],
        "DATATAILR_BATCH_ARG_SCHEDULED_TIME": _time(scheduled),
        "DATATAILR_BATCH_ARG_STARTED_AT": _time(order.started_at),
        "DATATAILR_BATCH_ARG_BATCH_NAME": definition.name,
        "DATATAILR_BATCH_ARG_JOB_NAME": name,
        "DATATAILR_ATTEMPT_ID": order.attempt_id,
        "DATATAILR_ATTEMPT_FENCE": str(order.fence),
    }
    if order.partial_rerun:
        platform["DATATAILR_BATCH_ARG_PARTIAL_RERUN"] = "true"
        platform["DATATAILR_BATCH_ARG_ORIGINAL_RUN_ID"] = str(order.original_run_id)
    users = {key.removeprefix(USER_PREFIX): value for key, value in task.env}
    kept = {key: value for key, value in users.items() if key not in platform or key in KEPT_BY_USER}
    return platform | kept


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).isoformat()


def _attempt_state(number: int) -> AttemptState | None:
    try:
        return AttemptState(number)
    except ValueError:
        return None
