"""Filters, orders and pages of jobs and runs, asked over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from controlplane_agent import FakeAgent, save, start_job, watch
from controlplane_harness import Client, FakeEngine, FakeRunning, refused
from controlplane_rows import run_row
from sqlalchemy import create_engine

from datatailr.v1 import common_pb2, job_pb2, run_pb2
from opentailr_controlplane.core.model import Job, Version
from opentailr_controlplane.core.values import Acl, Environment, JobType, PeopleState, Recipe, Resources
from opentailr_controlplane.core.values import Bundle as CoreBundle
from opentailr_controlplane.core.values import JobDefinition as CoreDefinition
from opentailr_controlplane.security.authentication import Caller, set_caller
from opentailr_controlplane.security.tokens import Role
from opentailr_controlplane.security.users import User
from opentailr_controlplane.services.jobs import JobService
from opentailr_controlplane.services.lookup import Lookup
from opentailr_controlplane.services.runs import RunService
from opentailr_controlplane.store import codec, schema
from opentailr_controlplane.store.migrate import migrate
from opentailr_controlplane.store.reads import Reads


async def jobs(client: Client, **request: Any) -> list[str]:
    """The jobs found, as `name` in dev and `name@pre` elsewhere."""
    answer = await client.call(client.jobs.ListJobs, job_pb2.ListJobsRequest(**request))
    return [_name(job.definition) for job in answer.jobs]


def _name(definition: job_pb2.JobDefinition) -> str:
    place = common_pb2.Environment.Name(definition.environment).rpartition("_")[2].lower()
    return definition.name if place == "dev" else f"{definition.name}@{place}"


async def runs(client: Client, **request: Any) -> list[int]:
    """Numbers of the runs found."""
    answer = await client.call(client.runs.ListRuns, run_pb2.ListRunsRequest(**request))
    return [run.run_id for run in answer.runs]


def needs(memory: int, cpu: float) -> common_pb2.Resources:
    return common_pb2.Resources(memory=f"{memory}m", memory_bytes=memory << 20, cpu=cpu)


@pytest.fixture
async def shop(client: Client, agent: FakeAgent) -> Client:
    """Four jobs; `etl` has three versions and one in pre, `old` was removed."""
    await save(client, name="old")
    await client.call(client.jobs.RemoveJob, job_pb2.RemoveJobRequest(name="old", all_versions=True))
    for version in range(1, 4):
        await save(client, name="etl", display_name="ETL Nightly", resources=needs(100 * version, 0.5))
    await save(
        client, name="n-code", display_name="Ünï Code", resources=needs(64, 2), repository_verified=True
    )
    await save(
        client,
        name="site",
        display_name="100%_Site",
        tasks=[],
        type=common_pb2.JOB_TYPE_APP,
        entrypoint="a:b",
    )
    await client.call(client.jobs.PromoteJob, job_pb2.PromoteJobRequest(name="n-code", version=1))
    await watch(client, await start_job(client, "etl"))
    return client


@pytest.mark.clause("B268", "B270", "B277", "B278", "B280")
async def test_jobs_are_filtered_by_every_field(shop: Client) -> None:
    everything = ["etl", "n-code", "n-code@pre", "site"]
    caller = (await shop.call(shop.jobs.GetJob, job_pb2.GetJobRequest(name="etl"))).job
    for text, expected in (
        ("", everything),
        ("name = etl", ["etl"]),
        ("name = ETL", []),
        ("name starts_with [ET, S]", ["etl", "site"]),
        ("display_name contains NIGHT", ["etl"]),
        ("display_name contains ÜNÏ", ["n-code", "n-code@pre"]),
        ("display_name starts_with 100%_", ["site"]),
        ("display_name contains %", ["site"]),
        (f"id = {caller.id}", ["etl"]),
        ("type = app", ["site"]),
        ("environment = pre", ["n-code@pre"]),
        ("state = ready", everything),
        ("state = [created, building]", []),
        (f"run_as = {caller.definition.run_as}", everything),
        (f"create_time = {caller.create_time}", ["etl"]),
        ("create_time is_null", []),
        ("cpu >= 2", ["n-code", "n-code@pre"]),
        (f"memory = {300 << 20}", ["etl"]),
        (f"memory = {200 << 20}", []),
        ("version = 3", ["etl"]),
        ("version > 3", []),
        ("not name = etl and not (environment = pre or type = app)", ["n-code"]),
        ("name = \"' OR '1'='1\"", []),
    ):
        assert await jobs(shop, filter=text) == expected, text
    assert await jobs(shop, filter="name = old", include_removed=True) == ["old"]


@pytest.mark.clause("B268", "B282")
async def test_jobs_are_sorted_and_paged(shop: Client) -> None:
    assert await jobs(shop, sort="-name") == ["site", "n-code", "n-code@pre", "etl"]
    assert await jobs(shop, sort="-environment +cpu") == ["n-code@pre", "site", "etl", "n-code"]
    assert await jobs(shop, sort="-version name", offset=1) == ["n-code", "n-code@pre", "site"]
    for sort in ("", "cpu", "-memory", "display_name -create_time", "state", "type -id"):
        whole = await jobs(shop, sort=sort)
        paged: list[str] = []
        request = job_pb2.ListJobsRequest(sort=sort, page_size=1)
        while True:
            page = await shop.call(shop.jobs.ListJobs, request)
            paged += [_name(job.definition) for job in page.jobs]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert paged == whole
        assert len(paged) == 4


@pytest.mark.clause("B268", "B280", "B282")
async def test_pages_of_runs_stay_together_while_runs_are_added(user: Client, running: FakeRunning) -> None:
    states = (PeopleState.COMPLETED, PeopleState.FAILED, PeopleState.STOPPED)
    await running.put(
        schema.runs,
        *(
            run_row(number, people_state=int(states[number % 3]), start_time=number)
            for number in range(1, 13)
        ),
    )
    request = run_pb2.ListRunsRequest(
        filter="state = [failed, stopped]", sort="state -start_time", page_size=3
    )
    found: list[int] = []
    while True:
        page = await user.call(user.runs.ListRuns, request)
        found += [run.run_id for run in page.runs]
        added = 100 + len(found)
        await running.put(schema.runs, run_row(added, people_state=int(PeopleState.FAILED), start_time=added))
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found == [10, 7, 4, 1, 11, 8, 5, 2]
    assert await runs(user, filter="run_id <= 12", offset=9) == [3, 2, 1]
    assert await runs(user, filter="run_id <= 12", offset=12) == []


async def test_a_token_goes_on_with_its_own_list_only(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, *(run_row(number) for number in range(1, 4)))
    request = run_pb2.ListRunsRequest(filter="run_id > 0", page_size=1)
    token = (await user.call(user.runs.ListRuns, request)).next_page_token
    for other in ({"filter": "run_id > 1"}, {"filter": ""}, {"filter": "run_id > 0", "sort": "run_id"}):
        refusal = await refused(
            user.call(user.runs.ListRuns, run_pb2.ListRunsRequest(page_token=token, **other))
        )
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")
    for offset in (-1, 1 << 60):
        refusal = await refused(user.call(user.runs.ListRuns, run_pb2.ListRunsRequest(offset=offset)))
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "offset")


@pytest.mark.clause("B281")
@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("nam = x", "nam"),
        ("name = 'x", "'x"),
        ("name = x; DROP TABLE runs", "DROP"),
        ("(" * 60, "("),
        ("name = [" + "x" * 10_000, "["),
        ("x" * 10_000, "xxx"),
        ("name = 日本 語", "語"),
        ("state = gone", "gone"),
        ("y" * 100_000, "yyy"),
    ],
)
async def test_wrong_filters_are_named_by_their_token(user: Client, text: str, token: str) -> None:
    for method, kind in (
        (user.jobs.ListJobs, job_pb2.ListJobsRequest),
        (user.runs.ListRuns, run_pb2.ListRunsRequest),
    ):
        refusal = await refused(user.call(method, kind(filter=text)))
        assert (refusal.code, refusal.detail.reason, refusal.detail.field) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad_filter",
            "filter",
        )
        assert f"'{token}" in refusal.message
        assert "^" in refusal.message
        assert refusal.detail.hint
        refusal = await refused(user.call(method, kind(sort=text)))
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "sort")


@pytest.mark.clause("B277")
async def test_long_and_wide_filters_are_answered(user: Client, running: FakeRunning) -> None:
    await running.put(schema.runs, run_row(1, job_name="x" * 10_000))
    assert await runs(user, filter=f"name = {'x' * 10_000}") == [1]
    assert await runs(user, filter=f"name contains {'日' * 10_000}") == []
    many = " or ".join(f"name = 'v {number}'" for number in range(199))
    assert await runs(user, filter=f"{many} or run_id = 1") == [1]
    assert await runs(user, filter="not " * 20 + "run_id = 1") == [1]


@pytest.mark.clause("B241")
async def test_filters_show_nothing_that_one_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    migrate(path)
    reading = Acl(read=(2,))
    engine = FakeEngine(jobs_here=[_job(n, reading if n % 2 else Acl(read=(1,))) for n in range(1, 21)])
    database = create_engine(f"sqlite:///{path}")
    with database.begin() as connection:
        for number, job in enumerate(engine.jobs_here, 1):
            connection.execute(schema.definitions.insert().values(**_definition(number, job)))
            connection.execute(
                schema.jobs.insert().values(
                    **{c.name: getattr(job, c.name, 0) for c in schema.jobs.c if c.name != "acl"}, acl="{}"
                )
            )
            version = job.versions[1]
            connection.execute(
                schema.versions.insert().values(
                    **{c.name: getattr(version, c.name) for c in schema.versions.c}
                )
            )
            row = run_row(number, job_id=job.job_id, job_name=job.name)
            connection.execute(schema.runs.insert().values(**row._asdict()))
    database.dispose()
    reads = Reads(path)
    lookup = Lookup(engine, reads)
    job_service = JobService(engine, reads, None, None, lookup)  # type: ignore[arg-type]
    run_service = RunService(engine, reads, lookup)
    set_caller(Caller(Role.USER, User(2, "alice")))
    try:
        for text in ("", "name contains job or environment = dev", "not name = x"):
            listed = await job_service.ListJobs(
                job_pb2.ListJobsRequest(filter=text, sort="version name"), None
            )  # type: ignore[arg-type]
            assert sorted(job.id for job in listed.jobs) == sorted(f"job_{n}" for n in range(1, 21, 2)), text
            found = await run_service.ListRuns(run_pb2.ListRunsRequest(filter=text, sort="run_id"), None)  # type: ignore[arg-type]
            assert [run.run_id for run in found.runs] == list(range(1, 21, 2)), text
    finally:
        await reads.close()


def _job(number: int, acl: Acl) -> Job:
    job = Job(f"job_{number}", f"job-{number}", f"Job {number}", Environment.DEV, JobType.BATCH, acl, 2)
    job.versions[1] = Version(job.job_id, 1, number, "k" * 64, 1, False, False, 1, "root")
    return job


def _definition(number: int, job: Job) -> dict[str, object]:
    definition = CoreDefinition(
        name=job.name,
        display_name=job.display_name,
        environment=job.environment,
        type=job.type,
        run_as="root",
        resources=Resources(),
        recipe=Recipe("3.12"),
        bundle=CoreBundle("b" * 64, 1, "package"),
    )
    header = codec.encode_header(definition)
    return {"definition_id": number, "image_key": "k" * 64, "task_count": 0, "header": header}
