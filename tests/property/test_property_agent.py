"""Random histories of a node keep its rules, and leave nothing behind once faults stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from .node_rules import NodeMachine
from .profiles import run_machine


@pytest.mark.slow
def test_long_random_histories_of_a_node_keep_its_rules(tmp_path: Path) -> None:
    class Machine(NodeMachine):
        directory = tmp_path

    run_machine(Machine, examples=300, steps=50)
