"""Saving to pre or prod without a promotion (clause B57a)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import grpc
import pytest
from controlplane_agent import definition, save
from controlplane_harness import Client, FakeEngine, refused

from datatailr.v1 import common_pb2, job_pb2
from opentailr_controlplane.core.commands import SaveReply, SaveVersion
from opentailr_controlplane.core.errors import PermissionDenied
from opentailr_controlplane.core.model import Job
from opentailr_controlplane.core.values import Acl, Environment, JobType, PeopleState
from opentailr_controlplane.objects import FileObjectStore
from opentailr_controlplane.security.authentication import Caller, set_caller
from opentailr_controlplane.security.tokens import Role
from opentailr_controlplane.security.users import User, UserDirectory
from opentailr_controlplane.services.interceptor import Context
from opentailr_controlplane.services.jobs import JobService
from opentailr_controlplane.services.lookup import Lookup
from opentailr_controlplane.store.reads import Reads

ALICE = User(7, "alice")
OTHERS = Acl(read=(7,), write=(7,), operate=(7,), promote=(8,))
PROMOTERS = Acl(read=(7,), write=(7,), promote=(7,))


@pytest.mark.clause("B57a")
@pytest.mark.parametrize("environment", [common_pb2.ENVIRONMENT_PRE, common_pb2.ENVIRONMENT_PROD])
async def test_an_unverified_repository_goes_by_dev(
    client: Client, environment: common_pb2.Environment
) -> None:
    request = job_pb2.SaveJobRequest(definition=await definition(client, environment=environment))
    refusal = await refused(client.call(client.jobs.SaveJob, request))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.detail.reason == "repository_not_verified"
    assert "deploy to dev and promote" in refusal.message
    listed = await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest(include_removed=True))
    assert not listed.jobs
    saved = await save(client, environment=environment, repository_verified=True)
    assert saved.version == 1


class DirectSave:
    """A save to prod by Alice, who is no administrator, with given jobs there."""

    def __init__(self, folder: Path, message: job_pb2.JobDefinition) -> None:
        self.engine = FakeEngine()
        self._objects = FileObjectStore(folder)
        users = UserDirectory([ALICE])
        reads = cast(Reads, None)  # nothing is loaded from an earlier version
        lookup = Lookup(self.engine, reads)
        self._service = JobService(self.engine, reads, self._objects, users, lookup)
        self._message = message

    def add(self, environment: Environment, acl: Acl) -> None:
        """Adds a job of that name."""
        self.engine.jobs_here.append(
            Job(f"job_{environment.text}", "my-job", "my-job", environment, JobType.BATCH, acl, 1)
        )

    async def __call__(self) -> SaveVersion:
        """What the engine was asked."""
        digest = await self._objects.put_bytes(b"the code")
        self._message.bundle.digest = digest
        self._message.run_as = "alice"
        for task in self._message.tasks:
            task.ClearField("arguments")
        self.engine.replies.append(SaveReply("job", 1, PeopleState.CREATED, 1, "key", "alice"))
        set_caller(Caller(Role.USER, ALICE))
        try:
            await self._service.SaveJob(job_pb2.SaveJobRequest(definition=self._message), cast(Context, None))
        finally:
            self._objects.close()
        command = self.engine.commands[-1]
        assert isinstance(command, SaveVersion)
        return command


@pytest.fixture
async def direct(client: Client, tmp_path: Path) -> DirectSave:
    """A save to prod, of a verified repository."""
    message = await definition(client, environment=common_pb2.ENVIRONMENT_PROD, repository_verified=True)
    return DirectSave(tmp_path / "alice", message)


@pytest.mark.clause("B57a", "B241")
@pytest.mark.parametrize("place", list(Environment))
async def test_a_save_beyond_dev_needs_the_right_to_promote(direct: DirectSave, place: Environment) -> None:
    direct.add(place, OTHERS)
    with pytest.raises(PermissionDenied, match=r"lacks the permission promote.*deploy to dev and promote"):
        await direct()
    assert not direct.engine.commands


@pytest.mark.clause("B57a")
async def test_the_job_in_the_environment_decides(direct: DirectSave) -> None:
    direct.add(Environment.DEV, OTHERS)
    direct.add(Environment.PROD, PROMOTERS)
    assert (await direct()).definition.environment is Environment.PROD


@pytest.mark.clause("B57a", "B240")
async def test_the_list_of_a_new_job_decides_while_there_is_no_job(direct: DirectSave) -> None:
    assert (await direct()).actor == "alice"
