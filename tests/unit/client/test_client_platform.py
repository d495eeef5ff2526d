"""The port over gRPC: what is sent, and the shape of what comes back."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from typing import BinaryIO

import pytest
from fake_server import TOKEN, FakeState, Fault

from datatailr.client import convert, logs
from datatailr.client.connection import Connection
from datatailr.client.platform import GrpcPlatform, connect
from datatailr.client.progress import Progress
from datatailr.errors import ImageBuildError, InvalidRequestError, NotFoundError, UnavailableError
from datatailr.scheduler._platform import (
    CodeOrigin,
    ImageRecipe,
    JobDefinition,
    Platform,
    ResourceRequest,
    SavedVersion,
    ScheduleRequest,
    StartedRun,
    TaskDefinition,
)
from datatailr.v1 import common_pb2, image_pb2, job_pb2, run_pb2

RESOURCES = ResourceRequest("512m", 512 << 20, 2.0, False)


@dataclass(frozen=True)
class MemoryBundle:
    content: bytes = b"archive" * 30_000
    directory: str = "my_pkg"
    top_level: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def size(self) -> int:
        return len(self.content)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def definition(**changes: object) -> JobDefinition:
    standard = JobDefinition(
        name="my-flow",
        display_name="My Flow",
        environment="dev",
        type="batch",
        resources=RESOURCES,
        image=ImageRecipe("3.12", "numpy\npandas", "apt", "make"),
        origin=CodeOrigin("main", None, "/home/alice", "my_pkg"),
        document={},
        bundle=MemoryBundle(),
        tasks=(
            TaskDefinition(0, "get", "my_pkg.tasks:get", RESOURCES, env=(("A", "1"),), arguments=b"small"),
            TaskDefinition(1, "sum", "my_pkg.tasks:add", RESOURCES, (0,), arguments=b"L" * 100_000),
        ),
        schedule=ScheduleRequest("0 9 * * *", "Europe/Berlin", fields={"at_hours": "9", "every_minute": 5}),
        fail_after=5_400_000_000,
        acl={"read": (7, -1), "write": (7,)},
    )
    return replace(standard, **changes)  # type: ignore[arg-type]


@pytest.fixture
def platform(connection: Connection) -> GrpcPlatform:
    return GrpcPlatform(connection)


def test_it_is_the_port(platform: GrpcPlatform, address: str) -> None:
    port: Platform = platform
    assert port.address == address
    assert port.public_url == "http://127.0.0.1:9"


@pytest.mark.clause("B272")
def test_the_caller_has_the_documented_keys(platform: GrpcPlatform, state: FakeState) -> None:
    assert platform.caller() == {
        "name": "alice",
        "user_id": 7,
        "first_name": "Alice",
        "last_name": "",
        "email": "",
        "groups": "admin,dt",
        "is_system": False,
    }
    assert len(state.called("GetCaller")) == 1


@pytest.mark.clause("B98")
def test_save_uploads_first_and_sends_everything(platform: GrpcPlatform, state: FakeState) -> None:
    saved = platform.save_job(definition())
    assert saved == SavedVersion("job_1", 1, "building", 1_700_000_000_000_000, "alice", "key")
    message = state.saved[0]
    assert message.environment == common_pb2.ENVIRONMENT_DEV
    assert message.type == common_pb2.JOB_TYPE_BATCH
    assert (message.bundle.directory, message.bundle.size) == ("my_pkg", MemoryBundle().size)
    assert state.objects[message.bundle.digest] == MemoryBundle().content
    assert message.tasks[0].arguments.inline == b"small"
    assert state.objects[message.tasks[1].arguments.digest] == b"L" * 100_000
    assert list(message.tasks[1].depends_on) == [0]
    assert message.tasks[0].env[0] == job_pb2.EnvVar(name="A", value="1")
    assert message.schedule.cron == "0 9 * * *"
    assert dict(message.schedule.fields) == {"at_hours": '"9"', "every_minute": "5"}
    assert (list(message.acl.read), list(message.acl.write)) == ([7, -1], [7])
    assert message.fail_after == 5_400_000_000
    assert message.resources.memory_bytes == 512 << 20


@pytest.mark.clause("B98", "B99")
def test_each_save_is_one_new_version_whatever_is_lost(platform: GrpcPlatform, state: FakeState) -> None:
    state.fail("SaveJob", Fault("after"))
    platform.caller()
    assert [platform.save_job(definition()).version, platform.save_job(definition()).version] == [1, 2]
    assert len(state.saved) == 2


@pytest.mark.clause("B113", "B240")
def test_what_is_kept_from_the_base_version_is_unset(platform: GrpcPlatform, state: FakeState) -> None:
    task = TaskDefinition(0, "get", "m:f", RESOURCES, arguments=None)
    platform.save_job(definition(bundle=None, acl=None, schedule=None, tasks=(task,), base_version=3))
    message = state.saved[0]
    assert message.base_version == 3
    assert not any(message.HasField(name) for name in ("bundle", "acl", "schedule"))
    assert not message.tasks[0].HasField("arguments")
    assert state.called("WriteObject") == []


def test_a_definition_above_the_limit_travels_as_an_object(platform: GrpcPlatform, state: FakeState) -> None:
    tasks = tuple(
        TaskDefinition(number, f"task {number}", "m:f", RESOURCES, arguments=b"x" * 50_000)
        for number in range(80)
    )
    request, uploads = convert.save_request(definition(tasks=tasks), idempotency_key="k")
    assert request.WhichOneof("source") == "definition_digest"
    assert request.ByteSize() < 200
    assert uploads[-1].digest == request.definition_digest
    platform.save_job(definition(tasks=tasks))
    assert len(state.saved[0].tasks) == 80


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": "production"}, "environment: 'production'"),
        ({"type": "workflow"}, "type: 'workflow'"),
        ({"acl": {"admin": (1,)}}, "acl: 'admin'"),
        ({"schedule": ScheduleRequest(fields={"x": {1}})}, "schedule argument 'x'"),
    ],
)
@pytest.mark.clause("B285")
def test_bad_values_are_named_before_anything_is_sent(
    platform: GrpcPlatform, state: FakeState, change: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        platform.save_job(definition(**change))

    assert words in str(caught.value)
    assert state.calls == []


@pytest.mark.clause("B270", "B117")
def test_job_get_has_exactly_the_documented_keys(platform: GrpcPlatform) -> None:
    platform.save_job(definition())
    answer = dict(platform.get_job("my-flow", "dev", with_tasks=True))
    beside = {"schedule_args", "fail_after", "expire_after", "error_message", "children_full"}
    assert set(answer) - beside == {
        *("id", "name", "display_name", "type", "state", "environment", "version", "run_as", "create_time"),
        *("memory", "cpu", "num_cpus", "schedule", "app_section", "acl", "image", "entrypoint", "env"),
        "exit_code",
    }
    assert (answer["type"], answer["state"], answer["environment"]) == ("batch", "ready", "dev")
    assert answer["memory"] == 512 << 20 and answer["cpu"] == answer["num_cpus"] == 2.0
    assert answer["schedule"] == "0 9 * * *"
    assert answer["schedule_args"] == {"at_hours": "9", "every_minute": 5}
    assert answer["entrypoint"] is None and answer["exit_code"] is None
    assert answer["acl"]["read"] == [7, -1]
    assert answer["image"]["commit_hash"] is None and answer["image"]["branch_name"] == "main"
    assert answer["create_time"] == 1_700_000_000_000_000
    assert (answer["fail_after"], answer["expire_after"]) == (5_400_000_000, None)
    assert [child["child_number"] for child in answer["children_full"]] == [0, 1]
    assert answer["children_full"][0] == {
        "display_name": "get",
        "name": "get",
        "child_number": 0,
        "entrypoint": "my_pkg.tasks:get",
        "depends_on": [],
        "memory": 512 << 20,
        "cpu": 2.0,
        "num_cpus": 2.0,
        "env": [{"DATATAILR_JOB_ENV_A": "1"}],
    }


@pytest.mark.clause("B114")
def test_an_unknown_job_is_named(platform: GrpcPlatform) -> None:
    with pytest.raises(NotFoundError, match="no job 'nothing' in dev \\[DT0401\\]\nhint: `dt job ls`"):
        platform.get_job("nothing", "dev")


@pytest.mark.clause("B118")
def test_versions_are_numbers(platform: GrpcPlatform) -> None:
    assert platform.list_versions("my-flow") == []
    platform.save_job(definition())
    assert platform.list_versions("my-flow", environment="dev") == [1]


def test_start_gives_the_run_and_tells_notices(
    platform: GrpcPlatform, state: FakeState, capsys: pytest.CaptureFixture[str]
) -> None:
    state.answers["notices"] = ["task big asks for 64 GiB, the largest node offers 8 GiB"]
    started = platform.start_job("my-flow", "dev", version=3)
    assert started == StartedRun(1, 3, "pending", "job_1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "note: task big asks for 64 GiB" in captured.err


def a_run(run_id: int, **fields: object) -> run_pb2.Run:
    standard = {
        "run_id": run_id,
        "job_id": "job_1",
        "job_name": "my-flow",
        "display_name": "My Flow",
        "environment": common_pb2.ENVIRONMENT_DEV,
        "type": common_pb2.JOB_TYPE_BATCH,
        "state": common_pb2.STATE_RUNNING,
        "job_version": 2,
        "original_run_id": -1,
        "submit_time": 5,
    }
    return run_pb2.Run(**(standard | fields))  # type: ignore[arg-type]


@pytest.mark.clause("B271")
def test_runs_have_exactly_the_documented_keys(platform: GrpcPlatform, state: FakeState) -> None:
    state.runs = {number: a_run(number) for number in range(1, 6)}
    runs = platform.list_runs("my-flow", "dev")
    assert [run["run_id"] for run in runs] == [5, 4, 3, 2, 1]
    assert runs[0] == {
        "id": 5,
        "run_id": 5,
        "job_id": "job_1",
        "name": "My Flow",
        "job_name": "my-flow",
        "type": "batch",
        "environment": "dev",
        "state": "running",
        "priority": 0,
        "error_message": "",
        "job_version": 2,
        "original_run_id": -1,
        "partial_rerun": False,
        "cost": 0.0,
        "submit_time": 5,
        "start_provisioning_time": None,
        "start_time": None,
        "end_time": None,
        "scheduled_time": None,
        "tried_to_start_time": 0,
    }
    assert platform.get_run(5) == {**runs[0], "display_name": "My Flow"}


@pytest.mark.clause("B271")
def test_task_runs_share_the_run_and_tell_their_own(platform: GrpcPlatform, state: FakeState) -> None:
    state.runs = {4: a_run(4)}
    cause = common_pb2.Cause(kind=common_pb2.CAUSE_KIND_EXCEPTION, message="ValueError: no")
    task = run_pb2.RunTask(
        run_id=4, task_id=1, name="sum", state=common_pb2.STATE_FAILED, dependencies=[0], cause=cause
    )
    state.tasks = {4: [task]}
    [answer] = platform.list_run_tasks(4)
    assert (answer["id"], answer["run_id"], answer["job_id"]) == (4, 4, "job_1")
    assert (answer["name"], answer["job_name"], answer["child_number"]) == ("sum", "my-flow-1", 1)
    assert (answer["state"], answer["error_message"]) == ("failed", "ValueError: no")
    assert answer["dependencies"] == [0] and answer["submit_time"] is None


@pytest.mark.clause("B152")
def test_an_unknown_run_is_not_found(platform: GrpcPlatform) -> None:
    with pytest.raises(NotFoundError, match="no run 17"):
        platform.get_run(17)


@pytest.mark.clause("B155")
def test_the_last_lines_of_a_log(platform: GrpcPlatform, state: FakeState) -> None:
    state.log = "eins\nzwei\ndrei \xfc\n".encode() + b"\xff\n"
    state.fail("ReadLog", Fault("bytes", at=10))
    assert platform.read_log(4, task_id=1, lines=2) == "drei \xfc\n\ufffd\n"
    assert state.log_requests[0].task.task_id == 1
    assert platform.read_log(4, lines=0) == ""
    assert platform.read_log(4, task_id=0, stderr=True, lines=5000).startswith("eins")
    assert state.log_requests[-1].stream == 2


@pytest.mark.clause("B155")
@pytest.mark.parametrize(
    ("content", "tail"), [(b"a\nb\nc\n", b"b\nc\n"), (b"a\nb\nc", b"b\nc"), (b"a\n", b"a\n"), (b"", b"")]
)
def test_more_last_lines_than_the_server_counts(
    platform: GrpcPlatform, state: FakeState, monkeypatch: pytest.MonkeyPatch, content: bytes, tail: bytes
) -> None:
    monkeypatch.setattr(logs, "_MOST_LINES", 1)
    state.log = content
    assert platform.read_log(4, task_id=1, lines=2) == tail.decode()
    assert state.log_requests[-1].WhichOneof("start") == "offset"


@pytest.mark.clause("B159", "B160")
def test_results_are_bytes_or_none(platform: GrpcPlatform, state: FakeState) -> None:
    state.runs = {4: a_run(4)}
    large = b"R" * 300_000
    digest = hashlib.sha256(large).hexdigest()
    state.objects[digest] = large
    state.results = {
        (4, 0): common_pb2.Payload(inline=b"pickle", size=6),
        (4, 1): common_pb2.Payload(digest=digest, size=len(large)),
    }
    assert platform.get_result(4, 0) == b"pickle"
    assert platform.get_result(4, 1) == large
    assert platform.get_result(4, 2) is None
    assert platform.get_result(5, 0) is None


@pytest.mark.clause("B126")
def test_rerun(platform: GrpcPlatform) -> None:
    assert platform.rerun(4, name="my-flow", environment="dev", version=2) == StartedRun(
        99, 2, "pending", "job_1"
    )


@pytest.mark.clause("B120")
def test_a_promotion_of_everything_is_never_made_twice(platform: GrpcPlatform, state: FakeState) -> None:
    platform.caller()
    state.fail("PromoteJob", Fault("after"))

    with pytest.raises(UnavailableError):
        platform.promote_job("my-flow")

    assert state.promotions == 1


@pytest.mark.clause("B123")
def test_a_promotion_of_one_version_is_tried_again(platform: GrpcPlatform, state: FakeState) -> None:
    platform.caller()
    state.fail("PromoteJob", Fault("before"))
    moves = platform.promote_job("my-flow", from_environment="dev", version=3)
    assert moves == ["my-flow version 3: dev to pre"]


@pytest.mark.clause("B125")
def test_removing_the_latest_version_is_never_made_twice(platform: GrpcPlatform, state: FakeState) -> None:
    platform.caller()
    state.fail("RemoveJob", Fault("after"), Fault("after"))

    with pytest.raises(UnavailableError):
        platform.remove_job("my-flow", "dev", all_versions=False)

    assert state.removed_calls == 1
    platform.remove_job("my-flow", "dev")
    assert state.removed_calls == 3


def test_all_pages_of_jobs_are_read(platform: GrpcPlatform, state: FakeState) -> None:
    platform.save_job(definition())
    job = job_pb2.Job(id="job_1", version=1, definition=state.saved[0])
    state.answers["jobs"] = [job] * 5
    assert len(platform.list_jobs()) == 5

    platform.list_jobs(environment="pre", filter="name = x")
    assert state.list_requests[-1].filter == "name = x"
    assert state.list_requests[-1].environment == common_pb2.ENVIRONMENT_PRE


def output(text: str, offset: int = 0, *, stderr: bool = False) -> image_pb2.WatchBuildResponse:
    data = text.encode()
    return image_pb2.WatchBuildResponse(output=image_pb2.BuildOutput(data=data, offset=offset, stderr=stderr))


def image(state: int, **fields: object) -> image_pb2.WatchBuildResponse:
    return image_pb2.WatchBuildResponse(image=image_pb2.Image(state=state, **fields))  # type: ignore[arg-type]


class Recorded(Progress):
    """Keeps what is shown."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), environ={})

    @property
    def lines(self) -> list[str]:
        return self._out.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_build_is_followed_over_a_cut(connection: Connection, state: FakeState) -> None:
    shown = Recorded()
    told: list[str] = []
    state.build = [
        image(image_pb2.IMAGE_STATE_QUEUED, waiting_for="a node"),
        output("Resolved 3 packages\nInstalling nu"),
        output("mpy\n", 33),
        image(image_pb2.IMAGE_STATE_READY, notice="3.13 instead of 3.14"),
    ]
    state.fail("WatchBuild", Fault("messages", at=2))
    GrpcPlatform(connection, display=shown).wait_for_image("key", progress=told.append)
    assert told == []
    GrpcPlatform(connection).wait_for_image("key", progress=told.append)
    assert told[:2] == ["a node", "Resolved 3 packages"]
    assert "Installing numpy" in told
    assert told.count("Resolved 3 packages") == 1
    assert [request.stdout_offset for request in state.build_requests] == [0, 33, 0]
    [line] = shown.lines
    assert line.startswith("environment: ready after") and line.endswith("(3.13 instead of 3.14)")


def test_a_ready_environment_is_unchanged(connection: Connection, state: FakeState) -> None:
    shown = Recorded()
    state.build = [image(image_pb2.IMAGE_STATE_READY)]
    GrpcPlatform(connection, display=shown).wait_for_image("key")
    assert shown.lines == ["environment: unchanged"]


@pytest.mark.clause("B100")
def test_a_failed_build_tells_the_command_and_the_end_of_its_log(
    platform: GrpcPlatform, state: FakeState
) -> None:
    log = "".join(f"line {number}\n" for number in range(30)) + "error: no such package"
    cause = common_pb2.Cause(
        kind=common_pb2.CAUSE_KIND_BUILD_FAILED,
        message="`uv pip install` ended with code 1:\nerror: no such package",
    )
    state.build = [
        image(image_pb2.IMAGE_STATE_BUILDING),
        output(log, stderr=True),
        image(image_pb2.IMAGE_STATE_FAILED, cause=cause),
    ]

    with pytest.raises(ImageBuildError) as caught:
        platform.wait_for_image("key")

    lines = str(caught.value).splitlines()
    assert lines[0] == "the environment could not be built: `uv pip install` ended with code 1 [DT0202]"
    assert lines[1] == "the last 20 lines of the build log:"
    assert lines[2:22] == [f"  line {number}" for number in range(11, 30)] + ["  error: no such package"]
    assert lines[22].startswith("hint:")


def test_the_steps_of_a_save_are_shown_without_escape_codes(connection: Connection) -> None:
    shown = Recorded()
    platform = GrpcPlatform(connection, display=shown)
    platform.save_job(definition())
    platform.save_job(definition())
    platform.start_job("my-flow", "dev")
    assert shown.lines == [
        "package: my_pkg (210 kB)",
        "upload: 310 kB sent",
        "package: my_pkg (210 kB)",
        "upload: nothing new to send",
        "started: run 1 of my-flow version 1 in dev",
        "follow it: dt job watch my-flow -i 1",
    ]


def test_connect_keeps_one_channel_for_one_server(address: str) -> None:
    assert connect(address, TOKEN) is connect(address, TOKEN)
    assert connect(address, TOKEN) is not connect(address, "other")
    assert connect(address, TOKEN).caller()["name"] == "alice"
    connect(address, TOKEN).connection.close()
    connect.cache_clear()
