"""Users and access lists as values (sections 16 and 17)."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import ACL, Permission, Service, User
from datatailr.errors import UnauthenticatedError, UnavailableError

ALL = {permission.value for permission in Permission}


def group(name: str, number: int) -> Any:
    return SimpleNamespace(name=name, group_id=number)


@pytest.mark.clause("B235")
def test_five_permissions() -> None:
    assert {"read", "write", "operate", "access", "promote"} == ALL


@pytest.mark.clause("B236", "B238")
def test_the_standard_list(platform: FakePlatform) -> None:
    for acl in (ACL(), ACL({})):
        assert platform.calls == []
        assert acl.to_dict() == {
            "read": [42, -7],
            "write": [42],
            "operate": [42],
            "access": [42, -7],
            "promote": [42],
        }
        platform.calls.clear()


@pytest.mark.clause("B237")
def test_a_given_mapping_is_complete(platform: FakePlatform) -> None:
    alice = User("alice")
    assert ACL({Permission.READ: [alice]}).to_dict() == {"read": [42]}
    assert ACL({Permission.READ: alice}).to_dict() == {"read": [42]}
    assert ACL({Permission.READ: group("g", 9)}).to_dict() == {"read": [-9]}
    for bad in ({"read": [alice]}, {Permission.READ: ["alice"]}, {Permission.READ: 42}, [1]):
        with pytest.raises(TypeError):
            ACL(bad)  # type: ignore[arg-type]


@pytest.mark.clause("B238")
def test_to_and_from_dict(platform: FakePlatform) -> None:
    document = {"read": [42, -7], "write": [42]}
    acl = ACL.from_dict(document)
    assert acl.to_dict() == document
    assert json.loads(acl.to_json()) == document
    assert [entity.name for entity in acl.permissions[Permission.READ]] == ["alice", "dtusers"]
    for unknown in (99, -99):
        with pytest.raises(ValueError, match="99"):
            ACL.from_dict({"read": [unknown]})
    with pytest.raises(ValueError, match="fly"):
        ACL.from_dict({"fly": [42]})


@pytest.mark.clause("B239")
def test_options_of_the_command_line(platform: FakePlatform) -> None:
    acl = ACL({Permission.READ: [User("alice"), group("dtusers", 7)], Permission.WRITE: [User("alice")]})
    assert acl.to_cli_command() == {"users": "alice:r,alice:w", "groups": "dtusers:r"}
    letters = "".join(permission.value[0] for permission in Permission)
    assert letters == "rwoap"


@pytest.mark.clause("B244")
def test_equal_lists(platform: FakePlatform) -> None:
    first = ACL({Permission.READ: [User("alice"), group("g", 9)]})
    assert first == ACL({Permission.READ: [group("g", 9), User("alice")]})
    assert first == ACL.from_stored({"read": [-9, 42], "write": []})
    assert first != ACL({Permission.WRITE: [group("g", 9), User("alice")]})


@pytest.mark.clause("B66", "B240")
def test_a_list_stands_in_json_only_if_given(package: Builder, platform: FakePlatform) -> None:
    module = package("served.py", "def serve(port): pass\n")
    assert "acl" not in Service("x", module.serve).to_dict()
    job = Service("x", module.serve, acl=ACL({Permission.READ: User("alice")}))
    assert job.to_dict()["acl"] == {"read": [42]}
    job.save()
    Service("x", module.serve).save()
    first, second = platform.versions["x", "dev"].values()
    assert (first.definition.acl, second.definition.acl) == ({"read": [42]}, None)
    with pytest.raises(TypeError, match="acl"):
        Service("x", module.serve, acl={"read": [42]})  # type: ignore[arg-type]


@pytest.mark.clause("B242")
def test_run_as(package: Builder, platform: FakePlatform) -> None:
    module = package("served.py", "def serve(port): pass\n")
    for given, expected in ((None, None), ("bob", "bob"), (User("alice"), "alice")):
        Service("x", module.serve, run_as=given).save()
        assert platform.latest("x").definition.run_as == expected
    with pytest.raises(TypeError, match="run_as"):
        Service("x", module.serve, run_as=7)  # type: ignore[arg-type]


@pytest.mark.clause("B233")
def test_in_a_container_the_job_user_is_the_default(
    package: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATATAILR_USER", "worker")
    module = package("served.py", "def serve(port): pass\n")
    assert Service("x", module.serve).to_dict()["run_as"] == "worker"


@pytest.mark.clause("B245")
def test_users_are_loaded(platform: FakePlatform) -> None:
    for user in (User("alice"), User(id=42), User.get("alice"), User.get(42)):
        assert (user.name, user.user_id, user.first_name, user.last_name) == ("alice", 42, "Alice", "Adams")
        assert (user.email, user.groups, user.is_system_user) == (
            "alice@example.org",
            ["analysts", "dtusers"],
            False,
        )
        assert str(user) == "<User: alice | 42>"
    with pytest.raises(AttributeError):
        user.name = "bob"  # type: ignore[misc]
    with pytest.raises(ValueError, match="name or an id"):
        User()


@pytest.mark.clause("B246")
def test_unknown_users(platform: FakePlatform) -> None:
    with pytest.raises(ValueError, match="99"):
        User.get(99)
    with pytest.raises((ValueError, RuntimeError), match="nobody"):
        User("nobody")
    assert User.exists("alice")
    assert not User.exists("nobody")
    assert User.ls() == [User("alice")]


@pytest.mark.clause("B247")
def test_the_signed_in_user(platform: FakePlatform) -> None:
    assert User.signed_user() == User("alice")
    with platform.failing(UnauthenticatedError("no token")), pytest.raises(PermissionError, match="no token"):
        User.signed_user()
    with platform.failing(UnavailableError("gone")), pytest.raises(RuntimeError, match="gone"):
        User.signed_user()


@pytest.mark.clause("B247")
def test_nobody_is_signed_in_without_a_platform() -> None:
    with pytest.raises(RuntimeError, match="no platform"):
        User.signed_user()
    with pytest.raises(RuntimeError, match="no platform"):
        User("alice")


@pytest.mark.clause("B248")
def test_adding_and_removing(platform: FakePlatform) -> None:
    bob = User.add("bob", "Bob", "Baker", "bob@example.org", "secret", groups=["analysts"])
    assert (bob.name, bob.groups) == ("bob", ["analysts"])
    with pytest.warns(UserWarning, match="'robot'"):
        assert User.add("robot", "", "", "", "secret", is_system_user=True).is_system_user
    User.remove("bob")
    assert not User.exists("bob")
    with pytest.raises(RuntimeError, match="bob"):
        User.remove("bob")


@pytest.mark.clause("B249")
def test_verifying(platform: FakePlatform) -> None:
    bob = User.add("bob", "Bob", "Baker", "b@example.org", "secret")
    User("alice").verify()
    with pytest.raises(ValueError, match="'bob'"):
        bob.verify()
    assert set(json.loads(User("alice").to_cookie())) == {"name", "expiry", "signature"}
    with pytest.raises(ValueError):
        bob.to_cookie()


@pytest.mark.clause("B250", "B253")
def test_users_from_dicts() -> None:
    data = {"name": "bob", "user_id": 1, "first_name": "B", "last_name": "C", "is_system": True}
    assert User.from_dict(data) == User("bob", 1, "B", "C", is_system_user=True)
    assert User.from_dict(data) != User.from_dict({**data, "email": "x"})
    assert hash(User.from_dict(data)) == hash(User.from_dict(data))
    for key in data:
        with pytest.raises(ValueError, match=key):
            User.from_dict({name: value for name, value in data.items() if name != key})


@pytest.mark.clause("B210")
def test_the_user_of_a_request(platform: FakePlatform) -> None:
    def request(**headers: str) -> Any:
        return SimpleNamespace(headers=headers)

    assert User.from_request(request(**{"X-Datatailr-User": '{"name": "alice"}'})) == User("alice")
    for text in ("", "no json", "{}", "[1]", '{"name": 3}'):
        assert User.from_request(request(**{"X-Datatailr-User": text})) is None
    assert User.from_request(request()) is None
