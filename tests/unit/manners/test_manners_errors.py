"""Errors say what, why and what to do, alike in SDK and `dt`, without the frames of the transport."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import grpc
import pytest
from fake_server import TOKEN, FakeState, Fault

from datatailr._near import near, suggestion
from datatailr.client.words import environment_number, job_type_number
from datatailr.errors import InvalidRequestError, NotFoundError, PlatformError, TaskError
from datatailr.scheduler import Job, Workflow
from datatailr.v1 import common_pb2

Dt = Callable[..., tuple[int, bytes, str]]
MISSING = Fault(
    code=grpc.StatusCode.NOT_FOUND,
    text="No job 'trian' in dev.",
    detail=common_pb2.ErrorDetail(
        reason="job_not_found", hint="did you mean train?", request_id="req_0123456789abcdef"
    ),
)


def printed(error: BaseException) -> str:
    """What the interpreter would print of an error that nobody caught."""
    return "".join(traceback.format_exception(error))


@pytest.mark.clause("B112", "B285")
@pytest.mark.parametrize(
    "load", [lambda: Workflow("trian", get_existing=True), lambda: Job.__get_existing__("trian", None)]
)
def test_an_unknown_job_shows_no_frame_of_the_transport(state: FakeState, load: Callable[[], object]) -> None:
    state.fail("GetJob", MISSING)
    with pytest.raises(TaskError) as refused:
        load()
    text = printed(refused.value)
    assert "During handling" not in text and "direct cause" not in text
    assert "/client/" not in text and "grpc" not in text
    assert "there is no job 'trian' in dev [DT0401]\nhint: did you mean train?" in text


def test_an_error_of_the_platform_shows_no_frame_of_the_transport(
    state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.fail("ListJobs", MISSING)
    with pytest.raises(NotFoundError) as refused:
        Workflow.ls()
    text = printed(refused.value)
    assert "connection.py" not in text and "queries.py" not in text and "grpc" not in text
    assert "in ls" in text, "the frames above stay"

    monkeypatch.setenv("DATATAILR_TRACE", "1")
    state.fail("ListJobs", MISSING)
    with pytest.raises(NotFoundError) as refused:
        Workflow.ls()
    assert "queries.py" in printed(refused.value), "who asks for all of it gets it"


def test_an_error_names_its_call_in_the_log_of_the_server(state: FakeState) -> None:
    state.fail("ListJobs", MISSING)
    with pytest.raises(PlatformError) as refused:
        Workflow.ls()
    error = refused.value
    assert (error.request_id, error.reason) == ("req_0123456789abcdef", "job_not_found")
    assert error.code == "DT0401"


def test_sdk_and_dt_say_the_same(state: FakeState, dt: Dt) -> None:
    state.fail("ListJobs", MISSING, MISSING)
    with pytest.raises(NotFoundError) as refused:
        Workflow.ls()
    code, out, err = dt("job", "ls")
    assert (code, out) == (4, b"")
    assert err == f"error: {refused.value}\n"
    assert err == "error: No job 'trian' in dev. [DT0401]\nhint: did you mean train?\n"


def test_vv_shows_calls_and_repetitions_but_no_secret(state: FakeState, dt: Dt) -> None:
    assert "rpc:" not in dt("job", "ls")[2]
    assert "rpc:" not in dt("-v", "job", "ls")[2]
    state.fail("ListJobs", Fault(code=grpc.StatusCode.UNAVAILABLE, text="gone"))
    code, _, err = dt("-vv", "job", "ls")
    lines = [line for line in err.splitlines() if line.startswith("rpc:")]
    assert code == 0
    assert [word in line for word, line in zip(("UNAVAILABLE", "repetition 1", "OK"), lines)] == [True] * 3
    assert lines[0].startswith("rpc: JobService/ListJobs") and " ms" in lines[0]
    assert TOKEN not in err


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("prd", ["dev", "pre", "prod"], "did you mean 'prod'?"),
        ("TRIAN", ["train", "fit"], "did you mean 'train'?"),
        ("xyz", ["dev", "pre"], "there are dev, pre"),
        ("xyz", [], ""),
        ("x" * 100_000, ["train"], "there are train"),
    ],
)
def test_near_misses(word: str, known: list[str], expected: str) -> None:
    assert suggestion(word, known) == expected
    assert bool(near(word, known)) == expected.startswith("did you mean")


def test_a_long_list_is_cut() -> None:
    assert suggestion("?", [f"name{n}" for n in range(100)]).endswith("name11 and 88 more")


def test_environment_and_type_are_suggested() -> None:
    with pytest.raises(InvalidRequestError, match=r"'prd' is none of .*\nhint: did you mean 'prod'"):
        environment_number("prd")
    with pytest.raises(InvalidRequestError, match=r"'bach' is none of .*\nhint: did you mean 'batch'"):
        job_type_number("bach")
