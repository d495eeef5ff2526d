"""`dt`, the status page and third-party clients against the real platform."""

from __future__ import annotations

import json
import subprocess
import urllib.request

import pytest
from e2e_harness import (
    BIN,
    ROOT,
    FinishedRun,
    Project,
    Ran,
    client_variables,
    eventually,
    process_alive,
    run_command,
)

SOURCE = """
    from datatailr import task, workflow


    @task()
    def numbers(count):
        for number in range(count):
            print("number", number)
        return list(range(count))


    @task()
    def total(values):
        return sum(values)


    @workflow(name="@NAME@")
    def flow():
        total(numbers(20))
"""


@pytest.fixture(scope="module")
def run(module_project: Project) -> FinishedRun:
    with client_variables(module_project.platform):
        return module_project.run(SOURCE)


@pytest.fixture
def internal(run: FinishedRun, client: None) -> str:
    return str(run.job.to_dict()["name"])


@pytest.mark.clause("B268", "B269", "B270")
def test_job_ls_and_get(run: FinishedRun, internal: str) -> None:
    platform = run.flow.platform
    listed = platform.dt("job", "ls", "--json").json()
    entry = next(job for job in listed if job["name"] == internal)
    assert entry["display_name"] == run.flow.name and entry["type"] == "batch"
    assert entry["version"] == 1 and entry["environment"] == "dev"
    got = platform.dt("job", "get", internal, "--show-children", "--json").json()
    got = got[0] if isinstance(got, list) else got
    assert [child["name"] for child in got["children_full"]] == ["numbers", "total"]
    assert got["cpu"] == got["num_cpus"]
    text = platform.dt("job", "ls").out
    assert run.flow.name in text or internal in text


@pytest.mark.clause("B271", "B272")
def test_job_runs_and_versions(run: FinishedRun, internal: str) -> None:
    platform = run.flow.platform
    entries = [entry for entry in platform.dt("job", "runs", "--json").json() if entry["run_id"] == run.id]
    mother = next(entry for entry in entries if entry["job_name"] == internal)
    assert mother["state"] == "completed"
    for key in ("submit_time", "start_time", "end_time"):
        assert isinstance(mother[key], int) and mother[key] > 1_600_000_000_000_000
    assert platform.dt("job", "versions", internal, "--json").json() == [1]


@pytest.mark.clause("B273")
def test_log_read(run: FinishedRun, internal: str) -> None:
    whole = run.flow.platform.dt("log", "read", internal, "-c", "0", "-l", "100").out.splitlines()
    assert [line for line in whole if line.startswith("number")] == [f"number {n}" for n in range(20)]
    tail = run.flow.platform.dt("log", "read", internal, "-c", "0", "-l", "3").out.splitlines()
    assert tail == whole[-3:]
    assert "number" not in run.flow.platform.dt("log", "read", internal, "-c", "0", "-r").out


def test_job_watch_tells_success_and_failure(run: FinishedRun, internal: str, project: Project) -> None:
    platform = run.flow.platform
    watched = platform.dt("job", "watch", internal)
    assert "completed" in watched.out and "total" in watched.out
    project.run(SOURCE.replace("return sum(values)", "return sum(values) / 0"), state="failed")
    failed = platform.dt("job", "watch", project.name, code=6)
    assert "ZeroDivisionError" in failed.out + failed.err


def test_exit_codes_of_dt(run: FinishedRun) -> None:
    platform = run.flow.platform
    unknown = platform.dt("job", "get", "nobody-knows-it", code=4)
    assert "nobody-knows-it" in unknown.err and unknown.out == ""
    environment = platform.client_environment()
    signed_out = run_command(
        [str(BIN / "dt"), "job", "ls"], {**environment, "DATATAILR_TOKEN": "wrong"}, code=3
    )
    assert "token" in signed_out.err
    unreachable = run_command(
        [str(BIN / "dt"), "job", "ls"], {**environment, "DATATAILR_ADDRESS": "127.0.0.1:1"}, code=7
    )
    assert "127.0.0.1:1" in unreachable.err


@pytest.mark.clause("B124")
def test_dt_starts_and_stops(project: Project) -> None:
    project.write("shop/flow.py", SOURCE.replace("return sum(values)", "import time; time.sleep(300)"))
    project.script("from shop.flow import flow\n\nflow(save_only=True)\n")
    internal = project.flow.job.to_dict()["name"]
    started = project.platform.dt("job", "start", internal, "--json").json()
    ids = [int(entry["RunId"]) for entry in started["running"] + started["pending"]]
    assert ids == project.flow.run_ids()
    job = project.flow.job
    eventually(lambda: job.run_details(ids[0])["tasks"][1]["state"] == "running", what="the second task")
    project.platform.dt("job", "stop", internal)
    project.flow.wait(ids[0], state="stopped", seconds=15)


def buf_curl(address: str, method: str, *options: str) -> Ran:
    base = [str(BIN / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    return run_command([*base, *options, f"http://{address}{method}"], {"PATH": "/usr/bin"}, code=None)


def test_a_third_party_client(run: FinishedRun, internal: str) -> None:
    platform = run.flow.platform
    token = ["--header", f"authorization: Bearer {platform.token}", "--reflect-header", "*"]
    services = buf_curl(platform.address, "", "--list-services", *token)
    assert "datatailr.v1.JobService" in services.out.split(), services.err
    listed = buf_curl(platform.address, "/datatailr.v1.JobService/ListJobs", "-d", "{}", *token)
    assert internal in [job["name"] for job in flat(json.loads(listed.out))], listed
    assert "not authenticated" in buf_curl(platform.address, "", "--list-services").err
    schema = ["--schema", str(ROOT / "protos")]
    refused = buf_curl(platform.address, "/datatailr.v1.JobService/ListJobs", "-d", "{}", *schema)
    assert refused.code != 0 and '"code": "unauthenticated"' in refused.err


def flat(answer: dict[str, object]) -> list[dict[str, object]]:
    """The jobs of an answer, each with its `name` whatever message it stands in."""
    found: list[dict[str, object]] = []

    def visit(value: object) -> None:
        if isinstance(value, dict):
            if "name" in value:
                found.append(value)
            for part in value.values():
                visit(part)
        elif isinstance(value, list):
            for part in value:
                visit(part)

    visit(answer)
    return found


def test_metrics_and_status_page(run: FinishedRun) -> None:
    http = run.flow.platform.ready["http"]
    with urllib.request.urlopen(f"{http}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert "# HELP" in metrics and run.flow.name not in metrics
    with urllib.request.urlopen(http, timeout=10) as answer:
        page = answer.read().decode()
    assert "<html" in page.lower() and run.flow.platform.token not in page


def test_the_ready_file_names_living_processes(run: FinishedRun) -> None:
    ready = run.flow.platform.ready
    assert set(ready) >= {"grpc", "http", "token", "controlplane_pid", "agent_pid"}
    assert process_alive(ready["controlplane_pid"]) and process_alive(ready["agent_pid"])
    assert ready["grpc"].startswith("127.0.0.1:") and ready["http"].startswith("http://127.0.0.1:")
    ran = subprocess.run(
        [str(BIN / "datatailr"), "status", "--data-dir", str(run.flow.platform.data), "--json"],
        env=run.flow.platform.client_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(ready["controlplane_pid"]) in ran.stdout and str(ready["agent_pid"]) in ran.stdout
