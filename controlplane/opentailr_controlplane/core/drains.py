"""Taking a node out of service: nothing new from now on, and an end of what runs (invariant 20)."""

from __future__ import annotations

from .images import build_lost
from .model import Agent, Attempt, Run, State
from .placement import live
from .timers import arm_lease, arm_mono
from .transitions import move_agent
from .values import AgentState, Cause, CauseKind, Instant, RunState


def arm_drain(state: State, agent: Agent, now: Instant) -> None:
    """Reminds at the deadline of a drain, if there is one."""
    if agent.drain_by:
        arm_mono(state, now.mono + max(0, agent.drain_by - now.wall), "drain", agent.agent_id)


def drain_due(state: State, agent_id: str, now: Instant) -> None:
    """A reminder came: once the deadline is over, everything that still runs is told to stop."""
    agent = state.agents[agent_id]
    if not agent.drain_by:
        return
    if now.wall < agent.drain_by:
        # The deadline was moved, or the clock was set back.
        arm_drain(state, agent, now)
        return
    agent.drain_by = 0
    state.dirty.agents[agent_id] = agent
    for attempt in agent.attempts.values():
        if live(attempt) and not attempt.stop_wanted:
            attempt.stop_wanted = True
            state.dirty.attempts[attempt.attempt_id] = attempt
            agent.changed[attempt.attempt_id] = None
            state.outgoing[agent_id] = None
    for build in list(agent.builds.values()):
        build_lost(state, build, drained(agent), now, owner="core")
    if agent.state is AgentState.SUSPECT:
        # Nobody waits any longer for what such a node may still run.
        arm_lease(state, agent, now.mono)
    settle_drain(state, agent)


def settle_drain(state: State, agent: Agent) -> None:
    """A draining agent with nothing left is drained."""
    if agent.state is AgentState.DRAINING and not agent.attempts and not agent.builds:
        move_agent(state, agent, AgentState.DRAINED, "core")


def stopped_by_drain(run: Run, attempt: Attempt) -> bool:
    """True when it was stopped though its run goes on: nothing else than a drain does that."""
    return attempt.stop_wanted and run.state in (RunState.QUEUED, RunState.RUNNING)


def drained(agent: Agent) -> Cause:
    """The cause of what a drain ended."""
    return Cause(
        CauseKind.NODE_DRAINED, f"Node {agent.name} was taken out of service and its deadline passed."
    )
