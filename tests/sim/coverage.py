"""Which transitions of both cores there are, and which of them no simulated world reaches, and why."""

from __future__ import annotations

from typing import Final

from opentailr_agent.core.model import PHASES
from opentailr_controlplane.core.transitions import MACHINES

Move = tuple[str, str, str]


def all_moves() -> set[Move]:
    """Every edge of every table."""
    moves = {
        (machine, source.name, target.name) for machine, table in MACHINES.items() for source, target in table
    }
    return moves | {
        ("phase", source.name, target.name) for source, targets in PHASES.items() for target in targets
    }


UNREACHED: Final[dict[Move, str]] = {}
"""Edges that no world reaches, each with its reason."""
