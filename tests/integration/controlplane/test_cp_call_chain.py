"""Every call of every service: tokens, roles, protocol, errors, health and reflection."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from controlplane_harness import Client, FakeRunning, refused
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from datatailr.v1 import identity_pb2, job_pb2, node_pb2
from opentailr_controlplane.core import errors
from opentailr_controlplane.errors import Aborted, DataLoss, Unauthenticated
from opentailr_controlplane.server import ControlPlane
from opentailr_controlplane.services.interceptor import CallChain
from opentailr_controlplane.services.registry import REFLECTION, SERVICES

ROOT = Path(__file__).resolve().parents[3]
BUF = ROOT / ".venv" / "bin" / "buf"


def methods() -> Iterator[MethodDescriptor]:
    """Every method of every service that the server offers, and of reflection."""
    pool = descriptor_pool.Default()
    for service in SERVICES:
        yield from pool.FindServiceByName(service).methods


def begin(client: Client, method: MethodDescriptor) -> Any:
    """Starts a call with an empty request."""
    request = message_factory.GetMessageClass(method.input_type)()
    answer = message_factory.GetMessageClass(method.output_type).FromString
    kind = (
        f"{'stream' if method.client_streaming else 'unary'}_"
        f"{'stream' if method.server_streaming else 'unary'}"
    )
    path = f"/{method.containing_service.full_name}/{method.name}"
    multicallable = getattr(client.channel, kind)(
        path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer
    )
    sent = iter([request]) if method.client_streaming else request
    return multicallable(sent, metadata=client.metadata, timeout=10)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "token_missing"),
        ((("authorization", "Bearer wrong"),), "token_unknown"),
        ((("authorization", "Bearer "),), "token_unknown"),
        ((("authorization", "Basic YTpi"),), "token_malformed"),
        ((("authorization", "Bearer otr1.WzEsInJvb3QiXQ.AAAA"),), "token_unknown"),
        ((("authorization", "Bearer otr1.x.y"),), "token_unknown"),
    ],
)
async def test_no_method_answers_without_a_valid_token(
    faked: ControlPlane, metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    async with Client(faked.grpc_address, extra=metadata) as client:
        seen = 0
        for method in methods():
            refusal = await refused(begin(client, method))
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED, method.full_name
            assert refusal.detail.reason == reason
            assert refusal.detail.hint and refusal.detail.request_id.startswith("req_")
            seen += 1
        assert seen >= 25
        unknown = client.channel.unary_unary("/datatailr.v1.JobService/Nothing")
        assert (await refused(unknown(b"", metadata=metadata))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_unknown_method_with_a_token(user: Client) -> None:
    unknown = user.channel.unary_unary("/datatailr.v1.JobService/Nothing")
    assert (await refused(unknown(b"", metadata=user.metadata))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_agents_and_people_keep_to_their_methods(faked: ControlPlane) -> None:
    agent_token = (faked.settings.data_dir / "agent.token").read_text().strip()
    for_agents = {"Connect", "AppendLogs"}
    async with (
        Client(faked.grpc_address, faked.admin_token) as person,
        Client(faked.agent_address, agent_token) as agent,
    ):
        for method in methods():
            if method.containing_service.name == "ObjectService":
                continue
            forbidden, reason = (
                (person, "agents_only") if method.name in for_agents else (agent, "not_for_agents")
            )
            refusal = await refused(begin(forbidden, method))
            assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason), (
                method.name
            )
        for client in (person, agent):
            await begin(client, next(m for m in methods() if m.name == "FindMissingObjects"))


async def test_run_token_acts_as_its_user_while_the_run_is_active(
    faked: ControlPlane, running: FakeRunning
) -> None:
    assert running.parts is not None
    async with Client(faked.grpc_address, faked.admin_token) as client:
        name = (await client.call(client.identity.GetCaller, identity_pb2.GetCallerRequest())).user.name
    token = running.parts.run_tokens.issue(7, name)
    async with Client(faked.grpc_address, token) as client:
        request = identity_pb2.GetCallerRequest()
        refusal = await refused(client.call(client.identity.GetCaller, request))
        assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.UNAUTHENTICATED, "run_over")
        running.engine.active.add(7)
        assert (await client.call(client.identity.GetCaller, request)).user.name == name
    stranger = running.parts.run_tokens.issue(7, "nobody-we-know")
    async with Client(faked.grpc_address, stranger) as client:
        assert (
            await refused(client.call(client.identity.GetCaller, request))
        ).detail.reason == "token_unknown"


@pytest.mark.clause("B247")
async def test_caller_is_the_administrator_named_after_the_account(faked: ControlPlane, user: Client) -> None:
    answer = await user.call(user.identity.GetCaller, identity_pb2.GetCallerRequest())
    import getpass

    assert answer.user.name == getpass.getuser()
    assert answer.user.user_id == 1
    assert list(answer.user.groups) == ["admin", "dtusers"]
    assert answer.public_url == ""
    assert answer.server_version


async def test_protocol_is_always_named_and_a_foreign_one_refused(faked: ControlPlane, user: Client) -> None:
    call = user.identity.GetCaller(identity_pb2.GetCallerRequest(), metadata=user.metadata)
    assert dict(await call.initial_metadata())["opentailr-protocol"] == "1"
    async with Client(faked.grpc_address, faked.admin_token, extra=(("opentailr-protocol", "2"),)) as newer:
        call = newer.identity.GetCaller(identity_pb2.GetCallerRequest(), metadata=newer.metadata)
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.detail.reason == "protocol_mismatch"
        assert dict(await call.initial_metadata())["opentailr-protocol"] == "1"
    async with Client(faked.grpc_address, faked.admin_token, extra=(("opentailr-protocol", "1"),)) as same:
        await same.call(same.identity.GetCaller, identity_pb2.GetCallerRequest())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound, grpc.StatusCode.NOT_FOUND),
        (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
        (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
        (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
        (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
        (Aborted, grpc.StatusCode.ABORTED),
        (DataLoss, grpc.StatusCode.DATA_LOSS),
    ],
)
async def test_errors_keep_their_reason_field_and_hint(
    user: Client, running: FakeRunning, error: type[errors.CoreError], code: grpc.StatusCode
) -> None:
    running.engine.replies.append(error("some_reason", "what und warum: ☃", field="recipe", hint="do this"))
    from datatailr.v1 import image_pb2

    refusal = await refused(user.call(user.images.EnsureImage, image_pb2.EnsureImageRequest()))
    assert (refusal.code, refusal.message) == (code, "what und warum: ☃")
    assert (refusal.detail.reason, refusal.detail.field, refusal.detail.hint) == (
        "some_reason",
        "recipe",
        "do this",
    )


async def test_long_texts_of_errors_still_arrive(user: Client, running: FakeRunning) -> None:
    running.engine.replies.append(errors.NotFound("long", "☃" * 5000, field="f" * 900, hint="雪" * 5000))
    from datatailr.v1 import image_pb2

    refusal = await refused(user.call(user.images.EnsureImage, image_pb2.EnsureImageRequest()))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message.startswith("☃☃☃")
    assert refusal.detail.hint.startswith("雪雪")


async def test_defects_show_a_request_id_and_no_inside(
    user: Client, running: FakeRunning, capsys: pytest.CaptureFixture[str]
) -> None:
    from datatailr.v1 import image_pb2

    running.engine.replies.append(RuntimeError("inner secret detail"))
    refusal = await refused(user.call(user.images.EnsureImage, image_pb2.EnsureImageRequest()))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert "inner secret detail" not in refusal.message + refusal.detail.hint
    assert refusal.detail.request_id in refusal.message
    logged = capsys.readouterr()
    assert "inner secret detail" in logged.out + logged.err
    assert refusal.detail.request_id in logged.out + logged.err


async def test_calls_without_a_deadline_get_one(
    user: Client, running: FakeRunning, faked: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(command: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(running.engine, "execute", hang)
    for chain in _chains(faked):
        monkeypatch.setattr(chain, "_deadline", 0.05)
    from datatailr.v1 import image_pb2

    refusal = await refused(user.images.EnsureImage(image_pb2.EnsureImageRequest(), metadata=user.metadata))
    assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline")


def _chains(plane: ControlPlane) -> list[CallChain]:
    return [plane.chain]


async def test_health_answers_without_a_token(faked: ControlPlane) -> None:
    async with grpc.aio.insecure_channel(faked.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


@pytest.mark.parametrize("service", REFLECTION)
async def test_reflection_needs_the_token_and_lists_all(user: Client, service: str) -> None:
    method = user.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="datatailr.v1.JobService"),
    ]
    assert (await refused(method(iter(requests)))).code is grpc.StatusCode.UNAUTHENTICATED
    answers = [answer async for answer in method(iter(requests), metadata=user.metadata, timeout=10)]
    listed = {entry.name for entry in answers[0].list_services_response.service}
    assert listed >= set(SERVICES) | {"grpc.health.v1.Health"}
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def buf_curl(plane: ControlPlane, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    if token:
        command += [
            "--header",
            f"authorization: Bearer {token}",
            "--reflect-header",
            f"authorization: Bearer {token}",
        ]
    return await asyncio.to_thread(
        subprocess.run, [*command, *arguments], capture_output=True, text=True, timeout=60
    )


async def test_a_foreign_client_finds_its_way_by_reflection(faked: ControlPlane) -> None:
    url = f"http://{faked.grpc_address}"
    listed = await buf_curl(faked, "--list-services", url, token=faked.admin_token)
    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) >= set(SERVICES)
    jobs = await buf_curl(faked, f"{url}/datatailr.v1.JobService/ListJobs", token=faked.admin_token)
    assert (jobs.returncode, json.loads(jobs.stdout)) == (0, {}), jobs.stderr
    known = ("--schema", str(ROOT / "protos"), f"{url}/datatailr.v1.JobService/ListJobs")
    for arguments in (("--list-services", url), known):
        refusal = await buf_curl(faked, *arguments)
        assert refusal.returncode != 0
        assert "authenticated" in refusal.stderr


async def test_node_commands_are_for_administrators_and_suggest_names(user: Client) -> None:
    refusal = await refused(
        user.call(user.nodes.SetNodeSchedulable, node_pb2.SetNodeSchedulableRequest(node="worker-1"))
    )
    assert (refusal.code, refusal.detail.reason) == (grpc.StatusCode.NOT_FOUND, "node_not_found")


async def test_bad_page_tokens_and_values_name_their_field(user: Client) -> None:
    for request, field in (
        (job_pb2.ListJobsRequest(page_token="garbage"), "page_token"),
        (job_pb2.ListJobsRequest(page_token="WyJydW5zIiwxXQ"), "page_token"),
        (job_pb2.ListJobsRequest(page_size=-1), "page_size"),
        (job_pb2.ListJobsRequest(environment=9), "environment"),
        (job_pb2.ListJobsRequest(type=9), "type"),
    ):
        refusal = await refused(user.call(user.jobs.ListJobs, request))
        assert (refusal.code, refusal.detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
