"""Random work under random faults, by seed; and a short soak with its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import MakeSession
from .soak import soak
from .workload import Generator
from .world import Leases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MEDIUM = Leases(heartbeat_interval=2, lease_ttl=8, lease_grace=3, recovery_grace=20)
"""Long faults fit into a minute, and a busy machine still does not look like a dead one."""


@pytest.mark.parametrize("seed", [7, 31, 44])
def test_random_work_under_random_faults(make_session: MakeSession, seed: int) -> None:
    session = make_session(agents=2, leases=MEDIUM, seed=seed)
    session.storm(Generator(seed, largest=40), 45, long=0.08)
    found = session.finish()
    assert not found, "\n".join([*found, session.story(), session.logs()])
    assert len(session.faults.log) >= 5 and len(session.world.ledger.entries()) >= 20, session.story()


def test_a_short_soak(tmp_path: Path) -> None:
    lines: list[str] = []
    well, text = soak(seconds=110, seed=1, folder=tmp_path / "world", say=lines.append)
    assert well, "\n".join([*lines, text])
    assert "VERDICT: well" in text
