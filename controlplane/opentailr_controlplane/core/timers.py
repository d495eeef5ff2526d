"""Deadlines of the core: the engine asks for the next one and sends a Tick when it is due.

An entry in a heap is only a reminder: what is due is judged by the record itself when the reminder comes, so
a deadline that moved or vanished needs no search.
"""

from __future__ import annotations

import heapq

from .model import Agent, State


def arm_wall(state: State, due: int, kind: str, key: tuple[int, int]) -> None:
    """Reminds at a wall time: `fail_after` (run, 0), `expire` (run, 0)."""
    heapq.heappush(state.wall_timers, (due, kind, key))


def arm_mono(state: State, due: int, kind: str, key: str) -> None:
    """Reminds at a monotonic time: `lease` (agent), `backoff` (run/task)."""
    heapq.heappush(state.mono_timers, (due, kind, key))


def arm_lease(state: State, agent: Agent, due: int) -> None:
    """Reminds to judge an agent's lease: one reminder an agent counts, the earliest asked for."""
    if not agent.lease_armed or due < agent.lease_armed:
        agent.lease_armed = due
        arm_mono(state, due, "lease", agent.agent_id)


def arm_backoff(state: State, run_id: int, task_id: int, due: int) -> None:
    """Reminds of a task in BACKOFF at a monotonic time: a clock set back an hour must not cost it one."""
    arm_mono(state, due, "backoff", f"{run_id}/{task_id}")


def next_due(state: State) -> tuple[int | None, int | None]:
    """The next deadline by the wall clock and by the monotonic one; None where there is none."""
    return (
        state.wall_timers[0][0] if state.wall_timers else None,
        state.mono_timers[0][0] if state.mono_timers else None,
    )
