"""Finding jobs and runs for a caller, with the right to them checked and near misses named."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from ..core.errors import InvalidArgument, NotFound
from ..core.model import Job
from ..core.rows import RunRow
from ..core.values import Environment
from ..ports import Engine
from ..security.access import Permission, allowed, check
from ..security.authentication import current_user
from ..store.reads import Reads


class Lookup:
    """What servicers ask before they do anything.

    Args:
        engine: Has all jobs in memory.
        reads: Has the runs.
    """

    def __init__(self, engine: Engine, reads: Reads) -> None:
        self._engine = engine
        self._reads = reads

    def find(self, name: str, environment: Environment) -> Job | None:
        """The job by internal name, display name or id (clause B116), or None.

        Raises:
            InvalidArgument: The name is empty, or several jobs have it as their display name.
        """
        if not name:
            raise InvalidArgument(
                "name_missing", "name is empty", field="name", hint="give the name of a job"
            )
        job = self._engine.find_job(name, environment)
        if job is not None:
            return job
        here = [job for job in self._engine.jobs() if job.environment is environment]
        matches = [job for job in here if job.job_id == name] or [
            job for job in here if job.display_name == name
        ]
        if len(matches) > 1:
            names = ", ".join(sorted(job.name for job in matches)[:10])
            raise InvalidArgument(
                "name_ambiguous",
                f"{name!r} is the display name of {len(matches)} jobs in {environment.text}: {names}",
                field="name",
                hint="give the internal name",
            )
        return matches[0] if matches else None

    def job(self, name: str, environment: Environment, permission: Permission) -> Job:
        """The job, if the caller has the permission.

        Raises:
            NotFound: There is none; the message suggests names that are near.
            PermissionDenied: The caller lacks the permission.
        """
        job = self.find(name, environment)
        if job is None:
            raise self.unknown(name, environment)
        check(current_user(), job.acl, permission, what=f"job {job.name!r}")
        return job

    def unknown(self, name: str, environment: Environment) -> NotFound:
        """The error for a job that does not exist, with what the caller may have meant."""
        readable = self.readable()
        elsewhere = [
            job.environment.text for job in readable if name in (job.name, job.display_name, job.job_id)
        ]
        if elsewhere:
            hint = f"there is one in {', '.join(elsewhere)}; name that environment, or promote the job"
        else:
            hint = suggest(name, (job.name for job in readable if job.environment is environment))
            hint = hint or "list what there is with `dt job ls`, or save the job first"
        return NotFound(
            "job_not_found", f"there is no job {name[:100]!r} in {environment.text}", field="name", hint=hint
        )

    def readable(self) -> list[Job]:
        """All jobs the caller may read, by name and environment (clause B241)."""
        user = current_user()
        return [job for job in self._engine.jobs() if allowed(user, job.acl, Permission.READ)]

    def scope(self) -> list[str] | None:
        """Ids of the jobs the caller may read, for queries; None for all."""
        return None if current_user().is_admin else [job.job_id for job in self.readable()]

    def job_of(self, run: RunRow) -> Job | None:
        """The job of a run."""
        return self._engine.find_job(run.job_name, Environment(run.environment))

    async def run(self, run_id: int, permission: Permission) -> RunRow:
        """The run, if the caller has the permission on its job.

        Raises:
            NotFound: There is no such run.
            PermissionDenied: The caller lacks the permission.
        """
        row = await self._reads.run(run_id) if 0 < run_id < 1 << 62 else None
        if row is None:
            raise NotFound(
                "run_not_found",
                f"there is no run {run_id}",
                field="run_id",
                hint="list the runs of a job with `dt job runs NAME`",
            )
        job = self.job_of(row)
        if job is not None:
            check(current_user(), job.acl, permission, what=f"job {job.name!r}")
        return row


def task_not_found(run_id: int, task_id: int) -> NotFound:
    """The error for a task that a run does not have."""
    return NotFound(
        "task_not_found",
        f"run {run_id} has no task {task_id}",
        field="task_id",
        hint="ids count from 0 in the order of the calls; list them with ListRunTasks",
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` with the nearest names, or nothing."""
    near = difflib.get_close_matches(name[:200], list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def request_digest(message: Message, *, without: str = "idempotency_key") -> str:
    """What decides whether two requests with one idempotency key are the same."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(without)
    # Requests of different kinds may have the same bytes.
    kind = message.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(kind + b"\0" + copy.SerializeToString(deterministic=True)).hexdigest()
