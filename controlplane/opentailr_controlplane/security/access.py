"""What a user may do with a job: one function decides (clauses B235 to B243)."""

from __future__ import annotations

from enum import Enum

from ..core.errors import InvalidArgument, PermissionDenied
from ..core.values import Acl
from .users import DEFAULT_GROUP, GROUP_IDS, User, UserDirectory


class Permission(Enum):
    """What a caller wants to do with a job (clause B235)."""

    READ = "read"
    """See definition, runs, logs, results."""
    WRITE = "write"
    """Save new versions, modify, remove."""
    OPERATE = "operate"
    """Start, stop, rerun."""
    ACCESS = "access"
    """Use the running app, service or add-in."""
    PROMOTE = "promote"
    """Copy a version to the next environment."""


def allowed(user: User, acl: Acl, permission: Permission) -> bool:
    """True when the user may. Members of the group `admin` always may (clause B243)."""
    if user.is_admin:
        return True
    entities: tuple[int, ...] = getattr(acl, permission.value)
    return not user.entities.isdisjoint(entities)


def check(user: User, acl: Acl, permission: Permission, *, what: str = "this job") -> None:
    """Raises PermissionDenied, naming user, permission and object, unless the user may (clause B241)."""
    if not allowed(user, acl, permission):
        raise PermissionDenied(
            "permission_denied",
            f"user {user.name!r} lacks the permission {permission.value} on {what}",
            field=permission.value,
            hint=f"ask somebody who may write {what} to add you to its list for {permission.value}",
        )


def check_admin(user: User, what: str) -> None:
    """Raises PermissionDenied unless the user is an administrator."""
    if not user.is_admin:
        raise PermissionDenied(
            "admin_only",
            f"user {user.name!r} may not {what}: that is for the group admin",
            hint="ask an administrator",
        )


def default_acl(user: User) -> Acl:
    """The list of a job saved without one: its user everything, `dtusers` READ and ACCESS (B236, B240)."""
    own, everybody = (user.user_id,), (user.user_id, -GROUP_IDS[DEFAULT_GROUP])
    return Acl(read=everybody, write=own, operate=own, access=everybody, promote=own)


def check_run_as(user: User, run_as: str, users: UserDirectory) -> str:
    """The name that code runs as: `run_as`, or the caller when it is empty (clause B242).

    Raises:
        InvalidArgument: There is no such user.
        PermissionDenied: The caller may not act as that user.
    """
    if not run_as or run_as == user.name:
        return user.name
    other = users.by_name(run_as)
    if other is None:
        raise InvalidArgument(
            "user_not_found",
            f"run_as names {run_as!r}, which is no user here",
            field="run_as",
            hint=f"use one of: {', '.join(users.names[:20])}",
        )
    shares_group = other.is_system and not set(other.groups).isdisjoint(user.groups)
    if not (user.is_admin or shares_group):
        raise PermissionDenied(
            "run_as_denied",
            f"user {user.name!r} may not run jobs as {run_as!r}",
            field="run_as",
            hint="leave run_as out, or use a system user of one of your groups",
        )
    return run_as
