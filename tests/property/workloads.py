"""Definitions for random histories."""

from __future__ import annotations

from opentailr_controlplane.core.values import (
    Bundle,
    Environment,
    JobDefinition,
    JobType,
    Recipe,
    Resources,
    Schedule,
    TaskDefinition,
)

GIB = 1 << 30

GRAPHS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((),),
    ((), ()),
    ((), (0,)),
    ((), (0,), (0,)),
    ((), (0,), (1,)),
    ((), (), (0, 1)),
    ((), (0,), (0,), (1, 2)),
)
"""The upstreams of each task: one, two, a chain, a fan, a longer chain, a join, a diamond."""


def definition(
    graph: tuple[tuple[int, ...], ...] = ((),),
    *,
    name: str = "flow",
    memory: int = GIB // 8,
    requirements: str = "",
    pre: str = "",
    fail_after: int = 0,
    expire_after: int = 0,
    verified: bool = True,
    schedule: str = "",
) -> JobDefinition:
    """A workflow with the given graph; `memory` is in bytes for each task."""
    resources = Resources(f"{memory}b", memory, 0.25)
    return JobDefinition(
        name,
        name.title(),
        Environment.DEV,
        JobType.BATCH,
        "alice",
        Resources(),
        Recipe("3.11", requirements, pre),
        Bundle("b" * 64, 10, "pkg"),
        tasks=tuple(
            TaskDefinition(task_id, f"task {task_id}", "pkg.mod:function", resources, upstreams)
            for task_id, upstreams in enumerate(graph)
        ),
        schedule=Schedule(cron=schedule),
        fail_after=fail_after,
        expire_after=expire_after,
        repository_verified=verified,
    )
