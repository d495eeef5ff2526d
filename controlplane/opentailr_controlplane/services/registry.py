"""All services on one gRPC server, with health and reflection."""

from __future__ import annotations

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from datatailr.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    image_pb2,
    image_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    log_pb2,
    log_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    object_pb2,
    object_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (agent_pb2, "AgentService"),
        (identity_pb2, "IdentityService"),
        (image_pb2, "ImageService"),
        (job_pb2, "JobService"),
        (log_pb2, "LogService"),
        (node_pb2, "NodeService"),
        (object_pb2, "ObjectService"),
        (run_pb2, "RunService"),
    )
)
"""Full names of our services."""

REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
HEALTH = health.SERVICE_NAME

OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    # Agents and followers ping idle connections to notice dead ones; that is not misbehaviour.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A peer that vanished without a word is given up after this; it bounds what it can hold.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def add_services(
    server: grpc.aio.Server,
    *,
    agents: agent_pb2_grpc.AgentServiceServicer,
    identity: identity_pb2_grpc.IdentityServiceServicer,
    images: image_pb2_grpc.ImageServiceServicer,
    jobs: job_pb2_grpc.JobServiceServicer,
    logs: log_pb2_grpc.LogServiceServicer,
    nodes: node_pb2_grpc.NodeServiceServicer,
    objects: object_pb2_grpc.ObjectServiceServicer,
    runs: run_pb2_grpc.RunServiceServicer,
) -> health.aio.HealthServicer:
    """Adds all services to the server; the answer sets the health of each."""
    agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(identity, server)
    image_pb2_grpc.add_ImageServiceServicer_to_server(images, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    log_pb2_grpc.add_LogServiceServicer_to_server(logs, server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(nodes, server)
    object_pb2_grpc.add_ObjectServiceServicer_to_server(objects, server)
    run_pb2_grpc.add_RunServiceServicer_to_server(runs, server)
    _add_reflection(server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    return healthy


async def set_health(healthy: health.aio.HealthServicer, *, serving: bool) -> None:
    """Tells the health of the whole server and of each service."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *SERVICES):
        await healthy.set(name, status)


def _add_reflection(server: grpc.aio.Server) -> None:
    names = (*SERVICES, HEALTH, *REFLECTION)
    # `v1` differs from `v1alpha` in its name alone: the messages are the same on the wire.
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in REFLECTION
        )
    )
