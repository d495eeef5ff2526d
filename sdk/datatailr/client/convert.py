"""From the definitions of the SDK to messages of the wire."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datatailr.client.transfers import Upload, payload_of, upload_of
from datatailr.client.words import PERMISSIONS, environment_number, job_type_number
from datatailr.errors import InvalidRequestError
from datatailr.v1 import common_pb2, job_pb2

if TYPE_CHECKING:
    from datatailr.scheduler._platform import (
        Bundle,
        CodeOrigin,
        ImageRecipe,
        JobDefinition,
        ResourceRequest,
        ScheduleRequest,
        TaskDefinition,
    )

DEFINITION_LIMIT: Final = 3 * 1024 * 1024
"""A definition above this many bytes travels as an object; messages may have 4 MiB."""


def save_request(
    definition: JobDefinition, *, idempotency_key: str
) -> tuple[job_pb2.SaveJobRequest, list[Upload]]:
    """The request that saves `definition`, and the objects that must be there before it is sent."""
    uploads: list[Upload] = []
    message = _definition(definition, uploads)

    if definition.bundle is not None:
        bundle = definition.bundle
        uploads.insert(0, Upload(bundle.digest, bundle.size, bundle.open))

    if message.ByteSize() <= DEFINITION_LIMIT:
        return (
            job_pb2.SaveJobRequest(
                idempotency_key=idempotency_key, definition=message, instant=definition.instant
            ),
            uploads,
        )

    upload = upload_of(message.SerializeToString(deterministic=True))
    uploads.append(upload)
    request = job_pb2.SaveJobRequest(
        idempotency_key=idempotency_key, definition_digest=upload.digest, instant=definition.instant
    )
    return request, uploads


def _definition(definition: JobDefinition, uploads: list[Upload]) -> job_pb2.JobDefinition:
    message = job_pb2.JobDefinition(
        name=definition.name,
        display_name=definition.display_name,
        environment=environment_number(definition.environment),
        type=job_type_number(definition.type),
        run_as=definition.run_as or "",
        resources=_resources(definition.resources),
        image=_recipe(definition.image),
        origin=_origin(definition.origin),
        entrypoint=definition.entrypoint or "",
        env=_env(definition.env),
        app_section=definition.app_section,
        tasks=(_task(task, uploads) for task in definition.tasks),
        fail_after=definition.fail_after or 0,
        expire_after=definition.expire_after or 0,
        repository_verified=definition.repository_verified,
        base_version=definition.base_version or 0,
        base_job_id=definition.base_job_id or "",
    )

    if definition.bundle is not None:
        message.bundle.CopyFrom(_bundle(definition.bundle))

    if definition.schedule is not None:
        message.schedule.CopyFrom(_schedule(definition.schedule))

    if definition.acl is not None:
        message.acl.CopyFrom(_access(definition.acl))

    return message


def _task(task: TaskDefinition, uploads: list[Upload]) -> job_pb2.TaskDefinition:
    message = job_pb2.TaskDefinition(
        id=task.id,
        name=task.name,
        entrypoint=task.entrypoint,
        resources=_resources(task.resources),
        depends_on=task.depends_on,
        env=_env(task.env),
    )

    if task.arguments is not None:
        message.arguments.CopyFrom(payload_of(task.arguments, uploads))

    return message


def _resources(resources: ResourceRequest) -> common_pb2.Resources:
    return common_pb2.Resources(
        memory=resources.memory,
        memory_bytes=resources.memory_bytes,
        cpu=resources.cpu,
        memory_is_default=resources.memory_is_default,
    )


def _recipe(recipe: ImageRecipe) -> common_pb2.ImageRecipe:
    return common_pb2.ImageRecipe(
        python_version=recipe.python_version,
        python_requirements=recipe.python_requirements,
        build_script_pre=recipe.build_script_pre,
        build_script_post=recipe.build_script_post,
    )


def _origin(origin: CodeOrigin) -> common_pb2.CodeOrigin:
    return common_pb2.CodeOrigin(
        branch_name=origin.branch_name or "",
        commit_hash=origin.commit_hash or "",
        path_to_repo=origin.path_to_repo or "",
        path_to_module=origin.path_to_module or "",
    )


def _bundle(bundle: Bundle) -> common_pb2.Bundle:
    return common_pb2.Bundle(
        digest=bundle.digest, size=bundle.size, directory=bundle.directory, top_level=bundle.top_level
    )


def _env(env: Iterable[tuple[str, str]]) -> Iterable[job_pb2.EnvVar]:
    return (job_pb2.EnvVar(name=name, value=value) for name, value in env)


def _schedule(schedule: ScheduleRequest) -> job_pb2.ScheduleDefinition:
    return job_pb2.ScheduleDefinition(
        cron=schedule.cron,
        timezone=schedule.timezone or "",
        run_after_job_id=schedule.run_after_job_uuid or "",
        run_after_job_name=schedule.run_after_job_name or "",
        run_after_condition=schedule.run_after_job_condition or "",
        fields=_fields(schedule.fields),
    )


def _fields(fields: Mapping[str, Any]) -> dict[str, str]:
    """Schedule fields as JSON texts, so that numbers come back as numbers (clause B75).

    Raises:
        InvalidRequestError: a value that JSON cannot hold; names the field.
    """
    return {name: _json(name, value) for name, value in fields.items()}


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"schedule argument {name!r}: {value!r}: {error}") from None


def _access(acl: Mapping[str, Sequence[int]]) -> job_pb2.AccessList:
    unknown = sorted(set(acl) - set(PERMISSIONS))

    if unknown:
        raise InvalidRequestError(f"acl: {unknown[0]!r} is none of {', '.join(PERMISSIONS)}")

    message = job_pb2.AccessList()

    for permission, ids in acl.items():
        getattr(message, permission).extend(ids)

    return message
