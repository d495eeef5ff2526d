"""What random histories once found, each as a short story of its own."""

from __future__ import annotations

from opentailr_controlplane.core.commands import (
    AgentApplied,
    AgentCredit,
    AgentHello,
    AgentReport,
    AttemptReport,
    BuildReport,
    SaveVersion,
    StartVersion,
    Tick,
)
from opentailr_controlplane.core.invariants import validate
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import SECOND, AttemptState, Cause, CauseKind, ImageState, TaskState

from .cluster import Cluster
from .fair import MEMORY
from .workloads import definition


def _join(cluster: Cluster, *, memory: int = MEMORY, slots: int = 4) -> int:
    epoch = cluster.do(AgentHello("agt_1", "node", "boot", "j1", memory, 8.0, slots))
    assert isinstance(epoch, int)
    cluster.do(AgentApplied("agt_1", epoch, cluster.state.agents["agt_1"].full_revision))
    cluster.do(AgentCredit("agt_1", epoch, slots, 2))
    return epoch


def _running(cluster: Cluster) -> None:
    """One run whose only attempt was just given to the only agent."""
    epoch = _join(cluster)
    cluster.do(SaveVersion("alice", definition()))
    (build,) = cluster.state.builds.values()
    ready = BuildReport(1, build.build_id, build.image_key, ImageState.READY)
    cluster.do(AgentReport("agt_1", epoch, (ready,)))
    cluster.do(StartVersion("alice", "flow"))


def test_a_clock_set_back_prolongs_no_pause() -> None:
    for restart in (False, True):
        cluster = Cluster(CoreSettings())
        _running(cluster)
        (attempt,) = cluster.state.attempts.values()
        cause = Cause(CauseKind.NODE_FAULT, "the disk")
        report = AttemptReport(2, attempt.attempt_id, 1, AttemptState.FAILED, cause=cause)
        cluster.do(AgentReport("agt_1", cluster.state.agents["agt_1"].epoch, (report,)))
        assert cluster.state.runs[1].tasks[0].state is TaskState.BACKOFF
        cluster.set_clock(wall=-3600 * SECOND)
        if restart:
            cluster.restart()
        longest = cluster.settings.infra_backoff << cluster.settings.infra_budget
        cluster.set_clock(wall=longest, mono=longest)
        cluster.do(Tick())
        assert cluster.state.runs[1].tasks[0].state is not TaskState.BACKOFF
        cluster.close()


def test_what_an_agent_brought_along_counts_after_a_restart_too() -> None:
    cluster = Cluster(CoreSettings())
    _running(cluster)
    cluster.do(AgentHello("agt_1", "node", "boot", "j1", 1, 8.0, 0))
    cluster.restart()
    validate(cluster.state)
    assert cluster.state.agents["agt_1"].memory_reserved > 1
    cluster.close()
