"""Fixtures of the chaos tests: worlds that are judged at the end, and ended however a test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .session import Session
from .world import REAL, Leases, World

MakeSession = Callable[..., Session]


@pytest.fixture
def make_session(tmp_path: Path) -> Iterator[MakeSession]:
    """Makes a platform with some agents and work for it; everything of it is ended with the test.

    What the servers wrote is printed, so that a failed test shows it.
    """
    with ExitStack() as stack:

        def make(*, agents: int = 1, leases: Leases = REAL, seed: int = 0, slots: int = 8) -> Session:
            world = stack.enter_context(World(tmp_path / "world", agents=agents, leases=leases, slots=slots))
            session = Session(world, seed)
            stack.callback(lambda: print(session.story(), session.logs(), sep="\n"))
            return session

        yield make
