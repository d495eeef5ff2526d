"""Random work from a seed, and what must come out of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .payload.chaosload.steps import log_line, padding_of, value_of

START = "====== DT USER LOGS START ======\n"
END = "====== DT USER LOGS END ======\n"


@dataclass(frozen=True)
class TaskPlan:
    """One task: what it waits for, what it does."""

    parents: tuple[int, ...]
    salt: int
    seconds: float = 0.1
    lines: int = 3
    width: int = 0
    size: int = 0
    """Bytes of padding in its result; above 64 KiB the result travels as an object."""
    fail: str = ""
    """`raise`, `exit` or `signal`: it fails on purpose."""
    litter: bool = False
    """It leaves a process behind."""

    def log(self, stream: str) -> str:
        """The numbered lines of one of its logs, with the platform's first line."""
        return START + "".join(log_line(stream, number, self.width) for number in range(self.lines))


@dataclass(frozen=True)
class Plan:
    """One workflow."""

    name: str
    tasks: tuple[TaskPlan, ...]
    cancel_after: float = 0.0
    """Seconds after its start at which the driver stops it; 0 for never."""
    twice: bool = False
    """It is submitted twice with one idempotency key."""
    python: str = ""
    """Version of Python that it asks for; each makes an image, and a keeper on each agent, of its own."""
    values: dict[int, int] = field(default_factory=dict, compare=False)
    """What each task that completes returns."""
    skipped: frozenset[int] = frozenset()
    """Tasks that do not run, because one before them fails on purpose."""

    def definition(self, ledger: Path) -> dict[str, Any]:
        """What the deployer is told."""
        return {
            "name": self.name,
            "python": self.python or "auto",
            "tasks": [
                {
                    "parents": list(task.parents),
                    "plan": {
                        "ledger": str(ledger),
                        "salt": task.salt,
                        "seconds": task.seconds,
                        "lines": task.lines,
                        "width": task.width,
                        "size": task.size,
                        "fail": task.fail,
                        "litter": task.litter,
                    },
                }
                for task in self.tasks
            ],
        }

    def result(self, task: int) -> dict[str, Any]:
        """The result of a task that completed."""
        value = self.values[task]
        return {"value": value, "padding": padding_of(value, self.tasks[task].size)}

    @property
    def failures(self) -> set[int]:
        """Tasks that fail on purpose and get to run."""
        return {number for number, task in enumerate(self.tasks) if task.fail and number not in self.skipped}


def make_plan(
    name: str,
    tasks: list[TaskPlan],
    *,
    cancel_after: float = 0.0,
    twice: bool = False,
    python: str = "",
) -> Plan:
    """A plan with its consequences worked out."""
    values: dict[int, int] = {}
    skipped: set[int] = set()
    for number, task in enumerate(tasks):
        if any(parent not in values for parent in task.parents):
            skipped.add(number)
        elif not task.fail:
            values[number] = value_of(task.salt, [values[parent] for parent in task.parents])
    return Plan(name, tuple(tasks), cancel_after, twice, python, values, frozenset(skipped))


class Generator:
    """Plans without end.

    Args:
        seed: Of everything it draws.
        prefix: Of the workflows' names.
        largest: Most tasks of one workflow.
        pace: Factor on the length of all tasks.
    """

    def __init__(self, seed: int, *, prefix: str = "chaos", largest: int = 60, pace: float = 1.0) -> None:
        self._random = random.Random(f"work {seed}")
        self._prefix = prefix
        self._largest = largest
        self._pace = pace
        self._count = 0

    def next(self) -> Plan:
        """The next plan."""
        draw = self._random
        self._count += 1
        graph = draw.choice((self._chain, self._fan, self._diamonds, self._anything))()
        failing = draw.random() < 0.25
        victim = draw.randrange(len(graph)) if failing else -1
        tasks = [self._task(parents, fails=number == victim) for number, parents in enumerate(graph)]
        cancel_after = draw.uniform(0.2, 5.0) if draw.random() < 0.12 else 0.0
        name = f"{self._prefix} {self._count}"
        twice, python = draw.random() < 0.4, draw.choice(("", "", "", "3.12", "3.13"))
        return make_plan(name, tasks, cancel_after=cancel_after, twice=twice, python=python)

    def _task(self, parents: tuple[int, ...], *, fails: bool) -> TaskPlan:
        draw = self._random
        seconds = draw.choice((draw.uniform(0.05, 0.3), draw.uniform(0.05, 0.6), draw.uniform(0.5, 3.0)))
        return TaskPlan(
            parents=parents,
            salt=draw.randrange(1 << 40),
            seconds=seconds * self._pace,
            lines=draw.choice((1, 3, 10, 40, 200, 1_000)),
            width=draw.randrange(97),
            size=draw.choice((0, 0, 0, 1_000, 70_000, 300_000)),
            fail=draw.choice(("raise", "exit", "signal")) if fails else "",
            litter=draw.random() < 0.05,
        )

    def _chain(self) -> list[tuple[int, ...]]:
        length = self._random.randint(5, min(20, self._largest))
        return [() if number == 0 else (number - 1,) for number in range(length)]

    def _fan(self) -> list[tuple[int, ...]]:
        width = self._random.randint(4, max(4, min(40, self._largest - 2)))
        return [(), *[(0,)] * width, tuple(range(1, width + 1))]

    def _diamonds(self) -> list[tuple[int, ...]]:
        graph: list[tuple[int, ...]] = [()]
        while len(graph) < self._random.randint(5, self._largest):
            top = len(graph) - 1
            width = self._random.randint(2, 5)
            graph += [(top,)] * width
            graph.append(tuple(range(top + 1, top + 1 + width)))
        return graph

    def _anything(self) -> list[tuple[int, ...]]:
        graph: list[tuple[int, ...]] = []
        for number in range(self._random.randint(5, self._largest)):
            count = min(number, self._random.choice((0, 1, 1, 2, 3)))
            graph.append(tuple(sorted(self._random.sample(range(number), count))))
        return graph
