"""The set that the control plane wants, and how the node follows it."""

from __future__ import annotations

from typing import Final

from opentailr_agent.core import builds
from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.attempts import begin, describe, forget, request_stop
from opentailr_agent.core.model import AttemptRecord, AttemptState, Desired, NodeState, Phase

TOMBSTONES: Final = 1_000
"""Entries of attempts that are over and still on the control plane's list; beyond it the oldest go."""


def apply(state: NodeState, event: ev.Assigned, now: int, out: list[do.Effect]) -> None:
    """Brings the node's set to `event.revision`; a difference to another base asks for a full set."""
    if not event.full and (not state.synced or event.base != state.revision):
        out.append(do.SendApplied(state.revision, need_full=True))
        return

    first = event.full and not state.synced
    wanted = {entry.attempt_id for entry in event.attempts} | {entry.build_id for entry in event.builds}

    if event.full:
        removed = (set(state.attempts) | set(state.builds)) - wanted
        state.desired = wanted
        state.synced = True
    else:
        removed = set(event.removed)
        state.desired -= removed
        state.desired |= wanted

    for entry in event.attempts:
        _want(state, entry, now, out)

    for build in event.builds:
        builds.want(state, build, now, out)

    if first:
        # The control plane counts all of them as sent in this session, those that went on meanwhile too.
        state.received_builds = len(event.builds)

    for gone in sorted(removed):
        record = state.attempts.get(gone)

        if record is not None:
            forget(state, record, out)
            drop_if_undesired(state, record, out)

        builds.unwanted(state, gone, out)

    state.revision = event.revision
    out.append(do.SaveRevision(event.revision))

    # Only a full set is waited for; what a difference led to is told by the next heartbeat.
    if event.full:
        out.append(do.SendApplied(event.revision, need_full=False))

    _bury(state, out)


def drop_if_undesired(state: NodeState, record: AttemptRecord, out: list[do.Effect]) -> None:
    """Forgets an attempt that left nothing, once the control plane's list has dropped it.

    Until then its entry stays, so that a repeated assignment can never start it again.
    """
    if record.phase is Phase.RETIRED and record.attempt_id not in state.desired:
        del state.attempts[record.attempt_id]
        out.append(do.DropAttempt(record.attempt_id))


def _want(state: NodeState, entry: ev.WantedAttempt, now: int, out: list[do.Effect]) -> None:
    record = state.attempts.get(entry.attempt_id)

    if record is None:
        if entry.desired is Desired.RUN:
            state.received_attempts += 1

        record = AttemptRecord(
            entry.attempt_id, entry.fence, Phase.ACCEPTED, entry.desired, entry.grace, entry.spec
        )
        state.attempts[entry.attempt_id] = record
        out.append(do.SaveAttempt(record.attempt_id, record.fence, record.phase))

        if entry.desired is Desired.RUN:
            describe(state, record, AttemptState.ACCEPTED, now)

    if record.forgotten or record.phase >= Phase.ENDED:
        return

    if entry.desired is Desired.STOP:
        if record.desired is not Desired.STOP or not (record.stop_sent or record.phase >= Phase.STARTING):
            request_stop(state, record, entry.grace, now, out)
    elif state.draining and record.phase < Phase.STARTING:
        record.drained = True
        request_stop(state, record, 0.0, now, out)
    elif record.desired is Desired.RUN:
        if record.spec is None and record.phase is Phase.ACCEPTED:
            record.spec = entry.spec

        begin(state, record, now, out)


def _bury(state: NodeState, out: list[do.Effect]) -> None:
    retired = [record for record in state.attempts.values() if record.phase is Phase.RETIRED]

    for record in retired[: max(0, len(retired) - TOMBSTONES)]:
        del state.attempts[record.attempt_id]
        out.append(do.DropAttempt(record.attempt_id))
