"""An agent that speaks the true protocol in this process, and what tests of whole runs do with jobs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

from controlplane_harness import Client

from datatailr.v1 import agent_pb2, common_pb2, image_pb2, job_pb2, log_pb2, object_pb2, run_pb2
from opentailr_controlplane.server import ControlPlane

MEMORY = 4 << 30


class FakeAgent:
    """An agent in this process: it builds nothing, runs nothing and reports what a test wants."""

    def __init__(self, plane: ControlPlane, agent_id: str = "agt_1") -> None:
        token = (plane.settings.data_dir / "agent.token").read_text().strip()
        self.client = Client(plane.agent_address, token, extra=(("opentailr-agent", agent_id),))
        self.agent_id = agent_id
        self.fail: set[str] = set()
        """Names of tasks that fail."""
        self.hold = asyncio.Event()
        """Tasks end only once this is set."""
        self.hold.set()
        self.specs: dict[str, agent_pb2.AttemptSpec] = {}
        self.stopped: set[str] = set()
        self.acknowledged = 0
        self._seq = 0
        self._queue: asyncio.Queue[agent_pb2.ConnectRequest | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()

    async def __aenter__(self) -> FakeAgent:
        self._send(
            hello=agent_pb2.Hello(
                protocol_min=1,
                protocol_max=1,
                agent_id=self.agent_id,
                name="worker",
                boot_id="boot",
                journal_id="journal",
                software_version="test",
                capacity=agent_pb2.Capacity(memory_bytes=MEMORY, cpu=8, slots=64),
                runtime="process",
                python_versions=["3.11.7"],
                next_report_seq=1,
            )
        )
        self._pump = asyncio.create_task(self._run())
        await asyncio.wait_for(self.ready.wait(), 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._queue.put_nowait(None)
        for task in [*self._tasks, self._pump]:
            assert task is not None
            task.cancel()
            await asyncio.wait({task})
        await self.client.channel.close()

    def _send(self, **frame: Any) -> None:
        self._queue.put_nowait(agent_pb2.ConnectRequest(**frame))

    async def _frames(self) -> AsyncIterator[agent_pb2.ConnectRequest]:
        while (frame := await self._queue.get()) is not None:
            yield frame

    async def _run(self) -> None:
        async for answer in self.client.agents.Connect(self._frames(), metadata=self.client.metadata):
            kind = answer.WhichOneof("frame")
            if kind == "welcome":
                self._send(heartbeat=agent_pb2.Heartbeat(counter=1))
                self._send(credit=agent_pb2.Credit(attempt_limit=1000, build_limit=1000))
            elif kind == "assignments":
                self._take(answer.assignments)
                self._send(applied=agent_pb2.Applied(revision=answer.assignments.revision))
                self.ready.set()
            elif kind == "report_ack":
                self.acknowledged = answer.report_ack.report_seq
            elif kind == "go_away":
                self.gone.set()

    def _take(self, assignments: agent_pb2.Assignments) -> None:
        for build in assignments.builds:
            self._go(self._build(build))
        for attempt in assignments.attempts:
            if attempt.desired == agent_pb2.DESIRED_STATE_STOP:
                self.stopped.add(attempt.attempt_id)
                self._report(attempt, agent_pb2.ATTEMPT_STATE_CANCELLED)
            elif attempt.attempt_id not in self.specs:
                self.specs[attempt.attempt_id] = attempt.spec
                self._go(self._execute(attempt))

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _entry(self, **subject: Any) -> None:
        self._seq += 1
        self._send(report=agent_pb2.Report(entries=[agent_pb2.ReportEntry(report_seq=self._seq, **subject)]))

    def _report(
        self, attempt: agent_pb2.AttemptAssignment, state: agent_pb2.AttemptState, **more: Any
    ) -> None:
        now = time.time_ns() // 1000
        self._entry(
            attempt=agent_pb2.AttemptReport(
                attempt_id=attempt.attempt_id, fence=attempt.fence, state=state, observed_at=now, **more
            )
        )

    async def _build(self, build: agent_pb2.BuildAssignment) -> None:
        def report(state: int) -> None:
            self._entry(
                build=agent_pb2.BuildReport(
                    build_id=build.build_id,
                    image_key=build.image_key,
                    state=state,
                    notice="3.11 instead of 3.12",
                )
            )

        report(image_pb2.IMAGE_STATE_BUILDING)
        await self._log(build.build_id, b"$ uv venv\n")
        report(image_pb2.IMAGE_STATE_READY)

    async def _execute(self, attempt: agent_pb2.AttemptAssignment) -> None:
        spec = attempt.spec
        self._report(attempt, agent_pb2.ATTEMPT_STATE_RUNNING, started_at=time.time_ns() // 1000)
        await self._log(attempt.attempt_id, f"hello from {spec.task_name}\n".encode())
        await self.hold.wait()
        if attempt.attempt_id in self.stopped:
            return
        now = time.time_ns() // 1000
        if spec.task_name in self.fail:
            cause = common_pb2.Cause(
                kind=common_pb2.CAUSE_KIND_EXCEPTION, message="ValueError: no", traceback="Traceback …"
            )
            self._report(attempt, agent_pb2.ATTEMPT_STATE_FAILED, cause=cause, ended_at=now)
            return
        result = spec.task_name.encode() + b"(" + b",".join(item.result.inline for item in spec.inputs) + b")"
        self._report(
            attempt,
            agent_pb2.ATTEMPT_STATE_SUCCEEDED,
            result=common_pb2.Payload(inline=result, size=len(result)),
            preview='"done"',
            ended_at=now,
        )

    async def _log(self, log_id: str, text: bytes) -> None:
        sent = [
            log_pb2.AppendLogsRequest(log_id=log_id, stream=log_pb2.LOG_STREAM_STDOUT, data=text, end=True),
            log_pb2.AppendLogsRequest(log_id=log_id, stream=log_pb2.LOG_STREAM_STDERR, end=True),
        ]
        async for answer in self.client.stream(self.client.logs.AppendLogs, iter(sent)):
            assert not answer.refused and not answer.expected


async def bundle(client: Client) -> common_pb2.Bundle:
    data = b"not looked into here"
    digest = hashlib.sha256(data).hexdigest()
    messages = [object_pb2.WriteObjectRequest(digest=digest, size=len(data), data=data)]
    async for _ in client.stream(client.objects.WriteObject, iter(messages)):
        pass
    return common_pb2.Bundle(digest=digest, size=len(data), directory="package")


def resources() -> common_pb2.Resources:
    return common_pb2.Resources(memory="100m", memory_bytes=100 << 20, cpu=0.25)


async def definition(client: Client, name: str = "my-job", **changes: Any) -> job_pb2.JobDefinition:
    """A workflow of a, b (after a) and c (after a and b)."""
    tasks = [
        job_pb2.TaskDefinition(
            id=number,
            name=task,
            entrypoint=f"package.module:{task}",
            resources=resources(),
            depends_on=list(range(number)),
            arguments=common_pb2.Payload(inline=b"arguments of " + task.encode(), size=14),
        )
        for number, task in enumerate("abc")
    ]
    values: dict[str, Any] = {
        "name": name,
        "display_name": name.replace("-", " ").title(),
        "type": common_pb2.JOB_TYPE_BATCH,
        "resources": resources(),
        "image": common_pb2.ImageRecipe(python_version="3.12"),
        "bundle": await bundle(client),
        "tasks": tasks,
    }
    return job_pb2.JobDefinition(**{**values, **changes})


async def save(client: Client, **changes: Any) -> job_pb2.SaveJobResponse:
    request = job_pb2.SaveJobRequest(idempotency_key="", definition=await definition(client, **changes))
    answer = await client.call(client.jobs.SaveJob, request)
    assert isinstance(answer, job_pb2.SaveJobResponse)
    return answer


async def start_job(client: Client, name: str = "my-job") -> int:
    return int((await client.call(client.jobs.StartJob, job_pb2.StartJobRequest(name=name))).run_id)


async def watch(client: Client, run_id: int) -> tuple[run_pb2.Run, dict[int, run_pb2.RunTask], list[Any]]:
    """Follows a run to its end: the last state of the run and of each task, and all messages."""
    run, tasks, messages = run_pb2.Run(), {}, []
    async for message in client.stream(client.runs.WatchRun, run_pb2.WatchRunRequest(run_id=run_id)):
        messages.append(message)
        if message.HasField("run"):
            run = message.run
        tasks.update((task.task_id, task) for task in message.tasks)
    return run, tasks, messages


async def read_log(client: Client, **target: Any) -> str:
    request = log_pb2.ReadLogRequest(follow=True, **target)
    return b"".join([answer.data async for answer in client.stream(client.logs.ReadLog, request)]).decode()
