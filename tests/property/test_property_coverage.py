"""Random histories reach every step of every table of both cores."""

from __future__ import annotations

from pathlib import Path

from . import reach


def test_every_step_of_the_control_plane_is_reached() -> None:
    _complete(reach.control_plane(50, 15), ("run", "task", "attempt", "agent", "build", "image"))


def test_every_step_of_a_node_is_reached(tmp_path: Path) -> None:
    _complete(reach.node(tmp_path, 80, 40), ("phase", "session"))


def _complete(reached: reach.Counter[reach.Edge], machines: tuple[str, ...]) -> None:
    every = {edge for edge in reach.every_step() if edge[0] in machines}
    argued = {edge for edge in reach.UNREACHED if edge[0] in machines}
    made = {edge for edge in reached if edge[0] in machines and reached[edge]}
    assert made <= every, "steps that no table has"
    assert every - made == argued, f"missing, or no longer so: {sorted((every - made) ^ argued)}"
