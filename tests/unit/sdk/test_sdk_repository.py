"""The repository check (section 9)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import Service, Workflow
from datatailr.errors import RepoValidationError, TaskError
from datatailr.scheduler import _saving, set_allow_unsafe_scheduling

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """git in tmp_path/project, without the settings of this machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")

    def run(*arguments: str, where: Path = tmp_path / "project") -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture
def job(package: Builder) -> Service:
    module = package("served.py", "def serve(port): pass\n")
    return Service("Svc", module.serve)


@pytest.fixture
def synced(job: Service, git: Git, tmp_path: Path) -> Service:
    """A job whose repository is committed and pushed."""
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "first")
    git("init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git"))
    git("remote", "add", "origin", str(tmp_path / "remote.git"))
    git("push", "-q", "-u", "origin", "main")
    return Service("Svc", job.entrypoint)


@pytest.mark.clause("B163", "B164")
def test_a_clean_and_pushed_repository_is_ready(synced: Service, git: Git) -> None:
    assert synced.verify_repo_is_ready() == ("main", git("rev-parse", "HEAD"))


@pytest.mark.clause("B163", "B165")
def test_uncommitted_changes(synced: Service, tmp_path: Path) -> None:
    (tmp_path / "project" / "new.txt").write_text("x")
    with pytest.raises(RepoValidationError, match="uncommitted changes"):
        synced.verify_repo_is_ready()


@pytest.mark.clause("B164", "B165")
def test_an_unpushed_commit(synced: Service, git: Git) -> None:
    git("commit", "-qm", "second", "--allow-empty")
    with pytest.raises(RepoValidationError, match="not in sync"):
        synced.verify_repo_is_ready()


@pytest.mark.clause("B164")
def test_upstream_or_remote_head_is_enough(synced: Service, git: Git) -> None:
    git("checkout", "-q", "-b", "feature")
    assert synced.verify_repo_is_ready()[0] == "feature"  # equals origin HEAD
    git("commit", "-qm", "second", "--allow-empty")
    git("push", "-q", "-u", "origin", "feature")
    assert synced.verify_repo_is_ready()[0] == "feature"  # equals its upstream
    git("reset", "-q", "--hard", "main")
    # behind its upstream, but equal to origin HEAD: either is enough
    assert synced.verify_repo_is_ready() == ("feature", git("rev-parse", "main"))
    git("checkout", "-q", "--detach", "main")
    assert synced.verify_repo_is_ready()[0] == "HEAD"


@pytest.mark.clause("B165")
def test_no_or_unreachable_remote(synced: Service, git: Git) -> None:
    git("remote", "set-url", "origin", "/nowhere/at/all")
    with pytest.raises(RepoValidationError, match="no remote that can be reached"):
        synced.verify_repo_is_ready()
    git("remote", "remove", "origin")
    with pytest.raises(RepoValidationError, match="no remote that can be reached"):
        synced.verify_repo_is_ready()


@pytest.mark.clause("B165")
def test_no_repository_and_no_git(job: Service, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RepoValidationError, match="not a git repository"):
        job.verify_repo_is_ready()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RepoValidationError, match="git is not installed"):
        job.verify_repo_is_ready()
    with pytest.raises(TaskError, match="no code"):
        Workflow("x").verify_repo_is_ready()


@pytest.mark.clause("B165")
def test_a_repository_without_commits(job: Service, git: Git) -> None:
    git("init", "-q")
    with pytest.raises(RepoValidationError, match="uncommitted changes"):
        Service("Svc", job.entrypoint).verify_repo_is_ready()


@pytest.mark.clause("B166")
def test_unsafe_scheduling(synced: Service, git: Git, tmp_path: Path, platform: FakePlatform) -> None:
    git("commit", "-qm", "second", "--allow-empty")
    (tmp_path / "project" / "new.txt").write_text("x")
    set_allow_unsafe_scheduling(True)
    try:
        assert synced.verify_repo_is_ready() == ("main", git("rev-parse", "HEAD"))
        synced.save()
        assert platform.latest("svc").verified
    finally:
        set_allow_unsafe_scheduling(False)
    with pytest.raises(RepoValidationError):
        synced.verify_repo_is_ready()


@pytest.mark.clause("B166")
def test_unsafe_scheduling_in_any_case(synced: Service, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git("commit", "-qm", "second", "--allow-empty")
    monkeypatch.setenv("DATATAILR_ALLOW_UNSAFE_SCHEDULING", "TRUE")
    assert synced.verify_repo_is_ready()[0] == "main"
    monkeypatch.setenv("DATATAILR_ALLOW_UNSAFE_SCHEDULING", "no")
    with pytest.raises(RepoValidationError):
        synced.verify_repo_is_ready()


@pytest.mark.clause("B167", "B121")
def test_save_records_the_origin(synced: Service, git: Git, platform: FakePlatform) -> None:
    assert synced.save()[0]
    origin = platform.latest("svc").definition.origin
    assert (origin.branch_name, origin.commit_hash) == ("main", git("rev-parse", "HEAD"))
    assert platform.latest("svc").verified
    git("commit", "-qm", "second", "--allow-empty")
    assert synced.save()[0]
    origin = platform.latest("svc").definition.origin
    assert (origin.branch_name, origin.commit_hash) == ("unknown", "unknown")
    assert (synced.image.branch_name, synced.image.commit_hash) == ("unknown", "unknown")
    assert not platform.latest("svc").verified


@pytest.mark.clause("B167")
def test_a_dirty_tree_does_not_ask_the_remote(
    synced: Service, tmp_path: Path, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(_saving, "remote_problem", lambda *args, **options: asked.append(args))
    synced.save()
    assert len(asked) == 1
    (tmp_path / "project" / "new.txt").write_text("x")
    synced.save()
    assert len(asked) == 1
    assert platform.latest("svc").definition.origin.commit_hash == "unknown"


@pytest.mark.clause("B167")
def test_a_slow_remote_is_not_waited_for(
    synced: Service, git: Git, platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "never"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    # the transport of the remote waits for a writer that never comes
    git("config", "protocol.ext.allow", "always")
    git("remote", "set-url", "origin", f"ext::cat {fifo}")
    assert _saving.REMOTE_PATIENCE == 2.0
    monkeypatch.setattr(_saving, "REMOTE_PATIENCE", 0.3)
    began = time.monotonic()
    assert synced.save()[0]
    assert time.monotonic() - began < 10
    assert platform.latest("svc").definition.origin.commit_hash == "unknown"
    assert subprocess.run(["pgrep", "-f", str(fifo)], check=False, capture_output=True).stdout == b""


@pytest.mark.clause("B168")
def test_the_warning_about_unsafe_scheduling(
    job: Service, platform: FakePlatform, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.save()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("DATATAILR_WARN_ABOUT_UNSAFE_SCHEDULING", "True")
    job.save()
    warning = capsys.readouterr().err
    assert "cannot be promoted" in warning
    assert "\x1b[33m" in warning
