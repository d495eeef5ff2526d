"""Runs, their details, logs and results as users see them (section 8)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from datatailr.errors import NotFoundError
from datatailr.scheduler._platform import Platform
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._times import local_time

__all__ = ["RunCache", "definition_of", "enriched", "run_entry", "task_entries"]

_TIMES = (*("submit_time", "start_provisioning_time", "start_time", "end_time", "scheduled_time"),)
_CACHE_SECONDS = 1.0
"""How long an answer may serve again (clause B146)."""


def run_entry(run: Mapping[str, Any]) -> dict[str, Any]:
    """One run with the keys of clause B143."""
    original = run.get("original_run_id")
    return {
        "run_id": int(run["run_id"]),
        "job_name": run["job_name"],
        "state": run["state"],
        "job_version": int(run["job_version"]),
        "original_run_id": -1 if original is None else int(original),
        "partial_rerun": bool(run.get("partial_rerun", False)),
        **_figures(run),
    }


def _figures(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cost": float(run.get("cost") or 0.0),
        **{name: local_time(run.get(name)) for name in _TIMES},
        "tried_to_start_time": int(run.get("tried_to_start_time") or 0),
    }


def task_entries(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of the tasks that ran, with their ids, by id; the rest is `enriched` (B149)."""
    entries = [
        {"id": int(task["child_number"]), "state": task["state"], **_figures(task)}
        for task in tasks
        if task["state"] != "did_not_run" and not task.get("reused", False)
    ]
    return sorted(entries, key=lambda entry: int(entry["id"]))


def _did_not_run(task_id: int) -> dict[str, Any]:
    return {"id": task_id, "state": "did_not_run", **_figures({})}


def definition_of(
    platform: Platform, name: str, environment: str, version: int
) -> list[Mapping[str, Any]] | None:
    """The tasks of a version by id, None when the platform has it no more (clause B150)."""
    try:
        job = platform.get_job(name, environment, version=version, with_tasks=True)
    except NotFoundError:
        return None
    return sorted(job.get("children_full") or [], key=lambda task: int(task["child_number"]))


def enriched(
    entries: list[dict[str, Any]],
    definition: Sequence[Mapping[str, Any]] | None,
    current_names: Mapping[int, str],
) -> list[dict[str, Any]]:
    """Add name, dependencies and resources, and the tasks that did not run (B150, B151).

    Args:
        entries: Changed in place, and returned.
        definition: The tasks of the version that ran; None when it is gone.
        current_names: Names by id in the workflow as loaded now, used when it is gone.
    """
    if definition is None:
        for entry in entries:
            entry.update(name=current_names.get(int(entry["id"])), dependencies=[], resources=None)
        return entries
    known = {int(entry["id"]) for entry in entries}
    entries.extend(
        _did_not_run(int(task["child_number"]))
        for task in definition
        if int(task["child_number"]) not in known
    )
    entries.sort(key=lambda entry: int(entry["id"]))
    tasks = {int(task["child_number"]): task for task in definition}
    for entry in entries:
        task = tasks.get(int(entry["id"]))
        if task is None:
            entry.update(name=current_names.get(int(entry["id"])), dependencies=[], resources=None)
            continue
        entry.update(
            name=task["name"],
            dependencies=sorted(int(other) for other in task.get("depends_on") or []),
            resources=Resources.from_job_dict(task),
        )
    return entries


class RunCache:
    """The last answers to `runs()`, by bounds, for at most one second (clause B146)."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, ...], tuple[float, list[dict[str, Any]]]] = {}

    def get(self, key: tuple[Any, ...]) -> list[dict[str, Any]] | None:
        """A copy of an answer that is young enough."""
        found = self._answers.get(key)
        if found is None or time.monotonic() - found[0] >= _CACHE_SECONDS:
            return None
        return [dict(run) for run in found[1]]

    def put(self, key: tuple[Any, ...], runs: list[dict[str, Any]]) -> None:
        """Keep an answer; older ones of other bounds go."""
        now = time.monotonic()
        self._answers = {
            other: kept for other, kept in self._answers.items() if now - kept[0] < _CACHE_SECONDS
        }
        self._answers[key] = (now, [dict(run) for run in runs])

    def clear(self) -> None:
        """Forget everything: something was started."""
        self._answers.clear()


def newest_first(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs by submission and id, newest first (clause B143)."""
    return sorted(runs, key=lambda run: (run["submit_time"] or datetime.min, run["run_id"]), reverse=True)
