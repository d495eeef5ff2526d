"""People as values (section 17)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datatailr.errors import NotConfiguredError, NotFoundError, PlatformError, UnauthenticatedError

if TYPE_CHECKING:
    from datatailr.scheduler._platform import Platform, UserDirectory

__all__ = ["User"]


def _find_platform() -> Platform | None:
    """The configured platform; jobs are built on users, so their package is imported here."""
    from datatailr.scheduler import _platform

    return _platform.get_platform()


def _directory() -> UserDirectory:
    """The platform's list of people.

    Raises:
        RuntimeError: no platform is configured, or it does not manage people.
    """
    platform = _find_platform()
    if platform is None:
        raise RuntimeError(str(NotConfiguredError()))
    people = _people_of(platform)
    if people is None:
        raise RuntimeError(f"the platform at {platform.address} does not manage users")
    return people


def _people_of(platform: Platform) -> UserDirectory | None:
    from datatailr.scheduler._platform import UserDirectory

    return platform if isinstance(platform, UserDirectory) else None


class User:
    """A person, or a system user, of the platform.

    `User("alice")` and `User(id=42)` load the rest from the platform. All properties are read-only.

    Args:
        name: Login name.
        id: Numeric id.
        first_name: Taken as given when both name and id are; likewise the following.
        last_name: Family name.
        email: Address.
        groups: Names of groups.
        is_system_user: True for a user that is no person.

    Raises:
        ValueError: neither name nor id, or an unknown id or name.
        RuntimeError: no platform is configured.
    """

    def __init__(
        self,
        name: str | None = None,
        id: int | None = None,
        first_name: str | None = None,
        last_name: str | None = None,
        email: str | None = None,
        groups: list[str] | None = None,
        is_system_user: bool = False,
    ) -> None:
        if name is None and id is None:
            raise ValueError("a User needs a name or an id")
        if name is not None and id is not None:
            self._fill(
                {
                    "name": name,
                    "user_id": id,
                    "first_name": first_name,
                    "last_name": last_name,
                    "email": email,
                    "groups": groups,
                    "is_system": is_system_user,
                }
            )
        else:
            self._fill(_lookup(name=name, user_id=id))

    def _fill(self, data: Mapping[str, Any]) -> None:
        groups = data.get("groups") or []
        if isinstance(groups, str):
            groups = [part.strip() for part in groups.split(",") if part.strip()]
        self._name = str(data["name"])
        self._user_id = int(data["user_id"])
        self._first_name = str(data.get("first_name") or "")
        self._last_name = str(data.get("last_name") or "")
        self._email = str(data.get("email") or "")
        self._groups = [str(group) for group in groups]
        self._is_system = bool(data.get("is_system", False))

    @property
    def name(self) -> str:
        """Login name."""
        return self._name

    @property
    def user_id(self) -> int:
        """Numeric id."""
        return self._user_id

    @property
    def first_name(self) -> str:
        """Given name, "" when unknown."""
        return self._first_name

    @property
    def last_name(self) -> str:
        """Family name, "" when unknown."""
        return self._last_name

    @property
    def email(self) -> str:
        """Address, "" when unknown."""
        return self._email

    @property
    def groups(self) -> list[str]:
        """Names of the user's groups; a copy."""
        return list(self._groups)

    @property
    def is_system_user(self) -> bool:
        """True for a user that is no person."""
        return self._is_system

    @staticmethod
    def get(name_or_id: str | int) -> User:
        """The user of a name or id.

        Raises:
            ValueError: unknown.
        """
        return User(id=name_or_id) if isinstance(name_or_id, int) else User(name_or_id)

    @staticmethod
    def signed_user() -> User:
        """The authenticated user (clause B247).

        Raises:
            PermissionError: the platform does not accept the token.
            RuntimeError: no platform is configured or none answers.
        """
        platform = _find_platform()
        if platform is None:
            raise RuntimeError(f"nobody is signed in: {NotConfiguredError()}")
        try:
            return User.from_dict(platform.caller())
        except UnauthenticatedError as error:
            raise PermissionError(str(error)) from error
        except PlatformError as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def exists(name: str) -> bool:
        """True when the platform knows the user."""
        try:
            _lookup(name=name, user_id=None)
        except ValueError:
            return False
        return True

    @staticmethod
    def ls(filter: str | None = None) -> list[User]:
        """All users, or those that fit a filter expression (section 21)."""
        try:
            return [User.from_dict(data) for data in _directory().list_users(filter=filter)]
        except PlatformError as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def add(
        name: str,
        first_name: str,
        last_name: str,
        email: str,
        password: str | None,
        groups: list[str] | None = None,
        is_system_user: bool = False,
    ) -> User:
        """Make a user (clause B248).

        Raises:
            RuntimeError: the platform refuses.
        """
        if is_system_user and password:
            import warnings

            warnings.warn(f"the system user {name!r} cannot sign in; its password is ignored", stacklevel=2)
            password = None
        user = {
            "name": name,
            "first_name": first_name,
            "last_name": last_name,
            "email": email,
            "groups": ",".join(groups or []),
            "is_system": is_system_user,
        }
        try:
            return User.from_dict(_directory().add_user(user, password=password))
        except PlatformError as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def remove(name: str) -> None:
        """Remove a user.

        Raises:
            RuntimeError: unknown, or the platform refuses.
        """
        try:
            _directory().remove_user(name)
        except PlatformError as error:
            raise RuntimeError(str(error)) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> User:
        """A user from a platform answer (clause B250).

        Raises:
            ValueError: a key is missing.
        """
        for key in ("name", "user_id", "first_name", "last_name", "is_system"):
            if key not in data:
                raise ValueError(
                    f"a user needs the key {key!r}; there are {', '.join(map(str, data)) or 'none'}"
                )
        user = cls.__new__(cls)
        user._fill(data)
        return user

    @staticmethod
    def from_request(request: Any) -> User | None:
        """The signed-in user of a request to an app (clause B210), None when there is none.

        Args:
            request: An object with `headers`, as those of Flask, FastAPI and Starlette.
        """
        text = request.headers.get("X-Datatailr-User")
        if not text:
            return None
        try:
            name = json.loads(text)["name"]
        except (ValueError, KeyError, TypeError):
            return None
        return User(name) if isinstance(name, str) and name else None

    def verify(self) -> None:
        """Confirm that this is the signed-in user (clause B249).

        Raises:
            ValueError: it is somebody else.
        """
        signed = User.signed_user()
        if signed.name != self._name:
            raise ValueError(f"the signed-in user is {signed.name!r}, not {self._name!r}")

    def to_cookie(self) -> str:
        """JSON text with name, expiry and signature of the signed-in user (clause B249).

        Raises:
            ValueError: this is not the signed-in user.
        """
        self.verify()
        platform = _find_platform()
        caller = dict(platform.caller()) if platform is not None else {}
        return json.dumps(
            {
                "name": self._name,
                "expiry": caller.get("expiry"),
                "signature": caller.get("signature"),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self._name, self._user_id))

    def __str__(self) -> str:
        return f"<User: {self._name} | {self._user_id}>"

    __repr__ = __str__


def _lookup(*, name: str | None, user_id: int | None) -> Mapping[str, Any]:
    """A user's data; the signed-in user is known even where people are not managed.

    Raises:
        ValueError: unknown.
        RuntimeError: no platform, or it refuses.
    """
    platform = _find_platform()
    if platform is None:
        raise RuntimeError(str(NotConfiguredError()))
    wanted = repr(name) if name is not None else f"id {user_id}"
    try:
        people = _people_of(platform)
        if people is not None:
            return people.get_user(name=name, user_id=user_id)
        caller = platform.caller()
    except NotFoundError as error:
        raise ValueError(f"there is no user {wanted}") from error
    except PlatformError as error:
        raise RuntimeError(str(error)) from error
    if caller["name"] == name or (name is None and caller["user_id"] == user_id):
        return caller
    raise ValueError(f"there is no user {wanted}")


def default_user_name() -> str:
    """Who a job runs as when nobody said so, without asking a platform (clauses B52, B233)."""
    name = os.environ.get("DATATAILR_USER")
    if name:
        return name
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry in the system's list
        return str(os.getuid())
