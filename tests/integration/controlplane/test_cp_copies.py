"""Saving with the code and arguments of another job's version."""

from __future__ import annotations

import grpc
import pytest
from controlplane_agent import FakeAgent, definition, save, start_job, watch
from controlplane_harness import Client, FakeEngine, refused

from datatailr.v1 import common_pb2, job_pb2
from opentailr_controlplane.core.errors import PermissionDenied
from opentailr_controlplane.core.model import Job, Version
from opentailr_controlplane.core.values import Acl, Environment, JobType
from opentailr_controlplane.security.authentication import Caller, set_caller
from opentailr_controlplane.security.tokens import Role
from opentailr_controlplane.security.users import User, UserDirectory
from opentailr_controlplane.services.jobs import JobService
from opentailr_controlplane.services.lookup import Lookup


async def copied(client: Client, base_job_id: str, version: int = 1) -> job_pb2.SaveJobRequest:
    """A request for a job `mine` without code and arguments of its own."""
    message = await definition(client, name="mine", base_version=version, base_job_id=base_job_id)
    message.ClearField("bundle")
    for task in message.tasks:
        task.ClearField("arguments")
    return job_pb2.SaveJobRequest(definition=message)


@pytest.mark.clause("B113", "B268")
async def test_a_copy_has_code_and_arguments_of_its_origin(client: Client, agent: FakeAgent) -> None:
    origin = await save(client)
    await save(client)
    answer = await client.call(client.jobs.SaveJob, await copied(client, origin.job_id))
    assert (answer.version, answer.job_id != origin.job_id) == (1, True)
    first = (await client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="my-job", version=1))).job
    mine = (await client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="mine"))).job
    assert mine.definition.bundle == first.definition.bundle
    run, tasks, _ = await watch(client, await start_job(client, "mine"))
    assert run.state == common_pb2.STATE_COMPLETED
    assert len(tasks) == 3
    await client.call(client.jobs.RemoveJob, job_pb2.RemoveJobRequest(name="my-job", version=2))
    listed = await client.call(client.jobs.ListVersions, job_pb2.ListVersionsRequest(name="my-job"))
    assert list(listed.versions) == [1]


async def test_a_copy_of_nothing_is_refused(client: Client) -> None:
    await save(client)
    refusal = await refused(client.call(client.jobs.SaveJob, await copied(client, "job_none")))
    assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.NOT_FOUND, "definition.base_job_id")
    origin = (await client.call(client.jobs.GetJob, job_pb2.GetJobRequest(name="my-job"))).job
    refusal = await refused(client.call(client.jobs.SaveJob, await copied(client, origin.id, version=9)))
    assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.NOT_FOUND, "version")


@pytest.mark.clause("B235", "B241")
async def test_what_one_may_not_read_cannot_be_copied(client: Client) -> None:
    job = Job("job_1", "closed", "Closed", Environment.DEV, JobType.BATCH, Acl(read=(1,)), 2)
    job.versions[1] = Version("job_1", 1, 1, "k" * 64, 3, False, False, 1, "root")
    engine = FakeEngine(jobs_here=[job])
    alice = User(2, "alice")
    service = JobService(
        engine,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        UserDirectory([alice]),
        Lookup(engine, None),  # type: ignore[arg-type]
    )
    request = await copied(client, "job_1")
    set_caller(Caller(Role.USER, alice))
    with pytest.raises(PermissionDenied, match="read on job 'closed'"):
        await service.SaveJob(request, None)  # type: ignore[arg-type]
    assert not engine.commands
