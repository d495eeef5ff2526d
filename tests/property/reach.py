"""Which steps of the cores' tables random histories reached, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest import mock

from opentailr_agent.core import attempts as moves
from opentailr_agent.core import machine as node_machine
from opentailr_agent.core.model import PHASES, AttemptRecord, Phase
from opentailr_controlplane.core.transitions import MACHINES

from .controlplane_stories import StoryMachine
from .node_rules import SESSION, NodeMachine
from .profiles import run_machine

Edge = tuple[str, str, str]

PARTS = 6
"""Histories among which the stories are dealt out."""

UNREACHED: dict[Edge, str] = {}
"""Steps that no random history can make, and why the table has them all the same."""


def every_step() -> set[Edge]:
    """All steps of all tables: the control plane's, a node's attempts and its session."""
    steps = {(name, source.name, target.name) for name, table in MACHINES.items() for source, target in table}
    steps |= {("phase", source.name, target.name) for source, targets in PHASES.items() for target in targets}
    return steps | {("session", source, target) for source, target in SESSION}


def control_plane(examples: int, steps: int) -> Counter[Edge]:
    """Steps of the control plane's machines, counted over all stories and a fixed sequence of histories."""
    reached: Counter[Edge] = Counter()

    class Counted(StoryMachine):
        def report_reached(self) -> None:
            reached.update(self.cluster.seen)

    for part in range(PARTS):
        machine = Counted()
        stories = machine.stories()
        for story in Random(PARTS).sample(stories, len(stories))[part::PARTS]:
            story()
        machine.teardown()
    run_machine(Counted, examples=examples, steps=steps)
    return reached


def node(directory: Path, examples: int, steps: int) -> Counter[Edge]:
    """Moves of a node's attempts and of its session; `directory` holds the journals meanwhile."""
    reached: Counter[Edge] = Counter()

    class Counted(NodeMachine):
        def report_reached(self) -> None:
            reached.update(("session", *edge) for edge in self.session_moves)

    Counted.directory = directory
    with _counted_moves(reached):
        machine = Counted()
        machine.begin()
        for story in machine.stories():
            story()
            machine.rules_hold()
        machine.teardown()
        run_machine(Counted, examples=examples, steps=steps)
    return reached


@contextmanager
def _counted_moves(reached: Counter[Edge]) -> Iterator[None]:
    true_advance = moves.advance

    def advance(record: AttemptRecord, phase: Phase) -> None:
        source = record.phase.name
        true_advance(record, phase)
        reached["phase", source, phase.name] += 1

    with mock.patch.object(moves, "advance", advance), mock.patch.object(node_machine, "advance", advance):
        yield


def table(reached: Counter[Edge]) -> str:
    """The report: each machine with its steps, how often each was made, and what is missing."""
    lines = []
    every = every_step()
    for machine in dict.fromkeys(edge[0] for edge in sorted(every)):
        steps = sorted(edge for edge in every if edge[0] == machine)
        done = sum(reached[edge] > 0 for edge in steps)
        lines.append(f"{machine}: {done} of {len(steps)} steps")
        for edge in steps:
            note = "" if reached[edge] else f"  not reached: {UNREACHED.get(edge, 'unexplained')}"
            lines.append(f"  {edge[1]:>12} -> {edge[2]:<14}{reached[edge]:>8}{note}")
    return "\n".join(lines)
