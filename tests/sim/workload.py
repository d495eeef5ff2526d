"""What people ask of the simulated platform."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentailr_controlplane.core.commands import (
    CancelRun,
    Command,
    Rerun,
    SaveVersion,
    SetNodeSchedulable,
    StartVersion,
    StopJob,
)
from opentailr_controlplane.core.errors import AlreadyExists, CoreError, ResourceExhausted, Unavailable
from opentailr_controlplane.core.values import (
    Bundle,
    Environment,
    JobDefinition,
    JobType,
    Payload,
    Recipe,
    Resources,
    TaskDefinition,
)

from .keepers import Behaviour

if TYPE_CHECKING:
    from .world import World

MIB = 1 << 20


class Workload:
    """Some workflows, and the people who start, stop and rerun them."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.accepted: dict[str, int] = {}
        """Run ids by idempotency key, as answered."""
        self.refused: list[str] = []
        self.cancelled: set[int] = set()
        self._people: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Everybody starts."""
        for number in range(self._chance.choice((1, 1, 2, 3))):
            self._people.append(self._world.loop.world_task(self._person(number)))
        if self._chance.random() < 0.35:
            self._people.append(self._world.loop.world_task(self._operator()))

    @property
    def done(self) -> bool:
        """True when nobody has anything left to ask."""
        return all(task.done() for task in self._people)

    def errors(self) -> list[str]:
        """What people's programs died of."""
        return [repr(task.exception()) for task in self._people if task.done() and task.exception()]

    async def _person(self, number: int) -> None:
        chance = self._chance
        name = f"job{number}"
        await asyncio.sleep(chance.random() * 3)
        save = self._save(name)
        saved = await self._ask(save, f"save-{name}")
        if saved is None:
            return
        last = 0
        for turn in range(chance.choice((1, 1, 2, 3))):
            key = f"{name}-{turn}"
            if last and chance.random() < 0.4:
                command: Command = Rerun(
                    "alice",
                    last,
                    full=chance.random() < 0.3,
                    idempotency_key=key,
                    request_digest=f"rerun {last}",
                )
            else:
                command = StartVersion("alice", name, idempotency_key=key, request_digest="start")
            reply = await self._ask(command, key)
            if reply is None:
                continue
            if "broken" in save.definition.recipe.python_requirements:
                # Saved again, in the hope that it can be built now.
                await asyncio.sleep(chance.random() * 10)
                await self._ask(replace(save, idempotency_key="", request_digest=""), "")
            last = reply.run_id
            if chance.random() < 0.3:
                await self._repeat(command, key, last)
            if chance.random() < 0.25:
                await asyncio.sleep(chance.random() * 10)
                cancel: Command = (
                    CancelRun("alice", last) if chance.random() < 0.7 else StopJob("alice", name)
                )
                self.cancelled.add(last)
                await self._ask(cancel, "")
            elif turn and chance.random() < 0.7:
                await self._end_of(last)

    async def _repeat(self, command: Command, key: str, run_id: int) -> None:
        """The same request again gives the same run; the same key for another one is refused."""
        again = await self._ask(command, key)
        if again is not None and again.run_id != run_id:
            self._world.oracle.fail(f"invariant 24: key {key} gave runs {run_id} and {again.run_id}")
        other = StartVersion("alice", "job0", idempotency_key=key, request_digest="something else")
        try:
            reply = await self._try(other)
        except AlreadyExists:
            return
        self._world.oracle.fail(f"invariant 24: key {key} was taken for another request: {reply}")

    async def _end_of(self, run_id: int) -> None:
        while self._world.oracle.rows.open.get(run_id):
            await asyncio.sleep(1.0)

    async def _operator(self) -> None:
        """Takes a node out of service for a while."""
        for _ in range(self._chance.choice((1, 2))):
            await asyncio.sleep(self._chance.random() * 20)
            node = self._chance.choice(self._world.nodes)
            if (
                await self._ask(SetNodeSchedulable("root", node.agent_id, False, "maintenance"), "")
                is not None
            ):
                await asyncio.sleep(self._chance.random() * 15)
                await self._ask(SetNodeSchedulable("root", node.agent_id, True), "")

    async def _ask(self, command: Command, key: str) -> Any:
        """Tries until there is an answer; None when it was refused."""
        try:
            reply = await self._try(command)
        except CoreError as error:
            self.refused.append(f"{type(command).__name__}: {error}")
            return None
        if key and hasattr(reply, "run_id"):
            known = self.accepted.setdefault(key, reply.run_id)
            if known != reply.run_id:
                self._world.oracle.fail(f"invariant 24: key {key} gave runs {known} and {reply.run_id}")
        return reply

    async def _try(self, command: Command) -> Any:
        while True:
            with suppress(ConnectionError, Unavailable, ResourceExhausted):
                return await self._world.platform.execute(command)
            await asyncio.sleep(0.2 + self._chance.random())

    # ------------------------------------------------------------------ definitions

    def _save(self, name: str) -> SaveVersion:
        chance = self._chance
        broken = chance.random() < 0.07
        requirements = "broken==1" if broken else chance.choice(("", "numpy", "numpy", f"own-{name}"))
        definition = JobDefinition(
            name,
            name.title(),
            Environment.DEV,
            JobType.BATCH,
            "alice",
            Resources(),
            Recipe("3.11", requirements),
            Bundle("b" * 64, 10, "pkg"),
            tasks=self._tasks(name, *self._shape()),
            fail_after=int(chance.uniform(3, 20) * 1e6) if chance.random() < 0.2 else 0,
            expire_after=int(chance.uniform(1, 20) * 1e6) if chance.random() < 0.15 else 0,
        )
        return SaveVersion("alice", definition, idempotency_key=f"save-{name}", request_digest=f"save {name}")

    def _shape(self) -> tuple[int, list[tuple[int, int]]]:
        """Number of tasks, and edges from a task to one that it depends on."""
        chance = self._chance
        count = chance.choice((1, 3, 4, 6, 10, 16))
        if chance.random() < 0.03:
            count = 40
        shape = chance.choice(("chain", "fan", "diamond", "random"))
        if shape == "chain":
            return count, [(task, task - 1) for task in range(1, count)]
        if shape == "fan":
            return count, [(task, 0) for task in range(1, count)]
        if shape == "diamond" and count > 2:
            middle = range(1, count - 1)
            return count, [(task, 0) for task in middle] + [(count - 1, task) for task in middle]
        return count, [
            (task, upstream)
            for task in range(1, count)
            for upstream in range(task)
            if chance.random() < 1.5 / task
        ]

    def _tasks(self, name: str, count: int, edges: Sequence[tuple[int, int]]) -> tuple[TaskDefinition, ...]:
        chance = self._chance
        bad = chance.choice((0.0, 0.0, 0.1))
        if self._world.plan.outlived:
            longest = 30.0 if count < 8 else 10.0
        else:
            longest = chance.choice((0.05, 0.5, 3.0, 12.0, 40.0) if count < 8 else (0.05, 0.5, 3.0))
        tasks = []
        for task_id in range(count):
            ending = "ok"
            if chance.random() < bad:
                ending = chance.choice(("fail", "oom"))
            large_output = 300_000 if chance.random() < 0.01 else 3_000
            output = tuple(
                int(large_output * chance.random() ** 4) if chance.random() < 0.6 else 0 for _ in "oe"
            )
            self._world.behaviours[name, f"t{task_id}"] = Behaviour(
                longest * chance.random() + 0.001,
                ending,
                large=chance.random() < 0.1,
                output=(output[0], output[1]),
                stubborn=chance.random() < 0.2,
            )
            memory = chance.choice((128, 128, 256, 1024)) * MIB
            data = f"{name} {task_id}".encode()
            arguments = Payload(hashlib.sha256(data).hexdigest(), len(data), data)
            depends_on = tuple(sorted({upstream for task, upstream in edges if task == task_id}))
            tasks.append(
                TaskDefinition(
                    task_id,
                    f"task {task_id}",
                    f"{name}:t{task_id}",
                    Resources(f"{memory}b", memory, chance.choice((0.25, 1.0))),
                    depends_on,
                    arguments=arguments,
                )
            )
        return tuple(tasks)
