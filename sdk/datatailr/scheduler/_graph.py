"""Order of tasks (clauses B27, B50)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datatailr.errors import CyclicDependencyError

__all__ = ["levels"]


def levels(dependencies: Mapping[int, Collection[int]], names: Mapping[int, str]) -> list[list[int]]:
    """Ids by level: each task stands in the first level after all it waits for, ids ascending.

    Raises:
        CyclicDependencyError: the message names the tasks of one cycle, in order.
    """
    waiting = {task: len(set(needed)) for task, needed in dependencies.items()}
    followers: dict[int, list[int]] = {task: [] for task in dependencies}
    for task, needed in dependencies.items():
        for other in set(needed):
            followers[other].append(task)
    result: list[list[int]] = []
    ready = sorted(task for task, count in waiting.items() if count == 0)
    placed = 0
    while ready:
        result.append(ready)
        placed += len(ready)
        following: list[int] = []
        for task in ready:
            for follower in followers[task]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    following.append(follower)
        ready = sorted(following)
    if placed < len(dependencies):
        cycle = _cycle({task for task, count in waiting.items() if count > 0}, dependencies)
        shown = " -> ".join(repr(names[task]) for task in cycle)
        raise CyclicDependencyError(
            f"the tasks wait for one another: {shown}; remove one of these dependencies"
        )
    return result


def _cycle(stuck: set[int], dependencies: Mapping[int, Collection[int]]) -> list[int]:
    """One cycle among tasks that never became ready, each followed by one that waits for it."""
    # Every stuck task waits for another stuck one, so following these leads into a cycle.
    task = min(stuck)
    path: list[int] = []
    while task not in path:
        path.append(task)
        task = min(other for other in dependencies[task] if other in stuck)
    return [task, *reversed(path[path.index(task) :])]
