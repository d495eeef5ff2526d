"""Mistakes put into the real code, each breaking one rule: the oracle must find every one of them.

They are patches that a test switches on, and nothing in the programs knows of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest import mock

from opentailr_agent.core import attempts as agent_attempts
from opentailr_agent.core import desired
from opentailr_agent.core import events as ev
from opentailr_agent.core import machine as agent_machine
from opentailr_agent.core.model import Phase, StoredResult
from opentailr_agent.core.outbox import Outbox
from opentailr_agent.journal import Journal
from opentailr_agent.session import Lease
from opentailr_agent.supervisor import Supervisor
from opentailr_agent.transfer import hash_file
from opentailr_agent.work import Work
from opentailr_controlplane.core import fleet, flow, images, jobs, placement
from opentailr_controlplane.core import machine as core_machine
from opentailr_controlplane.core.values import AgentState, AttemptState, ImageState, TaskState
from opentailr_controlplane.logstore import Appended, FileLogStore
from opentailr_controlplane.services import agent_session
from opentailr_controlplane.services.agent_session import AgentSessions
from opentailr_controlplane.store import loader
from opentailr_controlplane.store.sqlite import SqliteStore

Patch = tuple[Any, str, Any]


def _ack_before_commit() -> list[Patch]:
    real = SqliteStore.commit

    async def commit(self: SqliteStore, batch: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.002)
            await real(self, batch)

        self.__dict__.setdefault("_later", []).append(asyncio.create_task(later()))

    return [(SqliteStore, "commit", commit)]


def _report_of_another_attempt() -> list[Patch]:
    real = fleet._attempt_report

    def report(state: Any, agent: Any, entry: Any, now: Any) -> None:
        if agent.attempts.get(entry.attempt_id) is None or not placement.live(
            agent.attempts[entry.attempt_id]
        ):
            _, _, run_id, task_id, _ = entry.attempt_id.split("_")
            run = state.runs.get(int(run_id))
            task = run.tasks[int(task_id)] if run is not None else None
            if task is not None and task.state is TaskState.ACTIVE:
                attempt = state.attempts[task.attempt_id]
                entry = replace(entry, attempt_id=attempt.attempt_id, fence=attempt.fence)
                agent = state.agents[attempt.agent_id]
        real(state, agent, entry, now)

    return [(fleet, "_attempt_report", report)]


def _delta_on_wrong_base() -> list[Patch]:
    real_apply, real_merge = desired.apply, agent_session.Outbox._merge

    def apply(state: Any, event: Any, now: int, out: Any) -> None:
        if not event.full and state.synced:
            event = replace(event, base=state.revision)
        real_apply(state, event, now, out)

    def merge(self: Any, wanted: Any) -> None:
        if not wanted.full and not self._full and self._base is not None:
            # What waits is replaced instead of merged.
            self._attempts.clear()
            self._removed.clear()
            self._base = wanted.base
        real_merge(self, wanted)

    return [(desired, "apply", apply), (agent_session.Outbox, "_merge", merge)]


def _lease_from_receipt() -> list[Patch]:
    real = Lease.renew

    def renew(self: Lease, sent_at: float, ttl: float) -> None:
        real(self, asyncio.get_running_loop().time(), ttl)

    return [(Lease, "renew", renew)]


def _credit_kept() -> list[Patch]:
    real = fleet.hello

    def hello(state: Any, event: Any, now: Any) -> int:
        known = state.agents.get(event.agent_id)
        limit = known.attempt_limit if known is not None else 0
        epoch = real(state, event, now)
        state.agents[event.agent_id].attempt_limit = limit
        return epoch

    return [(fleet, "hello", hello)]


def _reports_not_repeated() -> list[Patch]:
    def restart(self: Any) -> None:
        self.sent = self.next_seq - 1

    return [(Outbox, "restart", restart)]


def _journal_after_action() -> list[Patch]:
    real = Supervisor._commit

    async def commit(self: Supervisor, effects: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            await real(self, effects)

        if effects:
            self._later(later())

    return [(Supervisor, "_commit", commit)]


def _started_again_after_restart() -> list[Patch]:
    real = agent_machine._recover

    def recover(state: Any, event: Any, now: int, out: Any) -> None:
        real(state, event, now, out)
        for record in state.attempts.values():
            if record.phase is Phase.RUNNING:
                record.phase = Phase.ACCEPTED
                record.handed_over = False

    return [(agent_machine, "_recover", recover)]


def _terminal_overwritten() -> list[Patch]:
    real = fleet._attempt_report

    def report(state: Any, agent: Any, entry: Any, now: Any) -> None:
        attempt = agent.attempts.get(entry.attempt_id)
        if attempt is not None and not placement.live(attempt) and entry.state.terminal:
            attempt.state = entry.state
            state.dirty.attempts[attempt.attempt_id] = attempt
        real(state, agent, entry, now)

    return [(fleet, "_attempt_report", report)]


def _log_offset_ignored() -> list[Patch]:
    real = FileLogStore._judge

    def judge(self: Any, key: Any, log: Any, chunk: Any) -> Any:
        found = real(self, key, log, chunk)
        if isinstance(found, Appended) and chunk.data and not log.ended:
            return self._bounded(log, chunk.data, chunk.end)
        return found

    return [(FileLogStore, "_judge", judge)]


def _log_durable_before_sync() -> list[Patch]:
    async def sync(self: FileLogStore) -> None:
        for log in self._dirty.values():
            log.durable = log.size

    return [(FileLogStore, "sync", sync)]


def _no_recovery_grace() -> list[Patch]:
    return [(fleet, "pardon", lambda state, now: None)]


def _cancel_forgotten() -> list[Patch]:
    def wind_down(state: Any, run: Any, idle: Any, now: Any) -> None:
        for task in run.tasks.values():
            if task.state is not TaskState.ACTIVE and not task.state.terminal:
                flow.end_task(state, run, task, idle, owner="core", cause=run.cause, now=now)
        if run.run_id in state.runs:
            flow.settle(state, run, now)

    return [(flow, "_wind_down", wind_down)]


def _attempt_after_cancel() -> list[Patch]:
    real = flow.end_attempt

    def end_attempt(state: Any, attempt: Any, target: Any, **about: Any) -> None:
        run = state.runs[attempt.run_id]
        kept = run.state
        if kept.name == "CANCELLING" and target.name != "SUCCEEDED":
            # The run is not looked at: what failed is simply tried again.
            task = run.tasks[attempt.task_id]
            flow.move_attempt(state, attempt, target, about["owner"])
            attempt.gone = True
            placement.release(state, state.agents[attempt.agent_id], attempt)
            flow.move_task(state, run, task, TaskState.BACKOFF, "core")
            flow.ready_task(state, run, task, about["now"])
            return
        real(state, attempt, target, **about)

    return [(flow, "end_attempt", end_attempt), (fleet, "end_attempt", end_attempt)]


def _released_twice() -> list[Patch]:
    real = placement.release

    def release(state: Any, agent: Any, attempt: Any) -> None:
        if attempt.attempt_id not in agent.attempts:
            agent.memory_reserved -= attempt.memory_bytes
        real(state, agent, attempt)
        if agent.attempts:
            agent.memory_reserved -= attempt.memory_bytes

    return [(placement, "release", release), (flow, "release", release), (fleet, "release", release)]


def _released_when_lost() -> list[Patch]:
    real = flow.move_attempt

    def move_attempt(state: Any, attempt: Any, target: Any, owner: str) -> None:
        real(state, attempt, target, owner)
        if target is AttemptState.LOST:
            attempt.gone = True
            placement.release(state, state.agents[attempt.agent_id], attempt)

    return [(flow, "move_attempt", move_attempt)]


def _fence_reused_after_restart() -> list[Patch]:
    real = loader.load

    def load(*values: Any) -> Any:
        state = real(*values)
        for run in state.runs.values() if state is not None else ():
            for task in run.tasks.values():
                if task.state in (TaskState.READY, TaskState.BACKOFF, TaskState.ACTIVE):
                    task.fence = max(0, task.fence - 1) if task.state is not TaskState.ACTIVE else task.fence
        return state

    return [(loader, "load", load)]


def _epoch_not_stored() -> list[Patch]:
    real = fleet.hello

    def hello(state: Any, event: Any, now: Any) -> int:
        known = event.agent_id in state.dirty.agents or event.agent_id not in state.agents
        epoch = real(state, event, now)
        if not known:
            del state.dirty.agents[event.agent_id]
        return epoch

    return [(fleet, "hello", hello)]


def _superseded_obeyed() -> list[Patch]:
    def current(state: Any, agent_id: str, epoch: int) -> Any:
        agent = state.agents.get(agent_id)
        return agent if agent is not None and agent.state.connected else None

    return [(fleet, "_current", current)]


def _drain_ignored() -> list[Patch]:
    real = fleet.set_schedulable

    def set_schedulable(state: Any, event: Any, now: Any) -> Any:
        agent = real(state, event, now)
        if agent.state in (AgentState.DRAINING, AgentState.DRAINED):
            agent.state = AgentState.READY
            placement.refresh(state, agent)
        return agent

    return [(fleet, "set_schedulable", set_schedulable)]


def _result_absent() -> list[Patch]:
    real = AgentSessions._report

    async def report(self: Any, agent_id: str, epoch: int, message: Any) -> Any:
        event = await real(self, agent_id, epoch, message)
        entries = tuple(
            replace(entry, result_present=True) if hasattr(entry, "result_present") else entry
            for entry in event.entries
        )
        return replace(event, entries=entries)

    async def store(self: Any, attempt_id: str, outcome: Any) -> None:
        digest, size = hash_file(outcome.result_file)
        self._feed(ev.ResultStored(attempt_id, StoredResult(size, digest=digest)))

    return [(AgentSessions, "_report", report), (Work, "store", store)]


def _outbox_trimmed_before_ack() -> list[Patch]:
    real = agent_machine._send_reports

    def send_reports(state: Any, out: Any) -> None:
        real(state, out)
        if state.connected and state.outbox.entries:
            agent_machine._acknowledge(state, state.outbox.sent, out)

    return [(agent_machine, "_send_reports", send_reports)]


def _built_twice() -> list[Patch]:
    real = images.ensure_image

    def ensure_image(state: Any, recipe: Any, bundle: Any, key: str, now: Any) -> Any:
        image = state.images.get(key)
        if image is not None and image.state in (ImageState.QUEUED, ImageState.BUILDING):
            images._new_build(state, image, now)
        return real(state, recipe, bundle, key, now)

    return [(module, "ensure_image", ensure_image) for module in (images, jobs, core_machine)]


def _keepers_not_asked() -> list[Patch]:
    real = agent_machine._recover

    def recover(state: Any, event: Any, now: int, out: Any) -> None:
        real(state, replace(event, found={}), now, out)

    return [(agent_machine, "_recover", recover)]


def _stop_not_passed_on() -> list[Patch]:
    def request_stop(state: Any, record: Any, grace: float, now: int, out: Any) -> None:
        pass

    return [(module, "request_stop", request_stop) for module in (agent_attempts, agent_machine, desired)]


def _journal_name_kept() -> list[Patch]:
    def begin_anew(self: Any, new_id: Any) -> None:
        pass

    return [(Journal, "_begin_anew", begin_anew)]


def _upstreams_not_awaited() -> list[Patch]:
    real = flow.end_task

    def end_task(state: Any, run: Any, task: Any, target: Any, **about: Any) -> None:
        if target is TaskState.SUCCEEDED:
            for successor in run.plan.downstream.get(task.task_id, ()):
                run.tasks[successor].open_upstreams = min(1, run.tasks[successor].open_upstreams)
        real(state, run, task, target, **about)

    return [(flow, "end_task", end_task)]


def _key_forgotten() -> list[Patch]:
    return [(core_machine, "recall", lambda *_: None)]


PLANTS: Final[dict[str, Callable[[], list[Patch]]]] = {
    plant.__name__.lstrip("_"): plant
    for plant in (
        _ack_before_commit,
        _report_of_another_attempt,
        _delta_on_wrong_base,
        _lease_from_receipt,
        _credit_kept,
        _reports_not_repeated,
        _journal_after_action,
        _started_again_after_restart,
        _terminal_overwritten,
        _log_offset_ignored,
        _log_durable_before_sync,
        _no_recovery_grace,
        _cancel_forgotten,
        _attempt_after_cancel,
        _released_twice,
        _released_when_lost,
        _fence_reused_after_restart,
        _epoch_not_stored,
        _superseded_obeyed,
        _drain_ignored,
        _result_absent,
        _outbox_trimmed_before_ack,
        _built_twice,
        _keepers_not_asked,
        _stop_not_passed_on,
        _journal_name_kept,
        _upstreams_not_awaited,
        _key_forgotten,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Puts one mistake into the code for as long as the context lasts."""
    with ExitStack() as stack:
        for target, attribute, value in PLANTS[name]():
            stack.enter_context(mock.patch.object(target, attribute, value))
        yield
