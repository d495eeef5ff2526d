"""The simulation in everyday tests: it is deterministic, old failures stay mended, new seeds find nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from .planted import planted
from .world import Result, simulate

REGRESSIONS = Path(__file__).with_name("regressions.txt")


def seeds_of(text: str) -> list[int]:
    """The numbers that begin the lines; the rest of a line says what the seed once found."""
    return [int(line.split()[0]) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def told(result: Result) -> str:
    """What to do with a seed that failed."""
    return (
        f"seed {result.seed}: {result.violations}\n"
        f"see it with: python -m tests.sim --trace --seeds {result.seed}\n"
        "mend it, and add it to regressions.txt"
    )


def test_one_seed_is_one_history() -> None:
    """Bit for bit: the same frames at the same moments, the same commits, faults and ends."""
    for seed in (7, 8):
        first, second = simulate(seed, lines=True), simulate(seed, lines=True)
        assert first.lines == second.lines
        assert first.digest == second.digest and first.handles == second.handles
        assert len(first.lines) > 50


def test_different_seeds_are_different_histories() -> None:
    assert simulate(7).digest != simulate(8).digest


@pytest.mark.parametrize("seed", seeds_of(REGRESSIONS.read_text(encoding="utf-8")))
def test_what_once_failed_stays_mended(seed: int) -> None:
    result = simulate(seed)
    assert result.ok, told(result)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_some_seeds(first: int) -> None:
    for seed in range(first, first + 10):
        result = simulate(seed)
        assert result.ok, told(result)


def test_a_planted_mistake_is_found() -> None:
    """The oracle is not blind; the slow tests plant them all."""
    with planted("ack_before_commit"):
        result = simulate(0)
    assert not result.ok and "invariant 13" in result.violations[0]


def test_nothing_is_left_of_a_planted_mistake() -> None:
    with planted("ack_before_commit"):
        simulate(0)
    result = simulate(0)
    assert result.ok, told(result)
