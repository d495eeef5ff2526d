"""A control plane in this process that does what the protos say, and fails when it is told to.

It holds real state (objects, versions, runs) so that a call made twice shows. Faults are queued by
method name and used up one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc

from datatailr.client.connection import RetryPolicy
from datatailr.v1 import (
    common_pb2,
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

TOKEN = "token-of-the-tests"
QUICK = RetryPolicy(first_pause=0.001, longest_pause=0.01)


@dataclass(frozen=True)
class Fault:
    """What one call of a method is to suffer.

    Attributes:
        when: `before` the work, `after` it (the reply is lost), or after `at` units of a stream:
            bytes of a transfer, messages of another stream.
        code: Status of the failure.
        detail: Sent as ErrorDetail if given.
        at: See `when`.
        text: Status text.
    """

    when: str = "before"
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    detail: common_pb2.ErrorDetail | None = None
    at: int = 0
    text: str = "told to fail"


class FakeState:
    """What the fake knows, and what it was asked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.protocol = "1"
        self.objects: dict[str, bytes] = {}
        self.partial: dict[str, bytearray] = {}
        self.write_offsets: list[int] = []
        self.saved: list[job_pb2.JobDefinition] = []
        self.answers: dict[str, Any] = {}
        self.removed_calls = 0
        self.starts = 0
        self.list_requests: list[Any] = []
        self.promotions = 0
        self.log = b""
        self.task_logs: dict[tuple[int, int], bytes] = {}
        """By task id and LogStream; the other logs are all `log`."""
        self.log_requests: list[log_pb2.ReadLogRequest] = []
        self.start_requests: list[job_pb2.StartJobRequest] = []
        self.runs: dict[int, run_pb2.Run] = {}
        self.tasks: dict[int, list[run_pb2.RunTask]] = {}
        self.attempts: list[run_pb2.Attempt] = []
        self.results: dict[tuple[int, int], common_pb2.Payload] = {}
        self.watch: list[run_pb2.WatchRunResponse] = []
        self.build: list[image_pb2.WatchBuildResponse] = []
        self.build_requests: list[image_pb2.WatchBuildRequest] = []
        self.nodes: list[node_pb2.Node] = []
        self.hold_watch = threading.Event()
        self.hold_watch.set()

    def fail(self, method: str, *faults: Fault) -> None:
        """Let the next calls of a method fail."""
        self.faults[method].extend(faults)

    def take(self, method: str) -> Fault | None:
        """The fault of this call, if there is one."""
        with self.lock:
            queue = self.faults[method]
            return queue.popleft() if queue else None

    def called(self, method: str) -> list[dict[str, str]]:
        """Metadata of the calls of a method."""
        return [metadata for name, metadata in self.calls if name == method]


def abort(context: grpc.ServicerContext, fault: Fault) -> None:
    """End a call with a fault."""
    if fault.detail is not None:
        context.set_trailing_metadata((("opentailr-error-bin", fault.detail.SerializeToString()),))

    context.abort(fault.code, fault.text)


class _Gate(grpc.ServerInterceptor):
    """Checks token and protocol as every server does, and notes each call."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        metadata = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        method = details.method.rpartition("/")[2]

        with self._state.lock:
            self._state.calls.append((method, metadata))

        fault: Fault | None = None

        if metadata.get("authorization") != f"Bearer {TOKEN}":
            fault = Fault(code=grpc.StatusCode.UNAUTHENTICATED, text="no or wrong token")
        elif metadata.get("opentailr-protocol", self._state.protocol) != self._state.protocol:
            fault = Fault(
                code=grpc.StatusCode.FAILED_PRECONDITION,
                text="another protocol",
                detail=common_pb2.ErrorDetail(reason="protocol_mismatch"),
            )

        return _wrap(handler, self._state, method, fault)


def _wrap(handler: Any, state: FakeState, method: str, refusal: Fault | None) -> Any:
    def enter(context: grpc.ServicerContext) -> Fault | None:
        context.send_initial_metadata((("opentailr-protocol", state.protocol),))

        if refusal is not None:
            abort(context, refusal)

        fault = state.take(method)

        if fault is not None and fault.when == "before":
            abort(context, fault)

        return fault

    if handler is None:
        return None

    if not handler.response_streaming:

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            fault = enter(context)
            answer = handler.unary_unary(request, context)

            if fault is not None:
                abort(context, fault)

            return answer

        return grpc.unary_unary_rpc_method_handler(
            unary, handler.request_deserializer, handler.response_serializer
        )

    behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        fault = enter(context)
        # The services look it up: what a unit is depends on the stream.
        context.fault = fault  # type: ignore[attr-defined]

        for number, answer in enumerate(behaviour(request, context)):
            if fault is not None and fault.when == "messages" and number >= fault.at:
                abort(context, fault)

            yield answer

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(
            stream, handler.request_deserializer, handler.response_serializer
        )

    return grpc.unary_stream_rpc_method_handler(
        stream, handler.request_deserializer, handler.response_serializer
    )


def _spent(context: Any, sent: int) -> None:
    """Cut a transfer after its number of bytes."""
    fault = context.fault

    if fault is not None and fault.when == "bytes" and sent >= fault.at:
        abort(context, fault)


class _Identity(identity_pb2_grpc.IdentityServiceServicer):
    def GetCaller(self, request: Any, context: Any) -> Any:
        user = identity_pb2.User(user_id=7, name="alice", first_name="Alice", groups=["admin", "dt"])
        return identity_pb2.GetCallerResponse(
            user=user, server_version="1.2.3", public_url="http://127.0.0.1:9/"
        )


class _Objects(object_pb2_grpc.ObjectServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state

    def FindMissingObjects(self, request: Any, context: Any) -> Any:
        missing = [digest for digest in request.digests if digest not in self._state.objects]
        return object_pb2.FindMissingObjectsResponse(digests=missing)

    def WriteObject(self, requests: Any, context: Any) -> Any:
        head = next(requests)
        content = self._state.partial.setdefault(head.digest, bytearray())
        self._state.write_offsets.append(len(content))
        yield object_pb2.WriteObjectResponse(durable_offset=len(content))

        for request in requests:
            if request.offset != len(content) or len(request.data) > 256 * 1024:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"offset {request.offset}")

            content += request.data
            yield object_pb2.WriteObjectResponse(durable_offset=len(content))
            _spent(context, len(content))

        del self._state.partial[head.digest]

        if len(content) != head.size or hashlib.sha256(content).hexdigest() != head.digest:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the content does not hash to the digest")

        self._state.objects[head.digest] = bytes(content)
        yield object_pb2.WriteObjectResponse(durable_offset=len(content), complete=True)

    def ReadObject(self, request: Any, context: Any) -> Any:
        if request.digest not in self._state.objects:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such object")

        content = self._state.objects[request.digest]

        for offset in range(request.offset, len(content), 64 * 1024):
            yield object_pb2.ReadObjectResponse(size=len(content), data=content[offset : offset + 64 * 1024])
            _spent(context, offset + 64 * 1024)


class _Jobs(job_pb2_grpc.JobServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state
        self._by_key: dict[str, Any] = {}

    def SaveJob(self, request: Any, context: Any) -> Any:
        if request.idempotency_key in self._by_key:
            return self._by_key[request.idempotency_key]

        definition = request.definition

        if request.WhichOneof("source") == "definition_digest":
            definition = job_pb2.JobDefinition.FromString(self._state.objects[request.definition_digest])

        named = [task.arguments.digest for task in definition.tasks] + [definition.bundle.digest]

        if any(digest and digest not in self._state.objects for digest in named):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "an object is missing")

        self._state.saved.append(definition)
        answer = job_pb2.SaveJobResponse(
            job_id="job_1",
            version=len(self._state.saved),
            state=common_pb2.STATE_BUILDING,
            create_time=1_700_000_000_000_000,
            image_key="key",
            run_as="alice",
        )
        self._by_key[request.idempotency_key] = answer
        return answer

    def StartJob(self, request: Any, context: Any) -> Any:
        self._state.start_requests.append(request)

        if request.idempotency_key not in self._by_key:
            self._state.starts += 1
            self._by_key[request.idempotency_key] = job_pb2.StartJobResponse(
                run_id=self._state.starts,
                version=request.version or 1,
                state=common_pb2.STATE_PENDING,
                job_id="job_1",
                notices=self._state.answers.get("notices", ()),
            )

        return self._by_key[request.idempotency_key]

    def StopJob(self, request: Any, context: Any) -> Any:
        return job_pb2.StopJobResponse(run_ids=sorted(self._state.runs))

    def GetJob(self, request: Any, context: Any) -> Any:
        return job_pb2.GetJobResponse(job=self._job(len(self._state.saved), request.name, context))

    def ListJobs(self, request: Any, context: Any) -> Any:
        self._state.list_requests.append(request)
        jobs = self._state.answers.get("jobs", [])
        begin = int(request.page_token or request.offset)
        page = jobs[begin : begin + 2]
        token = str(begin + 2) if begin + 2 < len(jobs) else ""
        return job_pb2.ListJobsResponse(jobs=page, next_page_token=token)

    def ListVersions(self, request: Any, context: Any) -> Any:
        numbered = enumerate(self._state.saved, 1)
        found = [number for number, definition in numbered if definition.name == request.name]
        return job_pb2.ListVersionsResponse(versions=found)

    def ListVersionTasks(self, request: Any, context: Any) -> Any:
        tasks = self._state.saved[request.version - 1].tasks
        begin = int(request.page_token or 0)
        token = str(begin + 1) if begin + 1 < len(tasks) else ""
        return job_pb2.ListVersionTasksResponse(tasks=tasks[begin : begin + 1], next_page_token=token)

    def PromoteJob(self, request: Any, context: Any) -> Any:
        self._state.promotions += 1
        return job_pb2.PromoteJobResponse(moves=[f"{request.name} version {request.version}: dev to pre"])

    def RemoveJob(self, request: Any, context: Any) -> Any:
        self._state.removed_calls += 1
        return job_pb2.RemoveJobResponse(versions=[len(self._state.saved)])

    def RestoreJob(self, request: Any, context: Any) -> Any:
        return job_pb2.RestoreJobResponse(versions=[1])

    def _job(self, version: int, name: str, context: Any) -> job_pb2.Job:
        if not version or name not in (self._state.saved[version - 1].name, "job_1"):
            detail = common_pb2.ErrorDetail(reason="job_not_found", hint="`dt job ls` lists what there is")
            fault = Fault(code=grpc.StatusCode.NOT_FOUND, detail=detail, text=f"no job {name!r} in dev")
            abort(context, fault)

        definition = job_pb2.JobDefinition()
        definition.CopyFrom(self._state.saved[version - 1])
        count = len(definition.tasks)
        del definition.tasks[:]
        return job_pb2.Job(
            id="job_1",
            version=version,
            state=common_pb2.STATE_READY,
            create_time=1_700_000_000_000_000,
            created_by="alice",
            definition=definition,
            task_count=count,
            image_key="key",
        )


class _Runs(run_pb2_grpc.RunServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state

    def GetRun(self, request: Any, context: Any) -> Any:
        if request.run_id not in self._state.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no run {request.run_id}")

        return run_pb2.GetRunResponse(run=self._state.runs[request.run_id])

    def ListRuns(self, request: Any, context: Any) -> Any:
        self._state.list_requests.append(request)
        runs = [run for _, run in sorted(self._state.runs.items(), reverse=True)]
        runs = [run for run in runs if request.name in ("", run.job_name, run.job_id)]
        begin = int(request.page_token or request.offset)
        size = request.page_size or 100
        token = str(begin + size) if begin + size < len(runs) else ""
        return run_pb2.ListRunsResponse(runs=runs[begin : begin + size], next_page_token=token)

    def ListRunTasks(self, request: Any, context: Any) -> Any:
        return run_pb2.ListRunTasksResponse(tasks=self._state.tasks.get(request.run_id, []))

    def ListAttempts(self, request: Any, context: Any) -> Any:
        begin = int(request.page_token or 0)
        wanted = [a for a in self._state.attempts if not request.task_ids or a.task_id in request.task_ids]
        token = str(begin + 1) if begin + 1 < len(wanted) else ""
        return run_pb2.ListAttemptsResponse(attempts=wanted[begin : begin + 1], next_page_token=token)

    def GetTaskResult(self, request: Any, context: Any) -> Any:
        if request.run_id not in self._state.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such run")

        return run_pb2.GetTaskResultResponse(
            result=self._state.results.get((request.run_id, request.task_id))
        )

    def CancelRun(self, request: Any, context: Any) -> Any:
        return run_pb2.CancelRunResponse()

    def RerunRun(self, request: Any, context: Any) -> Any:
        self._state.runs[99] = run_pb2.Run(run_id=99, job_id="job_1", state=common_pb2.STATE_PENDING)
        return run_pb2.RerunRunResponse(run_id=99, version=request.version or 1)

    def WatchRun(self, request: Any, context: Any) -> Any:
        yield from self._state.watch[:1]
        self._state.hold_watch.wait(10)
        yield from self._state.watch[1:]


class _Images(image_pb2_grpc.ImageServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state

    def WatchBuild(self, request: Any, context: Any) -> Any:
        self._state.build_requests.append(request)
        yield from self._state.build


class _Logs(log_pb2_grpc.LogServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state

    def ReadLog(self, request: Any, context: Any) -> Any:
        self._state.log_requests.append(request)
        content = self._state.task_logs.get((request.task.task_id, request.stream), self._state.log)
        offset = request.offset

        if request.WhichOneof("start") == "tail_lines":
            lines = content.splitlines(keepends=True)
            keep = lines[len(lines) - request.tail_lines :] if request.tail_lines < len(lines) else lines
            offset = len(content) - sum(map(len, keep)) if request.tail_lines else len(content)

        for begin in range(offset, len(content), 10):
            yield log_pb2.ReadLogResponse(offset=begin, data=content[begin : begin + 10])
            _spent(context, begin + 10)

        yield log_pb2.ReadLogResponse(offset=max(offset, len(content)), end=True)


class _Nodes(node_pb2_grpc.NodeServiceServicer):
    def __init__(self, state: FakeState) -> None:
        self._state = state

    def ListNodes(self, request: Any, context: Any) -> Any:
        return node_pb2.ListNodesResponse(nodes=self._state.nodes)

    def SetNodeSchedulable(self, request: Any, context: Any) -> Any:
        node = next((node for node in self._state.nodes if request.node in (node.name, node.agent_id)), None)

        if node is None:
            abort(context, Fault(code=grpc.StatusCode.NOT_FOUND, text=f"no node {request.node!r}"))
            raise AssertionError("abort returned")

        node.state = node_pb2.NODE_STATE_READY if request.schedulable else node_pb2.NODE_STATE_DRAINED
        node.reason = request.reason
        return node_pb2.SetNodeSchedulableResponse(node=node)


@contextlib.contextmanager
def fake_server() -> Iterator[tuple[str, FakeState]]:
    """Serve on a free port of 127.0.0.1; gives (address, state)."""
    state = FakeState()
    executor = futures.ThreadPoolExecutor(max_workers=8)
    server = grpc.server(executor, interceptors=[_Gate(state)])
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(_Identity(), server)
    object_pb2_grpc.add_ObjectServiceServicer_to_server(_Objects(state), server)
    job_pb2_grpc.add_JobServiceServicer_to_server(_Jobs(state), server)
    run_pb2_grpc.add_RunServiceServicer_to_server(_Runs(state), server)
    image_pb2_grpc.add_ImageServiceServicer_to_server(_Images(state), server)
    log_pb2_grpc.add_LogServiceServicer_to_server(_Logs(state), server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(_Nodes(state), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    try:
        yield f"127.0.0.1:{port}", state
    finally:
        state.hold_watch.set()
        server.stop(grace=None).wait(5)
        executor.shutdown(wait=True)
