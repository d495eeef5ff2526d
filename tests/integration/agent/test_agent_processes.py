"""The agent as a program with its true runtime, against a scripted control plane."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_fakes import TOKEN, FakeServer, until
from test_agent_session import bundle_of

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import common_pb2

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
KEY = "b" * 64
CODE = b"""
import os, sys, time

def double(value):
    print("doubling", value, flush=True)
    return value * 2

def large(size):
    return b"x" * size

def raises():
    raise ValueError("the user's mistake")

def waits(path):
    print("waiting", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    return "went on"

def forever():
    print("forever", flush=True)
    time.sleep(1000)
"""


class Program:
    """The agent's process."""

    def __init__(self, server: FakeServer, path: Path) -> None:
        self.server = server
        self.control = server.control
        self.path = path
        self.data = path / "data"
        self.process: asyncio.subprocess.Process | None = None
        self.errors = path / "stderr"
        (path / "token").write_text(TOKEN)

    async def launch(self, *flags: str, data: Path | None = None) -> asyncio.subprocess.Process:
        with self.errors.open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "opentailr_agent",
                "--data-dir",
                os.fspath(data or self.data),
                "--address",
                self.server.address,
                "--token-file",
                os.fspath(self.path / "token"),
                "--ready-file",
                os.fspath(self.path / "ready"),
                *flags,
                stderr=errors,
            )

    async def start(self, *flags: str) -> None:
        links = len(self.control.links)
        self.process = await self.launch(*flags)
        await until(lambda: (self.path / "ready").exists() and len(self.control.links) > links, within=20)

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        process, self.process = self.process, None

        if process.returncode is None:
            process.send_signal(number)

        return await asyncio.wait_for(process.wait(), 10)

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)
        (self.path / "ready").unlink(missing_ok=True)

    def assign(self, attempt_id: str, function: str, /, **arguments: object) -> None:
        data = pickle.dumps(arguments)
        spec = pb.AttemptSpec(
            run_id=1,
            task_id=1,
            task_name=function,
            entrypoint=f"pkg.tasks:{function}",
            image_key=KEY,
            image=common_pb2.ImageRecipe(python_version=OWN),
            bundle=bundle_of(self.server, {"__init__.py": b"", "tasks.py": CODE}),
            arguments=common_pb2.Payload(inline=data, size=len(data)),
            resources=common_pb2.Resources(memory_bytes=256 << 20, memory_is_default=True),
        )
        self.control.assign(attempt_id, spec)

    async def outcome(self, attempt_id: str) -> pb.AttemptReport:
        await until(lambda: self.control.outcome(attempt_id), within=20)
        found = self.control.outcome(attempt_id)
        assert found is not None
        return found

    def gone(self, attempt_id: str) -> bool:
        return not (self.data / "attempts" / attempt_id).exists()

    def processes(self) -> list[int]:
        """Living processes that this data directory has to do with."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._belongs(path)]

    def _belongs(self, path: Path) -> bool:
        try:
            words = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False

        own = self.process.pid if self.process else 0
        return os.fsencode(self.data) in words and state != "Z" and int(path.name) not in (os.getpid(), own)


@pytest.fixture
async def program(server: FakeServer, tmp_path: Path) -> AsyncIterator[Program]:
    made = Program(server, tmp_path)
    yield made

    # Also after a failed test nothing goes on: a draining agent ends what an earlier one left.
    if made.process is not None:
        await made.end(signal.SIGKILL)

    (tmp_path / "ready").unlink(missing_ok=True)
    await made.start("--stop-attempts-on-exit")
    await made.end()
    await until(lambda: not made.processes())


async def test_tasks_run_in_processes_and_their_results_and_logs_arrive(program: Program) -> None:
    await program.start("--name", "true-one")
    ready = json.loads((program.path / "ready").read_text())
    assert ready["name"] == "true-one"
    assert program.process is not None
    assert ready["pid"] == program.process.pid
    program.assign("att_1", "double", value=21)
    report = await program.outcome("att_1")
    assert report.state == pb.ATTEMPT_STATE_SUCCEEDED, report
    assert pickle.loads(report.result.inline) == 42
    await until(lambda: program.server.logs.complete("att_1"))
    assert b"doubling 21\n" in program.server.logs.text("att_1")
    await until(lambda: program.gone("att_1"))

    program.assign("att_2", "large", size=300_000)
    report = await program.outcome("att_2")
    assert pickle.loads(program.server.objects.content[report.result.digest]) == b"x" * 300_000

    program.assign("att_3", "raises")
    report = await program.outcome("att_3")
    assert report.cause.kind == common_pb2.CAUSE_KIND_EXCEPTION
    assert "the user's mistake" in report.cause.message
    assert "tasks.py" in report.cause.traceback
    program.assign("att_4", "forever")
    await until(lambda: b"forever" in program.server.logs.text("att_4"))
    program.control.stop("att_4", grace=1.0)
    report = await program.outcome("att_4")
    assert report.state == pb.ATTEMPT_STATE_CANCELLED


async def test_a_killed_agent_is_followed_by_one_that_goes_on(program: Program, tmp_path: Path) -> None:
    await program.start()
    program.assign("att_1", "waits", path=os.fspath(tmp_path / "go"))
    program.assign("att_2", "waits", path=os.fspath(tmp_path / "go"))
    await until(lambda: b"waiting" in program.server.logs.text("att_2"), within=20)
    await until(lambda: b"waiting" in program.server.logs.text("att_1"), within=20)
    await program.kill()
    # Both end while no agent is there.
    (tmp_path / "go").touch()
    await program.start()

    for attempt_id in ("att_1", "att_2"):
        report = await program.outcome(attempt_id)
        assert report.state == pb.ATTEMPT_STATE_SUCCEEDED
        assert pickle.loads(report.result.inline) == "went on"
        await until(lambda name=attempt_id: program.server.logs.complete(name))
        assert program.server.logs.text(attempt_id).count(b"waiting") == 1


async def test_a_clean_end_leaves_attempts_or_takes_them_along(program: Program) -> None:
    await program.start()
    program.assign("att_1", "forever")
    await until(lambda: b"forever" in program.server.logs.text("att_1"), within=20)
    assert await program.end() == 0
    assert not (program.path / "ready").exists()
    assert program.processes(), "the attempt goes on"
    assert [bye.attempts_keep_running for bye in program.control.link.frames("bye")] == [True]
    await program.start("--stop-attempts-on-exit")
    began = time.monotonic()
    assert await program.end() == 0
    assert time.monotonic() - began < 6
    report = await program.outcome("att_1")
    assert report.cause.kind == common_pb2.CAUSE_KIND_NODE_DRAINED
    await until(lambda: not program.processes())


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        ("busy", 3, "is in use by another agent (pid "),
        ("newer", 4, "use a newer agent"),
        ("token", 2, "--token-file"),
        ("slots", 2, "--slots 0"),
    ],
)
async def test_exit_codes_and_their_reasons(
    program: Program, tmp_path: Path, prepare: str, code: int, words: str
) -> None:
    flags: list[str] = []
    data = tmp_path / "other"

    match prepare:
        case "busy":
            await program.start()
            data = program.data
        case "newer":
            data.mkdir()
            (data / "VERSION").write_text("99\n")
        case "token":
            flags = ["--token-file", os.fspath(tmp_path / "missing")]
        case "slots":
            flags = ["--slots", "0"]

    process = await program.launch(*flags, data=data)
    assert await asyncio.wait_for(process.wait(), 10) == code
    line = program.errors.read_text().splitlines()[-1]
    assert line.startswith("opentailr_agent: ")
    assert words in line
