"""Both cores against one another: random histories of any length, and all histories of a small world."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from .explore import after, explore
from .joint import Action, Joint
from .workloads import GRAPHS

SESSION_FAULTS = ("cut", "crash", "silence", "restart", "cancel")


def _random_history(seed: int, told: Counter[str]) -> None:
    chance = Random(seed)
    world = Joint(nodes=chance.choice((1, 2, 3)), slots=chance.choice((1, 1, 2, 3)))
    history: list[Action] = []
    frequency = chance.choice((0.02, 0.1, 0.3))
    try:
        world.begin(chance.choice(GRAPHS))
        for _ in range(chance.choice((20, 60, 150))):
            if chance.random() < 0.03 and len(world.state.runs) < 3:
                world.begin(chance.choice(GRAPHS), requirements=chance.choice(("", "numpy", "scipy")))
            usual = list(world.actions())
            odd = chance.random() < frequency or not usual
            action = chance.choice(list(world.faults()) if odd else usual)
            history.append(action)
            told[action[0]] += 1
            world.act(action)
        world.settle()
    except Exception as error:
        error.add_note(f"seed {seed}, after {history}")
        raise


def _random_histories(seeds: range) -> None:
    told: Counter[str] = Counter()
    for seed in seeds:
        _random_history(seed, told)
    names = {name.removeprefix("_do_") for name in dir(Joint) if name.startswith("_do_")}
    assert names == set(told), f"never happened: {names - set(told)}"


def test_random_histories_of_both_sides_keep_the_rules_and_end() -> None:
    _random_histories(range(200))


@pytest.mark.slow
def test_many_random_histories_of_both_sides_keep_the_rules_and_end() -> None:
    _random_histories(range(1_000, 4_000))


def _two_attempts() -> Joint:
    """Two agents with one slot each, and two tasks whose attempts were just sent."""
    world = after(Joint(nodes=2, slots=1), lambda joint: len(joint.state.open_agents) == 2)
    world.begin(((), ()))
    return after(world, lambda joint: len(joint.state.attempts) == 2)


def test_all_histories_of_a_small_world_up_to_a_depth() -> None:
    seen = explore(_two_attempts(), faults=1, kinds=SESSION_FAULTS, limit=50_000, depth=5)
    assert seen.depth == 5 and seen.worlds > 500 and seen.settled > 20
    assert set(SESSION_FAULTS) <= set(seen.actions)


@pytest.mark.slow
def test_all_histories_of_two_agents_and_two_attempts() -> None:
    seen = explore(_two_attempts(), faults=2, kinds=SESSION_FAULTS, limit=90_000, depth=7)
    assert seen.depth == 7, f"{seen.steps} steps, {seen.worlds} worlds, depth {seen.depth}"


@pytest.mark.slow
def test_all_histories_of_one_agent_to_their_end() -> None:
    """However long: one agent, one attempt, and any one fault anywhere."""
    world = Joint(nodes=1, slots=1)
    world.begin(((),))
    after(world, lambda joint: len(joint.state.attempts) == 1)
    seen = explore(world, faults=1, kinds=SESSION_FAULTS, limit=60_000)
    assert seen.complete, f"{seen.steps} steps, {seen.worlds} worlds, depth {seen.depth}"
