"""A fair course: every agent comes, obeys and answers, and time goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentHeartbeat,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    InventoryEntry,
    Tick,
)
from opentailr_controlplane.core.model import Agent
from opentailr_controlplane.core.values import SECOND, AttemptState, ImageState, Payload

from .cluster import Cluster
from .workloads import GIB

SLOTS = 24
MEMORY = 16 * GIB


def settle(
    cluster: Cluster,
    agents: Sequence[str],
    seq: Callable[[Agent], int],
    *,
    rounds: int,
    outcome: AttemptState = AttemptState.SUCCEEDED,
) -> None:
    """Drives everything towards its end for at most so many rounds of one second.

    Args:
        cluster: What to drive.
        agents: Ids of the agents that work.
        seq: The next number of an agent's reports.
        rounds: Most rounds; fewer where nothing is left to do.
        outcome: What live attempts report.
    """
    for _ in range(rounds):
        for agent_id in agents:
            greet(cluster, agent_id)
        for agent_id in agents:
            _answer(cluster, cluster.state.agents[agent_id], seq, outcome)
        state = cluster.state
        if not (state.runs or state.builds or state.attempts):
            return
        cluster.set_clock(wall=SECOND, mono=SECOND)
        cluster.do(Tick())


def greet(cluster: Cluster, agent_id: str) -> None:
    """The agent has a session with room, and is heard."""
    known = cluster.state.agents.get(agent_id)
    if known is None or not known.state.connected or known.slots < SLOTS or known.memory_bytes < MEMORY:
        inventory = tuple(
            InventoryEntry(attempt.attempt_id, attempt.fence, AttemptState.RUNNING)
            for attempt in (known.attempts.values() if known is not None else ())
            if attempt.state is not AttemptState.ASSIGNED
        )
        journal = known.journal_id if known is not None else "j1"
        cluster.do(
            AgentHello(
                agent_id, f"node {agent_id}", "boot", journal, MEMORY, 16.0, SLOTS, inventory=inventory,
                allows_pre_scripts=True,
            )
        )  # fmt: skip
    agent = cluster.state.agents[agent_id]
    cluster.do(AgentApplied(agent_id, agent.epoch, agent.revision))
    cluster.do(AgentHeartbeat(agent_id, agent.epoch, 1, cluster.now.mono))
    free = max(0, SLOTS - len(agent.attempts))
    cluster.do(AgentCredit(agent_id, agent.epoch, agent.attempts_sent + free, agent.builds_sent + 2))


def build_all(cluster: Cluster, seq: Callable[[Agent], int]) -> None:
    """Every build that a connected agent has succeeds."""
    for build in list(cluster.state.builds.values()):
        agent = cluster.state.agents.get(build.agent_id)
        if agent is not None and agent.state.connected:
            report = BuildReport(seq(agent), build.build_id, build.image_key, ImageState.READY)
            cluster.do(AgentReport(agent.agent_id, agent.epoch, (report,)))


def _answer(cluster: Cluster, agent: Agent, seq: Callable[[Agent], int], outcome: AttemptState) -> None:
    build_all(cluster, seq)
    for attempt in list(agent.attempts.values()):
        over = attempt.stop_wanted or attempt.state.terminal
        told = AttemptState.CANCELLED if over else outcome
        result = Payload("e" * 64, 1, b"1") if told is AttemptState.SUCCEEDED else None
        entry = AttemptReport(seq(agent), attempt.attempt_id, attempt.fence, told, result=result)
        cluster.do(AgentReport(agent.agent_id, agent.epoch, (entry,)))
