"""A platform in memory: the rules of saved versions and runs, without a server.

It keeps the rules that the SDK relies on (version numbers, states, promotion, partial reruns) and
refuses what a platform refuses, so that a test sees a wrong request fail. Tasks are executed as
the platform does it: from the pickled arguments, by `module:function`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datatailr.errors import (
    ConflictError,
    ImageBuildError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PlatformError,
)
from datatailr.runner import state as runner_state
from datatailr.runner.binding import bind
from datatailr.runner.pickles import load_arguments
from datatailr.scheduler._local import plain_function
from datatailr.scheduler._platform import JobDefinition, SavedVersion, StartedRun, TaskDefinition

ORDER = ["dev", "pre", "prod"]
STATES = {"created", "building", "ready", "scheduled", "pending", "starting", "running"}
ENDED = {"completed", "failed", "failed_after", "out_of_memory", "stopped", "expired"}


@dataclass
class Version:
    definition: JobDefinition
    job_id: str
    number: int
    create_time: int
    state: str
    files: dict[str, bytes]
    arguments: dict[int, bytes]
    removed: bool = False
    verified: bool = False


@dataclass
class Task:
    id: int
    state: str = "pending"
    times: dict[str, int] = field(default_factory=dict)
    result: bytes | None = None
    reused: bool = False
    stdout: str = ""
    stderr: str = ""


@dataclass
class Run:
    id: int
    version: Version
    environment: str
    state: str
    times: dict[str, int]
    tasks: dict[int, Task]
    original_run_id: int = -1
    partial_rerun: bool = False


class FakePlatform:
    """Implements `Platform` and `UserDirectory` of the SDK's port."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:1"
        self.public_url: str | None = None
        self.users = {
            42: {
                "name": "alice",
                "user_id": 42,
                "first_name": "Alice",
                "last_name": "Adams",
                "email": "alice@example.org",
                "groups": "analysts,dtusers",
                "is_system": False,
            }
        }
        self.groups = {7: {"name": "dtusers", "group_id": 7, "members": [42]}}
        self.signed_in = 42
        self.may_promote = True
        self.versions: dict[tuple[str, str], dict[int, Version]] = {}
        self.all_runs: dict[int, Run] = {}
        self.calls: list[str] = []
        self.failure: PlatformError | None = None
        self.broken_images: set[str] = set()
        self.built: list[str] = []
        self._clock = itertools.count(1_780_000_000_000_000, 1_500_007)
        self._run_ids = itertools.count(1)

    # -- helpers for tests -------------------------------------------------------------------------
    def now(self) -> int:
        return next(self._clock)

    def latest(self, name: str, environment: str = "dev") -> Version:
        known = self.versions.get((name, environment), {}).values()
        found = [v for v in known if not v.removed and not v.definition.instant]
        if not found:
            raise NotFoundError(f"there is no job {name} in {environment}")
        return max(found, key=lambda version: version.number)

    def forget_version(self, name: str, number: int, environment: str = "dev") -> None:
        """As if the definition had been cleaned up."""
        del self.versions[name, environment][number]

    def execute(self, run_id: int, *, only: Sequence[int] | None = None) -> None:
        """Run the tasks of a run, as the platform does; with `only`, and leave it running."""
        run = self.all_runs[run_id]
        run.state = "running"
        run.times.setdefault("start_time", self.now())
        definitions = {task.id: task for task in run.version.definition.tasks}
        for task_id in sorted(definitions):
            task = run.tasks[task_id]
            if task.state != "pending" or (only is not None and task_id not in only):
                continue
            upstream = [run.tasks[other] for other in definitions[task_id].depends_on]
            if any(other.state != "completed" and not other.reused for other in upstream):
                task.state = "did_not_run"
                continue
            self._execute_task(run, task, definitions[task_id])
        if only is None:
            failed = any(
                task.state in ("failed", "did_not_run") and not task.reused for task in run.tasks.values()
            )
            run.state = "failed" if failed else "completed"
            run.times["end_time"] = self.now()

    def _execute_task(self, run: Run, task: Task, definition: TaskDefinition) -> None:
        task.times.update(submit_time=self.now(), start_time=self.now())
        module, _, name = definition.entrypoint.partition(":")
        function = plain_function(getattr(importlib.import_module(module), name))

        def result_of(task_id: int) -> Any:
            stored = run.tasks[task_id].result
            assert stored is not None
            return pickle.loads(stored)

        arguments = load_arguments(io.BytesIO(run.version.arguments[task.id]), result_of)
        positional, keywords = bind(function, arguments, {})
        try:
            with runner_state.task_scope(definition.entrypoint):
                value = function(*positional, **keywords)
        except Exception as error:
            task.state, task.stderr = "failed", f"Traceback\n{error!r}\n"
        else:
            task.state, task.stdout = "completed", f"ran {name}\nsecond line\n"
            task.result = None if value is None else pickle.dumps(value, 5)
        task.times["end_time"] = self.now()

    @contextlib.contextmanager
    def failing(self, error: PlatformError) -> Iterator[None]:
        self.failure = error
        try:
            yield
        finally:
            self.failure = None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.failure is not None:
            raise self.failure

    # -- Platform ------------------------------------------------------------------------------------
    def caller(self) -> Mapping[str, Any]:
        self._called("caller")
        return dict(self.users[self.signed_in])

    def save_job(self, definition: JobDefinition) -> SavedVersion:
        self._called("save_job")
        key = definition.name, definition.environment
        if definition.environment != "dev" and not (definition.repository_verified and self.may_promote):
            raise PermissionDeniedError(
                "deploy to dev and promote: PROMOTE and a verified repository are needed"
            )
        known = self.versions.setdefault(key, {})
        for version in known.values():
            if version.definition.type != definition.type:
                raise ConflictError(f"{definition.name} is a job of type {version.definition.type}")
        schedule = definition.schedule
        predecessor = None if schedule is None else schedule.run_after_job_name
        if predecessor is not None and (predecessor, definition.environment) not in self.versions:
            raise InvalidRequestError(f"no job {predecessor!r} to run after")
        base = known.get(definition.base_version) if definition.base_version is not None else None
        if definition.bundle is not None:
            files = self._unpack(definition)
        elif base is not None:
            files = base.files
        else:
            raise InvalidRequestError("neither code nor a base version")
        arguments: dict[int, bytes] = {}
        for task in definition.tasks:
            data = task.arguments
            if data is None:
                if base is None:
                    raise InvalidRequestError(f"task {task.name} has no arguments")
                data = base.arguments[task.id]
            arguments[task.id] = data
        number = max(known, default=0) + 1
        job_id = f"job-{definition.name}-{definition.environment}"
        known[number] = Version(
            definition,
            job_id,
            number,
            self.now(),
            "building",
            files,
            arguments,
            verified=definition.repository_verified,
        )
        return SavedVersion(
            job_id,
            number,
            "building",
            known[number].create_time,
            definition.run_as or "alice",
            f"image-{number}",
        )

    @staticmethod
    def _unpack(definition: JobDefinition) -> dict[str, bytes]:
        assert definition.bundle is not None
        with definition.bundle.open() as stream, tarfile.open(fileobj=stream) as archive:
            return {
                member.name: file.read()
                for member in archive.getmembers()
                if (file := archive.extractfile(member)) is not None
            }

    def wait_for_image(self, image_key: str, *, progress: Callable[[str], None] | None = None) -> None:
        self._called("wait_for_image")
        if progress is not None:
            progress(f"building {image_key}")
        if image_key in self.broken_images:
            raise ImageBuildError("no matching distribution found for nonsense")
        self.built.append(image_key)
        for versions in self.versions.values():
            for version in versions.values():
                if image_key == f"image-{version.number}":
                    version.state = "ready"

    def start_job(
        self, name: str, environment: str, *, version: int | None = None, run_date: str | None = None
    ) -> StartedRun:
        self._called("start_job")
        found = self._version(name, environment, version)
        schedule = found.definition.schedule
        if schedule is not None and (schedule.cron or schedule.run_after_job_name):
            if found.state == "scheduled":
                raise ConflictError(f"{name} version {found.number} is scheduled already")
            found.state = "scheduled"
            return StartedRun(None, found.number, "scheduled", found.job_id)
        run = self._new_run(found, environment)
        return StartedRun(run.id, found.number, run.state, found.job_id)

    def _new_run(self, version: Version, environment: str) -> Run:
        run_id = next(self._run_ids)
        tasks = {task.id: Task(task.id) for task in version.definition.tasks}
        run = Run(run_id, version, environment, "pending", {"submit_time": self.now()}, tasks)
        self.all_runs[run_id] = run
        return run

    def _version(self, name: str, environment: str, number: int | None) -> Version:
        if number is None:
            return self.latest(name, environment)
        found = self.versions.get((name, environment), {}).get(number)
        if found is None or found.removed:
            raise NotFoundError(f"there is no version {number} of {name} in {environment}")
        return found

    def stop_job(self, name: str, environment: str) -> Sequence[int]:
        self._called("stop_job")
        found = self.latest(name, environment)
        if found.state == "scheduled":
            found.state = "ready"
        ended = []
        for run in self.all_runs.values():
            if (
                run.version.definition.name == name
                and run.environment == environment
                and run.state not in ENDED
            ):
                run.state = "stopped"
                run.times["end_time"] = self.now()
                ended.append(run.id)
        return ended

    def stop_run(self, run_id: int) -> None:
        self._called("stop_run")
        run = self._run(run_id)
        if run.state not in ENDED:
            run.state = "stopped"

    def get_job(
        self, name: str, environment: str, *, version: int | None = None, with_tasks: bool = False
    ) -> Mapping[str, Any]:
        self._called("get_job")
        found = self._version(name, environment, version)
        definition = found.definition
        document = dict(definition.document)
        answer: dict[str, Any] = {
            "id": found.job_id,
            "name": definition.name,
            "display_name": definition.display_name,
            "type": definition.type,
            "state": found.state,
            "environment": environment,
            "version": found.number,
            "run_as": definition.run_as or "alice",
            "create_time": found.create_time,
            "memory": definition.resources.memory_bytes,
            "cpu": definition.resources.cpu,
            "num_cpus": definition.resources.cpu,
            "schedule": (definition.schedule.cron or None) if definition.schedule else None,
            "schedule_args": dict(definition.schedule.fields) if definition.schedule else {},
            "fail_after": definition.fail_after,
            "expire_after": definition.expire_after,
            "app_section": definition.app_section,
            "acl": dict(definition.acl) if definition.acl is not None else {"read": [42], "write": [42]},
            "image": document["image"],
            "entrypoint": definition.entrypoint,
            "env": document.get("env"),
            "exit_code": None,
        }
        if with_tasks:
            answer["children_full"] = [
                {
                    "display_name": task.name,
                    "name": task.name,
                    "child_number": task.id,
                    "entrypoint": task.entrypoint,
                    "depends_on": list(task.depends_on),
                    "memory": task.resources.memory_bytes,
                    "cpu": task.resources.cpu,
                    "num_cpus": task.resources.cpu,
                    "env": [{name: value} for name, value in task.env],
                }
                for task in definition.tasks
            ]
        return answer

    def list_jobs(
        self, *, environment: str | None = None, filter: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        self._called("list_jobs")
        return [
            self.get_job(name, where)
            for name, where in sorted(self.versions)
            if environment in (None, where)
            and any(not v.removed for v in self.versions[name, where].values())
        ]

    def list_versions(self, name: str, *, environment: str | None = None) -> Sequence[int]:
        self._called("list_versions")
        return [
            number
            for (job, where), versions in self.versions.items()
            for number, version in versions.items()
            if job == name and environment in (None, where)
            if not version.removed and not version.definition.instant
        ]

    def _run_answer(self, run: Run) -> dict[str, Any]:
        return {
            "id": run.id,
            "run_id": run.id,
            "job_id": run.version.job_id,
            "name": run.version.definition.name,
            "job_name": run.version.definition.name,
            "display_name": run.version.definition.display_name,
            "type": run.version.definition.type,
            "environment": run.environment,
            "state": run.state,
            "priority": 0,
            "error_message": "",
            "job_version": run.version.number,
            "original_run_id": run.original_run_id,
            "partial_rerun": run.partial_rerun,
            "cost": 0.5,
            "scheduled_time": None,
            "tried_to_start_time": 1,
            **{name: run.times.get(name) for name in ("submit_time", "start_time", "end_time")},
            "start_provisioning_time": run.times.get("start_time"),
        }

    def list_runs(
        self, name: str, environment: str, *, start_from: int | None = None, start_to: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        self._called("list_runs")
        answers = []
        for run in self.all_runs.values():
            if run.version.definition.name != name or run.environment != environment:
                continue
            started = run.times.get("start_time")
            if start_from is not None and (started is None or started < start_from):
                continue
            if start_to is not None and (started is None or started > start_to):
                continue
            answers.append(self._run_answer(run))
        return answers

    def _run(self, run_id: int) -> Run:
        if run_id not in self.all_runs:
            raise NotFoundError(f"there is no run {run_id}")
        return self.all_runs[run_id]

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        self._called("get_run")
        return self._run_answer(self._run(run_id))

    def list_run_tasks(self, run_id: int) -> Sequence[Mapping[str, Any]]:
        self._called("list_run_tasks")
        run = self._run(run_id)
        return [
            {
                **self._run_answer(run),
                "child_number": task.id,
                "job_name": f"{run.version.definition.name}-{task.id}",
                "state": task.state,
                "reused": task.reused,
                "cost": 0.25,
                **{name: task.times.get(name) for name in ("submit_time", "start_time", "end_time")},
                "start_provisioning_time": task.times.get("start_time"),
            }
            for task in run.tasks.values()
            # what never ran is left out for odd ids, so that both forms of the port are used
            if task.state != "did_not_run" or task.id % 2 == 0
        ]

    def read_log(
        self, run_id: int, *, task_id: int | None = None, stderr: bool = False, lines: int = 5000
    ) -> str:
        self._called("read_log")
        run = self._run(run_id)
        if task_id is None:
            text = f"run {run_id} {run.state}\n"
        elif task_id not in run.tasks:
            raise NotFoundError(f"run {run_id} has no task {task_id}")
        else:
            task = run.tasks[task_id]
            text = task.stderr if stderr else task.stdout
        return "".join(text.splitlines(keepends=True)[-lines:])

    def get_result(self, run_id: int, task_id: int) -> bytes | None:
        self._called("get_result")
        run = self._run(run_id)
        if task_id not in run.tasks:
            raise NotFoundError(f"run {run_id} has no task {task_id}")
        return None if run.state == "expired" else run.tasks[task_id].result

    def rerun(
        self, run_id: int, *, name: str, environment: str, version: int | None = None, full: bool = False
    ) -> StartedRun:
        self._called("rerun")
        earlier = self._run(run_id)
        if earlier.version.definition.name != name or earlier.environment != environment:
            raise NotFoundError(f"run {run_id} is not a run of {name} in {environment}")
        if earlier.state not in ENDED:
            raise ConflictError(f"run {run_id} is {earlier.state}")
        found = self._version(name, environment, version)
        if not full and {task.name for task in found.definition.tasks} != {
            task.name for task in earlier.version.definition.tasks
        }:
            raise ConflictError("the tasks of the run do not fit the version")
        run = self._new_run(found, environment)
        run.original_run_id = earlier.id if earlier.original_run_id == -1 else earlier.original_run_id
        run.partial_rerun = not full
        for task_id, task in earlier.tasks.items():
            if not full and (task.state == "completed" or task.reused):
                run.tasks[task_id] = Task(task_id, "did_not_run", result=task.result, reused=True)
        return StartedRun(run.id, found.number, "pending", found.job_id)

    def promote_job(
        self, name: str, *, from_environment: str | None = None, version: int | None = None
    ) -> Sequence[str]:
        self._called("promote_job")
        if from_environment == "prod":
            raise ConflictError("there is no environment after prod")
        if not any(job == name for job, _ in self.versions):
            raise NotFoundError(f"there is no job {name}")
        moves = []
        for source in ["pre", "dev"] if from_environment is None else [from_environment]:
            if (name, source) not in self.versions and from_environment is None:
                continue
            found = self._version(name, source, version)
            if not found.verified:
                raise PermissionDeniedError(f"version {found.number} was saved from an unverified repository")
            target = ORDER[ORDER.index(source) + 1]
            self.versions.setdefault((name, target), {}).setdefault(
                found.number, Version(**{**vars(found), "state": "ready"})
            )
            moves.append(f"{name} version {found.number}: {source} to {target}")
        return moves

    def remove_job(self, name: str, environment: str, *, all_versions: bool = True) -> Sequence[int]:
        self._called("remove_job")
        latest = self.latest(name, environment)
        gone = [
            v
            for v in self.versions[name, environment].values()
            if not v.removed and (all_versions or v is latest)
        ]
        for version in gone:
            version.removed = True
        return [version.number for version in gone]

    # -- UserDirectory ---------------------------------------------------------------------------------
    def get_user(self, *, name: str | None = None, user_id: int | None = None) -> Mapping[str, Any]:
        self._called("get_user")
        for user in self.users.values():
            if user["name"] == name or (name is None and user["user_id"] == user_id):
                return dict(user)
        raise NotFoundError("no such user")

    def list_users(self, *, filter: str | None = None) -> Sequence[Mapping[str, Any]]:
        self._called("list_users")
        return [dict(user) for user in self.users.values()]

    def add_user(self, user: Mapping[str, Any], *, password: str | None) -> Mapping[str, Any]:
        self._called("add_user")
        if user["is_system"] and password:
            raise InvalidRequestError("a system user has no password")
        number = max(self.users) + 1
        self.users[number] = {**user, "user_id": number}
        return dict(self.users[number])

    def remove_user(self, name: str) -> None:
        self._called("remove_user")
        for number, user in list(self.users.items()):
            if user["name"] == name:
                del self.users[number]
                return
        raise NotFoundError(f"there is no user {name}")

    def get_group(self, *, name: str | None = None, group_id: int | None = None) -> Mapping[str, Any]:
        self._called("get_group")
        for group in self.groups.values():
            if group["name"] == name or (name is None and group["group_id"] == group_id):
                return dict(group)
        raise NotFoundError("no such group")
