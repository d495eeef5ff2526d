"""Manners on a real platform: what a failed run says, the log of all tasks, errors in SDK and `dt`."""

from __future__ import annotations

import subprocess

import pytest
from e2e_harness import BIN, FinishedRun, Project, client_variables

FLOW = """
    from datatailr import task, workflow


    @task()
    def load():
        print("\\x1b[31mred\\x1b[0m 10%\\r20%\\r30%")
        print("loaded")
        return {}


    @task()
    def price(row):
        return row["price"]


    @workflow(name="@NAME@")
    def flow():
        price(load())
"""


@pytest.fixture(scope="module")
def failed(module_project: Project) -> FinishedRun:
    with client_variables(module_project.platform):
        return module_project.run(FLOW, state="failed")


@pytest.fixture
def name(module_project: Project, failed: FinishedRun, client: None) -> str:
    """Internal name of the workflow whose run failed."""
    return str(failed.job.to_dict()["name"])


def test_the_logs_of_all_tasks_are_one(module_project: Project, name: str) -> None:
    for options in (["-a"], ["-a", "-f"], ["-a", "-w"]):
        lines = module_project.platform.dt("log", "read", name, *options).out.splitlines()
        assert "load  | 30%" in lines and "load  | loaded" in lines, lines
        assert all(line.startswith(("load  |", "price |")) for line in lines)


def test_failed_names_cause_code_and_the_line_of_the_user(module_project: Project, name: str) -> None:
    out = module_project.platform.dt("log", "read", name, "--failed").out
    assert out.startswith("task price (1) on ") and "failed (exception) [DT0801]\n" in out
    assert "because: KeyError: 'price'\n" in out
    assert 'return row["price"]' in out and "task load" not in out
    explained = module_project.platform.dt("explain", "DT0801").out
    assert explained.startswith("# DT0801: user code raised an exception")


def test_the_bytes_of_one_log_are_those_that_were_written(module_project: Project, name: str) -> None:
    done = subprocess.run(
        [str(BIN / "dt"), "log", "read", name, "-c", "load", "--whole"],
        env=module_project.platform.client_environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"\x1b[31mred\x1b[0m 10%\r20%\r30%\nloaded\n" in done.stdout


def test_an_unknown_job_is_one_error_without_the_transport(module_project: Project, name: str) -> None:
    ran = module_project.script(
        f"from datatailr import Workflow\n\nWorkflow({name[:-1] + 'x'!r}, get_existing=True)\n", code=1
    )
    assert ran.err.count("Traceback") == 1 and "/client/" not in ran.err and "grpc" not in ran.err
    assert "[DT0401]\nhint: " in ran.err and f"did you mean {name}" in ran.err


def test_vv_names_the_calls_and_hides_the_token(module_project: Project, name: str) -> None:
    ran = module_project.platform.dt("-vv", "job", "get", name)
    calls = [line for line in ran.err.splitlines() if line.startswith("rpc: JobService/GetJob  OK  ")]
    assert calls and " req_" in calls[0]
    assert module_project.platform.client_environment()["DATATAILR_TOKEN"] not in ran.err
