"""Plain work for tests of one fault: always the same, so that only the fault differs."""

from __future__ import annotations

import time
from collections.abc import Callable

from .driver import RunRecord
from .oracle import shown
from .servers import eventually
from .session import Session
from .workload import Plan, TaskPlan, make_plan


def steady(name: str, *, chains: int = 4, links: int = 4, seconds: float = 0.4) -> Plan:
    """Parallel chains of tasks that write while they run, and one task that needs the ends of all."""
    tasks: list[TaskPlan] = []
    ends: list[int] = []
    for chain in range(chains):
        before: tuple[int, ...] = ()
        for link in range(links):
            # One chain carries large results, one leaves processes behind.
            tasks.append(
                TaskPlan(
                    before,
                    salt=chain * 1000 + link,
                    seconds=seconds,
                    lines=20,
                    width=chain * 13,
                    size=200_000 if chain == 1 else 100,
                    litter=chain == 2,
                )
            )
            before = (len(tasks) - 1,)
        ends += before
    return make_plan(name, [*tasks, TaskPlan(tuple(ends), salt=7)])


def begun(session: Session, record: RunRecord, count: int) -> None:
    """Waits until some tasks of a run have begun."""
    eventually(
        lambda: (
            len({e.task for e in session.world.ledger.entries() if e.run == record.run_id}) >= count
            or record.done
        ),
        seconds=60,
        what=f"{count} begun tasks",
    )


def grown_up(session: Session) -> None:
    """Waits until the grace after the control plane's start is over: before that no lease ends."""
    world = session.world
    age = world.leases.recovery_grace + world.leases.lease_ttl
    eventually(
        lambda: time.monotonic() - world.controlplane.started > age, seconds=60, what="the end of the grace"
    )


def under(
    session: Session, plan: Plan, fault: Callable[[Session], None], *, seconds: float = 60
) -> RunRecord:
    """Runs a plan, brings the fault upon it when a few tasks have begun, and waits for its end."""
    record = session.driver.submit(plan)
    begun(session, record, 3)
    fault(session)
    left = session.driver.wait_all(seconds=seconds)
    assert not left, f"{plan.name} did not end: {shown(left[0])}\n{session.story()}\n{session.logs()}"
    return record
