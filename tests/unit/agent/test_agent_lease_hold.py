"""Nothing begins on a node whose lease is over: another node may have the task by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from opentailr_agent import supervisor as supervisor_module
from opentailr_agent.core import events as ev
from opentailr_agent.core.model import Desired, Phase
from opentailr_agent.journal import Journal
from opentailr_agent.supervisor import Parts, Supervisor


class Node:
    """A supervisor whose attempts are prepared and started in no time, with a lease that the test holds."""

    def __init__(self, path: Path) -> None:
        self.leased = True
        self.prepared = asyncio.Event()
        self.started: list[str] = []
        runtime: Any = MagicMock()
        runtime.start = self._start
        runtime.remove = self._nothing
        runtime.events = self._events
        preparation: Any = MagicMock()
        preparation.prepare = self._prepare
        builder: Any = MagicMock()
        builder.keys.return_value = []
        journal = Journal(path / "journal.db", machine_boot="boot", new_id=lambda: "jrn_1")
        self.journal = journal
        self.supervisor = Supervisor(
            Parts(
                attempts=path,
                journal=journal,
                runtime=runtime,
                builder=builder,
                preparation=preparation,
                objects=MagicMock(),
                transfer=MagicMock(),
                send=lambda frame: None,
                hello=MagicMock(),
                free_disk=lambda: 1 << 40,
                min_free_disk=0,
                slots=4,
                ready=lambda: None,
                leased=lambda: self.leased,
            )
        )
        self.supervisor.attach(MagicMock(waiting_logs=0, trouble=""))

    async def _start(self, order: Any) -> None:
        self.started.append(order)

    async def _prepare(self, attempt_id: str, spec: object) -> Any:
        await self.prepared.wait()
        return Order(attempt_id)

    async def _nothing(self, attempt_id: str) -> None:
        return None

    async def _events(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    def session(self, revision: int, *wanted: ev.WantedAttempt, forget: frozenset[str] = frozenset()) -> None:
        """A new session: a welcome and the whole desired set."""
        self.supervisor.feed(ev.Welcomed(frozenset(), frozenset(), forget, 0))
        self.supervisor.feed(ev.Assigned(True, 0, revision, attempts=wanted))

    def phase(self, attempt_id: str) -> Phase | None:
        record = self.supervisor.state.attempts.get(attempt_id)
        return None if record is None else record.phase


class Order(str):
    """An order that is only its name."""

    __slots__ = ()

    @property
    def folder(self) -> Path:
        return Path(self)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Node]:
    node = Node(path)
    task = asyncio.create_task(node.supervisor.run())
    try:
        yield node
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        node.journal.close()


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not probe():
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Everything that is due has run."""
    for _ in range(50):
        await asyncio.sleep(0)


WANTED = ev.WantedAttempt("att_1", 1, Desired.RUN, spec=object())


async def test_with_a_lease_it_starts(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.session(1, WANTED)
        await until(lambda: node.phase("att_1") is Phase.PREPARING)
        node.prepared.set()
        await until(lambda: node.started == ["att_1"])


async def test_a_cut_alone_holds_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.session(1, WANTED)
        await until(lambda: node.phase("att_1") is Phase.PREPARING)
        node.supervisor.feed(ev.Disconnected())
        node.prepared.set()
        await until(lambda: node.started == ["att_1"])


async def test_without_a_lease_it_waits_for_the_next_session(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.session(1, WANTED)
        await until(lambda: node.phase("att_1") is Phase.PREPARING)
        node.leased = False
        node.prepared.set()
        await settled()
        node.supervisor.feed(ev.Disconnected())
        await settled()
        assert node.started == [] and node.phase("att_1") is Phase.PREPARING
        node.leased = True
        node.session(2, WANTED)
        await until(lambda: node.started == ["att_1"])


async def test_a_lease_that_comes_back_lets_it_begin_though_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to a heartbeat renews the lease in the session, which tells the supervisor nothing."""
    monkeypatch.setattr(supervisor_module, "_SAMPLE", 0.01)
    async with running(tmp_path) as node:
        node.session(1, WANTED)
        await until(lambda: node.phase("att_1") is Phase.PREPARING)
        node.leased = False
        node.prepared.set()
        await settled()
        assert node.started == []
        node.leased = True
        await until(lambda: node.started == ["att_1"])


@pytest.mark.parametrize("told", ["forget", "undesired"])
async def test_what_was_given_away_meanwhile_is_never_started(tmp_path: Path, told: str) -> None:
    async with running(tmp_path) as node:
        node.session(1, WANTED)
        await until(lambda: node.phase("att_1") is Phase.PREPARING)
        node.leased = False
        node.prepared.set()
        await settled()
        node.leased = True
        node.session(2, forget=frozenset({"att_1"} if told == "forget" else ()))
        await until(lambda: node.phase("att_1") not in (Phase.PREPARING, Phase.ACCEPTED))
        await settled()
        assert node.started == []
