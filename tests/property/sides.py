"""The two sides of the joint world, and what a frame means to the other one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.model import AnyReport, AttemptRecord, Desired, NodeState, Phase
from opentailr_agent.core.model import AttemptReport as NodeReport
from opentailr_agent.core.outbox import Entry
from opentailr_agent.ports import Outcome
from opentailr_controlplane.core import effects as fx
from opentailr_controlplane.core.commands import AttemptReport, BuildReport
from opentailr_controlplane.core.values import AttemptState, Cause, CauseKind, ImageState, Payload


@dataclass
class Link:
    """One session's stream: what is under way in both directions, and which ends still believe in it."""

    agent_id: str
    up: list[Any] = field(default_factory=list)
    down: list[fx.Effect] = field(default_factory=list)
    epoch: int = 0
    alive: bool = True
    open: bool = True


@dataclass
class Node:
    """An agent process, its journal, and the processes of its machine."""

    agent_id: str
    slots: int
    core: NodeState
    attempts: dict[str, tuple[int, Phase]] = field(default_factory=dict)
    reports: dict[int, Entry[AnyReport]] = field(default_factory=dict)
    next_seq: int = 1
    revision: int = 0
    journal: int = 1
    epoch: int = 0
    link: Link | None = None
    work: list[do.Action] = field(default_factory=list)
    processes: set[str] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)


def shown(record: AttemptRecord) -> AttemptState:
    """State of an attempt in Hello."""
    if record.phase >= Phase.DONE:
        return AttemptState(max(record.told, AttemptState.SUCCEEDED))
    return AttemptState(max(record.told, AttemptState.ACCEPTED))


def assigned(effect: fx.Desired) -> ev.Assigned:
    """The desired set as the agent reads it."""
    return ev.Assigned(
        effect.full,
        effect.base,
        effect.revision,
        [
            ev.WantedAttempt(
                order.attempt_id,
                order.fence,
                Desired.STOP if order.stop else Desired.RUN,
                10.0,
                None if order.stop else "spec",
            )
            for order in effect.attempts
        ],
        [ev.WantedBuild(order.build_id, order.image_key, "recipe") for order in effect.builds],
        list(effect.removed),
    )


def told(entry: Entry[AnyReport]) -> AttemptReport | BuildReport:
    """A report as the control plane reads it."""
    report = entry.report
    cause = Cause(CauseKind(report.cause.kind), report.cause.message) if report.cause is not None else None
    if not isinstance(report, NodeReport):
        return BuildReport(
            entry.seq, report.build_id, report.image_key, ImageState(report.state), report.observed_at, cause
        )
    result = Payload("d" * 64, report.result.size) if report.result is not None else None
    return AttemptReport(
        entry.seq,
        report.attempt_id,
        report.fence,
        AttemptState(report.state),
        report.observed_at,
        cause,
        report.started_at,
        report.ended_at,
        result,
    )
