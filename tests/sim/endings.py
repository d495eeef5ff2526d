"""What must be true once everything has healed and come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentailr_controlplane.core.values import AttemptState as A
from opentailr_controlplane.core.values import RunState as R
from opentailr_controlplane.core.values import TaskState as T

if TYPE_CHECKING:
    from .world import World


def judge(world: World) -> None:
    """Fails the world for the first thing that is not as it must be."""
    _runs(world)
    _outcomes(world)
    _processes(world)
    _logs(world)
    engine = world.platform.engine
    assert engine is not None
    world.oracle.validate(engine._state, engine._clock.now())


def _runs(world: World) -> None:
    rows, oracle = world.oracle.rows, world.oracle
    by_key = list(world.workload.accepted.values())
    if len(set(by_key)) != len(by_key):
        oracle.fail(f"invariant 24: two requests, one run: {world.workload.accepted}")
    for key, run_id in world.workload.accepted.items():
        if run_id not in rows.runs:
            oracle.fail(f"1.7: run {run_id} of {key} was accepted and is gone")
    for run_id, row in rows.runs.items():
        if row.state < R.SUCCEEDED:
            oracle.fail(f"invariant 30: run {run_id} has not ended")


def _outcomes(world: World) -> None:
    """A run that nobody stopped ended as its functions say, unless the platform ran out of tries."""
    rows, oracle = world.oracle.rows, world.oracle
    for run_id, run in rows.runs.items():
        if run.state in (R.CANCELLED, R.TIMED_OUT) or run_id not in rows.run_definition:
            continue
        definition = rows.definitions[rows.run_definition[run_id]]
        if "broken" in definition.definition.recipe.python_requirements:
            continue
        budget = world.settings.infra_budget
        for task_id, task in definition.tasks.items():
            row = rows.tasks.get((run_id, task_id))
            if row is None:
                continue
            module, _, function = task.entrypoint.partition(":")
            ending = world.behaviours[module, function].ending
            wanted = {"ok": T.SUCCEEDED, "fail": T.FAILED, "oom": T.OUT_OF_MEMORY}[ending]
            if row.state in (wanted, T.CACHED, T.SKIPPED, T.CANCELLED):
                continue
            spent = len(rows.ends[run_id, task_id]) > budget
            stored = any(
                end.cause_message.startswith("the result could not") for end in rows.ends[run_id, task_id]
            )
            if not spent and not stored:
                oracle.fail(f"task {run_id}/{task_id} is {T(row.state).name}, its function would {ending}")


def _processes(world: World) -> None:
    for proc in world.oracle.procs.values():
        if proc.alive:
            world.oracle.fail(f"invariant 16: the process of {proc.attempt_id} lives on at rest")
    for node in world.nodes:
        left = sorted(path.name for path in (node.folder / "attempts").iterdir())
        if left:
            world.oracle.fail(f"invariant 16: {node.name} has folders {left}")


def _logs(world: World) -> None:
    """Stored logs are what processes wrote: all of it, unless its machine lost it (invariant 21)."""
    oracle = world.oracle
    stored = {path.name: path for path in world.platform.log_files()}
    for proc in oracle.procs.values():
        row = oracle.rows.attempts[proc.attempt_id]
        for number, (stream, suffix) in enumerate((("stdout", "out"), ("stderr", "err")), start=1):
            written = bytes(proc.written[stream])
            path = stored.get(f"{proc.attempt_id}.{suffix}")
            kept = path.read_bytes() if path is not None else b""
            about = f"invariant 21: {stream} of {proc.attempt_id}"
            if not written.startswith(kept):
                oracle.fail(f"{about}: {len(kept)} stored bytes are not what was written")
            if len(kept) < oracle.durable_offsets.get((proc.attempt_id, number), 0):
                oracle.fail(f"{about}: durable bytes are gone")
            # What an attempt writes after it was given up is of no interest.
            whole = not proc.rebooted and row.state not in (A.LOST, A.WITHDRAWN, A.CANCELLED)
            if whole and kept != written:
                oracle.fail(f"{about}: {len(kept)} of {len(written)} bytes are stored")
            if whole and path is not None and path.stat().st_mode & 0o200:
                oracle.fail(f"{about}: all {len(kept)} bytes are stored and not ended")
