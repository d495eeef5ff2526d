"""Random histories of the control plane's core keep every invariant, and end once faults stop."""

from __future__ import annotations

import pytest

from .controlplane_stories import StoryMachine
from .profiles import run_machine


class _Compared(StoryMachine):
    compare_every = 1


def test_after_every_step_of_random_histories_a_restart_equals_memory() -> None:
    run_machine(_Compared, examples=12, steps=15)


@pytest.mark.slow
def test_long_random_histories_keep_the_invariants() -> None:
    run_machine(_Compared, examples=40, steps=40)
