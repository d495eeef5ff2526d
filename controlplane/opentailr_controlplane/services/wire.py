"""The only translator between the wire and the core.

Functions named `…_in` read a message and refuse what cannot be understood, naming the field;
functions named `…_out` build a message.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from datatailr.v1 import common_pb2, identity_pb2, image_pb2, job_pb2, node_pb2

from ..core.errors import InvalidArgument
from ..core.rows import ImageRow
from ..core.values import (
    INLINE_LIMIT,
    Acl,
    Bundle,
    Cause,
    CauseKind,
    Environment,
    ImageState,
    JobDefinition,
    JobType,
    Origin,
    Payload,
    PayloadRef,
    PeopleState,
    Recipe,
    Resources,
    Schedule,
    TaskDefinition,
)
from ..ports import NodeView
from ..security.users import User

_MAX_ENTITIES = 10_000
"""Most entries of one permission in an access list."""


def environment_in(value: int, field: str = "environment") -> Environment:
    """The environment; unspecified means dev."""
    return optional_environment_in(value, field) or Environment.DEV


def optional_environment_in(value: int, field: str = "environment") -> Environment | None:
    """The environment, or None if unspecified."""
    if value == 0:
        return None
    try:
        return Environment(value)
    except ValueError:
        raise _bad(field, f"{value} is no environment", "use DEV, PRE or PROD") from None


def job_type_in(value: int, field: str = "type") -> JobType:
    """The type of a job; it must be given."""
    try:
        return JobType(value)
    except ValueError:
        raise _bad(field, f"{value} is no type of job", "use BATCH, SERVICE, APP or EXCEL") from None


def page_size_in(value: int, *, default: int, limit: int) -> int:
    """The size of a page: 0 means the default, more than the limit is cut to it."""
    if value < 0:
        raise _bad("page_size", f"{value} is negative", f"give 1 to {limit}, or 0 for {default}")
    return min(value, limit) or default


def payload_in(message: common_pb2.Payload, field: str) -> Payload:
    """Opaque bytes. Inline ones get their digest here."""
    if message.WhichOneof("content") == "digest":
        if len(message.digest) != 64 or message.digest.strip("0123456789abcdef"):
            raise _bad(
                f"{field}.digest", f"{message.digest[:80]!r} is no SHA-256", "give 64 hexadecimal digits"
            )
        if message.size < 0:
            raise _bad(f"{field}.size", f"{message.size} is negative", "give the length in bytes")
        return Payload(message.digest, message.size)
    if len(message.inline) > INLINE_LIMIT:
        raise _bad(
            f"{field}.inline",
            f"{len(message.inline)} bytes are too many to travel inline",
            f"write more than {INLINE_LIMIT} bytes to the object store and give their digest",
        )
    return Payload(hashlib.sha256(message.inline).hexdigest(), len(message.inline), message.inline)


def resources_in(message: common_pb2.Resources, field: str) -> Resources:
    """What a job or task asks for."""
    if not math.isfinite(message.cpu):
        raise _bad(f"{field}.cpu", f"{message.cpu} is no number of cores", "give a positive number")
    return Resources(message.memory, message.memory_bytes, message.cpu, message.memory_is_default)


def recipe_in(message: common_pb2.ImageRecipe) -> Recipe:
    """What code runs in."""
    return Recipe(
        message.python_version,
        message.python_requirements,
        message.build_script_pre,
        message.build_script_post,
    )


def bundle_in(message: common_pb2.Bundle) -> Bundle:
    """Packaged code."""
    return Bundle(message.digest, message.size, message.directory, message.top_level)


def acl_in(message: job_pb2.AccessList) -> Acl:
    """An access list; each entity once, in the order given."""
    lists: dict[str, tuple[int, ...]] = {}
    for name in ("read", "write", "operate", "access", "promote"):
        entities: Sequence[int] = getattr(message, name)
        if len(entities) > _MAX_ENTITIES:
            raise _bad(
                f"acl.{name}", f"it has {len(entities)} entries", f"give at most {_MAX_ENTITIES}; use groups"
            )
        if 0 in entities:
            raise _bad(
                f"acl.{name}", "0 is neither a user nor a group", "users are positive, groups negative"
            )
        lists[name] = tuple(dict.fromkeys(entities))
    return Acl(**lists)


def _env_in(messages: Iterable[job_pb2.EnvVar]) -> tuple[tuple[str, str], ...]:
    return tuple((message.name, message.value) for message in messages)


def task_in(message: job_pb2.TaskDefinition, position: int) -> TaskDefinition:
    """One node of a workflow."""
    field = f"tasks[{position}]"
    return TaskDefinition(
        message.id,
        message.name,
        message.entrypoint,
        resources_in(message.resources, f"{field}.resources"),
        tuple(message.depends_on),
        _env_in(message.env),
        payload_in(message.arguments, f"{field}.arguments") if message.HasField("arguments") else None,
    )


def definition_in(message: job_pb2.JobDefinition) -> JobDefinition:
    """Everything a version consists of, as sent; an empty `run_as` stays empty."""
    schedule = message.schedule
    return JobDefinition(
        name=message.name,
        display_name=message.display_name,
        environment=environment_in(message.environment),
        type=job_type_in(message.type),
        run_as=message.run_as,
        resources=resources_in(message.resources, "resources"),
        recipe=recipe_in(message.image),
        bundle=bundle_in(message.bundle),
        origin=Origin(
            message.origin.branch_name,
            message.origin.commit_hash,
            message.origin.path_to_repo,
            message.origin.path_to_module,
        ),
        entrypoint=message.entrypoint,
        env=_env_in(message.env),
        app_section=message.app_section,
        tasks=tuple(task_in(task, position) for position, task in enumerate(message.tasks)),
        schedule=Schedule(
            schedule.cron,
            schedule.timezone,
            schedule.run_after_job_id,
            schedule.run_after_job_name,
            schedule.run_after_condition,
            tuple(sorted(schedule.fields.items())),
        ),
        fail_after=message.fail_after,
        expire_after=message.expire_after,
        repository_verified=message.repository_verified,
    )


def state_out(state: PeopleState | int) -> common_pb2.State:
    """A state as people see it; the numbers are the same."""
    return cast("common_pb2.State", int(state))


def environment_out(environment: Environment | int) -> common_pb2.Environment:
    """An environment; the numbers are the same."""
    return cast("common_pb2.Environment", int(environment))


def payload_out(reference: PayloadRef, data: bytes | None) -> common_pb2.Payload:
    """A payload: its bytes where they are at hand, else its digest."""
    if data is not None:
        return common_pb2.Payload(inline=data, size=reference.size)
    return common_pb2.Payload(digest=reference.digest, size=reference.size)


def resources_out(resources: Resources) -> common_pb2.Resources:
    """What a job or task asks for."""
    return common_pb2.Resources(
        memory=resources.memory,
        memory_bytes=resources.memory_bytes,
        cpu=resources.cpu,
        memory_is_default=resources.memory_is_default,
    )


def recipe_out(recipe: Recipe) -> common_pb2.ImageRecipe:
    """What code runs in."""
    return common_pb2.ImageRecipe(
        python_version=recipe.python_version,
        python_requirements=recipe.python_requirements,
        build_script_pre=recipe.build_script_pre,
        build_script_post=recipe.build_script_post,
    )


def cause_out(cause: Cause | None) -> common_pb2.Cause | None:
    """Why something ended; None for no cause."""
    if cause is None or cause.kind is CauseKind.NONE:
        return None
    return common_pb2.Cause(
        kind=cast("common_pb2.CauseKind", int(cause.kind)),
        message=cause.message,
        traceback=cause.traceback,
        exit_code=cause.exit_code,
        signal=cause.signal,
        signal_name=_signal_name(cause.signal),
        node=cause.node,
        since=cause.since,
        memory_limit_bytes=cause.memory_limit_bytes,
        peak_memory_bytes=cause.peak_memory_bytes,
        time_limit=cause.time_limit,
        user=cause.user,
        build_id=cause.build_id,
        task=cause.task,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name if number else ""
    except ValueError:
        return ""


def _env_out(env: tuple[tuple[str, str], ...]) -> list[job_pb2.EnvVar]:
    return [job_pb2.EnvVar(name=name, value=value) for name, value in env]


def acl_out(acl: Acl) -> job_pb2.AccessList:
    """An access list."""
    return job_pb2.AccessList(
        read=acl.read, write=acl.write, operate=acl.operate, access=acl.access, promote=acl.promote
    )


def task_definition_out(task: TaskDefinition) -> job_pb2.TaskDefinition:
    """One node of a workflow, without its arguments."""
    return job_pb2.TaskDefinition(
        id=task.task_id,
        name=task.name,
        entrypoint=task.entrypoint,
        resources=resources_out(task.resources),
        depends_on=task.depends_on,
        env=_env_out(task.env),
    )


def definition_out(definition: JobDefinition, acl: Acl) -> job_pb2.JobDefinition:
    """Everything a version consists of, without its tasks."""
    schedule = definition.schedule
    return job_pb2.JobDefinition(
        name=definition.name,
        display_name=definition.display_name,
        environment=environment_out(definition.environment),
        type=cast("common_pb2.JobType", int(definition.type)),
        run_as=definition.run_as,
        resources=resources_out(definition.resources),
        image=recipe_out(definition.recipe),
        origin=common_pb2.CodeOrigin(
            branch_name=definition.origin.branch_name,
            commit_hash=definition.origin.commit_hash,
            path_to_repo=definition.origin.path_to_repo,
            path_to_module=definition.origin.path_to_module,
        ),
        bundle=common_pb2.Bundle(
            digest=definition.bundle.digest,
            size=definition.bundle.size,
            directory=definition.bundle.directory,
            top_level=definition.bundle.top_level,
        ),
        entrypoint=definition.entrypoint,
        env=_env_out(definition.env),
        app_section=definition.app_section,
        schedule=None
        if schedule == Schedule()
        else job_pb2.ScheduleDefinition(
            cron=schedule.cron,
            timezone=schedule.timezone,
            run_after_job_id=schedule.run_after_job_id,
            run_after_job_name=schedule.run_after_job_name,
            run_after_condition=schedule.run_after_condition,
            fields=dict(schedule.fields),
        ),
        fail_after=definition.fail_after,
        expire_after=definition.expire_after,
        acl=acl_out(acl),
        repository_verified=definition.repository_verified,
    )


def image_out(row: ImageRow, waiting_for: str = "", *, node: str = "") -> image_pb2.Image:
    """An image and its latest build."""
    return image_pb2.Image(
        image_key=row.image_key,
        recipe=recipe_out(Recipe(**json.loads(row.recipe))),
        state=cast("image_pb2.ImageState", row.state),
        cause=image_cause_out(row),
        build_id=row.build_id,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        notice=row.notice,
        node=node or row.agent_id,
        waiting_for=waiting_for if row.state == ImageState.QUEUED else "",
    )


def image_cause_out(row: ImageRow) -> common_pb2.Cause | None:
    """Why the latest build of an image failed; None if it did not."""
    if row.state != ImageState.FAILED:
        return None
    return cause_out(Cause(CauseKind(row.cause_kind), row.cause_message))


def node_out(node: NodeView) -> node_pb2.Node:
    """A worker host."""
    return node_pb2.Node(
        agent_id=node.agent_id,
        name=node.name,
        state=cast("node_pb2.NodeState", int(node.state)),
        memory_bytes=node.memory_bytes,
        memory_reserved_bytes=node.memory_reserved,
        cpu=node.cpu,
        cpu_reserved=node.cpu_reserved,
        attempts=node.attempts,
        software_version=node.software_version,
        runtime=node.runtime,
        labels=_labels(node.labels),
        last_heard=node.last_heard,
        python_versions=node.python_versions,
        reason=node.reason,
        drain_deadline=node.drain_by,
    )


def user_out(user: User) -> identity_pb2.User:
    """A user."""
    return identity_pb2.User(
        user_id=user.user_id,
        name=user.name,
        first_name=user.first_name,
        last_name=user.last_name,
        email=user.email,
        groups=user.groups,
        is_system=user.is_system,
    )


def _labels(labels: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(labels)


def _bad(field: str, message: str, hint: str) -> InvalidArgument:
    return InvalidArgument("invalid_request", f"{field}: {message}", field=field, hint=hint)
