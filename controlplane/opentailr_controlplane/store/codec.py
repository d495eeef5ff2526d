"""Definitions and small structures between memory and the JSON text of the tables."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ..core.values import (
    Acl,
    Bundle,
    Environment,
    JobDefinition,
    JobType,
    Origin,
    Payload,
    PayloadRef,
    Recipe,
    Resources,
    Schedule,
    TaskDefinition,
)


def to_json(value: Any) -> str:
    """Compact JSON text."""
    return json.dumps(value, separators=(",", ":"))


def encode_header(definition: JobDefinition) -> str:
    """A definition without its tasks."""
    header = {
        item.name: getattr(definition, item.name)
        for item in dataclasses.fields(definition)
        if item.name != "tasks"
    }
    return json.dumps(header, separators=(",", ":"), default=dataclasses.asdict)


def decode_header(text: str) -> JobDefinition:
    """The inverse of `encode_header`; `tasks` is empty."""
    header = json.loads(text)
    header["environment"] = Environment(header["environment"])
    header["type"] = JobType(header["type"])
    header["resources"] = Resources(**header["resources"])
    header["recipe"] = Recipe(**header["recipe"])
    header["bundle"] = Bundle(**header["bundle"])
    header["origin"] = Origin(**header["origin"])
    header["env"] = pairs(header["env"])
    schedule = header["schedule"]
    schedule["fields"] = pairs(schedule["fields"])
    header["schedule"] = Schedule(**schedule)
    return JobDefinition(**header)


def pairs(value: list[list[str]]) -> tuple[tuple[str, str], ...]:
    """Lists of two as JSON gives them, as tuples."""
    return tuple((first, second) for first, second in value)


def decode_acl(text: str) -> Acl:
    """A job's permissions."""
    return Acl(**{name: tuple(ids) for name, ids in json.loads(text).items()})


def decode_bundle(text: str) -> Bundle | None:
    """A bundle, or None for an empty text."""
    return Bundle(**json.loads(text)) if text else None


def decode_recipe(text: str) -> Recipe:
    """A recipe."""
    return Recipe(**json.loads(text))


def payload_ref(digest: str | None, size: int, inline: int) -> PayloadRef | None:
    """A reference from its three columns."""
    return PayloadRef(digest, size, bool(inline)) if digest is not None else None


def task_definition_row(definition_id: int, task: TaskDefinition) -> tuple[Any, ...]:
    """The row of `definition_tasks`."""
    arguments = task.arguments.reference() if isinstance(task.arguments, Payload) else task.arguments
    return (
        definition_id,
        task.task_id,
        task.name,
        task.entrypoint,
        task.resources.memory,
        task.resources.memory_bytes,
        task.resources.cpu,
        task.resources.memory_is_default,
        to_json(task.depends_on),
        to_json(task.env) if task.env else "[]",
        arguments.digest if arguments else None,
        arguments.size if arguments else 0,
        arguments.inline if arguments else False,
    )


def decode_task_definition(row: tuple[Any, ...]) -> TaskDefinition:
    """The inverse of `task_definition_row`."""
    (
        _, task_id, name, entrypoint, memory, memory_bytes, cpu, is_default, depends_on, env, digest, size,
        inline,
    ) = row  # fmt: skip
    return TaskDefinition(
        task_id,
        name,
        entrypoint,
        Resources(memory, memory_bytes, cpu, bool(is_default)),
        # The common empty case is not parsed: a start reads each task of each active run.
        tuple(json.loads(depends_on)) if depends_on != "[]" else (),
        pairs(json.loads(env)) if env != "[]" else (),
        payload_ref(digest, size, inline),
    )
