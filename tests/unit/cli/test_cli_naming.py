"""Names and numbers as people type them; what scripts get."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeState

from datatailr.cli.demofiles import DEMO_FILES
from datatailr.cli.exits import Exit
from datatailr.cli.session import run_reference
from datatailr.client import queries
from datatailr.errors import NotFoundError
from datatailr.v1 import common_pb2, job_pb2, node_pb2, run_pb2

Run = Callable[..., Any]
JOBS = {"risk-report": "Risk Report", "risky": "Risky", "prices": "Daily Prices"}


@pytest.fixture
def jobs(state: FakeState, monkeypatch: pytest.MonkeyPatch) -> FakeState:
    """Three jobs; a server that knows them by their whole names alone."""
    saved = {}

    for number, (name, display) in enumerate(JOBS.items(), 1):
        definition = job_pb2.JobDefinition(
            name=name, display_name=display, environment=common_pb2.ENVIRONMENT_DEV
        )
        saved[name] = job_pb2.Job(id=f"job_{number}", version=2, definition=definition)

    def job(connection: Any, name: str, environment: str, *, version: int | None = None) -> job_pb2.Job:
        for found in saved.values():
            if name in (found.id, found.definition.name, found.definition.display_name):
                if version in (None, 2):
                    return found

                raise NotFoundError(f"job {name!r} has no version {version}")

        raise NotFoundError(f"there is no job {name!r}")

    monkeypatch.setattr(queries, "job", job)
    state.answers["jobs"] = list(saved.values())

    for number in (1, 2, 3):
        state.runs[number] = run_pb2.Run(
            run_id=number,
            job_id="job_1",
            job_name="risk-report",
            display_name="Risk Report",
            environment=common_pb2.ENVIRONMENT_DEV,
            state=common_pb2.STATE_COMPLETED,
        )

    return state


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        *[(name, name) for name in JOBS],
        *[(display, name) for name, display in JOBS.items()],
        ("job_2", "risky"),
        ("pri", "prices"),
        ("PRI", "prices"),
        ("daily", "prices"),
        ("risk-", "risk-report"),
        ("risky", "risky"),
    ],
)
def test_a_job_is_found(dt: Run, jobs: FakeState, typed: str, found: str) -> None:
    done = dt("job", "get", typed, "-j")
    assert done.code == 0 and json.loads(done.out)[0]["name"] == found
    whole = typed in (*JOBS, *JOBS.values(), "job_2")
    assert done.err == ("" if whole else f"note: {typed} is taken for {found}\n")
    assert bool(jobs.called("ListJobs")) is not whole


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("ris", ["risk-report, risky", "more of the name"]),
        ("price", []),
        ("priecs", ["did you mean 'prices'?"]),
        ("xyzzy", ["there is no job 'xyzzy'"]),
        ("", ["there is no job ''"]),
    ],
)
def test_a_job_is_not_found(dt: Run, jobs: FakeState, typed: str, words: list[str]) -> None:
    done = dt("job", "get", typed)
    assert done.code == (Exit.NOT_FOUND if words else Exit.OK)
    assert all(word in done.err for word in words)
    assert done.out == "" or not words


def test_a_missing_version_is_no_wrong_name(dt: Run, jobs: FakeState) -> None:
    done = dt("job", "get", "risky", "-v", "9")
    assert done.code == Exit.NOT_FOUND and "no version 9" in done.err


@pytest.mark.parametrize("command", ["stop", "rm", "restore"])
def test_what_ends_or_removes_wants_the_whole_name(dt: Run, jobs: FakeState, command: str) -> None:
    dt("job", command, "pri")
    assert not jobs.called("ListJobs")


def test_runs_are_counted_from_the_newest(dt: Run, jobs: FakeState) -> None:
    def read(which: str) -> Any:
        return dt("log", "read", "risk-report", "-i", which)

    for which, number in (("latest", 3), ("@-1", 3), ("@-2", 2), ("@-3", 1), ("2", 2)):
        assert read(which).code == 0
        assert jobs.log_requests[-1].run_id == number

    done = read("@-4")
    assert done.code == Exit.NOT_FOUND and "fewer than 4 runs" in done.err


def test_a_run_is_found_with_the_beginning_of_its_job(dt: Run, jobs: FakeState) -> None:
    assert dt("log", "read", "risk", "-i", "2").code == 0
    done = dt("log", "read", "prices", "-i", "2")
    assert done.code == Exit.NOT_FOUND and "run 2 is one of 'risk-report'" in done.err


@pytest.mark.parametrize("text", ["", "0", "-1", "@1", "@-", "@-0", "@-x", "²", "1.0", "9" * 30, "@@-1"])
def test_other_texts_name_no_run(dt: Run, jobs: FakeState, text: str) -> None:
    done = dt("log", "read", "risk-report", f"--run-id={text}")
    assert done.code == Exit.USAGE and "latest" in done.err


def test_references() -> None:
    assert [run_reference(text) for text in ("17", "latest", "@-1", "@-12")] == [17, -1, -1, -12]


@pytest.mark.parametrize("environment", [[], ["-e", "prod"]])
def test_empty_lists_name_server_and_environment(dt: Run, state: FakeState, environment: list[str]) -> None:
    import os

    done = dt("job", "runs", *environment)
    assert done.code == 0 and done.out == ""
    assert os.environ["DATATAILR_ADDRESS"] in done.err
    assert f"dt job start NAME -e {environment[1] if environment else 'dev'}" in done.err
    assert os.environ["DATATAILR_ADDRESS"] in dt("job", "ls").err
    assert os.environ["DATATAILR_ADDRESS"] in dt("node", "ls").err


@pytest.mark.parametrize(
    "command",
    ["job ls", "job runs", "job get risky", "job versions risk-report", "node ls", "node drain vm"],
)
def test_json_is_alone_on_stdout(dt: Run, jobs: FakeState, command: str) -> None:
    jobs.nodes = [node_pb2.Node(agent_id="agt_1", name="vm")]
    jobs.saved.append(job_pb2.JobDefinition(name="risk-report"))
    done = dt(*command.split(), "-j")
    assert done.code == 0, done.err
    json.loads(done.out)
    assert "\x1b" not in done.out + done.err


@pytest.mark.clause("B275")
def test_init_demo_replaces_nothing(datatailr: Run, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    answer = json.loads(datatailr("init-demo", str(folder), "-j").out)
    assert set(answer["files"]) == set(DEMO_FILES)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == set(DEMO_FILES)
    assert datatailr("init-demo", str(folder)).code == 0
    (folder / "demo" / "flow.py").write_text("mine")
    (folder / "deploy.py").unlink()
    done = datatailr("init-demo", str(folder))
    assert done.code == 1 and "demo/flow.py" in done.err and "--force" in done.err
    assert (folder / "demo" / "flow.py").read_text() == "mine" and not (folder / "deploy.py").exists()
    assert datatailr("init-demo", str(folder), "--force").code == 0
    assert (folder / "demo" / "flow.py").read_text() == DEMO_FILES["demo/flow.py"].text
    blocked = datatailr("init-demo", str(folder / "deploy.py"))
    assert blocked.code == 1 and "Traceback" not in blocked.err


@pytest.mark.clause("B275")
@pytest.mark.parametrize("name", DEMO_FILES)
def test_files_of_the_demo_begin_with_the_line_that_runs_them(name: str) -> None:
    text = DEMO_FILES[name].text

    if name.endswith(".ipynb"):
        cell = json.loads(text)["cells"][0]
        assert cell["cell_type"] == "markdown" and "python deploy.py notebook" in cell["source"][0]
    else:
        ast.parse(text)
        assert "python deploy.py" in text.splitlines()[0]
