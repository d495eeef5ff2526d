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


_AT_ONCE: Final = "agents prepare in the step in which they accept, and tell PREPARING in its place"
_RAN: Final = "an attempt that ran is not rejected by an agent of this release"
_UNKNOWN: Final = (
    "only for an attempt that the control plane does not know: after it was restored from a backup, "
    "which simulated worlds do not do"
)

UNREACHED: Final[dict[Move, str]] = {
    **{move: _AT_ONCE for move in all_moves() if move[0] == "attempt" and "ACCEPTED" in move},
    ("attempt", "RUNNING", "REJECTED"): _RAN,
    **{
        ("phase", phase, "ACKNOWLEDGED"): _UNKNOWN
        for phase in ("ACCEPTED", "PREPARING", "STARTING", "RUNNING", "ENDED")
    },
}
"""Edges that no world reaches, each with its reason."""
