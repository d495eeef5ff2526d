"""`dt`: what it prints, to whom, and its exit codes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from fake_server import FakeState, Fault

from datatailr.cli.exits import EXIT_CODES, Exit
from datatailr.v1 import common_pb2, job_pb2, node_pb2, run_pb2

Dt = Callable[..., Any]
SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND
SCHEDULE_OPTIONS = (
    "-m/--at-minutes -M/--every-minute -a/--at-hours -H/--every-hour -w/--weekdays -d/--day-of-month "
    "-i/--in-month -e/--every-month -z/--timezone -u/--run-after-job-uuid -r/--run-after-job-name "
    "-o/--rundate-offset -c/--cron-string -j/--json -p/--pretty"
)


def a_definition(name: str = "my-flow") -> job_pb2.JobDefinition:
    resources = common_pb2.Resources(memory="512m", memory_bytes=512 << 20, cpu=2.0)
    tasks = [
        job_pb2.TaskDefinition(id=0, name="load", entrypoint="pkg:load", resources=resources),
        job_pb2.TaskDefinition(
            id=1, name="train", entrypoint="pkg:train", resources=resources, depends_on=[0]
        ),
    ]
    return job_pb2.JobDefinition(
        name=name,
        display_name="My Flow",
        environment=common_pb2.ENVIRONMENT_DEV,
        type=common_pb2.JOB_TYPE_BATCH,
        run_as="alice",
        resources=resources,
        image=common_pb2.ImageRecipe(python_version="3.12", python_requirements="numpy\npandas"),
        tasks=tasks,
    )


def a_run(run_id: int = 4, state: int = common_pb2.STATE_COMPLETED, **fields: Any) -> run_pb2.Run:
    standard: dict[str, Any] = {
        "run_id": run_id,
        "job_id": "job_1",
        "job_name": "my-flow",
        "display_name": "My Flow",
        "environment": common_pb2.ENVIRONMENT_DEV,
        "type": common_pb2.JOB_TYPE_BATCH,
        "state": state,
        "job_version": 1,
        "original_run_id": -1,
        "submit_time": BEGIN,
        "start_time": BEGIN + SECOND,
        "end_time": BEGIN + 13 * SECOND,
    }
    return run_pb2.Run(**(standard | fields))


@pytest.fixture
def saved(state: FakeState) -> FakeState:
    """A server with one saved job and one run of it."""
    state.saved.append(a_definition())
    job = job_pb2.Job(
        id="job_1",
        version=1,
        state=common_pb2.STATE_READY,
        create_time=BEGIN,
        definition=a_definition(),
        task_count=2,
    )
    state.answers["jobs"] = [job]
    state.runs[4] = a_run()
    state.tasks[4] = [
        run_pb2.RunTask(run_id=4, task_id=0, name="load", state=common_pb2.STATE_COMPLETED),
        run_pb2.RunTask(run_id=4, task_id=1, name="train", state=common_pb2.STATE_COMPLETED),
    ]
    return state


def test_help_loads_neither_transport_nor_rich() -> None:
    code = (
        "import sys; sys.argv = ['dt', *sys.argv[1:]]\n"
        "from datatailr.cli.dt import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google', 'rich', 'asyncio', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )

    for arguments in (["--help"], ["job", "-h"], ["job", "start", "-h"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert "Usage: dt" in done.stdout
        assert done.stdout.rstrip().endswith("loaded: []"), done.stdout


@pytest.mark.clause("B268")
@pytest.mark.parametrize("where", [[], ["job"], ["job", "ls"], ["log"], ["log", "read"], ["node", "ls"]])
def test_help_at_every_level(dt: Dt, where: list[str]) -> None:
    short, long = dt(*where, "-h"), dt(*where, "--help")
    assert short == long
    assert short.code == 0 and short.out.startswith("Usage: dt")


@pytest.mark.clause("B269")
@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "job ls",
            "-f/--filter -s/--sort -a/--all -u/--utc -o/--offset -b/--batch-size -j/--json -p/--pretty",
        ),
        ("job runs", "-f/--filter -s/--sort -u/--utc -o/--offset -b/--batch-size -j/--json -p/--pretty"),
        (
            "job get",
            "-c/--show-children -e/--environment -v/--version -b/--build-logs -j/--json -p/--pretty -u/--utc",
        ),
        ("job start", "-e/--environment -r/--run-date -v/--version -N/--now -j/--json -p/--pretty"),
        ("job save", SCHEDULE_OPTIONS),
        ("job run", SCHEDULE_OPTIONS),
        ("job cron", "-m/--at-minutes -M/--every-minute -a/--at-hours -H/--every-hour -w/--weekdays"),
        (
            "job modify",
            "-v/--version -e/--environment -c/--child -s/--schedule -m/--memory -N/--num-cpus "
            "-d/--display-name -a/--app-section -g/--groups -u/--users -o/--others -r/--run-as",
        ),
        ("job stop", "-e/--environment -b/--by-run-id"),
        ("job rerun", "-v/--version -f/--full"),
        ("job rm", "-e/--environment -v/--version -a/--all"),
        ("job restore", "-e/--environment -v/--version -a/--all"),
        ("job versions", "-e/--environment -j/--json -p/--pretty"),
        ("log read", "-l/--lines -i/--run-id -e/--environment -c/--child-num -r/--stderr -f/--follow"),
    ],
)
def test_options_are_those_of_the_table(dt: Dt, command: str, options: str) -> None:
    text = dt(*command.split(), "-h").out

    for option in options.split():
        assert option.replace("/", ", ") in text


@pytest.mark.clause("B270")
def test_job_ls_json_is_on_stdout_alone(dt: Dt, saved: FakeState) -> None:
    done = dt("job", "ls", "-j")
    [job] = json.loads(done.out)
    assert done.out.count("\n") == 1 and done.err == ""
    assert set(job) == {
        *("id", "name", "display_name", "type", "state", "environment", "version", "run_as", "create_time"),
        *("memory", "cpu", "num_cpus", "schedule", "app_section", "acl", "image", "entrypoint", "env"),
        "exit_code",
    }
    assert job["create_time"] == BEGIN
    assert len(dt("job", "ls", "-p").out.splitlines()) > 20


def test_job_ls_table_is_plain_and_aligned(dt: Dt, saved: FakeState) -> None:
    saved.answers["jobs"] *= 3
    done = dt("job", "ls", "-u")
    lines = done.out.splitlines()
    assert lines[0] == ("NAME     TYPE   ENVIRONMENT  VERSION  STATE  SCHEDULE  RUN AS  SAVED")
    assert (
        lines[1:]
        == ["my-flow  batch  dev          1        ready  -         alice   2023-11-14 22:13:20Z"] * 3
    )
    assert "\x1b" not in done.out


@pytest.mark.clause("B282")
def test_offset_and_batch_size(dt: Dt, saved: FakeState) -> None:
    saved.answers["jobs"] = [
        job_pb2.Job(id=f"job_{number}", version=1, definition=a_definition(f"flow-{number}"))
        for number in range(6)
    ]
    jobs = json.loads(dt("job", "ls", "-j", "-o", "1", "-b", "3").out)
    assert [job["name"] for job in jobs] == ["flow-1", "flow-2", "flow-3"]


def test_empty_lists_teach_on_stderr(dt: Dt, state: FakeState) -> None:
    for command, words in (
        ("job ls", "@workflow"),
        ("job runs", "dt job start"),
        ("node ls", "datatailr agent"),
    ):
        done = dt(*command.split())
        assert (done.code, done.out) == (0, "")
        assert words in done.err
        assert json.loads(dt(*command.split(), "-j").out) == []


@pytest.mark.clause("B271")
def test_job_runs(dt: Dt, saved: FakeState) -> None:
    saved.runs[5] = a_run(
        5, common_pb2.STATE_PENDING, start_time=0, end_time=0, waiting_for=["room on a node"]
    )
    runs = json.loads(dt("job", "runs", "my-flow", "-j").out)
    assert [(run["run_id"], run["state"], run["job_version"]) for run in runs] == [
        (5, "pending", 1),
        (4, "completed", 1),
    ]
    assert runs[0]["start_time"] is None and runs[1]["start_time"] == BEGIN + SECOND
    table = dt("job", "runs").out
    assert "room on a node" in table and "12.0 s" in table


@pytest.mark.clause("B270")
def test_job_get(dt: Dt, saved: FakeState) -> None:
    [job] = json.loads(dt("job", "get", "my-flow", "-j", "-c").out)
    assert [child["child_number"] for child in job["children_full"]] == [0, 1]
    assert "children_full" not in json.loads(dt("job", "get", "my-flow", "-j").out)[0]
    text = dt("job", "get", "my-flow", "-c").out
    assert "numpy, pandas" in text and "512 MiB, 2 CPU" in text and "pkg:train" in text


@pytest.mark.clause("B269", "B100")
def test_build_logs(dt: Dt, saved: FakeState) -> None:
    saved.log = b"Resolved 3 packages\n\xff\n"
    assert dt("job", "get", "my-flow", "-b", "stdout").out == "Resolved 3 packages\n\ufffd\n"
    assert saved.log_requests[-1].image_key == "key"
    assert dt("job", "get", "my-flow", "-b", "both").code == Exit.USAGE


@pytest.mark.clause("B272")
def test_job_versions(dt: Dt, saved: FakeState) -> None:
    saved.saved.append(a_definition())
    assert json.loads(dt("job", "versions", "my-flow", "-j").out) == [1, 2]
    assert dt("job", "versions", "my-flow").out == "1\n2\n"


@pytest.mark.clause("B272")
def test_job_start(dt: Dt, saved: FakeState) -> None:
    saved.answers["notices"] = ["it waits for a larger node"]
    done = dt("job", "start", "my-flow", "other", "-j")
    assert json.loads(done.out) == {
        "running": [],
        "pending": [{"Id": "job_1", "RunId": 1}, {"Id": "job_1", "RunId": 2}],
    }
    assert "note: it waits for a larger node" in done.err
    people = dt("job", "start", "my-flow", "-v", "3", "-e", "dev")
    assert people.out == "my-flow version 3 in dev: run 3 started\n"
    assert "dt job watch my-flow -i 3" in people.err
    assert dt("job", "start", "a", "b", "-w").code == Exit.USAGE


@pytest.mark.clause("B6", "B269")
@pytest.mark.parametrize("command", [["job", "get"], ["job", "runs"], ["job", "versions"], ["log", "read"]])
def test_environments_are_read_in_any_case(dt: Dt, saved: FakeState, command: list[str]) -> None:
    done = dt(*command, "my-flow", "-e", "DEV")
    assert done.code == 0, done.err
    refused = dt(*command, "my-flow", "-e", "weird")
    assert refused.code == Exit.USAGE and "'weird'; it must be dev, pre or prod" in refused.err


@pytest.mark.clause("B41", "B269")
def test_a_run_date_is_checked_before_anything_is_sent(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "start", "my-flow", "-r", "2026-02-30").code == Exit.USAGE
    assert saved.start_requests == []
    assert dt("job", "start", "my-flow", "-r", "2026-02-28").code == 0
    assert [request.run_date for request in saved.start_requests] == ["2026-02-28"]


def test_stop_rerun_promote_remove_restore(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "stop", "my-flow").out == "my-flow in dev: stopping run 4\n"
    assert dt("job", "stop", "-b", "4").out == "run 4: stopping\n"
    assert dt("job", "stop", "-b", "my-flow").code == Exit.USAGE
    assert dt("job", "rerun", "4", "-f").out == "run 99 of version 1 repeats run 4\n"
    assert dt("job", "promote", "my-flow", "3", "dev").out == "my-flow version 3: dev to pre\n"
    removed = dt("job", "rm", "my-flow")
    assert removed.out == "my-flow in dev: removed version 1\n"
    assert "dt job restore my-flow -e dev" in removed.err
    assert dt("job", "restore", "my-flow").out == "my-flow in dev: restored version 1\n"
    assert dt("job", "restore", "my-flow", "-a", "-v", "1").code == Exit.USAGE


@pytest.mark.clause("B273")
def test_log_read(dt: Dt, saved: FakeState) -> None:
    saved.log = b"".join(b"line %d\n" % number for number in range(1, 31)) + b"\xfe no utf-8"
    done = dt("log", "read", "my-flow", "-c", "train")
    assert done.out.splitlines() == [f"line {number}" for number in range(22, 31)] + ["\ufffd no utf-8"]
    request = saved.log_requests[-1]
    assert (request.task.run_id, request.task.task_id, request.stream) == (4, 1, 1)
    dt("log", "read", "my-flow", "-c", "0", "-r", "-l", "3", "-i", "4")
    request = saved.log_requests[-1]
    assert (request.task.task_id, request.stream, request.tail_lines) == (0, 2, 3)
    dt("log", "read", "my-flow", "-f")
    assert saved.log_requests[-1].run_id == 4 and saved.log_requests[-1].follow


def test_an_empty_log_says_so(dt: Dt, saved: FakeState) -> None:
    done = dt("log", "read", "my-flow")
    assert (done.code, done.out) == (0, "")
    assert "dt log read my-flow -i 4 -c TASK" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["log", "read", "nothing"], "no job 'nothing' in dev"),
        (["log", "read", "my-flow", "-i", "17"], "no run 17"),
        (["log", "read", "other", "-i", "4"], "run 4 is one of 'my-flow', not of 'other'"),
        (["log", "read", "my-flow", "-c", "trian"], "did you mean 'train'?"),
        (["log", "read", "my-flow", "-c", "9"], "`dt job watch my-flow -i 4` shows its tasks"),
        (["job", "get", "nothing"], "hint: `dt job ls` lists what there is"),
        (["job", "versions", "nothing"], "no job 'nothing'"),
        (["job", "versions", "nothing", "-j"], "no job 'nothing'"),
        (["job", "watch", "nothing"], "no job 'nothing'"),
    ],
)
def test_what_is_not_found_is_named(dt: Dt, saved: FakeState, arguments: list[str], words: str) -> None:
    done = dt(*arguments)
    assert (done.code, done.out) == (Exit.NOT_FOUND, "")
    assert done.err.startswith("error: ") and words in done.err


def test_a_job_that_never_ran(dt: Dt, saved: FakeState) -> None:
    saved.runs.clear()
    done = dt("log", "read", "my-flow")
    assert done.code == Exit.NOT_FOUND and "dt job start my-flow" in done.err


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Exit.NOT_SIGNED_IN),
        (grpc.StatusCode.NOT_FOUND, Exit.NOT_FOUND),
        (grpc.StatusCode.PERMISSION_DENIED, Exit.DENIED),
        (grpc.StatusCode.FAILED_PRECONDITION, Exit.FAILED),
        (grpc.StatusCode.UNAVAILABLE, Exit.UNREACHABLE),
        (grpc.StatusCode.INTERNAL, Exit.FAILED),
    ],
)
def test_exit_codes_tell_the_error(dt: Dt, state: FakeState, code: grpc.StatusCode, expected: Exit) -> None:
    state.fail("ListJobs", *[Fault(code=code)] * 9)
    done = dt("job", "ls")
    assert (done.code, done.out) == (expected, "")
    assert done.err.startswith("error: ")


def test_not_configured_wrong_token_and_no_server(
    dt: Dt, monkeypatch: pytest.MonkeyPatch, state: FakeState
) -> None:
    monkeypatch.setenv("DATATAILR_TOKEN", "wrong")
    assert dt("job", "ls").code == Exit.NOT_SIGNED_IN

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("DATATAILR_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")

    unreachable = dt("job", "ls")
    assert unreachable.code == Exit.UNREACHABLE and "datatailr up" in unreachable.err
    monkeypatch.delenv("DATATAILR_ADDRESS")
    missing = dt("job", "ls")
    assert missing.code == Exit.NOT_SIGNED_IN and "datatailr up" in missing.err


def test_wrong_use_suggests(dt: Dt) -> None:
    done = dt("job", "stat")
    assert done.code == Exit.USAGE and "start" in done.err and done.out == ""


def test_the_table_of_exit_codes_is_complete(dt: Dt) -> None:
    text = dt("help", "exit-codes").out
    assert {code for code, _ in EXIT_CODES} == set(Exit)
    assert [int(line.split()[0]) for line in text.splitlines()[1:]] == [int(code) for code in Exit]


@pytest.fixture
def watched(saved: FakeState) -> Iterator[FakeState]:
    """A run that fails while it is watched."""
    frames = 'Traceback (most recent call last):\n  File "pkg.py", line 3, in train\n'
    cause = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_EXCEPTION,
        message="ValueError: no data",
        traceback=frames + "ValueError: no data\n",
    )
    running, pending = common_pb2.STATE_RUNNING, common_pb2.STATE_PENDING
    load = {"run_id": 4, "task_id": 0, "name": "load", "node": "laptop", "start_time": BEGIN}
    train = {"run_id": 4, "task_id": 1, "name": "train", "dependencies": [0], "node": "laptop"}
    saved.watch = [
        run_pb2.WatchRunResponse(
            run=a_run(4, running, end_time=0),
            tasks=[run_pb2.RunTask(**load, state=running), run_pb2.RunTask(**train, state=pending)],
            synced=True,
        ),
        run_pb2.WatchRunResponse(
            tasks=[
                run_pb2.RunTask(**load, state=common_pb2.STATE_COMPLETED, end_time=BEGIN + 2 * SECOND),
                run_pb2.RunTask(**train, state=pending, waiting_for=["3 GiB of memory"]),
            ]
        ),
        run_pb2.WatchRunResponse(
            run=a_run(4, common_pb2.STATE_FAILED, cause=common_pb2.Cause(message="task train failed")),
            tasks=[
                run_pb2.RunTask(
                    **train,
                    state=common_pb2.STATE_FAILED,
                    cause=cause,
                    start_time=BEGIN,
                    end_time=BEGIN + SECOND,
                    tried_to_start_time=2,
                )
            ],
        ),
    ]
    yield saved


def test_watching_a_run_that_fails(dt: Dt, watched: FakeState) -> None:
    done = dt("job", "watch", "my-flow")
    assert done.code == Exit.RUN_FAILED
    assert [line.partition("  ")[2] for line in done.out.splitlines()[:7]] == [
        "run 4 of my-flow: running",
        "task load (0): running",
        "task train (1): pending",
        "task load (0): completed after 2.00 s",
        "waiting: train: 3 GiB of memory",
        "run 4 of my-flow: failed",
        "task train (1): failed after 1.00 s (exception)",
    ]
    assert done.out.splitlines()[7:] == [
        "run 4 of my-flow (version 1): failed after 12.0 s",
        "because: task train failed",
        "",
        "task train (1) on laptop, attempt 2: failed (exception) [DT0801]",
        "Traceback (most recent call last):",
        '  File "pkg.py", line 3, in train',
        "ValueError: no data",
    ]
    assert "dt log read my-flow -i 4 -c 1" in done.err and "dt job rerun 4" in done.err


def test_watching_goes_on_over_a_cut(dt: Dt, watched: FakeState) -> None:
    whole = dt("job", "watch", "my-flow")
    watched.fail("WatchRun", Fault("messages", at=2))
    cut = dt("job", "watch", "my-flow", "-i", "4")
    assert cut.code == whole.code
    assert cut.out.splitlines()[-7:] == whole.out.splitlines()[-7:]
    assert len(watched.called("WatchRun")) == 3
    assert "the connection was lost, trying again" in cut.err


def test_watching_a_run_that_completes(dt: Dt, saved: FakeState) -> None:
    saved.watch = [run_pb2.WatchRunResponse(run=a_run(), tasks=saved.tasks[4], synced=True)]
    done = dt("job", "watch", "my-flow")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "run 4 of my-flow (version 1): completed after 12.0 s"


def test_starting_with_watch_has_the_code_of_the_run(dt: Dt, watched: FakeState) -> None:
    done = dt("job", "start", "my-flow", "-w")
    assert done.code == Exit.RUN_FAILED
    assert done.out.startswith("my-flow version 1 in dev: run 1 started\n")


def test_nodes(dt: Dt, state: FakeState) -> None:
    state.nodes = [
        node_pb2.Node(
            agent_id="agt_1",
            name="laptop",
            state=node_pb2.NODE_STATE_READY,
            memory_bytes=8 << 30,
            memory_reserved_bytes=512 << 20,
            cpu=16,
            cpu_reserved=0.25,
            python_versions=["3.11.7", "3.12.1"],
            last_heard=BEGIN,
        )
    ]
    [node] = json.loads(dt("node", "ls", "-j").out)
    assert (node["id"], node["state"], node["last_heard"]) == ("agt_1", "ready", BEGIN)
    assert "512 MiB of 8.0 GiB  0.25 of 16" in dt("node", "ls").out
