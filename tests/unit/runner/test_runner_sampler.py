"""The memory of attempts, from scripted numbers: what is found out when, and how dear that is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from datatailr.runner import memory, sampler
from datatailr.runner.attempt import Attempt
from datatailr.runner.sampler import Sampler

MIB = 1 << 20


@dataclass
class Machine:
    """Numbers of processes, a clock, and what reading the kernel's account costs."""

    anonymous: dict[int, int] = field(default_factory=dict)
    private: dict[int, int] = field(default_factory=dict)
    below: dict[int, list[int]] = field(default_factory=dict)
    now: float = 100.0
    worked: float = 0.0
    cost: float = 0.03
    weighed: list[int] = field(default_factory=list)
    timers: list[tuple[float, Any]] = field(default_factory=list)

    # As `procs`.

    def anonymous_bytes(self, pid: int) -> int:
        return self.anonymous.get(pid, 0)

    def private_bytes(self, pid: int) -> int:
        self.weighed.append(pid)
        self.worked += self.cost
        return self.private.get(pid, 0)

    def descendants(self, roots: Collection[int]) -> list[int]:
        return [pid for root in roots for pid in (root, *self.below.get(root, []))]

    # As `time`.

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked

    # As loop, strays and pool.

    def later(self, seconds: float, callback: Any) -> object:
        self.timers.append((self.now + seconds, callback))
        return object()

    def by_attempt(self) -> dict[str, list[int]]:
        return {}

    def importing(self) -> list[Any]:
        return []


class Bench:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.attempts: dict[str, Attempt] = {}
        self.killed: list[str] = []
        self.sampler = Sampler(
            machine,  # type: ignore[arg-type]
            attempts=self.attempts,
            strays=machine,  # type: ignore[arg-type]
            pool=machine,  # type: ignore[arg-type]
            kill=self._kill,
            seconds=0.05,
        )

    def _kill(self, attempt: Attempt) -> None:
        self.killed.append(attempt.id)
        attempt.exited = True

    def attempt(self, pid: int, *, limit: int, baseline: int = 0) -> Attempt:
        made = Attempt(pid, {"id": str(pid), "memory": limit})
        made.pid, made.started_at, made.seen_at = pid, 1.0, 0.0
        made.gauge.baseline = baseline
        self.machine.anonymous[pid] = baseline
        self.attempts[made.id] = made
        self.sampler.schedule()
        return made

    def run(self, seconds: float) -> None:
        """Lets the time pass; the work itself takes time too."""
        end = self.machine.now + seconds
        while self.machine.timers and self.machine.timers[0][0] <= end:
            due, callback = self.machine.timers.pop(0)
            self.machine.now = max(self.machine.now, due)
            before = self.machine.worked
            callback()
            self.machine.now += self.machine.worked - before
        self.machine.now = max(self.machine.now, end)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    machine = Machine()
    monkeypatch.setattr(memory, "procs", machine)
    monkeypatch.setattr(sampler, "procs", machine)
    monkeypatch.setattr(sampler, "time", machine)
    return Bench(machine)


@pytest.mark.clause("B65a")
def test_a_jump_is_found_at_the_next_look_while_others_are_dear_to_measure(bench: Bench) -> None:
    for pid in range(1, 7):
        bench.attempt(pid, limit=256 * MIB, baseline=300 * MIB)
        bench.machine.private[pid] = 10 * MIB
    bench.machine.cost = 0.1
    bench.run(2)
    bench.machine.anonymous[3] += 3 << 30
    bench.run(0.06 + bench.machine.cost)
    assert bench.killed == ["3"]
    assert bench.attempts["3"].peak >= 3 << 30


@pytest.mark.clause("B65a")
def test_growth_of_children_is_weighed_at_once(bench: Bench) -> None:
    bench.attempt(1, limit=256 * MIB)
    bench.machine.below[1] = [2, 3]
    bench.machine.anonymous.update({1: 10 * MIB, 2: 150 * MIB, 3: 150 * MIB})
    bench.machine.private.update({1: 10 * MIB, 2: 150 * MIB, 3: 150 * MIB})
    bench.run(0.06)
    assert bench.killed == ["1"]
    assert bench.attempts["1"].peak == 310 * MIB


@pytest.mark.clause("B65a")
def test_what_processes_share_is_weighed_and_does_not_count(bench: Bench) -> None:
    bench.attempt(1, limit=256 * MIB)
    bench.machine.below[1] = [2, 3]
    bench.machine.anonymous.update({1: 150 * MIB, 2: 150 * MIB, 3: 150 * MIB})
    bench.machine.private.update({1: 5 * MIB, 2: 5 * MIB, 3: 5 * MIB})
    bench.run(5)
    assert bench.killed == []
    assert bench.attempts["1"].peak == 160 * MIB, "what it shares with its own forks counts once"


@pytest.mark.clause("B65a")
def test_pages_of_the_template_that_are_written_to_are_found_in_time(bench: Bench) -> None:
    for pid in range(1, 5):
        bench.attempt(pid, limit=256 * MIB, baseline=400 * MIB)
        bench.machine.private[pid] = 10 * MIB
    bench.run(3)
    bench.machine.private[2] = 390 * MIB
    bench.run(4 * sampler.WEIGH_SHARE * bench.machine.cost + 0.5)
    assert bench.killed == ["2"]


@pytest.mark.clause("B65a")
def test_measuring_takes_a_small_share_of_a_core(bench: Bench) -> None:
    for pid in range(1, 33):
        bench.attempt(pid, limit=256 * MIB, baseline=300 * MIB)
        bench.machine.private[pid] = 10 * MIB
    bench.run(60)
    assert bench.killed == []
    assert bench.machine.worked < 60 / sampler.WEIGH_SHARE + 1
    assert set(bench.machine.weighed) == set(range(1, 33)), "every one has its turn"


@pytest.mark.clause("B65a")
def test_memory_that_took_the_place_of_shared_memory_counts(bench: Bench) -> None:
    bench.attempt(1, limit=256 * MIB)
    bench.machine.below[1] = [2]
    bench.machine.anonymous.update({1: 200 * MIB, 2: 200 * MIB})
    bench.machine.private.update({1: 5 * MIB, 2: 5 * MIB})
    bench.run(1)
    assert bench.killed == []
    bench.machine.anonymous[2] = 0
    bench.run(0.3)
    bench.machine.anonymous[2] = bench.machine.private[2] = 200 * MIB
    bench.run(0.5)
    assert bench.killed == ["1"]
