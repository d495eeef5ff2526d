"""The life-cycle port of `datatailr.scheduler`, over gRPC.

`connect` is what the SDK calls. Conventions of the methods (names, times, errors) are those of
the port, `datatailr.scheduler._platform.Platform`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

from datatailr.client import answers, convert, fitting, logs, queries, transfers, watching
from datatailr.client.connection import Connection, new_key
from datatailr.client.frames import without_transport_frames
from datatailr.client.progress import Progress, size_text
from datatailr.client.words import environment_number, image_state_word, state_word
from datatailr.errors import NotFoundError
from datatailr.scheduler._platform import JobDefinition, SavedVersion, StartedRun
from datatailr.v1 import identity_pb2, image_pb2, job_pb2, run_pb2

SAVE_TIMEOUT: Final = 120.0
"""Seconds for saving or starting one version: ten thousand tasks have to get on disk."""


@lru_cache(maxsize=8)
def connect(address: str, token: str) -> GrpcPlatform:
    """The platform at `address`; nothing is sent yet.

    Asked twice for one address and token it gives the same object, and so the same channel.
    """
    return GrpcPlatform(Connection(address, token), display=Progress())


@without_transport_frames
class GrpcPlatform:
    """A control plane behind the port `datatailr.scheduler._platform.Platform`.

    Args:
        connection: The way to it.
        display: Where steps are shown to a person; nowhere by default. With one, callbacks for
            progress are not called, so that nothing is shown twice.
    """

    def __init__(self, connection: Connection, *, display: Progress | None = None) -> None:
        self._connection = connection
        self._has_display = display is not None
        self._progress = display or Progress(environ={"DATATAILR_PROGRESS": "0"})

    @property
    def connection(self) -> Connection:
        """The connection below, for what the port does not cover."""
        return self._connection

    @property
    def address(self) -> str:
        """`host:port`."""
        return self._connection.address

    @cached_property
    def _identity(self) -> identity_pb2.GetCallerResponse:
        return queries.caller(self._connection)

    @property
    def public_url(self) -> str | None:
        """Address of the pages without a trailing slash, None if there are none."""
        return self._identity.public_url.rstrip("/") or None

    def caller(self) -> Mapping[str, Any]:
        """The signed-in user (clauses B250, B272)."""
        return answers.user_answer(self._identity.user)

    def save_job(self, definition: JobDefinition) -> SavedVersion:
        """Upload what is missing, then save one new version (clauses B98 to B101)."""
        request, uploads = convert.save_request(definition, idempotency_key=new_key())

        if self._has_display and (problem := fitting.too_large(self._connection, definition)):
            self._progress.note(problem)

        if definition.bundle is not None:
            self._progress.line(
                "package", f"{definition.bundle.directory} ({size_text(definition.bundle.size)})"
            )

        if uploads:
            with self._progress.step("upload") as step:

                def report(durable: int, total: int) -> None:
                    step.update(f"{size_text(durable)} of {size_text(total)}")

                sent = transfers.upload_all(self._connection, uploads, progress=report)
                step.done(f"{size_text(sent)} sent" if sent else "nothing new to send")

        answer = self._connection.call(lambda s: s.jobs.SaveJob, request, timeout=SAVE_TIMEOUT)
        return SavedVersion(
            job_id=answer.job_id,
            version=answer.version,
            state=state_word(answer.state),
            create_time=answer.create_time,
            run_as=answer.run_as,
            image_key=answer.image_key,
        )

    def wait_for_image(self, image_key: str, *, progress: Callable[[str], None] | None = None) -> None:
        """Return when the image is ready, showing the build meanwhile; `progress` is for callers of
        a platform without a display of its own.

        Raises:
            ImageBuildError: the build failed; the message holds the end of its log.
        """
        waited = False
        image = image_pb2.Image()

        try:
            with self._progress.step("environment") as step:

                def on_cut() -> None:
                    step.update(f"the connection to {self.address} was lost, trying again")

                for change in watching.watch_build(self._connection, image_key, on_cut=on_cut):
                    image = change.image
                    news = change.line or _image_news(image)

                    if news and image.state != image_pb2.IMAGE_STATE_READY:
                        waited = True

                        if image.waiting_for and not change.line:
                            step.wait(image.waiting_for)
                        else:
                            step.update(news)

                        if progress is not None and not self._has_display:
                            progress(news)

                outcome = f"ready after {step.seconds:.1f} s" if waited else "unchanged"
                step.done(f"{outcome} ({image.notice})" if image.notice else outcome)
        except KeyboardInterrupt:
            self._progress.note("stopped waiting; the environment is still being built on the platform")
            raise

    def start_job(
        self, name: str, environment: str, *, version: int | None = None, run_date: str | None = None
    ) -> StartedRun:
        """Start a version, the latest that is not removed by default (clauses B103 to B106)."""
        request = job_pb2.StartJobRequest(
            idempotency_key=new_key(),
            name=name,
            environment=environment_number(environment),
            version=version or 0,
            run_date=run_date or "",
        )
        answer = self._connection.call(lambda s: s.jobs.StartJob, request, timeout=SAVE_TIMEOUT)
        job = f"{name} version {answer.version} in {environment}"

        if answer.run_id:
            where = "" if environment == "dev" else f" -e {environment}"
            self._progress.line("started", f"run {answer.run_id} of {job}")
            self._progress.line("follow it", f"dt job watch {name} -i {answer.run_id}{where}")
        else:
            self._progress.line("started", f"on its schedule: {job}")

        for notice in answer.notices:
            self._progress.note(notice)

        return StartedRun(
            run_id=answer.run_id or None,
            version=answer.version,
            state=state_word(answer.state),
            job_id=answer.job_id,
        )

    def stop_job(self, name: str, environment: str) -> Sequence[int]:
        """End all active runs and leave the schedule (clause B124); ids of the runs it ended."""
        request = job_pb2.StopJobRequest(name=name, environment=environment_number(environment))
        return list(self._connection.call(lambda s: s.jobs.StopJob, request).run_ids)

    def stop_run(self, run_id: int) -> None:
        """End one run (clause B55); one that has ended is left as it is."""
        self._connection.call(lambda s: s.runs.CancelRun, run_pb2.CancelRunRequest(run_id=run_id))

    def get_job(
        self, name: str, environment: str, *, version: int | None = None, with_tasks: bool = False
    ) -> Mapping[str, Any]:
        """One version, the latest by default, as `job get` shows it (clause B270)."""
        job = queries.job(self._connection, name, environment, version=version)
        tasks = list(queries.version_tasks(self._connection, job)) if with_tasks else None
        return answers.stored_job_answer(job, tasks)

    def list_jobs(
        self, *, environment: str | None = None, filter: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """The latest version of every job the caller may read, as `job ls` shows it.

        Raises:
            InvalidRequestError: the filter cannot be understood; names its token.
        """
        found = queries.jobs(self._connection, environment=environment, filter=filter or "")
        return [answers.stored_job_answer(job) for job in found]

    def list_versions(self, name: str, *, environment: str | None = None) -> Sequence[int]:
        """Version numbers in one environment or in all; none for an unknown job (clause B118)."""
        return queries.versions(self._connection, name, environment=environment)

    def list_runs(
        self, name: str, environment: str, *, start_from: int | None = None, start_to: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Mother runs of a job as `job runs` shows them (clause B271), newest first."""
        found = queries.runs(
            self._connection, name, environment=environment, start_from=start_from, start_to=start_to
        )
        return [answers.run_answer(run) for run in found]

    def get_run(self, run_id: int) -> Mapping[str, Any]:
        """One run in the form of `list_runs`, with `display_name` beside."""
        run = queries.run(self._connection, run_id)
        return answers.run_answer(run) | {"display_name": run.display_name}

    def list_run_tasks(self, run_id: int) -> Sequence[Mapping[str, Any]]:
        """The tasks of a run, with those that did not run or were taken over."""
        run = queries.run(self._connection, run_id)
        return [answers.task_answer(run, task) for task in queries.run_tasks(self._connection, run_id)]

    def read_log(
        self, run_id: int, *, task_id: int | None = None, stderr: bool = False, lines: int = 5000
    ) -> str:
        """The last lines of a task's log, or of the run's own without a task id (B155, B156)."""
        target = logs.run_log(run_id) if task_id is None else logs.task_log(run_id, task_id)
        content = b"".join(logs.read_log(self._connection, target, stderr=stderr, lines=lines))
        return content.decode("utf-8", "replace")

    def get_result(self, run_id: int, task_id: int) -> bytes | None:
        """The pickle that a task returned, None when there is none (clauses B159, B160)."""
        request = run_pb2.GetTaskResultRequest(run_id=run_id, task_id=task_id)

        try:
            answer = self._connection.call(lambda s: s.runs.GetTaskResult, request)
        except NotFoundError:
            return None

        if not answer.HasField("result"):
            return None

        if answer.result.WhichOneof("content") != "digest":
            return answer.result.inline

        with transfers.download(self._connection, answer.result.digest) as stream:
            return stream.read()

    def rerun(
        self, run_id: int, *, name: str, environment: str, version: int | None = None, full: bool = False
    ) -> StartedRun:
        """Start a new run that repeats an earlier one (clauses B126 to B132)."""
        request = run_pb2.RerunRunRequest(
            idempotency_key=new_key(),
            run_id=run_id,
            version=version or 0,
            full=full,
            name=name,
            environment=environment_number(environment),
        )
        answer = self._connection.call(lambda s: s.runs.RerunRun, request, timeout=SAVE_TIMEOUT)
        run = queries.run(self._connection, answer.run_id)
        return StartedRun(
            run_id=answer.run_id, version=answer.version, state=state_word(run.state), job_id=run.job_id
        )

    def promote_job(
        self, name: str, *, from_environment: str | None = None, version: int | None = None
    ) -> Sequence[str]:
        """Copy versions one environment further; one text per move (clauses B119 to B123).

        Without `from_environment` the call is not repeated after a lost answer: a second one
        would carry the version another environment further (clause B120).
        """
        request = job_pb2.PromoteJobRequest(
            name=name, from_environment=environment_number(from_environment), version=version or 0
        )
        answer = self._connection.call(
            lambda s: s.jobs.PromoteJob, request, repeatable=from_environment is not None and bool(version)
        )
        return list(answer.moves)

    def remove_job(self, name: str, environment: str, *, all_versions: bool = True) -> Sequence[int]:
        """Stop the job and hide its versions, or the latest one (clause B125); the numbers.

        Hiding the latest only is not repeated after a lost answer: a second call would hide the
        one before it too.
        """
        request = job_pb2.RemoveJobRequest(
            name=name, environment=environment_number(environment), all_versions=all_versions
        )
        answer = self._connection.call(lambda s: s.jobs.RemoveJob, request, repeatable=all_versions)
        return list(answer.versions)


def _image_news(image: image_pb2.Image) -> str:
    if image.waiting_for:
        return image.waiting_for

    return image_state_word(image.state) + (f" on {image.node}" if image.node else "")
