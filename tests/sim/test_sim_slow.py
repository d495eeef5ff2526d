"""Thousands of seeds find nothing; every planted mistake is found; every transition is reached or argued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .coverage import UNREACHED, all_moves
from .faults import plan_of
from .planted import PLANTS, planted
from .test_sim_quick import told
from .world import simulate

SEEDS = 5_000
PART = 250
FOUND_WITHIN = 200

HARSH = [seed for seed in range(SEEDS) if plan_of(seed).outlived]
"""Seeds of worlds in which nodes come back after they were given up: rarer mistakes show there."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run share, for what each part of the seeds reached."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "simulated"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_many_seeds(first: int, ledger: Path) -> None:
    reached: set[tuple[str, str, str]] = set()
    failed = []
    for seed in range(first, first + PART):
        result = simulate(seed)
        reached |= result.moves
        if not result.ok:
            failed.append(told(result))
    assert not failed, "\n".join(failed)
    unargued = reached & set(UNREACHED)
    assert not unargued, f"reached after all, take them off the table: {sorted(unargued)}"
    part = ledger / f"{first}.incoming"
    part.write_text(json.dumps(sorted(reached)), encoding="utf-8")
    part.rename(ledger / f"{first}.json")
    parts = sorted(ledger.glob("*.json"))
    if len(parts) == SEEDS // PART:
        # The last part of all to end, on whatever worker, looks at what they reached together.
        together = {tuple(move) for path in parts for move in json.loads(path.read_text(encoding="utf-8"))}
        missing = all_moves() - together - set(UNREACHED)
        assert not missing, f"no seed reached {sorted(missing)}: remove them, or argue them in coverage.py"


@pytest.mark.parametrize("name", PLANTS)
def test_every_planted_mistake_is_found(name: str) -> None:
    seeds = [*range(50), *HARSH[: FOUND_WITHIN - 50]]
    with planted(name):
        found = next((seed for seed in seeds if not simulate(seed).ok), None)
    assert found is not None, f"{name} is not found in {FOUND_WITHIN} seeds"


def test_the_table_of_unreached_transitions_names_transitions() -> None:
    assert set(UNREACHED) <= all_moves()
