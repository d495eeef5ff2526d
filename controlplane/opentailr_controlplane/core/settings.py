"""Numbers that the rules depend on."""

from __future__ import annotations

from dataclasses import dataclass

from .values import SECOND


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Limits and times of the core; times in microseconds."""

    heartbeat_interval: int = 5 * SECOND
    """How often an agent shall be heard."""

    lease_ttl: int = 15 * SECOND
    """Without a heartbeat for this long an agent is suspect: three heartbeats may get lost."""

    lease_grace: int = 5 * SECOND
    """After the lease its attempts are lost only this much later; a part in 1,000 is added for drift."""

    recovery_grace: int = 30 * SECOND
    """After a start of the control plane no lease ends before this: a restart cannot lose the fleet."""

    lone_patience: int = 600 * SECOND
    """How long after its last heartbeat a node keeps attempts that no other node could take over."""

    infra_budget: int = 3
    """Extra attempts of a task after failures that are the platform's fault."""

    drain_budget: int = 1_000
    """Extra attempts of a task after planned drains, which are charged to nobody; a mere bound."""

    infra_backoff: int = SECOND
    """Pause before the first such extra attempt where the node itself failed; it doubles."""

    stop_grace: int = 10 * SECOND
    """Between SIGTERM and SIGKILL when an attempt is stopped."""

    placement_age: int = 30 * SECOND
    """A task that waits longer for room gets a node kept free for it, so that small ones cannot starve it."""

    idempotency_life: int = 24 * 3600 * SECOND
    """How long answers to repeated requests are kept."""

    idempotency_limit: int = 100_000
    """Most kept answers; beyond it the oldest is forgotten."""

    @property
    def lost_after(self) -> int:
        """From the last heartbeat to the loss of those of an agent's attempts that another node can take."""
        span = self.lease_ttl + self.lease_grace
        return span + span // 1000
