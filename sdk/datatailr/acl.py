"""Permissions and access lists as values (section 16)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeAlias, runtime_checkable

from datatailr.errors import NotFoundError, PlatformError
from datatailr.user import User, _directory

__all__ = ["ACL", "Entity", "GroupLike", "Permission"]

STANDARD_GROUP = "dtusers"
"""The group that every person belongs to."""


class Permission(Enum):
    """What somebody may do with a job (clause B235)."""

    READ = "read"
    """See definition, runs, logs and results."""
    WRITE = "write"
    """Save new versions, modify, remove."""
    OPERATE = "operate"
    """Start, stop, rerun."""
    ACCESS = "access"
    """Use the running app, service or add-in."""
    PROMOTE = "promote"
    """Carry versions to the next environment."""


@runtime_checkable
class GroupLike(Protocol):
    """What an access list needs of a group."""

    @property
    def name(self) -> str:
        """Name of the group."""

    @property
    def group_id(self) -> int:
        """Numeric id."""


@dataclass(frozen=True)
class _GroupEntry:
    """A group as an access list knows it: its name and id."""

    name: str
    group_id: int


Entity: TypeAlias = "User | GroupLike"


class ACL:
    """Who may do what (clauses B236 to B239, B244).

    Args:
        permissions: Permission to users and groups, a list or a single one. The mapping is
            complete: a permission that is not in it is granted to nobody. None or an empty mapping
            is the standard list: the signed-in user has all five permissions, the group `dtusers`
            has READ and ACCESS; it is looked up when it is first needed.

    Raises:
        TypeError: a key is no Permission, or an entity is neither user nor group.
    """

    def __init__(self, permissions: Mapping[Permission, Iterable[Entity] | Entity] | None = None) -> None:
        self._entities: dict[Permission, list[Entity]] | None = None
        self._ids: dict[Permission, list[int]] | None = None
        if permissions:
            if not isinstance(permissions, Mapping):
                raise TypeError(
                    f"permissions is {permissions!r}; it must be a dict of Permission to entities"
                )
            self._entities = {key: _entities(key, value) for key, value in permissions.items()}

    @property
    def permissions(self) -> dict[Permission, list[Entity]]:
        """Users and groups by permission.

        Raises:
            ValueError: an id that the platform does not know.
            RuntimeError: it has to be looked up, and there is no platform.
        """
        if self._entities is None:
            self._entities = _standard() if self._ids is None else _resolved(self._ids)
        return {key: list(entities) for key, entities in self._entities.items()}

    def to_dict(self) -> dict[str, list[int]]:
        """Permission name to ids, users positive, groups negative."""
        if self._entities is None and self._ids is not None:
            return {key.value: list(ids) for key, ids in self._ids.items()}
        return {key.value: [_id_of(entity) for entity in found] for key, found in self.permissions.items()}

    @classmethod
    def from_dict(cls, acl_dict: Mapping[str, Iterable[int]]) -> ACL:
        """The inverse of `to_dict`.

        Raises:
            ValueError: an unknown permission or id.
        """
        acl = cls.from_stored(acl_dict)
        acl.permissions  # noqa: B018 - looks every id up
        return acl

    @classmethod
    def from_stored(cls, acl_dict: Mapping[str, Iterable[int]]) -> ACL:
        """Like `from_dict` for an answer of the platform: the ids are known to be right and are
        looked up only when names are asked for."""
        acl = cls()
        acl._ids = {Permission(key): [int(entry) for entry in ids] for key, ids in acl_dict.items()}
        return acl

    def to_json(self) -> str:
        """JSON text of `to_dict()`."""
        return json.dumps(self.to_dict())

    def to_cli_command(self) -> dict[str, str]:
        """The list as options of the command line: `{"users": "alice:r,alice:w", "groups": "…"}`."""
        users: list[str] = []
        groups: list[str] = []
        for key, entities in self.permissions.items():
            for entity in entities:
                target = users if isinstance(entity, User) else groups
                target.append(f"{entity.name}:{key.value[0]}")
        parts = {"users": ",".join(users), "groups": ",".join(groups)}
        return {name: text for name, text in parts.items() if text}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ACL):
            return False
        mine, theirs = self.to_dict(), other.to_dict()
        names = mine.keys() | theirs.keys()
        return all(set(mine.get(name, [])) == set(theirs.get(name, [])) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._entities is None and self._ids is None:
            return "ACL()"
        return f"ACL({self.to_dict()!r})"


def _entities(key: object, value: object) -> list[Entity]:
    if not isinstance(key, Permission):
        raise TypeError(f"{key!r} is no Permission; use for instance Permission.READ")
    given: list[Any] = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    result: list[Entity] = []
    for entity in given:
        if not isinstance(entity, User | GroupLike):
            raise TypeError(f"{key.value}: {entity!r} is neither a User nor a Group")
        if entity not in result:
            result.append(entity)
    return result


def _id_of(entity: Entity) -> int:
    return entity.user_id if isinstance(entity, User) else -entity.group_id


def _group(*, name: str | None = None, group_id: int | None = None) -> _GroupEntry:
    try:
        found = _directory().get_group(name=name, group_id=group_id)
    except NotFoundError as error:
        wanted = repr(name) if name is not None else f"id {group_id}"
        raise ValueError(f"there is no group {wanted}") from error
    except PlatformError as error:
        raise RuntimeError(str(error)) from error
    return _GroupEntry(str(found["name"]), int(found["group_id"]))


def _standard() -> dict[Permission, list[Entity]]:
    user = User.signed_user()
    group = _group(name=STANDARD_GROUP)
    shared = (Permission.READ, Permission.ACCESS)
    return {key: [user, group] if key in shared else [user] for key in Permission}


def _resolved(ids: Mapping[Permission, Iterable[int]]) -> dict[Permission, list[Entity]]:
    known: dict[int, Entity] = {}
    result: dict[Permission, list[Entity]] = {}
    for key, entries in ids.items():
        result[key] = []
        for entry in entries:
            if entry not in known:
                known[entry] = User(id=entry) if entry >= 0 else _group(group_id=-entry)
            result[key].append(known[entry])
    return result
