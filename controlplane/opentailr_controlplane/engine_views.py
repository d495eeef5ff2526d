"""What the engine lets others see. Everything here reads; nothing changes the state."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .core import waiting
from .core.batch import WriteBatch
from .core.definition import Plan
from .core.effects import Effect
from .core.errors import CoreError
from .core.model import Job, PriorRun, State, Version
from .core.settings import CoreSettings
from .core.values import Environment, Instant
from .ports import NodeView
from .subscriptions import Hub

OWNERS_KEPT = 10_000
"""Owners of ended attempts' logs kept at hand."""

PAYLOAD_CACHE_BYTES = 32 * 1024 * 1024
"""Inline payloads kept at hand: a result is usually wanted by the next task at once."""


class Store(Protocol):
    """What the engine needs of the durable truth."""

    async def commit(self, batch: WriteBatch) -> None:
        """Writes a batch whole and durably, or raises StoreError and keeps nothing of it."""

    async def load(self, settings: CoreSettings, now: Instant) -> State | None:
        """The state as last committed; None for a database that was never used."""

    async def read_plan(self, definition_id: int) -> Plan | None:
        """The plan of a saved definition."""

    async def read_prior(self, run_id: int) -> PriorRun:
        """A finished run; its `state` is None when there is none such."""

    async def read_payloads(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Inline payloads by digest."""

    async def log_owner(self, log_id: str) -> str | None:
        """The agent of an attempt or build."""


class SessionSink(Protocol):
    """An agent's session, as far as the engine knows it. Neither method may block or raise."""

    def deliver(self, effect: Effect) -> None:
        """Takes a committed effect for the agent."""

    def close(self, reason: str) -> None:
        """The session must end; the agent shall come back."""


@dataclass(slots=True)
class EngineStats:
    """Counts since the start; times in seconds."""

    commits: int = 0
    commit_seconds: float = 0.0
    commit_seconds_max: float = 0.0
    events: int = 0
    step_seconds: float = 0.0
    round_seconds_max: float = 0.0
    rollbacks: int = 0
    loop_delay_seconds: float = 0.0
    loop_delay_seconds_max: float = 0.0


class PayloadCache:
    """Inline payloads by digest, the oldest dropped first."""

    def __init__(self, limit: int = PAYLOAD_CACHE_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._data: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        """The bytes, if they are at hand."""
        return self._data.get(digest)

    def put(self, payloads: dict[str, bytes]) -> None:
        """Keeps the payloads."""
        for digest, data in payloads.items():
            if digest not in self._data:
                self._data[digest] = data
                self._bytes += len(data)
        while self._bytes > self._limit:
            _, dropped = self._data.popitem(last=False)
            self._bytes -= len(dropped)


class EngineViews:
    """The reading half of the engine."""

    _store: Store
    _settings: CoreSettings
    _state: State
    _queue: deque[Any]
    _active: dict[int, str]
    """Active runs and their jobs as last committed; `_state` may be one round ahead."""
    _hub: Hub
    _sessions: dict[tuple[str, int], Any]
    _payloads: PayloadCache
    _owners: OrderedDict[str, str]
    _broken: CoreError | None
    _task: asyncio.Task[None] | None
    stats: EngineStats

    @property
    def settings(self) -> CoreSettings:
        """The numbers the rules depend on."""
        return self._settings

    @property
    def healthy(self) -> bool:
        """False while the store cannot be written."""
        return self._broken is None and self._task is not None and not self._task.done()

    def find_job(self, name: str, environment: Environment) -> Job | None:
        """The job of this internal name."""
        job_id = self._state.job_names.get((name, environment))
        return self._state.jobs[job_id] if job_id is not None else None

    def jobs(self) -> list[Job]:
        """All jobs, by name and environment. Read, never change."""
        return sorted(self._state.jobs.values(), key=lambda job: (job.name, job.environment))

    def find_version(self, job: Job, version: int = 0) -> Version | None:
        """A version of a job that is not removed; 0 is the latest."""
        found = job.versions.get(version) if version else job.latest()
        return found if found is not None and not found.removed else None

    def run_job_id(self, run_id: int) -> str | None:
        """The job of an active run."""
        return self._active.get(run_id)

    def run_active(self, run_id: int) -> bool:
        """True until the end of the run is on disk."""
        return run_id in self._active

    def waiting_for(self, run_id: int, task_ids: Iterable[int] = ()) -> dict[int, tuple[str, ...]]:
        """Why an active run waits: -1 to the reasons of the run as a whole, and those of `task_ids`.

        A watched run asks at each change: only the tasks that are shown are worked out.
        """
        run = self._state.runs.get(run_id)
        if run is None:
            return {}
        reasons = waiting.reasons_of(self._state, run, task_ids)
        of_run = waiting.run_reasons(self._state, run)
        if of_run:
            reasons[-1] = of_run
        return reasons

    def waiting_tasks(self, run_id: int, *, limit: int) -> list[int]:
        """The first tasks of an active run that wait for nothing but the platform, at most so many."""
        run = self._state.runs.get(run_id)
        return waiting.waiting_tasks(run, limit) if run is not None else []

    def image_waiting_for(self, image_key: str) -> str:
        """Why a build has not begun; empty when it has."""
        image = self._state.images.get(image_key)
        return waiting.image_reason(self._state, image) if image is not None else ""

    def nodes(self) -> list[NodeView]:
        """All agents, by name."""
        return [
            NodeView(
                agent.agent_id,
                agent.name,
                agent.state,
                agent.reason or agent.pressure,
                agent.memory_bytes,
                agent.memory_reserved,
                agent.cpu,
                agent.cpu_reserved,
                len(agent.attempts),
                agent.software_version,
                agent.runtime,
                agent.labels,
                agent.python_versions,
                agent.last_heard,
                agent.drain_by,
            )
            for agent in sorted(self._state.agents.values(), key=lambda agent: (agent.name, agent.agent_id))
        ]

    async def owns_log(self, agent_id: str, log_id: str) -> bool:
        """True when the agent made this attempt or build and so may append to its log."""
        live = self._state.attempts.get(log_id) or self._state.builds.get(log_id)
        if live is not None:
            return live.agent_id == agent_id
        owner = self._owners.get(log_id)
        if owner is None:
            owner = await self._store.log_owner(log_id)
            if owner is None:
                return False
            self._owners[log_id] = owner
            if len(self._owners) > OWNERS_KEPT:
                self._owners.popitem(last=False)
        return owner == agent_id

    def metrics(self) -> dict[str, float]:
        """Numbers for monitoring, by name."""
        state, stats = self._state, self.stats
        return {
            "queue_length": len(self._queue),
            "commits": stats.commits,
            "commit_seconds": stats.commit_seconds,
            "commit_seconds_max": stats.commit_seconds_max,
            "events": stats.events,
            "step_seconds": stats.step_seconds,
            "round_seconds_max": stats.round_seconds_max,
            "rollbacks": stats.rollbacks,
            "loop_delay_seconds": stats.loop_delay_seconds,
            "loop_delay_seconds_max": stats.loop_delay_seconds_max,
            "assignments": state.assignments,
            "sessions": len(self._sessions),
            "subscriptions": len(self._hub),
            "runs_active": len(state.runs),
            "tasks_queued": state.queued,
            "attempts_live": len(state.attempts),
            "builds_live": len(state.builds),
            "agents_connected": sum(agent.state.connected for agent in state.agents.values()),
            "healthy": float(self.healthy),
        }

    async def payloads(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Inline payloads by digest, from memory or the store.

        Raises:
            StoreError: they cannot be read.
        """
        found: dict[str, bytes] = {}
        missing: list[str] = []
        for digest in digests:
            data = self._payloads.get(digest)
            if data is None:
                missing.append(digest)
            else:
                found[digest] = data
        if missing:
            read = await self._store.read_payloads(missing)
            self._payloads.put(read)
            found.update(read)
        return found
