"""The one call wrapper: metadata, repetitions, idempotency, errors, forks, threads."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from fake_server import QUICK, TOKEN, FakeState, Fault

from datatailr.client import queries
from datatailr.client.connection import Connection, RetryPolicy, new_key
from datatailr.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PlatformError,
    ProtocolMismatchError,
    UnauthenticatedError,
    UnavailableError,
)
from datatailr.v1 import common_pb2, job_pb2


def start(connection: Connection) -> job_pb2.StartJobResponse:
    request = job_pb2.StartJobRequest(idempotency_key=new_key(), name="flow")
    return connection.call(lambda s: s.jobs.StartJob, request)


@contextmanager
def listener(answer: bytes | None) -> Iterator[str]:
    """A port that accepts, says `answer` and hangs up, or stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        over = threading.Event()
        held = []

        def serve() -> None:
            while not over.is_set():
                try:
                    accepted, _ = listening.accept()
                except TimeoutError:
                    continue

                held.append(accepted)

                if answer is not None:
                    accepted.sendall(answer)
                    accepted.close()

        thread = threading.Thread(target=serve)
        thread.start()

        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join()

            for accepted in held:
                accepted.close()


def failing(address: str, token: str = TOKEN) -> str:
    """The message of asking who we are."""
    connection = Connection(address, token, retry=QUICK)

    try:
        with pytest.raises(PlatformError) as caught:
            queries.caller(connection)
    finally:
        connection.close()

    assert type(caught.value) is not PlatformError
    return f"{type(caught.value).__name__}: {caught.value}"


def test_every_call_carries_token_and_protocol(connection: Connection, state: FakeState) -> None:
    assert queries.caller(connection).user.name == "alice"
    metadata = state.called("GetCaller")[0]
    assert metadata["authorization"] == f"Bearer {TOKEN}"
    assert metadata["opentailr-protocol"] == "1"


def test_a_lost_reply_does_not_do_the_work_twice(connection: Connection, state: FakeState) -> None:
    state.fail("StartJob", Fault("after"), Fault("before"), Fault("after"))
    queries.caller(connection)
    assert start(connection).run_id == 1
    assert len(state.called("StartJob")) == 4
    assert state.starts == 1


def test_two_intended_calls_have_two_keys(connection: Connection, state: FakeState) -> None:
    assert [start(connection).run_id, start(connection).run_id] == [1, 2]
    assert state.starts == 2


def test_a_call_that_may_not_be_repeated_is_made_once(connection: Connection, state: FakeState) -> None:
    queries.caller(connection)
    state.fail("RemoveJob", Fault("after"))

    with pytest.raises(UnavailableError):
        connection.call(lambda s: s.jobs.RemoveJob, job_pb2.RemoveJobRequest(name="x"), repeatable=False)

    assert state.removed_calls == 1


def test_repetitions_come_to_an_end(connection: Connection, state: FakeState) -> None:
    queries.caller(connection)
    state.fail("StartJob", *[Fault()] * 20)

    with pytest.raises(UnavailableError, match="was lost: told to fail"):
        start(connection)

    assert len(state.called("StartJob")) == 1 + QUICK.repetitions


def test_a_refusal_is_not_repeated(connection: Connection, state: FakeState) -> None:
    state.fail("StartJob", Fault(code=grpc.StatusCode.FAILED_PRECONDITION, text="the build failed"))

    with pytest.raises(ConflictError, match=r"^the build failed \[DT0500\]$"):
        start(connection)

    assert len(state.called("StartJob")) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDeniedError),
        (grpc.StatusCode.ALREADY_EXISTS, ConflictError),
        (grpc.StatusCode.FAILED_PRECONDITION, ConflictError),
        (grpc.StatusCode.ABORTED, ConflictError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.OUT_OF_RANGE, InvalidRequestError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.INTERNAL, PlatformError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, PlatformError),
    ],
)
def test_each_status_has_its_exception(
    connection: Connection, state: FakeState, code: grpc.StatusCode, kind: type[PlatformError]
) -> None:
    state.fail("StartJob", *[Fault(code=code)] * 9)

    with pytest.raises(PlatformError) as caught:
        start(connection)

    assert type(caught.value) is kind


@pytest.mark.clause("B285")
def test_the_message_has_field_reason_and_remedy(connection: Connection, state: FakeState) -> None:
    detail = common_pb2.ErrorDetail(reason="bad", field="tasks[3].entrypoint", hint="write module:function")
    fault = Fault(code=grpc.StatusCode.INVALID_ARGUMENT, detail=detail, text="'x' has no colon")
    state.fail("StartJob", fault)

    with pytest.raises(InvalidRequestError) as caught:
        start(connection)

    assert str(caught.value) == "tasks[3].entrypoint: 'x' has no colon [DT0600]\nhint: write module:function"


def test_an_internal_error_names_the_request(connection: Connection, state: FakeState) -> None:
    detail = common_pb2.ErrorDetail(request_id="req-17")
    state.fail("StartJob", Fault(code=grpc.StatusCode.INTERNAL, detail=detail, text="oops"))

    with pytest.raises(PlatformError, match=r"INTERNAL: oops \(request req-17\)"):
        start(connection)


def test_no_frame_of_the_transport_is_shown(connection: Connection, state: FakeState) -> None:
    state.fail("StartJob", Fault(code=grpc.StatusCode.NOT_FOUND))

    with pytest.raises(NotFoundError) as caught:
        start(connection)

    text = "".join(traceback.format_exception(caught.value))
    assert f"{os.sep}grpc{os.sep}" not in text
    assert "RpcError" not in text and "InactiveRpc" not in text


def test_missing_and_wrong_token_are_told_apart(address: str) -> None:
    missing, wrong = failing(address, ""), failing(address, "another")
    assert missing.startswith("UnauthenticatedError: no token was sent")
    assert "DATATAILR_TOKEN" in missing
    assert "does not accept the token" in wrong
    assert "another" not in wrong.partition("hint:")[0]


def test_another_protocol_is_told_with_both_numbers(address: str, state: FakeState) -> None:
    state.protocol = "2"
    message = failing(address)
    assert message.startswith("ProtocolMismatchError")
    assert "speaks protocol version 2, this client 1" in message


def test_another_grpc_server_is_told() -> None:
    executor = concurrent.futures.ThreadPoolExecutor(1)
    server = grpc.server(executor)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    try:
        message = failing(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait(5)
        executor.shutdown()

    assert message.startswith("ProtocolMismatchError")
    assert "does not offer this service" in message


def test_an_older_server_without_the_call_is_told(connection: Connection, state: FakeState) -> None:
    state.fail("StartJob", Fault(code=grpc.StatusCode.UNIMPLEMENTED))

    with pytest.raises(ProtocolMismatchError, match="upgrade the server"):
        start(connection)


def test_no_server_is_told_at_once_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

    begin = time.monotonic()
    message = failing(address)
    assert time.monotonic() - begin < 3
    assert f"UnavailableError: no server at {address}: is it running?" in message
    assert "`datatailr up`" in message


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n" * 3, None]
)
def test_a_port_that_speaks_no_grpc_is_told(answer: bytes | None) -> None:
    with listener(answer) as address:
        assert f"what listens at {address} does not speak gRPC" in failing(address)


def test_threads_share_one_channel(connection: Connection, state: FakeState) -> None:
    stubs: list[object] = []

    def ask(_: int) -> str:
        stubs.append(connection.stubs)
        return queries.caller(connection).user.name

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == ["alice"] * 40

    assert len({id(stub) for stub in stubs}) == 1


def in_fork(body: Callable[[], bool]) -> bool:
    """Run `body` in a forked child; True if it returned True there."""
    pid = os.fork()

    if pid == 0:
        try:
            os._exit(0 if body() else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)

    deadline = time.monotonic() + 20

    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)

        if done:
            return os.waitstatus_to_exitcode(status) == 0

        time.sleep(0.01)

    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_channel_of_its_own(connection: Connection) -> None:
    parent = connection.stubs
    assert queries.caller(connection).user.name == "alice"
    assert in_fork(lambda: connection._channel is None and connection.stubs is not parent)
    assert connection.stubs is parent
    assert queries.caller(connection).user.name == "alice"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lock_held_while_forking_is_free_in_the_child(connection: Connection) -> None:
    with connection._lock:
        assert in_fork(lambda: connection.stubs is not None)


def test_a_followed_stream_begins_again_after_cuts(connection: Connection, state: FakeState) -> None:
    from datatailr.client import logs

    state.log = b"".join(b"line %d\n" % number for number in range(20))
    state.fail("ReadLog", Fault("bytes", at=30), Fault("before"), Fault("bytes", at=100))
    pieces = logs.read_log(connection, logs.task_log(1, 0), lines=None, follow=True)
    assert b"".join(pieces) == state.log
    assert [request.offset for request in state.log_requests] == [0, 30, 100]


def test_a_followed_stream_that_stays_cut_is_given_up(address: str, state: FakeState) -> None:
    from datatailr.client import logs

    connection = Connection(address, TOKEN, retry=QUICK, patience=0.05)
    state.log = b"0123456789" * 3
    state.fail("ReadLog", Fault("bytes", at=10), *[Fault()] * 1000)

    with pytest.raises(UnavailableError):
        list(logs.read_log(connection, logs.task_log(1, 0), follow=True))

    connection.close()


def test_pauses_grow_and_stay_below_their_limit() -> None:
    policy = RetryPolicy(first_pause=0.1, longest_pause=0.5)
    pauses = [policy.pause(number) for number in range(10)]
    assert all(0.05 <= pause <= 0.5 for pause in pauses)
    assert pauses[0] <= 0.1 and min(pauses[4:]) >= 0.25


def test_the_token_is_in_no_repr(connection: Connection) -> None:
    assert TOKEN not in repr(connection)
