"""From a job to what the platform stores: checks, code, origin (sections 7, 9 and 10)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datatailr.errors import RepoValidationError
from datatailr.scheduler._bundle import PackedBundle, packed
from datatailr.scheduler._package import CodePackage
from datatailr.scheduler._repository import (
    UNKNOWN,
    local_state,
    remote_problem,
    unsafe_scheduling_allowed,
)

__all__ = ["Origin", "origin_check", "shipped"]

REMOTE_PATIENCE = 2.0
"""Seconds that a save waits for the remote of the repository (clause B167)."""


@dataclass(frozen=True)
class Origin:
    """Branch and commit of the code, `unknown` when they could not be verified."""

    branch: str
    commit: str
    problem: str | None
    """Why they could not be verified; None when they were."""


def origin_check(package: CodePackage) -> Origin:
    """Verify the repository as far as a save does: never an error (clause B167).

    A work tree with uncommitted changes is unknown without asking the remote.
    """
    deadline = time.monotonic() + REMOTE_PATIENCE
    try:
        state = local_state(package.repository)
        if unsafe_scheduling_allowed():
            return Origin(state.branch, state.commit, None)
        problem = (
            remote_problem(package.repository, state, deadline=deadline)
            if state.clean
            else f"the git repository {package.repository} has uncommitted changes"
        )
    except RepoValidationError as error:
        problem = str(error)
    else:
        if problem is None:
            return Origin(state.branch, state.commit, None)
    return Origin(UNKNOWN, UNKNOWN, problem)


@contextlib.contextmanager
def shipped(package: CodePackage) -> Iterator[tuple[PackedBundle, Origin]]:
    """The packed code and its origin; the remote is asked while the code is packed.

    What is only to run once, now, needs no origin: `packed` does for it.

    Raises:
        BundleError: the code cannot be packaged.
    """
    found: list[Origin] = []
    asking = threading.Thread(target=lambda: found.append(origin_check(package)), name="datatailr-origin")
    asking.start()
    try:
        with packed(package) as bundle:
            asking.join()
            yield bundle, found[0]
    finally:
        asking.join()


def entry_file_names(package: CodePackage) -> set[str]:
    """Import names that the packaged code itself provides (clause B181)."""
    names = {package.directory.name}
    if package.top_level:
        with contextlib.suppress(OSError):
            names.update(_import_name(path) for path in package.directory.iterdir())
    return names


def _import_name(path: Path) -> str:
    return path.name.split(".", 1)[0]
