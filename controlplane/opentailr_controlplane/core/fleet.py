"""Agents: sessions, leases, credit, reports.

A session is named by its epoch; a frame of another epoch changes nothing (invariant 11). A report counts
only for the live attempt of that id and fence and from its own agent; every other is acknowledged and inert
(invariant 4).
"""

from __future__ import annotations

from .causes import encode_detail, lease_lost
from .commands import (
    AgentApplied,
    AgentBye,
    AgentCredit,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    SessionClosed,
    SetNodeSchedulable,
)
from .drains import arm_drain, drained, settle_drain, stopped_by_drain
from .effects import Acknowledge, Directive, Dismiss, LeaseGrant, VerdictKind, Welcome
from .errors import InvalidArgument, NotFound
from .flow import end_attempt, mark_started
from .images import build_lost, build_reported
from .model import Agent, Attempt, State
from .placement import close, could_build, ever_fits, learn_image, live, refresh, release
from .rows import LateRow
from .timers import arm_lease
from .transitions import ATTEMPT, move_agent, move_attempt
from .values import AgentState, AttemptState, Cause, CauseKind, Instant

EPOCH_SPAN = 1 << 32
"""Revisions of a session begin at its epoch times this, so that they never fall."""


def hello(state: State, event: AgentHello, now: Instant) -> int:
    """Opens a session: the new epoch, and one verdict for each attempt in the agent's journal."""
    if not event.agent_id or not event.journal_id:
        raise InvalidArgument("bad_hello", "The Hello names no agent or no journal.", field="agent_id")
    agent = state.agents.get(event.agent_id)
    if agent is None:
        agent = state.agents[event.agent_id] = Agent(event.agent_id, event.name, now.wall)
    elif agent.state.connected:
        state.effects.items.append(
            Dismiss(agent.agent_id, agent.epoch, "Another session of this agent has begun.", True)
        )
    same_journal = agent.journal_id == event.journal_id
    if not same_journal:
        agent.journal_id = event.journal_id
        agent.acked_seq = 0
    agent.epoch = max(agent.epoch, event.last_epoch) + 1
    agent.name = event.name or event.agent_id
    agent.memory_bytes, agent.cpu, agent.slots = event.memory_bytes, event.cpu, event.slots
    agent.software_version, agent.runtime, agent.labels = event.software_version, event.runtime, event.labels
    agent.python_versions = event.python_versions
    agent.allows_pre_scripts = event.allows_pre_scripts
    agent.last_heard = now.wall
    close(state, agent)
    agent.image_keys = dict.fromkeys(event.image_keys)
    agent.pressure = ""
    agent.attempt_limit = agent.attempts_sent = agent.build_limit = agent.builds_sent = 0
    agent.revision = agent.epoch * EPOCH_SPAN
    agent.full_revision = 0
    agent.full_wanted = True
    agent.changed.clear()
    state.outgoing[agent.agent_id] = None
    if agent.state is not AgentState.SYNCING:
        move_agent(state, agent, AgentState.SYNCING, "agent")
    _start_lease(state, agent, now.mono)
    refresh(state, agent)
    state.dirty.agents[agent.agent_id] = agent
    verdicts = _reconcile(state, agent, event, same_journal, now)
    agent.reserved_at_hello = (agent.memory_reserved, agent.cpu_reserved, len(agent.attempts))
    state.effects.items.append(Welcome(agent.agent_id, agent.epoch, verdicts, agent.acked_seq))
    state.effects.items.append(Directive(agent.agent_id, agent.epoch, agent.schedulable, agent.reason))
    return agent.epoch


def _reconcile(
    state: State, agent: Agent, event: AgentHello, same_journal: bool, now: Instant
) -> tuple[tuple[str, VerdictKind], ...]:
    verdicts: list[tuple[str, VerdictKind]] = []
    listed: dict[str, None] = {}
    for entry in event.inventory:
        attempt = agent.attempts.get(entry.attempt_id)
        if attempt is not None and attempt.fence == entry.fence:
            listed[entry.attempt_id] = None
            if live(attempt):
                kind = VerdictKind.STOP if attempt.stop_wanted else VerdictKind.KEEP
            elif entry.state.terminal:
                _gone(state, agent, attempt)
                kind = VerdictKind.FORGET
            else:
                kind = VerdictKind.STOP
        else:
            kind = VerdictKind.FORGET if entry.state.terminal else VerdictKind.STOP
        verdicts.append((entry.attempt_id, kind))
    for attempt in list(agent.attempts.values()):
        if attempt.attempt_id in listed:
            continue
        if not live(attempt):
            _gone(state, agent, attempt)
        elif not same_journal:
            # The intent may have been lost although the function ran: never start it again there.
            cause = Cause(CauseKind.NODE_RESTARTED, f"Node {agent.name} restarted while it ran.")
            _lose(state, attempt, cause, now, owner="agent")
            _gone(state, agent, attempt)
        elif attempt.state is not AttemptState.ASSIGNED:
            cause = Cause(CauseKind.LOST_BY_RUNTIME, f"Node {agent.name} no longer knows of it.")
            _lose(state, attempt, cause, now, owner="agent")
            _gone(state, agent, attempt)
        elif not attempt.stop_wanted:
            # It will be sent once more, as new to the agent, and so takes of this session's credit.
            agent.attempts_sent += 1
    if not same_journal:
        cause = Cause(CauseKind.NODE_RESTARTED, f"Node {agent.name} restarted during the build.")
        for build in list(agent.builds.values()):
            build_lost(state, build, cause, now, owner="agent")
    agent.builds_sent = len(agent.builds)
    return tuple(verdicts)


def heartbeat(state: State, event: AgentHeartbeat, now: Instant) -> None:
    """The agent lives: its lease begins anew at the moment the frame came in."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is None:
        return
    agent.last_heard = now.wall
    _start_lease(state, agent, max(agent.lease_start, min(event.received, now.mono)))
    if agent.pressure != event.pressure:
        agent.pressure = event.pressure
        refresh(state, agent)
        relieve(state, agent, now)
    state.effects.items.append(LeaseGrant(agent.agent_id, agent.epoch, event.counter))


def credit(state: State, event: AgentCredit, now: Instant) -> None:
    """New limits; they only grow, so a repeat changes nothing."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is None:
        return
    agent.attempt_limit = max(agent.attempt_limit, event.attempt_limit)
    agent.build_limit = max(agent.build_limit, event.build_limit)
    refresh(state, agent)


def applied(state: State, event: AgentApplied, now: Instant) -> None:
    """The agent's journal equals the desired set at a revision; the first full one makes it ready."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is None:
        return
    if event.need_full:
        agent.full_wanted = True
        state.outgoing[agent.agent_id] = None
        return
    if agent.state is AgentState.SYNCING and agent.full_revision and event.revision >= agent.full_revision:
        target = AgentState.READY if agent.schedulable else AgentState.DRAINING
        move_agent(state, agent, target, "agent")
        settle_drain(state, agent)
        refresh(state, agent)
        relieve(state, agent, now)


def report(state: State, event: AgentReport, now: Instant) -> None:
    """Takes over what is new in a batch and acknowledges all of it after the commit."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is None:
        return
    for entry in event.entries:
        if entry.report_seq <= agent.acked_seq:
            continue
        agent.acked_seq = entry.report_seq
        state.dirty.agents[agent.agent_id] = agent
        if isinstance(entry, AttemptReport):
            _attempt_report(state, agent, entry, now)
        else:
            _build_report(state, agent, entry, now)
    state.effects.items.append(Acknowledge(agent.agent_id, agent.epoch, agent.acked_seq))
    settle_drain(state, agent)


def _attempt_report(state: State, agent: Agent, entry: AttemptReport, now: Instant) -> None:
    attempt = agent.attempts.get(entry.attempt_id)
    if attempt is not None and attempt.fence != entry.fence:
        return
    target = entry.state
    if attempt is None or not live(attempt):
        # Evidence of an attempt that was given up: only its room is affected, and only by its end.
        if target.terminal:
            state.dirty.late.append(_late(agent, entry, now))
            if attempt is not None:
                _gone(state, agent, attempt)
        return
    if (attempt.state, target) not in ATTEMPT or "agent" not in ATTEMPT[attempt.state, target]:
        return
    attempt.peak_memory_bytes = max(attempt.peak_memory_bytes, entry.peak_memory_bytes)
    cause = entry.cause
    run = state.runs[attempt.run_id]
    task = run.tasks[attempt.task_id]
    if target is AttemptState.LOST:
        cause = cause or Cause(CauseKind.LOST_BY_RUNTIME, f"Node {agent.name} lost it.")
        _lose(state, attempt, cause, now, owner="agent")
        _gone(state, agent, attempt)
        return
    ran = target in (AttemptState.RUNNING, AttemptState.SUCCEEDED, AttemptState.OUT_OF_MEMORY) or bool(
        entry.started_at
    )
    if ran and target is not AttemptState.REJECTED:
        learn_image(state, agent, run.plan.image_key)
        mark_started(state, run, task, attempt, entry.started_at or now.wall, now)
    if not target.terminal:
        if attempt.state is AttemptState.ASSIGNED or target >= AttemptState.STARTING:
            state.dirty.tasks[run.run_id, task.task_id] = (run, task)
        move_attempt(state, attempt, target, "agent")
        return
    if cause is not None and cause.kind is CauseKind.NODE_DRAINED:
        # The agent is about to end: with credit left it would get the next attempt at once, and end that.
        agent.attempt_limit, agent.build_limit = agent.attempts_sent, agent.builds_sent
        refresh(state, agent)
    elif target is AttemptState.CANCELLED and stopped_by_drain(run, attempt):
        target, cause = AttemptState.FAILED, drained(agent)
    elif target is AttemptState.CANCELLED and not attempt.stop_wanted:
        # Nobody here asked for it: the node's operator did, and the agent forgot that in a restart.
        target = AttemptState.FAILED
        cause = Cause(CauseKind.NODE_DRAINED, f"Node {agent.name} was ended with its tasks.")
    if target is AttemptState.SUCCEEDED and not entry.result_present:
        target = AttemptState.FAILED
        cause = Cause(CauseKind.NODE_FAULT, "Its result is not in the object store.")
    end_attempt(
        state,
        attempt,
        target,
        owner="agent",
        cause=cause,
        now=now,
        result=entry.result,
        preview=entry.preview[:8192],
        exception=entry.exception,
        ended_at=entry.ended_at,
    )


def _late(agent: Agent, entry: AttemptReport, now: Instant) -> LateRow:
    """What came too late; the store keeps it only if the attempt is this node's and was given up."""
    cause = entry.cause
    return LateRow(
        entry.attempt_id,
        entry.fence,
        agent.agent_id,
        int(entry.state),
        now.wall,
        max(0, entry.started_at),
        max(0, entry.ended_at),
        int(cause.kind) if cause is not None else 0,
        cause.message[:4096] if cause is not None else "",
        encode_detail(cause),
    )


def _build_report(state: State, agent: Agent, entry: BuildReport, now: Instant) -> None:
    build = agent.builds.get(entry.build_id)
    if build is not None:
        build_reported(state, agent, build, entry.state, cause=entry.cause, notice=entry.notice, now=now)
        refresh(state, agent)


def bye(state: State, event: AgentBye, now: Instant) -> None:
    """The agent process ends. Unless attempts go on without it they are lost at once."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is None:
        return
    if event.attempts_keep_running:
        _suspend(state, agent, "agent", now)
        return
    move_agent(state, agent, AgentState.DOWN, "agent")
    agent.last_heard = now.wall
    state.dirty.agents[agent.agent_id] = agent
    refresh(state, agent)
    cause = Cause(CauseKind.NODE_DRAINED, f"Node {agent.name} was shut down.")
    _lose_all(state, agent, cause, now, owner="agent", gone=True)


def closed(state: State, event: SessionClosed, now: Instant) -> None:
    """The stream is gone: suspect at once, nothing is given to others before the lease is over."""
    agent = _current(state, event.agent_id, event.epoch)
    if agent is not None:
        _suspend(state, agent, "agent", now)


def lease_due(state: State, agent_id: str, due: int, now: Instant) -> None:
    """A reminder came: judges the lease as it stands now, unless an earlier reminder took its place."""
    agent = state.agents[agent_id]
    if agent.lease_armed != due:
        return
    agent.lease_armed = 0
    settings = state.settings
    if agent.state is AgentState.DOWN:
        return
    suspect_at = max(agent.lease_start + settings.lease_ttl, state.lease_floor)
    if agent.state.connected:
        if now.mono < suspect_at:
            arm_lease(state, agent, suspect_at)
            return
        state.effects.items.append(Dismiss(agent_id, agent.epoch, "No heartbeat came.", False))
        _suspend(state, agent, "time", now)
        return
    lost_at = _lost_at(state, agent)
    if now.mono < lost_at:
        arm_lease(state, agent, lost_at)
        return
    _give_up(state, agent, now)


def relieve(state: State, taker: Agent, now: Instant) -> None:
    """A node takes work (again): what overdue nodes hold and it could take need not wait for them longer."""
    if taker.state is not AgentState.READY or taker.pressure:
        return
    for agent in state.agents.values():
        if agent.state is AgentState.SUSPECT and now.mono >= _lost_at(state, agent):
            _give_up(state, agent, now)


def _give_up(state: State, agent: Agent, now: Instant) -> None:
    """Lease and grace are over: loses what another node can take over.

    The rest would only wait for this very node: it is kept until the patience for a lone node is over, or
    a stop is wanted. So a laptop that slept, or a paused machine, goes on with its tasks (decision 7).
    """
    patient_until = max(agent.lease_start + state.settings.lone_patience, state.lease_floor)
    others = [
        other
        for other in state.agents.values()
        if other is not agent and other.state is AgentState.READY and not other.pressure
    ]
    seconds = (now.mono - agent.lease_start) / 1e6
    cause = lease_lost(agent.name, agent.last_heard, seconds)
    takers: dict[tuple[int, float], bool] = {}
    kept = False
    for attempt in list(agent.attempts.values()):
        if not live(attempt):
            continue
        if now.mono < patient_until and not attempt.stop_wanted:
            shape = (attempt.memory_bytes, attempt.cpu)
            if shape not in takers:
                takers[shape] = any(ever_fits(other, *shape) for other in others)
            if not takers[shape]:
                kept = True
                continue
        _lose(state, attempt, cause, now, owner="time")
    for build in list(agent.builds.values()):
        if now.mono < patient_until and not any(could_build(state, other, build) for other in others):
            kept = True
            continue
        build_lost(state, build, cause, now, owner="time")
    if kept:
        arm_lease(state, agent, patient_until)
    else:
        move_agent(state, agent, AgentState.DOWN, "time")


def set_schedulable(state: State, event: SetNodeSchedulable, now: Instant) -> Agent:
    """Drains a node or takes that back (invariant 20)."""
    agent = state.agents.get(event.node)
    if agent is None:
        named = [item for item in state.agents.values() if item.name == event.node]
        if len(named) > 1:
            ids = ", ".join(sorted(item.agent_id for item in named))
            raise InvalidArgument(
                "node_ambiguous", f"Several nodes are named {event.node!r}: {ids}.", field="node",
                hint="Name the node by its id.",
            )  # fmt: skip
        if not named:
            raise NotFound(
                "node_not_found", f"No node has the id or name {event.node!r}.", field="node",
                hint="See the list of nodes.",
            )  # fmt: skip
        agent = named[0]
    reason = "" if event.schedulable else (event.reason or f"Drained by {event.actor}.")
    drain_by = now.wall + event.drain_within if event.drain_within and not event.schedulable else 0
    told = event.schedulable or not event.reason or agent.reason == reason
    if agent.schedulable == event.schedulable and agent.drain_by == drain_by and told:
        return agent
    agent.schedulable, agent.reason, agent.drain_by = event.schedulable, reason, drain_by
    arm_drain(state, agent, now)
    state.dirty.agents[agent.agent_id] = agent
    if agent.state.connected:
        state.effects.items.append(Directive(agent.agent_id, agent.epoch, agent.schedulable, reason))
    if event.schedulable and agent.state in (AgentState.DRAINING, AgentState.DRAINED):
        move_agent(state, agent, AgentState.READY, "user")
        relieve(state, agent, now)
    elif not event.schedulable and agent.state is AgentState.READY:
        move_agent(state, agent, AgentState.DRAINING, "user")
        settle_drain(state, agent)
    refresh(state, agent)
    return agent


def pardon(state: State, now: Instant) -> None:
    """No lease ends before the agents could be heard again: the silence was on this side."""
    state.lease_floor = now.mono + state.settings.recovery_grace


def recover(state: State, now: Instant) -> None:
    """After a start: agents that hold attempts are suspect, and no lease ends before the recovery grace."""
    pardon(state, now)
    for agent in state.agents.values():
        if agent.attempts or agent.builds:
            agent.state = AgentState.SUSPECT
            agent.reserved_at_hello = (agent.memory_reserved, agent.cpu_reserved, len(agent.attempts))
            _start_lease(state, agent, now.mono)


def _current(state: State, agent_id: str, epoch: int) -> Agent | None:
    agent = state.agents.get(agent_id)
    if agent is None or agent.epoch != epoch or not agent.state.connected:
        return None
    return agent


def _suspend(state: State, agent: Agent, owner: str, now: Instant) -> None:
    move_agent(state, agent, AgentState.SUSPECT, owner)
    agent.last_heard = now.wall
    state.dirty.agents[agent.agent_id] = agent
    refresh(state, agent)
    arm_lease(state, agent, _lost_at(state, agent))


def _start_lease(state: State, agent: Agent, start: int) -> None:
    agent.lease_start = start
    # When the reminder comes, the lease as it then stands decides.
    arm_lease(state, agent, max(start + state.settings.lease_ttl, state.lease_floor))


def _lost_at(state: State, agent: Agent) -> int:
    return max(agent.lease_start + state.settings.lost_after, state.lease_floor)


def _lose(state: State, attempt: Attempt, cause: Cause, now: Instant, *, owner: str) -> None:
    end_attempt(state, attempt, AttemptState.LOST, owner=owner, cause=cause, now=now)


def _lose_all(state: State, agent: Agent, cause: Cause, now: Instant, *, owner: str, gone: bool) -> None:
    for attempt in list(agent.attempts.values()):
        if live(attempt):
            _lose(state, attempt, cause, now, owner=owner)
        if gone:
            _gone(state, agent, attempt)
    for build in list(agent.builds.values()):
        build_lost(state, build, cause, now, owner=owner)


def _gone(state: State, agent: Agent, attempt: Attempt) -> None:
    attempt.gone = True
    state.dirty.attempts[attempt.attempt_id] = attempt
    agent.changed[attempt.attempt_id] = None
    state.outgoing[agent.agent_id] = None
    release(state, agent, attempt)
