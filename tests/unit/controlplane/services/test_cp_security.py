"""Tokens, access lists and lookups for people who are not administrators."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentailr_controlplane.core.errors import InvalidArgument, PermissionDenied
from opentailr_controlplane.core.values import Acl
from opentailr_controlplane.datadir import DataDirectory
from opentailr_controlplane.security.access import (
    Permission,
    allowed,
    check,
    check_admin,
    check_run_as,
    default_acl,
)
from opentailr_controlplane.security.authentication import Caller, check_role
from opentailr_controlplane.security.tokens import (
    InsecureFile,
    Role,
    RunClaim,
    RunTokens,
    TokenTable,
    read_or_make_secret,
)
from opentailr_controlplane.security.users import ADMIN_GROUP, User, UserDirectory, operating_system_user
from opentailr_controlplane.services.interceptor import _short
from opentailr_controlplane.services.pages import make_token, read_token

ADMIN = User(1, "root", groups=(ADMIN_GROUP, "dtusers"))
ALICE = User(2, "alice")
BOB = User(3, "bob")
ROBOT = User(4, "robot", is_system=True)


@pytest.mark.clause("B236", "B240")
def test_default_list() -> None:
    acl = default_acl(ALICE)
    assert all(allowed(ALICE, acl, permission) for permission in Permission)
    assert {permission for permission in Permission if allowed(BOB, acl, permission)} == {
        Permission.READ,
        Permission.ACCESS,
    }


@pytest.mark.clause("B235", "B237", "B241")
@pytest.mark.parametrize("permission", list(Permission))
def test_each_permission_stands_alone(permission: Permission) -> None:
    acl = Acl(**{permission.value: (3,)})
    for other in Permission:
        assert allowed(BOB, acl, other) is (other is permission)
        assert not allowed(ALICE, acl, other)
    with pytest.raises(PermissionDenied, match=f"'alice' lacks the permission {permission.value} on job 'x'"):
        check(ALICE, acl, permission, what="job 'x'")


@pytest.mark.clause("B238", "B243")
def test_groups_are_negative_and_admin_passes() -> None:
    assert allowed(ALICE, Acl(write=(-2,)), Permission.WRITE)
    assert not allowed(ALICE, Acl(write=(-1, 1)), Permission.WRITE)
    assert all(allowed(ADMIN, Acl(), permission) for permission in Permission)
    check_admin(ADMIN, "do it")
    with pytest.raises(PermissionDenied, match="alice"):
        check_admin(ALICE, "do it")


@pytest.mark.clause("B242")
def test_running_as_somebody_else() -> None:
    users = UserDirectory([ADMIN, ALICE, BOB, ROBOT])
    assert check_run_as(ALICE, "", users) == "alice"
    assert check_run_as(ALICE, "alice", users) == "alice"
    assert check_run_as(ALICE, "robot", users) == "robot"
    assert check_run_as(ADMIN, "bob", users) == "bob"
    with pytest.raises(PermissionDenied, match="bob"):
        check_run_as(ALICE, "bob", users)
    with pytest.raises(InvalidArgument, match="mallory") as failure:
        check_run_as(ADMIN, "mallory", users)
    assert "alice" in failure.value.hint


def test_the_account_is_administrator() -> None:
    user = operating_system_user()
    assert user.name and user.is_admin and user.user_id == 1


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    made = read_or_make_secret(path)
    assert len(made) >= 32
    assert read_or_make_secret(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(InsecureFile, match="chmod 600"):
        read_or_make_secret(path)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(InsecureFile, match="empty"):
        read_or_make_secret(path)


def test_token_table_keeps_no_token() -> None:
    table = TokenTable()
    table.add("word-1", Role.USER, user_id=1)
    table.add("word-2", Role.AGENT)
    assert table.find("word-1") == (Role.USER, 1)
    assert table.find("word-2") == (Role.AGENT, 0)
    assert table.find("word-3") is None
    assert "word-1" not in repr(vars(table))


@given(st.integers(1, 1 << 60), st.text(min_size=1, max_size=40))
def test_run_tokens_round_trip_and_resist_changes(run_id: int, user: str) -> None:
    tokens = RunTokens(b"key")
    token = tokens.issue(run_id, user)
    assert tokens.verify(token) == RunClaim(run_id, user)
    assert RunTokens(b"other").verify(token) is None
    head, body, signature = token.split(".")
    other = tokens.issue(run_id + 1, user).split(".")[1]
    assert tokens.verify(f"{head}.{other}.{signature}") is None
    assert tokens.verify(f"{head}.{body}.{signature[:-2]}") is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_token_reader(text: str) -> None:
    assert RunTokens(b"key").verify(text) is None
    assert RunTokens(b"key").verify(f"otr1.{text}.AAAA") is None


@given(st.text(max_size=100), st.integers(0, 1 << 61))
def test_page_tokens(name: str, number: int) -> None:
    assert read_token(make_token("jobs", name, number), "jobs", str, int) == (name, number)
    for wrong in (make_token("runs", name, number), make_token("jobs", number), name + "!"):
        with pytest.raises(InvalidArgument):
            read_token(wrong, "jobs", str, int)
    assert read_token("", "jobs", str, int) is None


@given(st.text(max_size=4000))
def test_error_texts_fit_into_metadata(text: str) -> None:
    short = _short(text)
    assert len(short) <= 2003
    assert short == text or short.endswith("...")


def test_a_shared_directory_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    DataDirectory(shared).release()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    DataDirectory(tmp_path / "new").release()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_code_of_an_administrators_job_is_no_administrator() -> None:
    method = "/datatailr.v1.NodeService/SetNodeSchedulable"
    check_role(Caller(Role.USER, ADMIN), method)
    check_role(Caller(Role.RUN, ADMIN, 7), "/datatailr.v1.JobService/SaveJob")
    with pytest.raises(PermissionDenied) as caught:
        check_role(Caller(Role.RUN, ADMIN, 7), method)
    assert caught.value.reason == "not_for_runs"
    assert "run 7" in str(caught.value)
