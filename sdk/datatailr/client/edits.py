"""Saving what is not a live object of the SDK: a document, a changed version, a copy.

Each becomes a new version (clause B98); versions themselves never change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datatailr.client import documents, queries
from datatailr.client.connection import Connection
from datatailr.client.platform import GrpcPlatform
from datatailr.errors import ConflictError, InvalidRequestError, NotFoundError
from datatailr.scheduler._names import internal_name, normalize_name
from datatailr.scheduler._package import CodePackage, package_of_directory
from datatailr.scheduler._platform import (
    CodeOrigin,
    ImageRecipe,
    JobDefinition,
    ResourceRequest,
    SavedVersion,
    ScheduleRequest,
)
from datatailr.scheduler._saving import shipped
from datatailr.utils import Environment

PERMISSION_LETTERS = {"r": "read", "w": "write", "o": "operate", "a": "access", "p": "promote"}
"""Letters of permissions on the command line (clause B239)."""

EVERYBODY = "dtusers"
"""The group that `--others` means."""

_GROUP_IDS = {"admin": 1, EVERYBODY: 2}


def save_document(
    connection: Connection, document: Mapping[str, Any], *, schedule: ScheduleRequest | None = None
) -> tuple[JobDefinition, SavedVersion]:
    """Save a definition that was printed by `dt job get` or `to_json`.

    With a `version` in it, code, arguments and all it leaves out come from that version. Without one the code
    is packaged from `image.path_to_repo` and `path_to_module` if they are on this machine, and the rest comes
    from the latest version if there is one.

    Args:
        connection: The server.
        document: The definition.
        schedule: Takes the place of the document's.

    Raises:
        InvalidRequestError: a mistake in the document, or no code to be found.
        NotFoundError: the version that it names does not exist.
    """
    name, environment = _identity(document)
    version = document.get("version")

    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 1):
        raise InvalidRequestError(f"version is {version!r}; it must be the number of a saved version")

    base = _base(connection, name, environment, version)
    definition = documents.changed(base or _blank(document, name, environment), document)

    if document.get("type") not in (None, definition.type):
        raise InvalidRequestError(
            f"type is {document['type']!r}, but {name!r} in {environment} is of type {definition.type!r}"
        )

    if schedule is not None:
        definition = replace(definition, schedule=schedule)

    return definition, _save(connection, definition, fresh_code=version is None, had_code=base is not None)


def modify(
    connection: Connection,
    name: str,
    environment: str,
    *,
    version: int | None = None,
    child: str | None = None,
    document: Mapping[str, Any] | None = None,
    groups: str = "",
    users: str = "",
    others: str | None = None,
) -> tuple[JobDefinition, SavedVersion]:
    """Save a new version that differs from an earlier one.

    Args:
        connection: The server.
        name: Internal name, display name or id.
        environment: Where it lives.
        version: The version to start from, the latest by default.
        child: Number or name of a task; memory and cpu are then that task's.
        document: What is to be different, with the keys of a definition.
        groups: New permissions of groups, `name:rwoap` joined by commas; the others stay.
        users: Of users likewise.
        others: New permissions of everybody.

    Raises:
        InvalidRequestError: a value that does not fit; names it.
        NotFoundError: no such job, version or task.
    """
    job = queries.job(connection, name, environment, version=version)
    base = documents.stored_definition(job, queries.version_tasks(connection, job))
    asked = dict(document or {})

    display_name = str(asked.get("display_name") or base.display_name)

    if normalize_name(display_name) != base.name:
        raise InvalidRequestError(
            f"display name {display_name!r} belongs to a job {normalize_name(display_name)!r}, not to "
            f"{base.name!r}\nhint: `dt job copy {base.name} NEW_NAME` makes another job"
        )

    if child is not None:
        size: dict[str, Any] = {key: asked.pop(key) for key in ("memory", "cpu") if key in asked}
        asked["children_full"] = _with_child(base, child, size)

    definition = documents.changed(base, asked)

    if groups or users or others is not None:
        caller = queries.caller(connection).user
        acl = {key: list(ids) for key, ids in (definition.acl or {}).items()}
        entries = [
            *_entries(users, {caller.name: caller.user_id}, "user", 1),
            *_entries(groups, _GROUP_IDS, "group", -1),
        ]

        if others is not None:
            entries.append((-_GROUP_IDS[EVERYBODY], _letters(others)))

        for entity, permissions in entries:
            for key, ids in acl.items():
                acl[key] = [*(one for one in ids if one != entity), *([entity] if key in permissions else [])]

        definition = replace(definition, acl=acl)

    return definition, _save(connection, definition, fresh_code=False, had_code=True)


def copy(
    connection: Connection, name: str, new_name: str, environment: str, *, version: int | None = None
) -> tuple[JobDefinition, SavedVersion]:
    """Save a version of a job as the first one of another job of the caller, with code and arguments.

    It has no schedule, so that nothing runs twice by itself, and the caller's own standard access list.

    Raises:
        ConflictError: there is a job of the new name.
    """
    try:
        wanted = internal_name(new_name)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None

    job = queries.job(connection, name, environment, version=version)

    if queries.versions(connection, wanted, environment=environment):
        raise ConflictError(f"there is a job {wanted!r} in {environment} already\nhint: give another name")

    definition = replace(
        documents.stored_definition(job, queries.version_tasks(connection, job)),
        name=wanted,
        display_name=new_name,
        schedule=None,
        acl=None,
        run_as=None,
        base_job_id=job.id,
    )
    return definition, _save(connection, definition, fresh_code=False, had_code=True)


def _identity(document: Mapping[str, Any]) -> tuple[str, str]:
    given = document.get("name") or document.get("display_name")

    if not isinstance(given, str):
        raise InvalidRequestError("the definition has no name\nhint: give it a display_name")

    try:
        environment = Environment.parse_or_dev(document.get("environment"))
        name = internal_name(given)
        shown = document.get("display_name") or given

        if not isinstance(shown, str) or internal_name(shown) != name:
            raise ValueError(f"display_name {shown!r} does not belong to name {given!r}")
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None

    return name, environment.value


def _base(connection: Connection, name: str, environment: str, version: int | None) -> JobDefinition | None:
    try:
        job = queries.job(connection, name, environment, version=version)
    except NotFoundError:
        if version is not None:
            raise

        return None

    return documents.stored_definition(job, queries.version_tasks(connection, job))


def _blank(document: Mapping[str, Any], name: str, environment: str) -> JobDefinition:
    python = (
        (document.get("image") or {}).get("python_version")
        if isinstance(document.get("image"), dict)
        else None
    )

    if not document.get("type") or not python:
        missing = "type" if not document.get("type") else "image.python_version"
        raise InvalidRequestError(
            f"there is no job {name!r} in {environment} yet, and the definition has no {missing}"
        )

    return JobDefinition(
        name=name,
        display_name=str(document.get("display_name") or document["name"]),
        environment=environment,
        type=str(document["type"]),
        resources=ResourceRequest("128m", 128 << 20, 0.25, True),
        image=ImageRecipe(python_version=str(python)),
        origin=CodeOrigin(),
        document={},
    )


def _save(
    connection: Connection, definition: JobDefinition, *, fresh_code: bool, had_code: bool
) -> SavedVersion:
    package = _package(definition) if fresh_code else None

    if package is None and not had_code:
        where = definition.origin.path_to_module or "image.path_to_module"
        raise InvalidRequestError(
            f"no code for {definition.name!r}: {where!r} below "
            f"{definition.origin.path_to_repo or 'image.path_to_repo'!r} is no directory on this machine\n"
            "hint: name the package's directory there, or save the job once from Python"
        )

    with shipped(package) if package is not None else contextlib.nullcontext() as code:
        if code is not None:
            bundle, origin = code
            definition = replace(
                definition,
                bundle=bundle,
                origin=replace(definition.origin, branch_name=origin.branch, commit_hash=origin.commit),
                repository_verified=origin.problem is None,
            )

        return GrpcPlatform(connection).save_job(definition)


def _package(definition: JobDefinition) -> CodePackage | None:
    """The package that the paths of the definition name, if it is on this machine."""
    repository, module = definition.origin.path_to_repo, definition.origin.path_to_module

    if not repository or not module or not (Path(repository) / module).is_dir():
        return None

    directory = (Path(repository) / module).resolve()
    entrypoints = [task.entrypoint for task in definition.tasks] or [definition.entrypoint or ""]
    return package_of_directory(
        directory,
        top_level=not any(entry.split(":")[0].split(".")[0] == directory.name for entry in entrypoints),
    )


def _with_child(base: JobDefinition, child: str, size: Mapping[str, Any]) -> list[dict[str, Any]]:
    tasks = [
        {"child_number": task.id, "name": task.name, **(size if child in (task.name, str(task.id)) else {})}
        for task in base.tasks
    ]

    if not any(child in (task.name, str(task.id)) for task in base.tasks):
        known = ", ".join(task.name for task in base.tasks[:10])
        raise NotFoundError(f"{base.name!r} has no task {child!r}\nhint: it has {known or 'none'}")

    return tasks


def _entries(
    text: str, known: Mapping[str, int], what: str, sign: int
) -> Sequence[tuple[int, frozenset[str]]]:
    entries = []

    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, colon, letters = entry.rpartition(":")

        if not colon or not name:
            raise InvalidRequestError(f"{what} {entry!r} has no permissions\nhint: write {entry}:rw")

        if name not in known and not name.isdecimal():
            raise NotFoundError(
                f"{what} {name!r} is not known\nhint: {', '.join(known)} are, and numbers are taken as ids"
            )

        entries.append((sign * (known[name] if name in known else int(name)), _letters(letters)))

    return entries


def _letters(text: str) -> frozenset[str]:
    for letter in text:
        if letter not in PERMISSION_LETTERS:
            known = ", ".join(f"{key} {word}" for key, word in PERMISSION_LETTERS.items())
            raise InvalidRequestError(f"{letter!r} in {text!r} is no permission\nhint: {known}")

    return frozenset(PERMISSION_LETTERS[letter] for letter in text)
