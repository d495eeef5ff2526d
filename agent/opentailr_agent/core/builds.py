"""Builds that the control plane asked for. They are not journalled: a full set brings them again,
and a finished environment is found on disk."""

from __future__ import annotations

from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.model import BuildRecord, BuildReport, BuildState, NodeState


def want(state: NodeState, entry: ev.WantedBuild, now: int, out: list[do.Effect]) -> None:
    """Starts a build that is not known yet."""
    if entry.build_id in state.builds or state.draining:
        return

    if any(one.report.terminal and one.report.subject == entry.build_id for one in state.outbox.entries):
        # Its end is on the way already, for instance since before a restart: nothing is built twice.
        state.builds[entry.build_id] = BuildRecord(entry.build_id, entry.image_key, entry.spec, done=True)
        return

    state.received_builds += 1
    state.builds[entry.build_id] = BuildRecord(entry.build_id, entry.image_key, entry.spec)
    state.outbox.put(BuildReport(entry.build_id, entry.image_key, BuildState.BUILDING, now))
    out.append(do.Build(entry.build_id, entry.image_key, entry.spec))


def unwanted(state: NodeState, build_id: str, out: list[do.Effect]) -> None:
    """Ends a build that nobody asks for; a report in the outbox stays until it is acknowledged."""
    record = state.builds.pop(build_id, None)

    if record is not None and not record.done:
        state.outbox.forget(build_id)
        out.append(do.CancelBuild(build_id))


def ended(state: NodeState, event: ev.BuildEnded, now: int, out: list[do.Effect]) -> None:
    """Reports the end of a build."""
    record = state.builds.get(event.build_id)

    if record is None or record.done:
        return

    record.done = True
    report = BuildReport(record.build_id, record.image_key, event.state, now, event.cause, event.notice)
    entry = state.outbox.put(report)
    assert entry is not None
    out.append(do.SaveReport(entry))
