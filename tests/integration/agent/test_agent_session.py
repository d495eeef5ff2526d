"""A whole agent, but for processes, against a control plane that is scripted and can fail."""

from __future__ import annotations

import asyncio
import grp
import io
import json
import os
import sqlite3
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from agent_fakes import TOKEN, FakeRuntime, FakeServer, until

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import common_pb2, image_pb2, job_pb2
from opentailr_agent.agent import Agent
from opentailr_agent.builder.venv import MARKER
from opentailr_agent.config import Settings
from opentailr_agent.datadir import DataDir
from opentailr_agent.ports import AttemptOrder, EndState, Failure, Outcome

KEY = "a" * 64


def bundle_of(server: FakeServer, files: dict[str, bytes], directory: str = "pkg") -> common_pb2.Bundle:
    buffer = io.BytesIO()

    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))

    digest = server.objects.put(buffer.getvalue())
    return common_pb2.Bundle(digest=digest, size=len(buffer.getvalue()), directory=directory)


def spec_for(server: FakeServer, **more: object) -> pb.AttemptSpec:
    given: dict[str, object] = {
        "run_id": 1,
        "task_id": 1,
        "entrypoint": "pkg.tasks:one",
        "image_key": KEY,
        "bundle": bundle_of(server, {"tasks.py": b"def one(): pass"}),
        "arguments": common_pb2.Payload(inline=b"arguments", size=9),
        "run_token": "run-token",
        "env": [
            job_pb2.EnvVar(name="DATATAILR_USER", value="me"),
            job_pb2.EnvVar(name="PATH", value="/evil"),
            job_pb2.EnvVar(name="DATATAILR_UID", value="-1"),
        ],
        "resources": common_pb2.Resources(memory_bytes=256 << 20, memory_is_default=True),
        **more,
    }
    return pb.AttemptSpec(**given)


class Bench:
    """Starts and ends agents over one data directory and one runtime."""

    def __init__(self, server: FakeServer, path: Path) -> None:
        self.server = server
        self.control = server.control
        self.path = path
        self.runtime = FakeRuntime()
        self.flags: dict[str, object] = {}
        self._task: asyncio.Task[None] | None = None
        self._data: DataDir | None = None
        self.agent: Agent | None = None
        # An environment that is ready, so that nothing needs to be built.
        root = path / "data" / "environments" / KEY
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "python").touch()
        (root / MARKER).write_text(json.dumps({"python": "3.11.0", "notice": "", "has_code": False}))

    async def start(self, *, ready: bool = True) -> None:
        links = len(self.control.links)
        self.runtime.reopen()
        settings = Settings(
            data_dir=self.path / "data",
            address=self.server.address,
            token=str(self.flags.get("token", TOKEN)),
            ready_file=self.path / "ready",
            name="bench",
            memory_bytes=8 << 30,
            cpu=8.0,
            slots=4,
            stop_attempts_on_exit=bool(self.flags.get("stop", False)),
            min_free_disk=int(str(self.flags.get("min_free_disk", 0))),
        )
        self._data = DataDir(settings.data_dir)
        self.agent = Agent(settings, self._data, runtime=self.runtime)
        self._task = asyncio.create_task(self.agent.run())

        if ready:
            await until(lambda: len(self.control.links) > links and self.credit())

    def credit(self) -> int:
        return max((frame.attempt_limit for frame in self.control.link.frames("credit")), default=0)

    async def end(self) -> None:
        """A clean end."""
        assert self.agent is not None
        assert self._task is not None
        self.agent.stop()
        await asyncio.wait_for(self._task, 8)
        self._forget()

    async def kill(self) -> None:
        """An end without any of the agent's own doing but what a dead process would leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._forget()

    def _forget(self) -> None:
        assert self._data is not None
        self._data.close()
        self._task = None

    def folder(self, attempt_id: str) -> Path:
        return self.path / "data" / "attempts" / attempt_id


@pytest.fixture
async def bench(server: FakeServer, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(server, tmp_path)
    yield made
    await made.kill()


def well(order: AttemptOrder) -> Outcome:
    return Outcome(order.attempt_id, EndState.SUCCEEDED, result=b"result", started_at=1.0, ended_at=2.0)


async def test_hello_says_what_the_node_is(bench: Bench) -> None:
    await bench.start()
    hello = bench.control.link.hello
    assert (hello.protocol_min, hello.protocol_max) == (1, 1)
    assert hello.agent_id.startswith("agt_")
    assert hello.name == "bench"
    assert hello.capacity == pb.Capacity(memory_bytes=8 << 30, cpu=8.0, slots=4)
    assert hello.runtime == "process"
    assert "3.11" in hello.python_versions
    assert hello.image_keys == [KEY]
    assert json.loads((bench.path / "ready").read_text())["agent_id"] == hello.agent_id
    first = hello.agent_id
    await bench.end()
    assert not (bench.path / "ready").exists()
    assert [bye.attempts_keep_running for bye in bench.control.link.frames("bye")] == [True]
    assert bench.runtime.closed is False
    await bench.start()
    assert bench.control.link.hello.agent_id == first
    assert bench.control.link.hello.boot_id != hello.boot_id


@pytest.mark.clause("B65a", "B176", "B226", "B227", "B228")
async def test_an_attempt_from_assignment_to_removal(bench: Bench) -> None:
    await bench.start()
    upstream = bench.server.objects.put(b"upstream" * 1000)
    spec = spec_for(
        bench.server,
        inputs=[pb.TaskInput(task_id=3, result=common_pb2.Payload(digest=upstream, size=8000))],
    )
    bench.control.assign("att_1", spec)
    await until(lambda: "att_1" in bench.runtime.orders)
    order = bench.runtime.orders["att_1"]
    assert (order.module, order.function) == ("pkg.tasks", "one")
    assert order.arguments.read_bytes() == b"arguments"
    assert order.inputs[3].read_bytes() == b"upstream" * 1000
    code = order.python_path[0]
    assert (code / "pkg" / "tasks.py").read_bytes() == b"def one(): pass"
    assert order.memory_bytes == 1 << 30, "a default only reserves; the soft limit ends"
    assert order.env["DATATAILR_USER"] == "me"
    assert order.env["DATATAILR_GROUP"] == grp.getgrgid(os.getgid()).gr_name
    assert order.env["DATATAILR_UID"] == str(os.getuid()), "what the platform knows wins"
    assert order.env["DATATAILR_GID"] == str(os.getgid())
    assert order.env["DATATAILR_TOKEN"] == "run-token"
    assert order.env["PATH"].split(":")[0] == str(bench.path / "data" / "environments" / KEY / "bin")
    assert order.env["PYTHONPATH"] == str(code)
    assert order.env["PYTHONUNBUFFERED"] == "1"
    assert order.env["PYTHONIOENCODING"] == "UTF-8"
    (order.folder / "stdout").write_bytes(b"hello\n")
    await until(lambda: bench.server.logs.text("att_1") == b"hello\n")
    bench.runtime.end(well(order))
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.state == pb.ATTEMPT_STATE_SUCCEEDED
    assert report.result == common_pb2.Payload(inline=b"result", size=6)
    assert (report.started_at, report.ended_at) == (1_000_000, 2_000_000)
    await until(lambda: bench.server.logs.complete("att_1"))
    await until(lambda: bench.runtime.removed == ["att_1"])
    await until(lambda: not bench.folder("att_1").exists())


async def test_a_given_memory_is_exact(bench: Bench) -> None:
    await bench.start()
    resources = common_pb2.Resources(memory_bytes=300 << 20)
    bench.control.assign("att_1", spec_for(bench.server, resources=resources))
    await until(lambda: "att_1" in bench.runtime.orders)
    assert bench.runtime.orders["att_1"].memory_bytes == 300 << 20


async def test_a_large_result_is_in_the_store_before_the_report(bench: Bench) -> None:
    data = bytes(range(256)) * 4096

    def large(order: AttemptOrder) -> Outcome:
        file = order.folder / "result.pkl"
        file.write_bytes(data)
        return Outcome(order.attempt_id, EndState.SUCCEEDED, result_file=file, result_size=len(data))

    bench.runtime.at_once = large
    bench.server.objects.cut_after = [300_000]
    bench.server.objects.lose_complete = 1
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert bench.server.objects.content[report.result.digest] == data
    assert report.result.size == len(data)
    # The consumer on the same node needs no transfer.
    reads = bench.server.objects.reads
    bench.runtime.at_once = None
    spec = spec_for(bench.server, inputs=[pb.TaskInput(task_id=1, result=report.result)])
    bench.control.assign("att_2", spec)
    await until(lambda: "att_2" in bench.runtime.orders)
    assert bench.runtime.orders["att_2"].inputs[1].read_bytes() == data
    assert bench.server.objects.reads == reads


async def test_failures_are_told_with_their_cause(bench: Bench) -> None:
    failure = Failure("ValueError", "ValueError: no", "Traceback …", b"pickle")
    bench.runtime.at_once = lambda order: Outcome(order.attempt_id, EndState.FAILED, failure=failure)
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.cause.kind == common_pb2.CAUSE_KIND_EXCEPTION
    assert report.cause.traceback == "Traceback …"
    assert report.exception == b"pickle"


async def test_a_missing_object_rejects_the_attempt(bench: Bench) -> None:
    await bench.start()
    gone = common_pb2.Payload(digest="0" * 64, size=1)
    bench.control.assign("att_1", spec_for(bench.server, arguments=gone))
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.state == pb.ATTEMPT_STATE_REJECTED
    assert report.cause.kind == common_pb2.CAUSE_KIND_NODE_FAULT
    assert "0" * 64 in report.cause.message


@pytest.mark.parametrize("attempt_id", ["../escape", "a/b", ""])
async def test_an_id_that_is_no_plain_name_is_rejected(bench: Bench, attempt_id: str) -> None:
    await bench.start()
    bench.control.assign(attempt_id, spec_for(bench.server))
    await until(lambda: bench.control.outcome(attempt_id))
    report = bench.control.outcome(attempt_id)
    assert report is not None
    assert report.state == pb.ATTEMPT_STATE_REJECTED
    assert not (bench.path / "data" / "escape").exists()
    assert (bench.path / "data" / "attempts").is_dir()


async def test_a_runtime_that_refuses_rejects_the_attempt(bench: Bench) -> None:
    bench.runtime.refuse = "no keeper"
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.state == pb.ATTEMPT_STATE_REJECTED
    assert "no keeper" in report.cause.message


async def test_a_stop_is_carried_out_and_told(bench: Bench) -> None:
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: "att_1" in bench.runtime.running)
    await until(lambda: pb.ATTEMPT_STATE_RUNNING in bench.control.states("att_1"))
    bench.control.stop("att_1", grace=2.5)
    await until(lambda: bench.control.outcome("att_1"))
    assert bench.runtime.stopped == [("att_1", 2.5)]
    assert bench.control.states("att_1")[-1] == pb.ATTEMPT_STATE_CANCELLED


async def test_reports_survive_a_cut_and_are_told_once(bench: Bench) -> None:
    await bench.start()
    bench.control.acknowledge = False
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: "att_1" in bench.runtime.orders)
    bench.runtime.end(well(bench.runtime.orders["att_1"]))
    await until(lambda: bench.control.outcome("att_1"))
    told = dict(bench.control.entries)
    bench.control.link.cut()
    bench.control.acknowledge = True
    await until(lambda: len(bench.control.links) == 2)
    await until(lambda: bench.runtime.removed == ["att_1"])
    assert bench.control.entries == told
    assert [entry.state for entry in bench.control.link.hello.inventory] == [pb.ATTEMPT_STATE_SUCCEEDED]


async def test_a_killed_agent_goes_on_with_what_runs(bench: Bench) -> None:
    await bench.start()

    for number in (1, 2):
        bench.control.assign(f"att_{number}", spec_for(bench.server))

    await until(lambda: bench.runtime.running == {"att_1", "att_2"})
    (bench.folder("att_1") / "stdout").write_bytes(b"before\n")
    await until(lambda: bench.server.logs.text("att_1") == b"before\n")
    await bench.kill()
    # While no agent is there one ends, the other writes.
    bench.runtime.end(well(bench.runtime.orders["att_2"]))

    with (bench.folder("att_1") / "stdout").open("ab") as file:
        file.write(b"meanwhile\n")

    await bench.start()
    states = {entry.attempt_id: entry.state for entry in bench.control.link.hello.inventory}
    assert states == {"att_1": pb.ATTEMPT_STATE_RUNNING, "att_2": pb.ATTEMPT_STATE_SUCCEEDED}
    await until(lambda: bench.control.outcome("att_2"))
    await until(lambda: bench.server.logs.text("att_1") == b"before\nmeanwhile\n")
    bench.runtime.end(well(bench.runtime.orders["att_1"]))
    await until(lambda: bench.control.outcome("att_1"))
    assert len(bench.runtime.orders) == 2, "nothing was started again"


async def test_what_vanished_while_the_agent_was_away_is_lost(bench: Bench) -> None:
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.runtime.running)
    await bench.kill()
    bench.runtime.running.clear()
    await bench.start()
    await until(lambda: bench.control.outcome("att_1"))
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.cause.kind == common_pb2.CAUSE_KIND_LOST_BY_RUNTIME


async def test_strays_are_ended_and_removed(bench: Bench) -> None:
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.runtime.running)
    await bench.kill()
    (bench.path / "data" / "journal.db").unlink()
    bench.control.desired.clear()
    await bench.start()
    await until(lambda: not bench.folder("att_1").exists())
    assert not bench.runtime.running
    assert not bench.control.link.hello.inventory


async def test_a_verdict_to_forget_ends_quietly(bench: Bench) -> None:
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.runtime.running)
    bench.control.verdicts = {"att_1": pb.VERDICT_KIND_FORGET}
    bench.control.desired.clear()
    bench.control.link.cut()
    await until(lambda: bench.runtime.removed == ["att_1"])
    assert bench.control.outcomes("att_1") == []


async def test_a_delta_on_another_base_is_answered_by_asking_for_all(bench: Bench) -> None:
    await bench.start()
    bench.control.link.revision += 5
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: "att_1" in bench.runtime.orders)
    assert any(frame.need_full for frame in bench.control.link.frames("applied"))


async def test_more_than_the_slots_is_never_asked_for(bench: Bench) -> None:
    await bench.start()
    assert bench.credit() == 4

    for number in range(4):
        bench.control.assign(f"att_{number}", spec_for(bench.server))

    await until(lambda: len(bench.runtime.running) == 4)
    assert bench.credit() == 4
    bench.runtime.end(well(bench.runtime.orders["att_0"]))
    await until(lambda: bench.credit() == 5)


async def test_a_full_disk_stops_the_intake(bench: Bench) -> None:
    bench.flags["min_free_disk"] = 1 << 60
    await bench.start(ready=False)
    await until(lambda: bench.control.links and bench.control.link.frames("heartbeat"))
    await until(lambda: bench.control.link.frames("heartbeat")[-1].pressure.startswith("disk:"))
    assert bench.credit() == 0


async def test_draining_ends_attempts_and_reports_them(bench: Bench) -> None:
    bench.flags["stop"] = True
    await bench.start()
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: bench.runtime.running)
    await bench.end()
    report = bench.control.outcome("att_1")
    assert report is not None
    assert report.cause.kind == common_pb2.CAUSE_KIND_NODE_DRAINED
    assert bench.runtime.closed is True
    assert [bye.attempts_keep_running for bye in bench.control.link.frames("bye")] == [False]


@pytest.mark.parametrize(
    "status",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, grpc.StatusCode.OK],
)
async def test_any_end_of_the_stream_is_followed_by_another(bench: Bench, status: grpc.StatusCode) -> None:
    await bench.start()

    if status is grpc.StatusCode.OK:
        await bench.server.stop()
        await bench.server.start()
    else:
        bench.control.link.cut(status)

    await until(lambda: len(bench.control.links) == 2 and bench.credit())
    assert bench.control.link.hello.last_epoch == 1


async def test_a_session_without_answers_is_dropped_at_the_end_of_the_lease(bench: Bench) -> None:
    bench.control.heartbeat_interval, bench.control.lease_ttl = 0.05, 0.4
    await bench.start()
    bench.control.answer_heartbeats = False
    await until(lambda: len(bench.control.links) == 2)
    bench.control.answer_heartbeats = True
    await until(lambda: bench.credit())


async def test_heartbeats_count_and_tell_the_revision(bench: Bench) -> None:
    await bench.start()
    await until(lambda: len(bench.control.link.frames("heartbeat")) >= 3)
    beats = bench.control.link.frames("heartbeat")
    assert [beat.counter for beat in beats] == list(range(1, len(beats) + 1))
    assert beats[-1].last_revision == bench.control.link.revision
    assert beats[-1].disk_free_bytes > 0
    assert beats[-1].memory_free_bytes > 0


async def test_go_away_leads_to_another_session(bench: Bench) -> None:
    await bench.start()
    bench.control.link.send(go_away=pb.GoAway(reason="restart", reconnect_within=1000))
    await until(lambda: len(bench.control.links) == 2 and bench.credit())


async def test_a_wrong_token_is_told_and_not_shown(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.flags["token"] = "not-the-token"
    await bench.start(ready=False)
    seen = ""

    def told() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return "does not accept this token; check --token-file" in seen

    await until(told)
    assert "not-the-token" not in seen
    assert not bench.control.links


async def test_another_protocol_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.control.protocol = 2
    await bench.start(ready=False)
    seen = ""

    def told() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return "do not fit; upgrade the older one" in seen

    await until(told)
    assert not (bench.path / "ready").exists()


OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


async def test_a_build_is_carried_out_reported_and_its_log_shipped(bench: Bench) -> None:
    await bench.start()
    key = "c" * 64
    bench.control.build("bld_1", key, common_pb2.ImageRecipe(python_version=OWN))
    await until(lambda: bench.control.build_report("bld_1"), within=30)
    report = bench.control.build_report("bld_1")
    assert report is not None
    assert report.state == image_pb2.IMAGE_STATE_READY, report
    assert report.image_key == key
    await until(lambda: bench.server.logs.complete("bld_1"))
    assert b"$ " in bench.server.logs.text("bld_1")
    await until(lambda: not (bench.path / "data" / "builds" / "bld_1").exists())
    bench.control.assign("att_1", spec_for(bench.server, image_key=key))
    await until(lambda: "att_1" in bench.runtime.orders)
    assert bench.runtime.orders["att_1"].python.is_relative_to(bench.path / "data" / "environments" / key)


@pytest.mark.clause("B174", "B175")
async def test_a_build_that_fails_says_why(bench: Bench) -> None:
    await bench.start()
    recipe = common_pb2.ImageRecipe(python_version=OWN, build_script_pre="echo hello")
    bench.control.build("bld_1", "c" * 64, recipe)
    await until(lambda: bench.control.build_report("bld_1"))
    report = bench.control.build_report("bld_1")
    assert report is not None
    assert report.state == image_pb2.IMAGE_STATE_FAILED
    assert report.cause.kind == common_pb2.CAUSE_KIND_BUILD_FAILED
    assert "--allow-pre-scripts" in report.cause.message
    await until(lambda: bench.server.logs.complete("bld_1"))
    assert b"--allow-pre-scripts" in bench.server.logs.text("bld_1")


async def test_an_attempt_builds_what_its_node_lacks(bench: Bench) -> None:
    await bench.start()
    image = common_pb2.ImageRecipe(python_version=OWN)
    bench.control.assign("att_1", spec_for(bench.server, image_key="c" * 64, image=image))
    await until(lambda: "att_1" in bench.runtime.orders, within=30)
    bad = common_pb2.ImageRecipe(python_version=OWN, build_script_pre="echo hello")
    bench.control.assign("att_2", spec_for(bench.server, image_key="d" * 64, image=bad))
    await until(lambda: bench.control.outcome("att_2"))
    report = bench.control.outcome("att_2")
    assert report is not None
    assert report.state == pb.ATTEMPT_STATE_FAILED
    assert report.cause.kind == common_pb2.CAUSE_KIND_BUILD_FAILED


async def test_nothing_is_started_or_told_while_the_journal_cannot_be_written(bench: Bench) -> None:
    await bench.start()
    assert bench.agent is not None
    journal = bench.agent._journal
    true_commit, tries = journal.commit, 0

    def full(effects: object) -> None:
        nonlocal tries
        tries += 1
        raise sqlite3.OperationalError("database or disk is full")

    journal.commit = full  # type: ignore[method-assign,assignment]
    bench.control.assign("att_1", spec_for(bench.server))
    await until(lambda: tries)
    assert not bench.runtime.orders
    await until(lambda: bench.control.link.frames("heartbeat")[-1].pressure.startswith("journal:"))
    journal.commit = true_commit  # type: ignore[method-assign]
    await until(lambda: "att_1" in bench.runtime.orders)


async def test_tokens_reach_neither_journal_nor_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    await bench.start()
    secret = job_pb2.EnvVar(name="PASSWORD", value="planted-value")
    bench.control.assign("att_1", spec_for(bench.server, run_token="planted-token", env=[secret]))
    await until(lambda: "att_1" in bench.runtime.orders)
    bench.runtime.end(well(bench.runtime.orders["att_1"]))
    await until(lambda: bench.control.outcome("att_1"))
    await bench.end()
    shown = capsys.readouterr()
    kept = b"".join(path.read_bytes() for path in (bench.path / "data").glob("journal.db*"))

    for planted in ("planted-token", "planted-value", TOKEN):
        assert planted not in shown.out + shown.err
        assert planted.encode() not in kept
