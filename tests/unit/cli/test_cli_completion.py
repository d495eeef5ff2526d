"""Completion: what is offered, by the shells themselves where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from fake_server import FakeState, Fault

from datatailr.cli import completion, setupcli
from datatailr.cli.dt import app as dt_app
from datatailr.cli.dt import main as dt_main
from datatailr.cli.exits import Exit
from datatailr.cli.platform import app as datatailr_app
from datatailr.v1 import common_pb2, job_pb2, node_pb2, run_pb2

Run = Callable[..., Any]
DT = typer.main.get_command(dt_app)
ENVIRONMENT = common_pb2.ENVIRONMENT_DEV
DAMAGED = ("", "[]", '{"time": 0}', '{"time": "x", "names": [["a", "b"]]}', "\x00")


@pytest.fixture
def known(state: FakeState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeState:
    """A server with jobs, runs and a node."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = {"risk-report": "Risk Report", "risky": "Risky"}
    state.answers["jobs"] = [
        job_pb2.Job(definition=job_pb2.JobDefinition(name=name, display_name=display))
        for name, display in names.items()
    ]
    completed = common_pb2.STATE_COMPLETED
    for number, name in ((7, "risk-report"), (8, "risky")):
        state.runs[number] = run_pb2.Run(
            run_id=number, job_name=name, state=completed, environment=ENVIRONMENT
        )
    state.nodes = [node_pb2.Node(name="vm-1", state=node_pb2.NODE_STATE_READY)]
    return state


def words(text: str) -> list[str]:
    """What is offered behind a command line of `dt`."""
    return [value for value, _ in completion.candidates(DT, text.split(" "))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jo", ["job"]),
        ("job re", ["rerun", "restore"]),
        ("job get ri", ["risk-report", "risky"]),
        ("job start risk-report risk", ["risk-report", "risky"]),
        ("job get risk-report risk", []),
        ("job get -e ", ["dev", "pre", "prod"]),
        ("job get -e p", ["pre", "prod"]),
        ("job get --environment=p", ["pre", "prod"]),
        ("job get --environment = p", ["pre", "prod"]),
        ("job get --environment =", ["dev", "pre", "prod"]),
        ("job get -j ri", ["risk-report", "risky"]),
        ("job get -- ri", ["risk-report", "risky"]),
        ("job get --sh", ["--show-children"]),
        ("job rerun ", ["8", "7"]),
        ("job watch risk-report -i ", ["latest", "7"]),
        ("job promote risky 1 ", ["dev", "pre", "prod"]),
        ("job new s", ["service"]),
        ("node drain ", ["vm-1"]),
        ("node ls ", []),
        ("nonsense ", []),
        ("job nonsense --x", []),
    ],
)
def test_what_may_follow(known: FakeState, text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_names_are_kept_for_a_moment(known: FakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("job get ") == ["risk-report", "risky"]
    known.answers["jobs"] = []
    assert words("job get ") == ["risk-report", "risky"] and len(known.called("ListJobs")) == 1
    now = completion.time.time()
    monkeypatch.setattr(completion.time, "time", lambda: now + 11)
    known.fail("ListJobs", Fault(code=grpc.StatusCode.INTERNAL))
    assert words("job get ") == ["risk-report", "risky"]
    assert words("job get ") == []
    [path] = completion.cache_folder().iterdir()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_cache_is_no_obstacle(known: FakeState, text: str) -> None:
    assert words("job get ") == ["risk-report", "risky"]
    [path] = completion.cache_folder().iterdir()
    path.write_text(text)
    assert words("job get ") == ["risk-report", "risky"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "not an address", ""])
def test_no_error_reaches_the_prompt(
    known: FakeState, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("DATATAILR_ADDRESS", address)
    monkeypatch.setenv(completion.VARIABLE, "bash")
    monkeypatch.setattr(sys, "argv", ["dt", "job", "get", ""])
    dt_main()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "argv", ["dt", "job", "sta"])
    dt_main()
    assert capfd.readouterr() == ("start\n", "")


def test_a_slow_server_is_not_waited_for(known: FakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    known.fail("ListNodes", Fault(code=grpc.StatusCode.DEADLINE_EXCEEDED))
    assert words("node drain ") == []
    assert completion._ANSWER_SECONDS <= 0.2


def test_names_cannot_act_on_the_terminal(known: FakeState) -> None:
    evil = "a\x1b[2J\nb"
    lines = [completion._line(shell, "x:" + evil, evil) for shell in completion.SHELLS]
    assert not any(character in line for line in lines for character in "\x1b\n")
    assert lines[1].startswith("x\\:a[2Jb:")


BIN = Path(sys.executable).parent
SHELL_TESTS = {
    "bash": (
        'source "$SCRIPT"; COMP_WORDS=(dt {words}); COMP_CWORD={last}; _opentailr_dt; '
        'printf "%s\\n" "${{COMPREPLY[@]}}"',
        ["--norc", "-c"],
    ),
    "zsh": (
        "autoload -Uz compinit; compinit -u -D; source $SCRIPT; _describe() {{ print -l -- $found }}; "
        "_files() {{ print files }}; words=(dt {words}); CURRENT=$#words; _opentailr_dt",
        ["-f", "-c"],
    ),
    "fish": ('source $SCRIPT; complete -C "dt {words}"', ["--no-config", "-c"]),
}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_in_the_shell_itself(known: FakeState, tmp_path: Path, shell: completion.Shell) -> None:
    if shutil.which(shell) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{shell} is not installed")

    script = tmp_path / "script"
    script.write_text(completion.script("dt", shell))
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "SCRIPT": str(script),
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }
    template, options = SHELL_TESTS[shell]

    def complete(line: str) -> list[str]:
        code = template.format(words=line, last=len(line.split()))
        done = subprocess.run(
            [shell, *options, code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        offered = (line.split("\t")[0].split(":")[0] for line in done.stdout.split("\n"))
        return sorted(filter(None, offered))

    assert complete("job get ri") == ["risk-report", "risky"]
    assert complete("job vers") == ["versions"]
    environment["DATATAILR_ADDRESS"] = "not an address"
    assert complete("job get zz") in ([], ["files"])


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    monkeypatch.delenv("ZDOTDIR", raising=False)
    return tmp_path


@pytest.mark.clause("B275")
@pytest.mark.parametrize(("shell", "startup"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_setup_cli_is_idempotent(datatailr: Run, home: Path, shell: str, startup: str) -> None:
    (home / startup).write_text("alias x=y")
    first = datatailr("setup-cli", "--shell", shell, "--yes")
    text = (home / startup).read_text()
    assert first.code == 0 and str(home / startup) in first.err
    assert text.startswith("alias x=y\n") and text.count("opentailr completion") == 1
    again = datatailr("setup-cli", "--shell", shell)
    assert again.code == 0 and "set up already" in again.out and (home / startup).read_text() == text
    lines = Path(text.split('"')[1])
    assert "dt" in lines.read_text() and "datatailr" in lines.read_text()


@pytest.mark.clause("B275")
def test_setup_cli_for_fish_and_for_the_eye(datatailr: Run, home: Path) -> None:
    assert datatailr("setup-cli", "--shell", "fish", "-y").code == 0
    assert {path.name for path, _ in setupcli.planned_changes("fish")} == {"dt.fish", "datatailr.fish"}
    assert all(path.read_text() == text for path, text in setupcli.planned_changes("fish"))
    printed = datatailr("setup-cli", "--shell", "bash", "--print")
    assert "complete -o default" in printed.out and not (home / ".bashrc").exists()


def test_setup_cli_does_not_ask_without_a_terminal(datatailr: Run, home: Path) -> None:
    done = datatailr("setup-cli")
    assert done.code == Exit.USAGE and "--yes" in done.err and not (home / ".zshrc").exists()
    assert datatailr("setup-cli", "--shell", "tcsh").code == Exit.USAGE


def test_both_programs_complete(known: FakeState) -> None:
    found = completion.candidates(typer.main.get_command(datatailr_app), ["lo"])
    assert [value for value, _ in found] == ["login", "logout"]
