"""Is the code committed and in sync with its remote? (section 9, clauses B163 to B168)"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from datatailr.errors import RepoValidationError

__all__ = [
    "UNKNOWN",
    "RepositoryState",
    "local_state",
    "remote_problem",
    "set_allow_unsafe_scheduling",
    "unsafe_scheduling_allowed",
    "verify_repository",
]

ALLOW_VARIABLE = "DATATAILR_ALLOW_UNSAFE_SCHEDULING"
WARN_VARIABLE = "DATATAILR_WARN_ABOUT_UNSAFE_SCHEDULING"
UNKNOWN = "unknown"
"""Branch and commit of a version whose repository could not be verified (clause B167)."""


@dataclass(frozen=True)
class RepositoryState:
    """What git says without asking a remote."""

    branch: str
    """Name of the current branch, `HEAD` when detached."""
    commit: str
    clean: bool


def set_allow_unsafe_scheduling(allow: bool) -> None:
    """Switch the repository check off (True) or on (False) for this process (clause B166)."""
    if allow:
        os.environ[ALLOW_VARIABLE] = "true"
    else:
        os.environ.pop(ALLOW_VARIABLE, None)


def unsafe_scheduling_allowed() -> bool:
    """True when DATATAILR_ALLOW_UNSAFE_SCHEDULING is `true` in any case."""
    return os.environ.get(ALLOW_VARIABLE, "").strip().lower() == "true"


def warn_about_unsafe_scheduling() -> bool:
    """True when DATATAILR_WARN_ABOUT_UNSAFE_SCHEDULING is `true` in any case (clause B168)."""
    return os.environ.get(WARN_VARIABLE, "").strip().lower() == "true"


class _GitError(Exception):
    """git ended with an error; the message is the first line it printed."""


def _git(repository: Path, *arguments: str, deadline: float | None = None) -> str:
    # A remote that wants a password must not stop a save at a prompt.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        process = subprocess.Popen(
            ["git", *arguments],
            cwd=repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # a session of its own: after the deadline its helpers (ssh) have to go as well
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        if not repository.is_dir():
            message = f"{repository} does not exist, so it is not a git repository"
        else:
            message = "git is not installed, so the repository cannot be verified"
        raise RepoValidationError(message) from error
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    with process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise _GitError("no answer in time") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        raise _GitError(lines[0] if lines else f"exit code {process.returncode}")
    return output.decode("utf-8", "replace").strip()


def local_state(repository: Path) -> RepositoryState:
    """Branch, commit and cleanliness of a work tree, by one call of git.

    Raises:
        RepoValidationError: no git repository, nothing committed yet, or git is not installed.
    """
    try:
        status = _git(repository, "status", "--porcelain=v2", "--branch")
    except _GitError as error:
        if "not a git repository" in str(error):
            message = f"{repository} is not a git repository; run `git init` there"
        else:
            message = f"git cannot read the repository {repository}: {error}"
        raise RepoValidationError(message) from error
    headers: dict[str, str] = {}
    clean = True
    for line in status.splitlines():
        if line.startswith("# branch."):
            name, _, value = line.removeprefix("# branch.").partition(" ")
            headers[name] = value
        else:
            clean = False
    commit = headers.get("oid", "(initial)")
    if commit == "(initial)":
        raise RepoValidationError(
            f"the git repository {repository} has uncommitted changes: nothing is committed yet"
        )
    branch = headers.get("head", "(detached)")
    return RepositoryState("HEAD" if branch == "(detached)" else branch, commit, clean)


def remote_problem(repository: Path, state: RepositoryState, *, deadline: float | None = None) -> str | None:
    """Why the commit is not what the remote has, or None when it is (clause B164).

    The upstream of the current branch is asked first, then `origin HEAD`; either is enough.

    Args:
        deadline: Monotonic time up to which the remote is waited for; None means without limit.
    """
    asked = [("origin", "HEAD")]
    try:
        upstream = tuple(
            _git(repository, "config", f"branch.{state.branch}.{key}") for key in ("remote", "merge")
        )
        asked.insert(0, (upstream[0], upstream[1]))
    except _GitError:
        pass  # the branch has no upstream
    unreachable: list[str] = []
    reached: list[str] = []
    for remote, reference in asked:
        try:
            answer = _git(repository, "ls-remote", "--", remote, reference, deadline=deadline)
        except _GitError as error:
            unreachable.append(f"{remote}: {error}")
            continue
        if any(line.split("\t")[0] == state.commit for line in answer.splitlines()):
            return None
        reached.append(f"{remote} {reference}")
    if reached:
        return (
            f"commit {state.commit[:12]} of {repository} is not in sync with the remote "
            f"({' and '.join(reached)}); push it, or pull and commit"
        )
    return f"the git repository {repository} has no remote that can be reached ({'; '.join(unreachable)})"


def verify_repository(repository: Path) -> tuple[str, str]:
    """(branch, commit) of a repository that is clean and in sync with its remote (clause B163).

    With DATATAILR_ALLOW_UNSAFE_SCHEDULING=true nothing is checked (clause B166).

    Raises:
        RepoValidationError: with a text of its own for each reason (clause B165).
    """
    state = local_state(repository)
    if unsafe_scheduling_allowed():
        return state.branch, state.commit
    if not state.clean:
        raise RepoValidationError(f"the git repository {repository} has uncommitted changes; commit them")
    problem = remote_problem(repository, state)
    if problem is not None:
        raise RepoValidationError(problem)
    return state.branch, state.commit
