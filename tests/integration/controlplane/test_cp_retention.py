"""Retention in a whole control plane: what callers see of runs, logs and results that are gone."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from controlplane_agent import FakeAgent, read_log, save, start_job, watch
from controlplane_harness import Client, refused

from datatailr.v1 import common_pb2, job_pb2, log_pb2, object_pb2, run_pb2
from opentailr_controlplane import retention as module
from opentailr_controlplane.retention import Retention
from opentailr_controlplane.server import ControlPlane

DAY = 86_400
Starter = Callable[..., Awaitable[ControlPlane]]


def age(plane: ControlPlane, run_id: int, days: float) -> None:
    """Lets a run have ended some days ago."""
    with closing(sqlite3.connect(plane.settings.data_dir / "state.db")) as connection, connection:
        connection.execute(
            "UPDATE runs SET end_time = ? WHERE run_id = ?", (int((time.time() - days * DAY) * 1e6), run_id)
        )


async def finished_runs(client: Client, count: int) -> list[int]:
    await save(client)
    runs = []
    for _ in range(count):
        runs.append(await start_job(client))
        await watch(client, runs[-1])
        for task_id in range(3):
            await read_log(client, task=log_pb2.TaskLog(run_id=runs[-1], task_id=task_id))
    return runs


def retention_of(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Retention:
    monkeypatch.setattr(module, "READERS_NEED", 0.0)
    assert plane.retention is not None
    return plane.retention


async def test_callers_are_told_that_a_run_is_gone(
    plane: ControlPlane, client: Client, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await finished_runs(client, 3)
    age(plane, runs[0], 31)
    age(plane, runs[1], 15)
    await retention_of(plane, monkeypatch).run_once()
    listed = await client.call(client.runs.ListRuns, run_pb2.ListRunsRequest(name="my-job"))
    assert [run.run_id for run in listed.runs] == [runs[2], runs[1]]
    gone = runs[0]
    for call in (
        client.call(client.runs.GetRun, run_pb2.GetRunRequest(run_id=gone)),
        client.call(client.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=gone)),
        client.call(client.runs.GetTaskResult, run_pb2.GetTaskResultRequest(run_id=gone)),
        client.call(client.runs.RerunRun, run_pb2.RerunRunRequest(run_id=gone)),
        client.call(client.runs.CancelRun, run_pb2.CancelRunRequest(run_id=gone)),
        client.stream(client.runs.WatchRun, run_pb2.WatchRunRequest(run_id=gone)),
        client.stream(client.logs.ReadLog, log_pb2.ReadLogRequest(run_id=gone)),
    ):
        answer = await refused(call)
        assert answer.code is grpc.StatusCode.NOT_FOUND and answer.detail.reason == "run_not_found"
    for target in ({"run_id": runs[1]}, {"task": log_pb2.TaskLog(run_id=runs[1], task_id=0)}):
        for follow in (False, True):
            request = log_pb2.ReadLogRequest(follow=follow, **target)
            answer = await refused(client.stream(client.logs.ReadLog, request))
            assert answer.code is grpc.StatusCode.FAILED_PRECONDITION
            assert answer.detail.reason == "log_expired" and "--retain-logs" in answer.detail.hint
    details = await client.call(client.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=runs[1]))
    assert len(details.tasks) == 3
    again = await client.call(client.runs.RerunRun, run_pb2.RerunRunRequest(run_id=runs[1]))
    run, _, _ = await watch(client, again.run_id)
    assert run.original_run_id == runs[1]
    assert "hello from a" in await read_log(client, task=log_pb2.TaskLog(run_id=runs[2], task_id=0))


async def test_flags_and_metrics(start: Starter, tmp_path: Path) -> None:
    plane = await start(retain=("dev=1h,1",), retain_logs=("dev=30m",))
    async with Client(plane.grpc_address, plane.admin_token) as client, FakeAgent(plane):
        runs = await finished_runs(client, 3)
        assert plane.retention is not None
        await plane.retention.run_once()
        listed = await client.call(client.runs.ListRuns, run_pb2.ListRunsRequest(name="my-job"))
        assert [run.run_id for run in listed.runs] == [runs[2]]
    text = plane.metrics.text().decode()
    assert "opentailr_retention_removed_runs 2.0" in text
    assert "opentailr_database_bytes" in text


async def test_objects_of_definitions_outlive_a_sweep_and_strangers_do_not(
    plane: ControlPlane, client: Client, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = await save(client)
    assert saved.version == 1
    stranger = await client_upload(client, b"nobody's")
    folder = plane.settings.data_dir / "objects"
    old = time.time() - 3 * DAY
    objects = [path for path in folder.rglob("*") if path.is_file()]
    assert len(objects) == 2
    for path in objects:
        os.utime(path, (old, old))
    # Who is told that it is there can still name it a day later.
    found = await client.call(
        client.objects.FindMissingObjects, object_pb2.FindMissingObjectsRequest(digests=[stranger])
    )
    assert list(found.digests) == []
    await retention_of(plane, monkeypatch).sweep()
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
    for path in objects:
        os.utime(path, (old, old))
    await retention_of(plane, monkeypatch).sweep()
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert len(left) == 1 and stranger not in left
    run_id = await start_job(client)
    run, _, _ = await watch(client, run_id)
    assert run.state == common_pb2.STATE_COMPLETED


async def client_upload(client: Client, data: bytes) -> str:
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    messages = [object_pb2.WriteObjectRequest(digest=digest, size=len(data), data=data)]
    async for _ in client.stream(client.objects.WriteObject, iter(messages)):
        pass
    return digest


async def test_removing_beside_runs_that_go_on(
    plane: ControlPlane, client: Client, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes all the time, with a rule that removes whatever has ended: no run that goes on is harmed."""
    retention = retention_of(plane, monkeypatch)
    monkeypatch.setattr(retention, "_clock", lambda: time.time() + 365 * DAY)
    await save(client)

    async def passes() -> None:
        while True:
            await retention.run_once()

    removing = asyncio.create_task(passes())
    for _ in range(15):
        run_id = await start_job(client)
        run, tasks, _ = await watch(client, run_id)
        assert run.state == common_pb2.STATE_COMPLETED and len(tasks) == 3
    removing.cancel()
    await asyncio.gather(removing, return_exceptions=True)
    await retention.run_once()
    listed = await client.call(client.runs.ListRuns, run_pb2.ListRunsRequest(name="my-job"))
    assert [run.run_id for run in listed.runs] == [run_id], "the newest of the job"
    versions = await client.call(client.jobs.ListVersions, job_pb2.ListVersionsRequest(name="my-job"))
    assert len(versions.versions) == 1
