"""The examples in the help of every command run, and a program loads only what it needs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_server import FakeState

from datatailr.cli import dt as dt_program
from datatailr.cli import platform as platform_program
from datatailr.cli.exits import Exit
from datatailr.v1 import common_pb2, job_pb2, node_pb2, run_pb2

Run = Callable[..., Any]
PROGRAMS = {"dt": dt_program.app, "datatailr": platform_program.app}
HEAVY = {"grpc", "google", "rich", "asyncio", "numpy", "pydantic", "sqlalchemy", "textual"}

ELSEWHERE = {
    "datatailr up": "starts servers: tests of `datatailr up`",
    "datatailr controlplane": "is the server's own command line",
    "datatailr agent": "is the server's own command line",
    "datatailr backup": "needs a data directory with a platform",
    "datatailr restore": "needs a backup",
    "datatailr down": "needs a data directory in a place that tests may not use",
}
"""Commands whose examples other tests stand for; their options are still checked."""


def commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.commands:
        command = group.commands[name]

        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = [entry for name, app in PROGRAMS.items() for entry in commands(typer.main.get_command(app), (name,))]


def examples(command: Any) -> list[str]:
    text = " ".join((command.help or "").partition("Examples:")[2].split())
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_two_examples(path: tuple[str, ...], command: Any) -> None:
    found = examples(command)
    assert len(found) >= 2, f"{' '.join(path)} has {found}"
    assert all(" ".join(path) in example for example in found)


def example_words() -> list[tuple[tuple[str, ...], list[str]]]:
    """The command line of each example, without what is the shell's."""
    found = []

    for path, command in ALL:
        for example in examples(command):
            begin = example.index(" ".join(path))
            words = shlex.split(re.split(r" \|\|? | && |\)", example[begin:])[0])
            found.append((path, words))

    return found


WORDS = example_words()


@pytest.fixture
def world(state: FakeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeState:
    """What the examples speak of: the job my-flow with its runs, a node, a definition, a token."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    resources = common_pb2.Resources(memory="512m", memory_bytes=512 << 20, cpu=1.0)
    definition = job_pb2.JobDefinition(
        name="my-flow",
        display_name="My Flow",
        environment=common_pb2.ENVIRONMENT_DEV,
        type=common_pb2.JOB_TYPE_BATCH,
        run_as="alice",
        resources=resources,
        image=common_pb2.ImageRecipe(python_version="3.12"),
        tasks=[
            job_pb2.TaskDefinition(id=0, name="train", entrypoint="pkg:train", resources=resources),
            job_pb2.TaskDefinition(id=3, name="tell", entrypoint="pkg:tell", resources=resources),
        ],
    )
    state.saved += [definition] * 4
    state.answers["jobs"] = [
        job_pb2.Job(id="job_1", version=4, state=common_pb2.STATE_READY, definition=definition, task_count=2)
    ]

    for number in (3, 4, 17, 18):
        run = run_pb2.Run(
            run_id=number,
            job_id="job_1",
            job_name="my-flow",
            display_name="My Flow",
            environment=common_pb2.ENVIRONMENT_DEV,
            state=common_pb2.STATE_COMPLETED,
            job_version=1,
            original_run_id=-1,
        )
        state.runs[number] = run
        state.tasks[number] = [
            run_pb2.RunTask(run_id=number, task_id=task, name=name, state=common_pb2.STATE_COMPLETED)
            for task, name in ((0, "train"), (3, "tell"))
        ]

    state.watch = [run_pb2.WatchRunResponse(run=state.runs[17], synced=True)]
    state.nodes = [node_pb2.Node(agent_id="agt_1", name="vm", state=node_pb2.NODE_STATE_READY)]
    (home / "token.txt").write_text("token-of-the-tests\n")
    return state


@pytest.mark.parametrize(
    ("path", "words"), WORDS, ids=[f"{number} {shlex.join(words)}" for number, (_, words) in enumerate(WORDS)]
)
def test_examples_run(
    path: tuple[str, ...],
    words: list[str],
    world: FakeState,
    dt: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    name = " ".join(path)

    if name in ELSEWHERE:
        if "--help" not in words and path[1] not in ("controlplane", "agent"):
            command = next(command for known, command in ALL if known == path)
            options = {text for param in command.params for text in param.opts}
            assert {word for word in words if word.startswith("--")} <= options, ELSEWHERE[name]
        return

    if "file://job.json" in words:
        Path("job.json").write_text(dt("job", "get", "my-flow", "--jq", ".[0]").out)

    server = os.environ["DATATAILR_ADDRESS"]
    words = [server if word == "build-7:7070" else word for word in words]
    program = {"dt": dt_program.main, "datatailr": platform_program.main}[path[0]]
    monkeypatch.setattr(sys, "argv", words)

    try:
        program()
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0

    told = capfdbinary.readouterr()
    allowed = {0}

    if name in ("datatailr status", "datatailr doctor"):
        # No platform runs in the test's data directory; a doctor may find something.
        allowed |= {int(Exit.UNREACHABLE), int(Exit.FAILED)}

    assert code in allowed, told.err.decode()
    assert b"Traceback" not in told.err


@pytest.mark.parametrize("program", ["dt", "platform"])
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help", "exit-codes"], ["down", "-h"]])
def test_help_loads_nothing_heavy(program: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"datatailr.cli.{program}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "typer" in loaded
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert not {name for name in loaded if name.startswith(("rich.", "datatailr.v1", "datatailr.scheduler"))}


def test_a_command_loads_no_other() -> None:
    code = (
        "import sys; sys.argv = ['dt', 'job', 'runs', '-h']\n"
        "from datatailr.cli.dt import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded:', *(name for name in sys.modules if name.startswith('datatailr.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert "datatailr.cli.joblists" in loaded
    assert not loaded & {f"datatailr.cli.{name}" for name in ("jobfiles", "jobactions", "nodes", "runlogs")}
