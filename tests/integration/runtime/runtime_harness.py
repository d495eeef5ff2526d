"""Orders for a process runtime, from user code written on the spot, and what is told of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pickle
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opentailr_agent.ports import AttemptOrder, Ended, Outcome, Started
from opentailr_agent.runtimes.process import ProcessRuntime

SDK = Path(__file__).parents[3] / "sdk"
DEADLINE = 30.0


class Bench:
    """Writes modules, makes orders, and waits for what the runtime tells."""

    def __init__(self, root: Path, runtime: ProcessRuntime) -> None:
        self.root = root
        self.runtime = runtime
        self.started: dict[str, Started] = {}
        self.ended: dict[str, Outcome] = {}
        self.order_of_events: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        self._count = 0

    async def _read(self) -> None:
        async for event in self.runtime.events():
            if isinstance(event, Started):
                self.started[event.attempt_id] = event
                self.order_of_events.append(("started", event.attempt_id))
            else:
                assert isinstance(event, Ended)
                assert event.outcome.attempt_id not in self.ended, "an attempt ended twice"
                self.ended[event.outcome.attempt_id] = event.outcome
                self.order_of_events.append(("ended", event.outcome.attempt_id))
            self._changed.set()

    async def until(self, condition: Callable[[], Any], what: str = "the condition") -> None:
        """Waits for a condition that an event or the file system makes true."""
        deadline = asyncio.get_running_loop().time() + DEADLINE
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"{what} did not come true within {DEADLINE} s")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.02)
            except TimeoutError:
                continue

    def order(
        self,
        source: str,
        function: str = "task",
        *,
        arguments: dict[str, Any] | bytes | None = None,
        module: str = "code",
        **changes: Any,
    ) -> AttemptOrder:
        """An order for a function of a module with this source."""
        text = textwrap.dedent(source)
        digest = hashlib.sha256(text.encode()).hexdigest()
        bundle = self.root / "bundles" / digest[:16]
        path = bundle / (module.replace(".", "/") + ".py")
        if not path.exists():
            path.parent.mkdir(parents=True)
            path.write_text(text)
        self._count += 1
        name = f"{self._count}.1"
        folder = self.root / "attempts" / name
        folder.mkdir(parents=True)
        (folder / "arguments.pkl").write_bytes(
            arguments if isinstance(arguments, bytes) else pickle.dumps(arguments or {})
        )
        base = AttemptOrder(
            attempt_id=name,
            image_key="image",
            python=Path(sys.executable),
            bundle_digest=digest,
            python_path=[bundle],
            module=module,
            function=function,
            folder=folder,
            arguments=folder / "arguments.pkl",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root),
                "DATATAILR_JOB_NAME": "my task",
                "DATATAILR_JOB_ID": name,
            },
        )
        return replace(base, **changes)

    async def run(self, order: AttemptOrder) -> Outcome:
        """Starts an attempt and waits for its end."""
        await self.runtime.start(order)
        return await self.end(order)

    async def end(self, order: AttemptOrder) -> Outcome:
        await self.until(lambda: order.attempt_id in self.ended, f"the end of {order.attempt_id}")
        return self.ended[order.attempt_id]

    async def call(self, source: str, function: str = "task", **changes: Any) -> tuple[Outcome, AttemptOrder]:
        order = self.order(source, function, **changes)
        return await self.run(order), order

    async def finish(self) -> None:
        await self.runtime.close(stop_attempts=True)
        await asyncio.wait_for(self._reader, DEADLINE)


def value(outcome: Outcome) -> Any:
    """The result of an outcome, wherever it is."""
    assert outcome.failure is None, outcome.failure.traceback or outcome.failure.message
    data = outcome.result if outcome.result is not None else (outcome.result_file or Path()).read_bytes()
    assert len(data) == outcome.result_size
    return pickle.loads(data)


def stdout(order: AttemptOrder) -> str:
    return (order.folder / "stdout").read_bytes().decode("utf-8", "replace")


def stderr(order: AttemptOrder) -> str:
    return (order.folder / "stderr").read_bytes().decode("utf-8", "replace")


def keepers(folder: Path) -> list[int]:
    """Pids of the keepers that have a folder."""
    return [json.loads(path.read_text())["pid"] for path in folder.glob("*/keeper.json")]


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def processes_below(root: Path) -> list[int]:
    """Living processes whose environment or command line names a folder of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(root).encode() in text and alive(int(entry.name)):
                found.append(int(entry.name))
    return found
