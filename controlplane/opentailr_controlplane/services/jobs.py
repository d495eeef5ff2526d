"""JobService: definitions, and the commands on jobs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError

from datatailr.filters import JOBS
from datatailr.v1 import job_pb2, job_pb2_grpc

from ..core import commands, people
from ..core.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from ..core.model import Job, Version
from ..core.rows import ImageRow
from ..core.values import Acl, Environment, ImageState, JobDefinition, Payload, PeopleState
from ..objects import FileObjectStore
from ..ports import Engine
from ..security.access import Permission, allowed, check, check_run_as, default_acl
from ..security.authentication import current_user
from ..security.users import User, UserDirectory
from ..store.listings import JobQuery
from ..store.reads import Reads
from . import wire
from .interceptor import Context
from .lookup import Lookup, request_digest
from .pages import filter_in, fit, make_token, next_page, page_in, read_token, sort_in

_DEFINITION_LIMIT = 256 * 1024 * 1024
"""Longest serialized definition that is read from the object store."""

R = TypeVar("R", bound=commands.Reply)


class JobService(job_pb2_grpc.JobServiceServicer):
    """Thin: decode, look up, check, ask the engine or read, encode."""

    def __init__(
        self, engine: Engine, reads: Reads, objects: FileObjectStore, users: UserDirectory, lookup: Lookup
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._objects = objects
        self._users = users
        self._lookup = lookup

    async def SaveJob(self, request: job_pb2.SaveJobRequest, context: Context) -> job_pb2.SaveJobResponse:
        """Saves a version (clauses B57a, B98 to B101, B240)."""
        message = await self._definition(request)
        # Thousands of tasks take long to translate: not in the loop.
        definition = await asyncio.to_thread(wire.definition_in, message)
        user = current_user()
        existing = self._engine.find_job(definition.name, definition.environment)
        if existing is not None:
            check(user, existing.acl, Permission.WRITE, what=f"job {existing.name!r}")
        acl = wire.acl_in(message.acl) if message.HasField("acl") else None
        if definition.environment is not Environment.DEV:
            self._check_direct(user, definition, acl or default_acl(user))
        definition = dataclasses.replace(
            definition, run_as=check_run_as(user, definition.run_as, self._users)
        )
        if message.base_version and _incomplete(message):
            definition = await self._complete(definition, message, self._base_job(message) or existing)
        await self._check_objects(definition)
        reply = await self._execute(
            commands.SaveReply,
            commands.SaveVersion(
                actor=user.name,
                definition=definition,
                acl=acl,
                default_acl=default_acl(user),
                idempotency_key=request.idempotency_key,
                request_digest=await asyncio.to_thread(request_digest, request),
                instant=request.instant,
            ),
        )
        return job_pb2.SaveJobResponse(
            job_id=reply.job_id,
            version=reply.version,
            state=wire.state_out(reply.state),
            create_time=reply.create_time,
            image_key=reply.image_key,
            run_as=reply.run_as,
        )

    async def StartJob(self, request: job_pb2.StartJobRequest, context: Context) -> job_pb2.StartJobResponse:
        """Starts a version (clauses B103 to B106)."""
        job = self._lookup.job(request.name, wire.environment_in(request.environment), Permission.OPERATE)
        reply = await self._execute(
            commands.StartReply,
            commands.StartVersion(
                actor=current_user().name,
                name=job.name,
                environment=job.environment,
                version=request.version,
                run_date=request.run_date,
                now=request.now,
                idempotency_key=request.idempotency_key,
                request_digest=request_digest(request),
            ),
        )
        return job_pb2.StartJobResponse(
            run_id=reply.run_id,
            version=reply.version,
            state=wire.state_out(reply.state),
            job_id=reply.job_id,
            notices=reply.notices,
        )

    async def StopJob(self, request: job_pb2.StopJobRequest, context: Context) -> job_pb2.StopJobResponse:
        """Ends active runs (clause B124)."""
        job = self._lookup.job(request.name, wire.environment_in(request.environment), Permission.OPERATE)
        reply = await self._execute(
            commands.StopReply,
            commands.StopJob(current_user().name, job.name, job.environment, request.run_id),
        )
        return job_pb2.StopJobResponse(run_ids=reply.run_ids)

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:
        """One version, the latest unless told otherwise (clause B114)."""
        job = self._lookup.job(request.name, wire.environment_in(request.environment), Permission.READ)
        version = self._version(job, request.version)
        return job_pb2.GetJobResponse(job=(await self._jobs_out([(job, version)]))[0])

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        """The latest version of every job the caller may read (clauses B241, B268, B276 to B282)."""
        query = JobQuery(
            job_ids=self._lookup.scope(),
            environment=int(wire.optional_environment_in(request.environment) or 0),
            type=int(wire.job_type_in(request.type)) if request.type else 0,
            include_removed=request.include_removed,
            filter=filter_in(request, JOBS),
            sort=sort_in(request, JOBS),
        )
        size = wire.page_size_in(request.page_size, default=100, limit=1000)
        rows = await self._reads.jobs(query, page_in(request, "jobs", query.terms, size + 1))
        # Asked after the rows were read, so that none is missing; rights count as they are now.
        readable = {job.job_id: job for job in self._lookup.readable()}
        shown = [
            (readable[job_id], readable[job_id].versions[version], values)
            for job_id, version, values in rows[:size]
            if job_id in readable
        ]
        jobs = fit(await self._jobs_out([(job, version) for job, version, _ in shown]))
        token = next_page(request, "jobs", rows[size - 1][2]) if len(rows) > size else ""
        if len(jobs) < len(shown):
            token = next_page(request, "jobs", shown[len(jobs) - 1][2])
        return job_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def ListVersions(
        self, request: job_pb2.ListVersionsRequest, context: Context
    ) -> job_pb2.ListVersionsResponse:
        """Version numbers, ascending, without duplicates (clause B118)."""
        environment = wire.optional_environment_in(request.environment)
        numbers: set[int] = set()
        for place in [environment] if environment else list(Environment):
            job = self._lookup.find(request.name, place)
            if job is not None:
                check(current_user(), job.acl, Permission.READ, what=f"job {job.name!r}")
                numbers.update(job.listed())
        return job_pb2.ListVersionsResponse(versions=sorted(numbers))

    async def ListVersionTasks(
        self, request: job_pb2.ListVersionTasksRequest, context: Context
    ) -> job_pb2.ListVersionTasksResponse:
        """The tasks of one version, by id."""
        job = self._lookup.job(request.job_id, wire.environment_in(request.environment), Permission.READ)
        size = wire.page_size_in(request.page_size, default=1000, limit=5000)
        cursor = read_token(request.page_token, "version_tasks", int)
        after = int(cursor[0]) if cursor else -1
        version = self._version(job, request.version)
        tasks = await self._reads.definition_tasks(version.definition_id, after=after, limit=size + 1)
        page = fit([wire.task_definition_out(task) for task in tasks[:size]])
        return job_pb2.ListVersionTasksResponse(
            tasks=page,
            next_page_token=make_token("version_tasks", page[-1].id) if len(page) < len(tasks) else "",
        )

    async def PromoteJob(
        self, request: job_pb2.PromoteJobRequest, context: Context
    ) -> job_pb2.PromoteJobResponse:
        """Copies a version to the next environment (clauses B119 to B123)."""
        source = wire.optional_environment_in(request.from_environment, "from_environment")
        if source is not None:
            names = {self._lookup.job(request.name, source, Permission.PROMOTE).name}
        else:
            found = [job for place in Environment if (job := self._lookup.find(request.name, place))]
            if not found:
                raise self._lookup.unknown(request.name, Environment.DEV)
            for job in found:
                check(current_user(), job.acl, Permission.PROMOTE, what=f"job {job.name!r}")
            names = {job.name for job in found}
        if len(names) > 1:
            raise InvalidArgument(
                "name_ambiguous",
                f"{request.name!r} means {' and '.join(sorted(names))} in different environments",
                field="name",
                hint="give the internal name",
            )
        reply = await self._execute(
            commands.PromoteReply,
            commands.Promote(current_user().name, names.pop(), source, request.version),
        )
        return job_pb2.PromoteJobResponse(moves=reply.moves)

    async def RemoveJob(
        self, request: job_pb2.RemoveJobRequest, context: Context
    ) -> job_pb2.RemoveJobResponse:
        """Stops and hides a job (clause B125)."""
        job = self._lookup.job(request.name, wire.environment_in(request.environment), Permission.WRITE)
        reply = await self._execute(
            commands.VersionsReply,
            commands.Remove(
                current_user().name, job.name, job.environment, request.all_versions, request.version
            ),
        )
        return job_pb2.RemoveJobResponse(versions=reply.versions)

    async def RestoreJob(
        self, request: job_pb2.RestoreJobRequest, context: Context
    ) -> job_pb2.RestoreJobResponse:
        """Undoes RemoveJob (clause B125)."""
        job = self._lookup.job(request.name, wire.environment_in(request.environment), Permission.WRITE)
        reply = await self._execute(
            commands.VersionsReply,
            commands.Restore(current_user().name, job.name, job.environment, request.version),
        )
        return job_pb2.RestoreJobResponse(versions=reply.versions)

    async def _execute(self, kind: type[R], command: commands.Command) -> R:
        reply = await self._engine.execute(command)
        assert isinstance(reply, kind)
        return reply

    async def _definition(self, request: job_pb2.SaveJobRequest) -> job_pb2.JobDefinition:
        source = request.WhichOneof("source")
        if source == "definition":
            return request.definition
        if source is None:
            raise InvalidArgument(
                "definition_missing", "the request has no definition", field="definition", hint="send one"
            )
        try:
            content = await self._objects.get_bytes(request.definition_digest, limit=_DEFINITION_LIMIT)
        except NotFound as error:
            raise FailedPrecondition(
                "object_missing", error.message, field="definition_digest", hint="write the object, then save"
            ) from None
        try:
            return await asyncio.to_thread(job_pb2.JobDefinition.FromString, content)
        except DecodeError:
            raise InvalidArgument(
                "definition_unreadable",
                f"object {request.definition_digest} is no serialized JobDefinition",
                field="definition_digest",
                hint="write the bytes of the serialized message",
            ) from None

    def _check_direct(self, user: User, definition: JobDefinition, new: Acl) -> None:
        """Refuses a save beyond dev without the right to promote (clause B57a).

        The job there decides; while there is none, the jobs that it would be promoted from; else its own
        list.
        """
        below = [place for place in Environment if place < definition.environment]
        there = self._engine.find_job(definition.name, definition.environment)
        asked = [there] if there else [self._engine.find_job(definition.name, place) for place in below]
        for acl in [job.acl for job in asked if job is not None] or [new]:
            if not allowed(user, acl, Permission.PROMOTE):
                raise PermissionDenied(
                    "permission_denied",
                    f"user {user.name!r} lacks the permission promote on job {definition.name!r}, which "
                    f"saving to {definition.environment.text} needs; deploy to dev and promote",
                    field="promote",
                    hint="ask somebody who may promote the job to do it",
                )

    def _base_job(self, message: job_pb2.JobDefinition) -> Job | None:
        """The other job that the definition was copied from, if the caller may read it."""
        if not message.base_job_id:
            return None
        found = (self._lookup.find(message.base_job_id, place) for place in Environment)
        job = next((job for job in found if job is not None), None)
        if job is None:
            raise NotFound(
                "job_not_found",
                f"there is no job {message.base_job_id[:100]!r}",
                field="definition.base_job_id",
                hint="give the id of the job to copy from",
            )
        check(current_user(), job.acl, Permission.READ, what=f"job {job.name!r}")
        return job

    async def _complete(
        self, definition: JobDefinition, message: job_pb2.JobDefinition, job: Job | None
    ) -> JobDefinition:
        """Takes what was left unset from the version that this one was loaded from (clause B113).

        That version may have been removed since: what it consists of is still there.
        """
        if job is None:
            raise self._lookup.unknown(definition.name, definition.environment)
        base = job.versions.get(message.base_version) or self._version(job, message.base_version)
        if not message.HasField("bundle"):
            stored = (await self._reads.definitions([base.definition_id]))[base.definition_id]
            definition = dataclasses.replace(definition, bundle=stored.bundle)
        if any(not task.HasField("arguments") for task in message.tasks):
            graph = await self._reads.graph(base.definition_id)
            definition = dataclasses.replace(
                definition,
                tasks=tuple(
                    dataclasses.replace(task, arguments=graph[task.task_id].arguments)
                    if task.arguments is None and task.task_id in graph
                    else task
                    for task in definition.tasks
                ),
            )
        return definition

    async def _check_objects(self, definition: JobDefinition) -> None:
        """Refuses a definition whose bundle or arguments are not in the object store."""
        named = {definition.bundle.digest: "bundle.digest"} if definition.bundle.digest else {}
        for position, task in enumerate(definition.tasks):
            arguments = task.arguments
            if isinstance(arguments, Payload) and arguments.data is None:
                named.setdefault(arguments.digest, f"tasks[{position}].arguments.digest")
        for digest in await self._objects.missing(named):
            raise FailedPrecondition(
                "object_missing",
                f"{named[digest]}: object {digest} is not in the object store",
                field=named[digest],
                hint="write the object with ObjectService.WriteObject, then save again",
            )

    def _version(self, job: Job, number: int) -> Version:
        version = self._engine.find_version(job, number)
        if version is not None:
            return version
        known = job.listed()
        if not known and all(version.instant for version in job.versions.values()):
            raise NotFound(
                "job_not_found",
                f"job {job.name!r} has no saved version in {job.environment.text}, only instant runs",
                field="name",
                hint="save it, or name the version that one of its runs had",
            )
        if not known:
            raise NotFound(
                "job_removed",
                f"job {job.name!r} was removed from {job.environment.text}",
                field="name",
                hint=f"bring it back with `dt job restore {job.name}`",
            )
        raise NotFound(
            "version_not_found",
            f"job {job.name!r} has no version {number} in {job.environment.text}",
            field="version",
            hint=f"it has {', '.join(map(str, known[-10:]))}",
        )

    async def _jobs_out(self, shown: Sequence[tuple[Job, Version]]) -> list[job_pb2.Job]:
        definitions = await self._reads.definitions([version.definition_id for _, version in shown])
        images = await self._reads.images([version.image_key for _, version in shown])
        return [
            job_out(job, version, definitions[version.definition_id], images.get(version.image_key))
            for job, version in shown
        ]


def _incomplete(message: job_pb2.JobDefinition) -> bool:
    """True when the code or a task's arguments are to be those of an earlier version."""
    return not message.HasField("bundle") or any(not task.HasField("arguments") for task in message.tasks)


def job_out(job: Job, version: Version, definition: JobDefinition, image: ImageRow | None) -> job_pb2.Job:
    """A version with what the platform knows of it."""
    # A promoted version shares its definition with the one it was copied from; where it lives is the job's.
    definition = dataclasses.replace(definition, environment=job.environment)
    return job_pb2.Job(
        id=job.job_id,
        version=version.version,
        state=wire.state_out(version_state(job, version, image)),
        create_time=version.create_time,
        created_by=version.created_by,
        definition=wire.definition_out(definition, job.acl),
        task_count=version.task_count,
        image_key=version.image_key,
        cause=wire.image_cause_out(image) if image is not None else None,
        removed=version.removed,
        image_notice=image.notice if image is not None else "",
    )


def version_state(job: Job, version: Version, image: ImageRow | None) -> PeopleState:
    """State of a version as people see it (clauses B100, B107)."""
    if job.scheduled_version == version.version:
        return PeopleState.SCHEDULED
    return people.IMAGE_STATES[ImageState(image.state)] if image is not None else PeopleState.CREATED
