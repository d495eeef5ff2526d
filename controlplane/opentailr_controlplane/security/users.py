"""Users and groups of the embedded platform: its owner, who administrates it."""

from __future__ import annotations

import getpass
import os
import pwd
from dataclasses import dataclass

ADMIN_GROUP = "admin"
"""Members pass all checks (clause B243)."""

DEFAULT_GROUP = "dtusers"
"""Everybody; has READ and ACCESS under the default list (clause B236)."""

GROUP_IDS = {ADMIN_GROUP: 1, DEFAULT_GROUP: 2}
"""Ids of the groups; an access list holds them with a minus sign (clause B238)."""

ADMINISTRATOR_ID = 1


@dataclass(frozen=True, slots=True)
class User:
    """A person, or the system user that code runs as."""

    user_id: int
    name: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    is_system: bool = False

    @property
    def is_admin(self) -> bool:
        """True when every check passes (clause B243)."""
        return ADMIN_GROUP in self.groups

    @property
    def entities(self) -> frozenset[int]:
        """The user and its groups as an access list names them."""
        return frozenset({self.user_id, *(-GROUP_IDS[group] for group in self.groups)})


def operating_system_user() -> User:
    """The user that owns this process, as the administrator of its platform."""
    name, full = _account()
    first, _, last = full.partition(" ")
    return User(
        user_id=ADMINISTRATOR_ID,
        name=name,
        first_name=first,
        last_name=last,
        groups=(ADMIN_GROUP, DEFAULT_GROUP),
    )


def _account() -> tuple[str, str]:
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        # A container may run under a number that has no account.
        return os.environ.get("USER") or f"uid{os.getuid()}", ""
    return entry.pw_name or getpass.getuser(), entry.pw_gecos.split(",")[0].strip()


class UserDirectory:
    """Finds users by id and by name."""

    def __init__(self, users: list[User]) -> None:
        self._by_id = {user.user_id: user for user in users}
        self._by_name = {user.name: user for user in users}

    def by_id(self, user_id: int) -> User | None:
        """The user with this id, or None."""
        return self._by_id.get(user_id)

    def by_name(self, name: str) -> User | None:
        """The user with this name, or None."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._by_name)
