"""The true engine and an agent that speaks the true protocol: from SaveJob to GetTaskResult."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from controlplane_agent import FakeAgent, read_log, save, start_job, watch
from controlplane_harness import Client, refused

from datatailr.v1 import common_pb2, image_pb2, job_pb2, log_pb2, node_pb2, run_pb2
from opentailr_controlplane.server import ControlPlane


@pytest.mark.clause("B98", "B100", "B102", "B103", "B110", "B149", "B156", "B159")
async def test_from_save_to_result(client: Client, agent: FakeAgent) -> None:
    saved = await save(client)
    assert (saved.version, len(saved.image_key)) == (1, 64)
    run_id = await start_job(client)
    run, tasks, messages = await watch(client, run_id)
    assert messages[0].HasField("run")
    assert run.state == common_pb2.STATE_COMPLETED
    assert (run.counts.total, run.counts.completed) == (3, 3)
    assert [tasks[number].name for number in range(3)] == ["a", "b", "c"]
    assert all(task.state == common_pb2.STATE_COMPLETED and task.node == "worker" for task in tasks.values())
    assert list(tasks[2].dependencies) == [0, 1]
    assert tasks[2].preview == '"done"'
    assert tasks[0].resources.memory == "100m"

    result = await client.call(
        client.runs.GetTaskResult, run_pb2.GetTaskResultRequest(run_id=run_id, task_id=2)
    )
    assert result.result.inline == b"c(a(),b(a()))"
    spec = next(spec for spec in agent.specs.values() if spec.task_name == "a")
    assert spec.arguments.inline == b"arguments of a"
    assert spec.bundle.directory == "package"

    assert await read_log(client, task=log_pb2.TaskLog(run_id=run_id, task_id=1)) == "hello from b\n"
    assert await read_log(client, image_key=saved.image_key) == "$ uv venv\n"
    story = (await read_log(client, run_id=run_id)).splitlines()
    assert "started by" in story[0]
    assert story[-1].endswith(f"run {run_id} completed (3 completed)")
    assert sum("completed" in line and "task" in line.split()[2:3] for line in story) == 3

    listed = await client.call(client.runs.ListRuns, run_pb2.ListRunsRequest(name="my-job"))
    assert [item.run_id for item in listed.runs] == [run_id]
    page = await client.call(
        client.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=run_id, page_size=2)
    )
    rest = await client.call(
        client.runs.ListRunTasks,
        run_pb2.ListRunTasksRequest(run_id=run_id, page_size=2, page_token=page.next_page_token),
    )
    assert [task.task_id for task in [*page.tasks, *rest.tasks]] == [0, 1, 2]
    assert not rest.next_page_token


@pytest.mark.clause("B110", "B126", "B127", "B129", "B131")
async def test_failure_and_partial_rerun(client: Client, agent: FakeAgent) -> None:
    await save(client)
    agent.fail = {"b"}
    first = await start_job(client)
    run, tasks, _ = await watch(client, first)
    assert run.state == common_pb2.STATE_FAILED
    assert [tasks[number].state for number in range(3)] == [
        common_pb2.STATE_COMPLETED,
        common_pb2.STATE_FAILED,
        common_pb2.STATE_DID_NOT_RUN,
    ]
    assert (tasks[1].cause.message, tasks[1].cause.traceback) == ("ValueError: no", "Traceback …")
    assert (tasks[2].submit_time, tasks[2].start_time) == (0, 0)
    empty = await client.call(
        client.runs.GetTaskResult, run_pb2.GetTaskResultRequest(run_id=first, task_id=1)
    )
    assert not empty.HasField("result")

    agent.fail = set()
    again = await client.call(client.runs.RerunRun, run_pb2.RerunRunRequest(run_id=first))
    run, tasks, _ = await watch(client, again.run_id)
    assert (run.state, run.partial_rerun, run.original_run_id) == (common_pb2.STATE_COMPLETED, True, first)
    assert tasks[0].reused
    taken = await client.call(
        client.runs.GetTaskResult, run_pb2.GetTaskResultRequest(run_id=again.run_id, task_id=0)
    )
    assert taken.result.inline == b"a()"


@pytest.mark.clause("B124")
async def test_stop_ends_what_runs(client: Client, agent: FakeAgent) -> None:
    agent.hold.clear()
    await save(client)
    run_id = await start_job(client)
    call = client.stream(client.runs.WatchRun, run_pb2.WatchRunRequest(run_id=run_id))
    async with asyncio.timeout(10):
        async for message in call:
            if any(task.state == common_pb2.STATE_RUNNING for task in message.tasks):
                break
    stopped = await client.call(client.jobs.StopJob, job_pb2.StopJobRequest(name="my-job"))
    assert list(stopped.run_ids) == [run_id]
    run, _, _ = await watch(client, run_id)
    assert run.state == common_pb2.STATE_STOPPED
    assert run.cancel_requested
    assert len(agent.stopped) == 1
    call.cancel()


async def test_watch_build_gives_the_log_and_then_the_end(client: Client, agent: FakeAgent) -> None:
    request = image_pb2.EnsureImageRequest(recipe=common_pb2.ImageRecipe(python_version="3.12"))
    image = (await client.call(client.images.EnsureImage, request)).image
    events = [
        event
        async for event in client.stream(
            client.images.WatchBuild, image_pb2.WatchBuildRequest(image_key=image.image_key)
        )
    ]
    assert events[-1].image.state == image_pb2.IMAGE_STATE_READY
    assert events[-1].image.notice == "3.11 instead of 3.12"
    got = await client.call(client.images.GetImage, image_pb2.GetImageRequest(image_key=image.image_key))
    assert (got.image.node, got.image.recipe.python_version) == ("worker", "3.12")
    again = client.stream(client.images.WatchBuild, image_pb2.WatchBuildRequest(image_key=image.image_key))
    assert [event.image.state async for event in again] == [image_pb2.IMAGE_STATE_READY]
    unknown = client.stream(client.images.WatchBuild, image_pb2.WatchBuildRequest(image_key="0" * 64))
    assert (await refused(unknown)).code is grpc.StatusCode.NOT_FOUND


async def test_run_token_of_an_attempt_serves_its_code(
    plane: ControlPlane, client: Client, agent: FakeAgent
) -> None:
    agent.hold.clear()
    await save(client)
    run_id = await start_job(client)
    async with asyncio.timeout(10):
        while not agent.specs:
            await asyncio.sleep(0.01)
    token = next(iter(agent.specs.values())).run_token
    async with Client(plane.grpc_address, token) as inside:
        got = await inside.call(inside.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id))
        assert got.run.run_id == run_id
        agent.hold.set()
        await watch(client, run_id)
        refusal = await refused(inside.call(inside.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id)))
        assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.UNAUTHENTICATED, "run_over")


async def test_everything_is_there_after_a_restart(
    start: Any, plane: ControlPlane, client: Client, agent: FakeAgent
) -> None:
    await save(client)
    run_id = await start_job(client)
    await watch(client, run_id)
    ports, token = (plane.grpc_address, plane.agent_address, plane.http_url), plane.admin_token
    await plane.close()
    again = await start()
    assert (again.grpc_address, again.agent_address, again.http_url) == ports
    assert again.admin_token == token
    async with Client(again.grpc_address, token) as later:
        run, _, _ = await watch(later, run_id)
        assert run.state == common_pb2.STATE_COMPLETED
        result = await later.call(
            later.runs.GetTaskResult, run_pb2.GetTaskResultRequest(run_id=run_id, task_id=2)
        )
        assert result.result.inline == b"c(a(),b(a()))"
        assert await read_log(later, task=log_pb2.TaskLog(run_id=run_id, task_id=0)) == "hello from a\n"
        nodes = (await later.call(later.nodes.ListNodes, node_pb2.ListNodesRequest())).nodes
        assert [node.name for node in nodes] == ["worker"]
