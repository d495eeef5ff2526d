"""`dt job`: definitions out and in again, changed and copied; lists filtered, against the real platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e_harness import FinishedRun, Project, client_variables, eventually

from datatailr.client import queries
from datatailr.client.connection import Connection
from datatailr.v1 import job_pb2

SOURCE = """
    from datatailr import task, workflow


    @task(memory="200m", cpu=0.5)
    def numbers(count):
        return list(range(count))


    @task()
    def total(values, extra=0):
        return sum(values) + extra


    @workflow(name="@NAME@", env_vars={"A": "1"}, fail_after="1h", python_version="3.11")
    def flow():
        total(numbers(20), extra=2).alias("sum")
"""


@pytest.fixture(scope="module")
def run(module_project: Project) -> FinishedRun:
    with client_variables(module_project.platform):
        return module_project.run(SOURCE)


@pytest.fixture
def name(run: FinishedRun, client: None) -> str:
    return str(run.job.to_dict()["name"])


def stored(run: FinishedRun, name: str, version: int | None = None) -> tuple[job_pb2.Job, list[Any]]:
    platform = run.flow.platform
    connection = Connection(platform.address, platform.token)
    try:
        job = queries.job(connection, name, "dev", version=version)
        return job, list(queries.version_tasks(connection, job))
    finally:
        connection.close()


@pytest.mark.clause("B113", "B268", "B270", "B272")
@pytest.mark.parametrize("children", [(), ("-c",)])
def test_what_get_prints_is_saved_as_the_same(
    run: FinishedRun, name: str, tmp_path: Path, children: tuple[str, ...]
) -> None:
    platform = run.flow.platform
    printed = platform.dt("job", "get", name, "--json", *children).out
    (tmp_path / "definition.json").write_text(printed)
    before, tasks = stored(run, name)
    answer = platform.dt("job", "save", f"file://{tmp_path}/definition.json", "-j").json()
    after, tasks_after = stored(run, name)
    assert answer == {"versions": {before.id: before.version + 1}}
    assert after.version == before.version + 1
    assert after.definition == before.definition
    assert tasks_after == tasks
    answer = platform.dt("job", "start", name, "-v", str(after.version), "-j").json()
    run_id = (answer["running"] + answer["pending"])[0]["RunId"]
    assert run.flow.wait(run_id).job.result(run_id, "sum") == 192


@pytest.mark.clause("B268", "B272")
def test_a_changed_file_is_run(run: FinishedRun, name: str, tmp_path: Path) -> None:
    platform = run.flow.platform
    [document] = platform.dt("job", "get", name, "-j", "-c").json()
    document["children_full"][0]["memory"] = 300 << 20
    document["fail_after"] = 1_800_000_000
    (tmp_path / "d.json").write_text(json.dumps(document))
    answer = platform.dt("job", "run", f"file://{tmp_path}/d.json", "-j").json()
    run_id = (answer["running"] + answer["pending"])[0]["RunId"]
    details = run.flow.wait(run_id).details
    assert details["tasks"][0]["resources"].memory == "300m"
    assert stored(run, name)[0].definition.fail_after == 1_800_000_000
    assert run.job.result(run_id, "sum") == 192


@pytest.mark.clause("B268")
def test_a_copy_runs_with_code_and_arguments(run: FinishedRun, name: str) -> None:
    platform = run.flow.platform
    platform.dt("job", "copy", name, f"{name} copy")
    platform.dt("job", "modify", f"{name}-copy", "-c", "sum", "-m", "250m", "-g", "dtusers:r")
    job, tasks = stored(run, f"{name}-copy")
    assert (job.version, tasks[1].resources.memory, list(job.definition.acl.read)) == (2, "250m", [1, -2])
    answer = platform.dt("job", "start", f"{name}-copy", "-j", "-w").json()
    assert answer["pending"] or answer["running"]
    [row] = platform.dt("job", "runs", f"{name}-copy", "-j").json()
    assert row["state"] == "completed"


@pytest.mark.clause("B268", "B269")
def test_the_code_of_a_document_without_version_is_packaged(
    run: FinishedRun, name: str, module_project: Project
) -> None:
    platform = run.flow.platform
    module_project.write("plain/module.py", "def first():\n    print('from a document')\n    return 7\n")
    document = platform.dt("job", "new").json()
    document |= {"display_name": f"{name} plain", "name": f"{name}-plain"}
    document["image"] |= {
        "python_version": "3.11",
        "path_to_repo": str(module_project.folder),
        "path_to_module": "plain",
    }
    document["jobs"][0]["entrypoint"] = "plain.module:first"
    (module_project.folder / "new.json").write_text(json.dumps(document))
    platform.dt("job", "run", f"file://{module_project.folder}/new.json")
    row: dict[str, Any] = eventually(
        lambda: next(
            (
                row
                for row in platform.dt("job", "runs", "-f", f"name = {name}-plain", "-j").json()
                if row["end_time"]
            ),
            None,
        ),
        what="the end of the run",
    )
    assert row["state"] == "completed", row
    assert "from a document" in platform.dt("log", "read", f"{name}-plain", "-c", "first").out


@pytest.mark.clause("B124", "B125", "B268", "B269")
def test_a_schedule_is_saved_kept_aside_and_one_version_removed(run: FinishedRun, name: str) -> None:
    platform = run.flow.platform
    platform.dt("job", "copy", name, f"{name} clock")
    clock = f"{name}-clock"
    platform.dt("job", "modify", clock, "-s", "0 8 * * 1")
    answer = platform.dt("job", "start", clock, "-N", "-j").json()
    assert (answer["running"] + answer["pending"])[0]["RunId"] is not None
    [job] = platform.dt("job", "get", clock, "-j").json()
    assert (job["schedule"], job["state"]) == ("0 8 * * 1", "ready")
    assert platform.dt("job", "start", clock, "-j").json()["pending"][0]["RunId"] is None
    [job] = platform.dt("job", "get", clock, "-j").json()
    assert job["state"] == "scheduled"
    assert "version 1" in platform.dt("job", "rm", clock, "-v", "1").out
    assert platform.dt("job", "versions", clock, "-j").json() == [2]


@pytest.mark.clause("B268", "B276", "B280", "B281", "B282")
def test_lists_are_filtered_and_sorted(run: FinishedRun, name: str) -> None:
    platform = run.flow.platform
    listed = platform.dt(
        "job", "ls", "-f", f"name = {name} and memory > 0", "--fields", "name,version"
    ).json()
    assert [row["name"] for row in listed] == [name]
    assert platform.dt("job", "ls", "-f", f'display_name = "{run.flow.name}"', "-j").json()[0]["name"] == name
    rows = platform.dt(
        "job", "runs", "-f", f"name = {name} and state = completed", "-s", "run_id", "-j"
    ).json()
    numbers = [row["run_id"] for row in rows]
    assert run.id in numbers and numbers == sorted(numbers)
    assert platform.dt("job", "runs", "-f", f"run_id = {run.id}", "-j").json()[0]["job_name"] == name
    done = platform.dt("job", "ls", "-f", "nam = x", code=2)
    assert "^^^" in done.err
