"""Reasons of the server that have an exception of their own."""

from __future__ import annotations

import grpc
import pytest
from fake_server import FakeState, Fault

from datatailr.client.connection import Connection
from datatailr.client.platform import GrpcPlatform
from datatailr.errors import (
    ConflictError,
    DatatailrError,
    NotSupportedError,
    PlatformError,
    ScheduleError,
    ScheduleRefusedError,
)
from datatailr.v1 import common_pb2


@pytest.mark.clause("B283", "B284", "B285")
@pytest.mark.parametrize(
    ("reason", "kinds"),
    [
        ("job_type_not_supported", (NotSupportedError, ConflictError, PlatformError)),
        ("predecessor_missing", (ScheduleRefusedError, ScheduleError, ConflictError)),
        ("schedule_circle", (ScheduleRefusedError, ScheduleError, PlatformError)),
        ("another", (ConflictError, PlatformError, DatatailrError)),
    ],
)
def test_reasons(
    connection: Connection, state: FakeState, reason: str, kinds: tuple[type[Exception], ...]
) -> None:
    detail = common_pb2.ErrorDetail(reason=reason, hint="do another thing")
    code = grpc.StatusCode.FAILED_PRECONDITION
    state.fail("StartJob", Fault(code=code, detail=detail, text="'x' cannot be started"))
    with pytest.raises(PlatformError) as refused:
        GrpcPlatform(connection).start_job("x", "dev")
    assert type(refused.value) is kinds[0]
    assert all(isinstance(refused.value, kind) for kind in kinds)
    first, _, hint = str(refused.value).partition("\n")
    assert first.startswith("'x' cannot be started") and hint == "hint: do another thing"


@pytest.mark.clause("B55")
def test_a_run_is_stopped_by_its_number(connection: Connection, state: FakeState) -> None:
    GrpcPlatform(connection).stop_run(7)
    assert [method for method, _ in state.calls] == ["CancelRun"]
