"""Definitions as JSON: what `dt job get` and `to_json` print, read again (clauses B66 to B71, B270).

A document says what it wants to be different. What it leaves out stays as in the version that it came from:
code and arguments never stand in a document.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from datatailr._near import suggestion
from datatailr.client import answers
from datatailr.client.words import PERMISSIONS, environment_word, job_type_word
from datatailr.errors import InvalidRequestError
from datatailr.scheduler import Resources, Schedule
from datatailr.scheduler._platform import (
    CodeOrigin,
    ImageRecipe,
    JobDefinition,
    ResourceRequest,
    ScheduleRequest,
    TaskDefinition,
)
from datatailr.v1 import common_pb2, job_pb2

_TASKS: Final = ("jobs", "children_full")
"""Where a document has its tasks: as `to_json` writes it, and as `dt job get -c` does."""

_WRITTEN: Final = (
    *("environment", "image", "type", "display_name", "name", "run_as", "memory", "cpu", "num_cpus"),
    *("app_section", "acl", "entrypoint", "env", "schedule", "fail_after", "expire_after", *_TASKS),
)
_TOLD: Final = ("id", "state", "version", "create_time", "exit_code", "error_message", "schedule_args", "run")
"""What the platform says of a version; `version` tells whose code and arguments are meant."""

_TASK_KEYS: Final = (
    *("display_name", "name", "child_number", "entrypoint", "memory", "cpu", "num_cpus", "depends_on", "env"),
)
_RECIPE_KEYS: Final = ("python_version", "python_requirements", "build_script_pre", "build_script_post")
_ORIGIN_KEYS: Final = ("branch_name", "commit_hash", "path_to_repo", "path_to_module")

_NO_ARGUMENTS: Final = pickle.dumps({}, protocol=4)


def read_document(path: Path) -> dict[str, Any]:
    """The definition in a file: a JSON object, or a list of one as `dt job get -j` prints it.

    Raises:
        InvalidRequestError: it is not that; says where the JSON ends to be one.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}\n"
            "hint: a definition is JSON; `dt job new` prints one"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{path} is no UTF-8 text (byte {error.start})") from None

    if isinstance(content, list) and len(content) == 1:
        content = content[0]

    if not isinstance(content, dict):
        raise InvalidRequestError(
            f"{path} holds no single JSON object\nhint: `dt job new` prints a definition"
        )

    return content


def stored_definition(job: job_pb2.Job, tasks: Iterable[job_pb2.TaskDefinition]) -> JobDefinition:
    """A saved version as it would be saved again: with its code and arguments, which stay on the server."""
    message = job.definition
    return JobDefinition(
        name=message.name,
        display_name=message.display_name,
        environment=environment_word(message.environment),
        type=job_type_word(message.type),
        resources=_stored_resources(message.resources),
        image=ImageRecipe(**{key: getattr(message.image, key) for key in _RECIPE_KEYS}),
        origin=CodeOrigin(**{key: getattr(message.origin, key) or None for key in _ORIGIN_KEYS}),
        document={},
        run_as=message.run_as or None,
        entrypoint=message.entrypoint or None,
        env=[(variable.name, variable.value) for variable in message.env],
        app_section=message.app_section,
        tasks=[
            TaskDefinition(
                id=task.id,
                name=task.name,
                entrypoint=task.entrypoint,
                resources=_stored_resources(task.resources),
                depends_on=list(task.depends_on),
                env=[(variable.name, variable.value) for variable in task.env],
            )
            for task in tasks
        ],
        schedule=_stored_schedule(message.schedule),
        fail_after=message.fail_after or None,
        expire_after=message.expire_after or None,
        acl={name: list(getattr(message.acl, name)) for name in PERMISSIONS},
        repository_verified=message.repository_verified,
        base_version=job.version,
    )


def changed(definition: JobDefinition, document: Mapping[str, Any]) -> JobDefinition:
    """The definition with what the document says.

    Raises:
        InvalidRequestError: an unknown key or a value that does not fit; names it.
    """
    _check_keys(document, (*_WRITTEN, *_TOLD), "definition")
    changes: dict[str, Any] = {}

    for key in ("display_name", "app_section", "run_as", "entrypoint"):
        if key in document:
            changes[key] = _text(document, key)

    changes["entrypoint"] = changes.get("entrypoint", definition.entrypoint) or None
    changes["run_as"] = changes.get("run_as", definition.run_as) or None

    for key in ("fail_after", "expire_after"):
        if key in document:
            changes[key] = _microseconds(document, key)

    if "env" in document:
        changes["env"] = _env(document["env"], "env")

    if document.get("acl") is not None:
        changes["acl"] = _acl(document["acl"])

    if "image" in document:
        changes["image"], changes["origin"] = _image(definition, document["image"])

    if "schedule" in document:
        changes["schedule"] = _schedule(definition.schedule, _text(document, "schedule"))

    changes["resources"] = _resources(document, definition.resources, "the job")
    tasks = next((key for key in _TASKS if document.get(key) is not None), None)

    if tasks is not None:
        changes["tasks"] = _tasks(definition.tasks, document[tasks], tasks)

    return replace(definition, **changes)


def template(job_type: str, directory: Path) -> dict[str, Any]:
    """A definition to fill in, for `dt job new`; the code is expected below `directory`."""
    common: dict[str, Any] = {
        "environment": "dev",
        "image": {
            "python_version": "3.12",
            "python_requirements": "",
            "build_script_pre": "",
            "build_script_post": "",
            "branch_name": None,
            "commit_hash": None,
            "path_to_repo": str(directory),
            "path_to_module": "my_package",
        },
        "type": job_type,
        "display_name": "My Job",
        "name": "my-job",
        "memory": "128m",
        "num_cpus": 0.25,
        "app_section": "",
    }

    if job_type != "batch":
        return common | {"entrypoint": "my_package.module:function", "env": []}

    task = {
        "display_name": "first",
        "name": "first",
        "child_number": 0,
        "entrypoint": "my_package.module:first",
        "memory": "128m",
        "num_cpus": 0.25,
        "depends_on": [],
        "env": [{f"{answers.ENV_PREFIX}NAME": "value"}],
    }
    return common | {"jobs": [task], "schedule": None, "fail_after": None, "expire_after": None}


def _tasks(base: Sequence[TaskDefinition], value: Any, key: str) -> list[TaskDefinition]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        _refuse(key, value, "it must be a list of objects, one for each task")

    known = {task.id: task for task in base}
    tasks: list[TaskDefinition] = []

    for position, entry in enumerate(value):
        where = f"{key}[{position}]"
        _check_keys(entry, _TASK_KEYS, where)
        number = entry.get("child_number", position)

        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            _refuse(f"{where}.child_number", number, "it must be the number of the task, from 0")

        old = known.get(number)
        name = _text(entry, "display_name" if "display_name" in entry else "name", where)
        entrypoint = _text(entry, "entrypoint", where) or (old.entrypoint if old else "")

        if not name or not entrypoint:
            missing = "entrypoint" if name else "name"
            raise InvalidRequestError(f"{where} has no {missing}; a task needs one")

        depends_on = entry.get("depends_on", list(old.depends_on) if old else [])

        if not isinstance(depends_on, list) or not all(type(other) is int for other in depends_on):
            _refuse(f"{where}.depends_on", depends_on, "it must be a list of numbers of tasks")

        tasks.append(
            TaskDefinition(
                id=number,
                name=name,
                entrypoint=entrypoint,
                resources=_resources(entry, old.resources if old else None, f"task {name!r}", where),
                depends_on=sorted(set(depends_on)),
                env=_env(entry["env"], f"{where}.env") if "env" in entry else old.env if old else (),
                # Those of the task with this number stay; a new task is called without any.
                arguments=None if old else _NO_ARGUMENTS,
            )
        )

    return tasks


def _resources(
    document: Mapping[str, Any], base: ResourceRequest | None, owner: str, where: str = ""
) -> ResourceRequest:
    memory = document.get("memory")
    cpu = document.get("cpu", document.get("num_cpus"))

    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, (int, str))):
        _refuse(_join(where, "memory"), memory, 'it must be bytes or a text like "512m"')

    if cpu is not None and (isinstance(cpu, bool) or not isinstance(cpu, (int, float))):
        _refuse(_join(where, "cpu"), cpu, "it must be a number of cores")

    try:
        asked = Resources(
            memory="128m" if memory is None else str(memory), cpu=0.25 if cpu is None else float(cpu)
        ).request(owner=owner)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{_join(where, 'memory and cpu')}: {error}") from None

    if base is None:
        return asked

    if memory is not None and asked.memory_bytes != base.memory_bytes:
        base = replace(base, memory=asked.memory, memory_bytes=asked.memory_bytes, memory_is_default=False)

    return base if cpu is None else replace(base, cpu=asked.cpu)


def _image(definition: JobDefinition, value: Any) -> tuple[ImageRecipe, CodeOrigin]:
    if not isinstance(value, dict):
        _refuse("image", value, "it must be an object")

    _check_keys(value, (*_RECIPE_KEYS, *_ORIGIN_KEYS), "image")
    recipe = {key: _text(value, key, "image") for key in _RECIPE_KEYS if key in value}
    origin = {key: _text(value, key, "image") or None for key in _ORIGIN_KEYS if key in value}

    if not recipe.get("python_version", "x"):
        _refuse("image.python_version", value["python_version"], "it must be a version like 3.12")

    return replace(definition.image, **recipe), replace(definition.origin, **origin)


def _schedule(base: ScheduleRequest | None, cron: str) -> ScheduleRequest | None:
    if cron == (base.cron if base else ""):
        # Only the cron text stands in a document; what belongs to it stays with it.
        return base

    if not cron:
        return None

    try:
        schedule = Schedule(cron_expression=cron)
        return schedule.request(schedule.get_schedule_args())
    except ValueError as error:
        raise InvalidRequestError(f"schedule: {error}") from None


def _env(value: Any, where: str) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) and len(entry) == 1 for entry in value):
        _refuse(where, value, f'it must be a list of objects like {{"{answers.ENV_PREFIX}NAME": "value"}}')

    return [
        (name.removeprefix(answers.ENV_PREFIX), text if isinstance(text, str) else str(text))
        for entry in value
        for name, text in entry.items()
    ]


def _acl(value: Any) -> dict[str, list[int]]:
    if not isinstance(value, dict):
        _refuse("acl", value, "it must be an object of permissions")

    _check_keys(value, PERMISSIONS, "acl")

    for name, ids in value.items():
        if not isinstance(ids, list) or not all(type(entity) is int for entity in ids):
            _refuse(f"acl.{name}", ids, "it must be a list of ids, of users positive, of groups negative")

    return {name: list(value.get(name, ())) for name in PERMISSIONS}


def _microseconds(document: Mapping[str, Any], key: str) -> int | None:
    value = document[key]

    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        _refuse(key, value, "it must be a number of microseconds or null")

    return value or None


def _text(document: Mapping[str, Any], key: str, where: str = "") -> str:
    value = document.get(key)

    if value is not None and not isinstance(value, str):
        _refuse(_join(where, key), value, "it must be a text")

    return value or ""


def _check_keys(document: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in document:
        if key not in known:
            hint = suggestion(key, known, otherwise=f"known are {', '.join(known)}")
            raise InvalidRequestError(
                f"{where} has a key {key[:60]!r}, which means nothing here\nhint: {hint}"
            )


def _stored_resources(resources: common_pb2.Resources) -> ResourceRequest:
    return ResourceRequest(
        resources.memory, resources.memory_bytes, resources.cpu, resources.memory_is_default
    )


def _stored_schedule(schedule: job_pb2.ScheduleDefinition) -> ScheduleRequest | None:
    if not schedule.ByteSize():
        return None

    return ScheduleRequest(
        cron=schedule.cron,
        timezone=schedule.timezone or None,
        run_after_job_uuid=schedule.run_after_job_id or None,
        run_after_job_name=schedule.run_after_job_name or None,
        run_after_job_condition=schedule.run_after_condition or None,
        fields=answers.schedule_args(schedule),
    )


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _refuse(where: str, value: Any, remedy: str) -> NoReturn:
    raise InvalidRequestError(f"{where} is {str(value)[:60]!r}; {remedy}")
