"""What can be found before anything is uploaded is found then."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from fake_server import QUICK, TOKEN, FakeState, Fault, fake_server

from datatailr.client.connection import Connection
from datatailr.client.platform import GrpcPlatform
from datatailr.client.progress import Progress
from datatailr.errors import ArgumentPickleError
from datatailr.scheduler._pickling import dump_arguments
from datatailr.scheduler._platform import (
    CodeOrigin,
    ImageRecipe,
    JobDefinition,
    ResourceRequest,
    TaskDefinition,
)
from datatailr.v1 import node_pb2

USUAL = ResourceRequest("512m", 512 << 20, 1.0, True)
HUGE = ResourceRequest("64g", 64 << 30, 1.0, False)
LARGE_ARGUMENTS = b"L" * 100_000


class Telling:
    """A server, a platform of the SDK on it, and what it tells a person."""

    def __init__(self, connection: Connection, state: FakeState) -> None:
        self.state = state
        self.stream = io.StringIO()
        self.platform = GrpcPlatform(connection, display=Progress(self.stream, environ={}))

    def save(self, *resources: ResourceRequest) -> str:
        """Save a workflow with tasks of these sizes; what was told."""
        tasks = tuple(
            TaskDefinition(number, f"t{number}", "p.m:f", asked, arguments=LARGE_ARGUMENTS)
            for number, asked in enumerate(resources)
        )
        self.platform.save_job(replace(self.definition(), tasks=tasks))
        return self.stream.getvalue()

    @staticmethod
    def definition() -> JobDefinition:
        """A workflow without tasks."""
        return JobDefinition(
            name="flow",
            display_name="Flow",
            type="batch",
            environment="dev",
            resources=USUAL,
            image=ImageRecipe("3.11"),
            origin=CodeOrigin(),
            document={},
        )


@pytest.fixture
def telling() -> Iterator[Telling]:
    with fake_server() as (address, state):
        connection = Connection(address, TOKEN, retry=QUICK)
        state.nodes = [node_pb2.Node(name="n1", memory_bytes=8 << 30), node_pb2.Node(name="n2")]
        yield Telling(connection, state)
        connection.close()


def test_more_memory_than_the_largest_node_is_told_before_the_upload(telling: Telling) -> None:
    told = telling.save(USUAL, HUGE)
    assert "note: task 't1': memory is 64g, and the largest node offers 8g" in told
    assert "hint: ask for less with @task(memory=...)" in told
    methods = [method for method, _ in telling.state.calls]
    assert methods.index("ListNodes") < methods.index(
        "FindMissing" if "FindMissing" in methods else "SaveJob"
    )
    assert told.index("note:") < told.index("upload")


def test_many_are_counted(telling: Telling) -> None:
    assert "task 't0', 't1', 't2' and 2 more: memory" in telling.save(*[HUGE] * 5)


def test_what_fits_is_not_asked_about(telling: Telling) -> None:
    assert "note" not in telling.save(USUAL, USUAL)
    assert not telling.state.called("ListNodes")
    assert "note" not in telling.save(replace(HUGE, memory_bytes=8 << 30))


def test_what_cannot_be_learnt_stops_nothing(telling: Telling) -> None:
    telling.state.fail("ListNodes", Fault(code=grpc.StatusCode.PERMISSION_DENIED))
    assert "note" not in telling.save(HUGE)
    telling.state.nodes = []
    assert "note" not in telling.save(HUGE)
    assert len(telling.state.called("SaveJob")) == 2


@pytest.mark.clause("B44")
def test_an_argument_that_cannot_travel_is_named_with_its_place() -> None:
    value = {"config": [1, {"handle": threading.Lock()}]}
    with pytest.raises(ArgumentPickleError) as refused:
        dump_arguments({"x": 1, "options": value}, task="train", tasks={}, main_name=None)
    assert str(refused.value).startswith(
        "argument 'options' of task 'train': options['config'][1]['handle']: cannot pickle '_thread.lock'"
    )
    assert str(refused.value).endswith("[DT0105]")
