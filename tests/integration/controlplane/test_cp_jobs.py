"""JobService with the true engine: lookups, pages, idempotency, refusals."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
import pytest
from controlplane_agent import FakeAgent, definition, save, start_job, watch
from controlplane_harness import Client, refused

from datatailr.v1 import common_pb2, job_pb2, object_pb2, run_pb2


async def get(client: Client, name: str, **options: Any) -> job_pb2.Job:
    answer = await client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name=name, **options))
    assert isinstance(answer, job_pb2.GetJobResponse)
    return answer.job


async def put(client: Client, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    sent = [object_pb2.WriteObjectRequest(digest=digest, size=len(data), data=data[: 256 * 1024])]
    sent += [
        object_pb2.WriteObjectRequest(offset=offset, data=data[offset : offset + 256 * 1024])
        for offset in range(256 * 1024, len(data), 256 * 1024)
    ]
    async for _ in client.stream(client.objects.WriteObject, iter(sent)):
        pass
    return digest


@pytest.mark.clause("B112", "B114", "B116", "B240")
async def test_a_job_is_found_by_all_its_names(client: Client) -> None:
    saved = await save(client, display_name="My Job!", env=[job_pb2.EnvVar(name="A", value="1")])
    for name in ("my-job", "My Job!", saved.job_id):
        job = await get(client, name)
        assert (job.id, job.version, job.definition.name) == (saved.job_id, 1, "my-job")
    assert job.definition.display_name == "My Job!"
    assert job.task_count == 3
    assert not job.definition.tasks
    assert job.definition.env[0].value == "1"
    assert list(job.definition.acl.read) == [1, -2]
    assert list(job.definition.acl.write) == [1]
    refusal = await refused(client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="my-jbo")))
    assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.NOT_FOUND, "job_not_found")
    assert refusal.detail.hint == "did you mean my-job?"
    prod = job_pb2.GetJobRequest(name="my-job", environment=common_pb2.ENVIRONMENT_PROD)
    assert "there is one in dev" in (await refused(client.call(client.jobs.GetJob, prod))).detail.hint
    refusal = await refused(client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="my-job", version=7)))
    assert (refusal.detail.reason, refusal.detail.field) == ("version_not_found", "version")
    assert (await refused(client.call(client.jobs.GetJob, job_pb2.GetJobRequest()))).detail.field == "name"


@pytest.mark.clause("B98", "B99", "B118")
async def test_versions_count_up_and_are_listed(client: Client) -> None:
    assert [(await save(client)).version for _ in range(3)] == [1, 2, 3]
    listed = await client.call(client.jobs.ListVersions, job_pb2.ListVersionsRequest(name="my-job"))
    assert list(listed.versions) == [1, 2, 3]
    none = await client.call(client.jobs.ListVersions, job_pb2.ListVersionsRequest(name="never-saved"))
    assert list(none.versions) == []


async def test_pages_of_jobs_and_tasks(client: Client) -> None:
    for number in range(5):
        await save(client, name=f"job-{number}")
    names, token, pages = [], "", 0
    while True:
        page = await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest(page_size=2, page_token=token))
        names += [job.definition.name for job in page.jobs]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert names == [f"job-{number}" for number in range(5)]
    assert pages == 3
    first = await client.call(
        client.jobs.ListVersionTasks, job_pb2.ListVersionTasksRequest(job_id="job-0", page_size=2)
    )
    assert [task.id for task in first.tasks] == [0, 1]
    assert not first.tasks[0].HasField("arguments")
    rest = job_pb2.ListVersionTasksRequest(job_id="job-0", page_size=2, page_token=first.next_page_token)
    second = await client.call(client.jobs.ListVersionTasks, rest)
    assert ([task.id for task in second.tasks], second.next_page_token) == ([2], "")


async def test_a_save_is_made_once_per_key(client: Client) -> None:
    request = job_pb2.SaveJobRequest(idempotency_key="key", definition=await definition(client))
    first = await client.call(client.jobs.SaveJob, request)
    assert await client.call(client.jobs.SaveJob, request) == first
    request.definition.display_name = "Other"
    refusal = await refused(client.call(client.jobs.SaveJob, request))
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert (await get(client, "my-job")).version == 1


async def test_large_definitions_travel_as_an_object(client: Client) -> None:
    task = job_pb2.TaskDefinition(
        entrypoint="package.module:f",
        resources=common_pb2.Resources(memory="100m", memory_bytes=100 << 20, cpu=0.25),
        arguments=common_pb2.Payload(inline=b"x" * 900),
    )
    tasks = []
    for number in range(6000):
        task.id, task.name = number, f"task {number}"
        tasks.append(job_pb2.TaskDefinition.FromString(task.SerializeToString()))
    message = await definition(client, tasks=tasks)
    assert message.ByteSize() > 4 << 20
    digest = await put(client, message.SerializeToString())
    await client.call(client.jobs.SaveJob, job_pb2.SaveJobRequest(definition_digest=digest))
    assert (await get(client, "my-job")).task_count == 6000
    run_id = await start_job(client)
    seen: set[int] = set()
    call = client.stream(client.runs.WatchRun, run_pb2.WatchRunRequest(run_id=run_id))
    async for answer in call:
        seen.update(item.task_id for item in answer.tasks)
        if answer.synced:
            break
    call.cancel()
    assert seen == set(range(6000))
    for bad, reason in (
        (await put(client, b"\xff\xff\xff"), "definition_unreadable"),
        ("0" * 64, "object_missing"),
    ):
        request = job_pb2.SaveJobRequest(definition_digest=bad)
        assert (await refused(client.call(client.jobs.SaveJob, request))).detail.reason == reason


async def test_definitions_that_name_missing_objects_are_refused(client: Client) -> None:
    lost = common_pb2.Payload(digest="1" * 64, size=5)
    message = await definition(client)
    message.tasks[1].arguments.CopyFrom(lost)
    refusal = await refused(client.call(client.jobs.SaveJob, job_pb2.SaveJobRequest(definition=message)))
    assert (refusal.code, refusal.detail.field) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "tasks[1].arguments.digest",
    )
    none = await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest())
    assert not none.jobs, "nothing is half-written"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Not Internal"}, "name"),
        ({"tasks": []}, "tasks"),
        ({"type": 0}, "type"),
        ({"environment": 9}, "environment"),
        ({"run_as": "nobody-here"}, "run_as"),
        ({"image": common_pb2.ImageRecipe(python_version="2.7")}, "image.python_version"),
        ({"resources": common_pb2.Resources(memory_bytes=1, cpu=float("nan"))}, "resources.cpu"),
        ({"acl": job_pb2.AccessList(read=[0])}, "acl.read"),
    ],
)
@pytest.mark.clause("B285")
async def test_bad_definitions_name_the_field(client: Client, change: dict[str, Any], field: str) -> None:
    request = job_pb2.SaveJobRequest(definition=await definition(client, **change))
    refusal = await refused(client.call(client.jobs.SaveJob, request))
    assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.detail.hint


@pytest.mark.clause("B113")
async def test_a_loaded_version_is_saved_without_its_code(client: Client, agent: FakeAgent) -> None:
    await save(client)
    loaded = (await get(client, "my-job")).definition
    tasks = await client.call(
        client.jobs.ListVersionTasks, job_pb2.ListVersionTasksRequest(job_id="my-job", version=1)
    )
    loaded.ClearField("bundle")
    loaded.tasks.extend(tasks.tasks)
    loaded.base_version = 1
    loaded.env.append(job_pb2.EnvVar(name="NEW", value="yes"))
    saved = await client.call(client.jobs.SaveJob, job_pb2.SaveJobRequest(definition=loaded))
    assert saved.version == 2
    run, _, _ = await watch(client, await start_job(client))
    assert (run.state, run.job_version) == (common_pb2.STATE_COMPLETED, 2)
    spec = next(spec for spec in agent.specs.values() if spec.task_name == "b")
    assert spec.arguments.inline == b"arguments of b"
    loaded.base_version = 9
    refusal = await refused(client.call(client.jobs.SaveJob, job_pb2.SaveJobRequest(definition=loaded)))
    assert refusal.detail.reason == "version_not_found"


@pytest.mark.clause("B98", "B113", "B125")
async def test_what_was_saved_and_removed_can_be_saved_again(client: Client) -> None:
    for _ in range(3):
        await save(client)
    remove = job_pb2.RemoveJobRequest(name="my-job", all_versions=False)
    assert list((await client.call(client.jobs.RemoveJob, remove)).versions) == [3]
    assert (await save(client, base_version=3)).version == 4
    message = await definition(client, base_version=3)
    message.ClearField("bundle")
    request = job_pb2.SaveJobRequest(definition=message)
    assert (await client.call(client.jobs.SaveJob, request)).version == 5
    remove.all_versions = True
    assert list((await client.call(client.jobs.RemoveJob, remove)).versions) == [1, 2, 4, 5]
    assert (await save(client, base_version=5)).version == 6
    assert (await get(client, "my-job")).definition.bundle.digest
    moved = await save(
        client, base_version=6, environment=common_pb2.ENVIRONMENT_PRE, repository_verified=True
    )
    assert moved.version == 1


@pytest.mark.clause("B119", "B121", "B123", "B125")
async def test_promote_remove_restore(client: Client) -> None:
    await save(client)
    promote = job_pb2.PromoteJobRequest(name="my-job", from_environment=common_pb2.ENVIRONMENT_DEV)
    refusal = await refused(client.call(client.jobs.PromoteJob, promote))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    await save(client, repository_verified=True)
    moved = await client.call(client.jobs.PromoteJob, promote)
    assert list(moved.moves) == ["my-job version 2: dev to pre"]
    there = await get(client, "my-job", environment=common_pb2.ENVIRONMENT_PRE)
    assert (there.version, there.definition.environment) == (2, common_pb2.ENVIRONMENT_PRE)
    await client.call(client.jobs.PromoteJob, promote)

    removed = await client.call(
        client.jobs.RemoveJob, job_pb2.RemoveJobRequest(name="my-job", all_versions=True)
    )
    assert list(removed.versions) == [1, 2]
    refusal = await refused(client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="my-job")))
    assert refusal.detail.reason == "job_removed"
    assert "dt job restore my-job" in refusal.detail.hint
    dev = {"environment": common_pb2.ENVIRONMENT_DEV}
    assert not (await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest(**dev))).jobs
    gone = (
        await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest(include_removed=True, **dev))
    ).jobs
    assert [job.removed for job in gone] == [True]
    back = await client.call(client.jobs.RestoreJob, job_pb2.RestoreJobRequest(name="my-job"))
    assert list(back.versions) == [1, 2]
    assert (await get(client, "my-job")).version == 2


@pytest.mark.clause("B106", "B132", "B152")
async def test_unknown_jobs_and_runs(client: Client) -> None:
    for method, request in (
        (client.jobs.StartJob, job_pb2.StartJobRequest(name="never-saved")),
        (client.jobs.StopJob, job_pb2.StopJobRequest(name="never-saved")),
        (client.jobs.RemoveJob, job_pb2.RemoveJobRequest(name="never-saved")),
        (client.jobs.PromoteJob, job_pb2.PromoteJobRequest(name="never-saved")),
        (client.runs.ListRuns, run_pb2.ListRunsRequest(name="never-saved")),
        (client.runs.GetRun, run_pb2.GetRunRequest(run_id=7)),
        (client.runs.ListRunTasks, run_pb2.ListRunTasksRequest(run_id=-1)),
        (client.runs.CancelRun, run_pb2.CancelRunRequest(run_id=7)),
        (client.runs.RerunRun, run_pb2.RerunRunRequest(run_id=7)),
    ):
        refusal = await refused(client.call(method, request))
        assert refusal.code is grpc.StatusCode.NOT_FOUND, request
        assert refusal.detail.hint
    watching = client.stream(client.runs.WatchRun, run_pb2.WatchRunRequest(run_id=7))
    assert (await refused(watching)).code is grpc.StatusCode.NOT_FOUND


async def test_a_start_that_waits_says_why(client: Client) -> None:
    await save(client)
    run_id = await start_job(client)
    run = (await client.call(client.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id))).run
    assert run.state == common_pb2.STATE_PENDING
    assert run.waiting_for
