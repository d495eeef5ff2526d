"""The life cycle of saved jobs: save, start, stop, look at runs (sections 7 and 8).

Everything here goes through the port of `datatailr.scheduler._platform`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from datatailr.errors import (
    ArgumentPickleError,
    BundleError,
    ConflictError,
    NotConfiguredError,
    NotFoundError,
    PlatformError,
)
from datatailr.scheduler import _platform
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._names import internal_name
from datatailr.scheduler._pickling import load_result
from datatailr.scheduler._process import deployment_is_suppressed
from datatailr.scheduler._reporting import failure, progress, success, warn_unverified
from datatailr.scheduler._run_views import (
    RunCache,
    definition_of,
    enriched,
    newest_first,
    run_entry,
    task_entries,
)
from datatailr.scheduler._saving import Origin
from datatailr.scheduler._times import microseconds
from datatailr.utils import Environment

__all__ = ["Lifecycle", "Outcome"]

Outcome = tuple[bool, str]
# What a user can cause and repair; everything else is a defect and raises.
_REPORTED = (PlatformError, BundleError, ArgumentPickleError)


class Lifecycle:
    """Operations on a job that need a platform; mixed into Job."""

    name: str
    environment: Environment
    type: JobType
    version: int | None

    def __init__(self) -> None:
        self._run_cache = RunCache()

    # -- what Job provides ---------------------------------------------------------------------
    def _save_version(self, platform: _platform.Platform) -> tuple[_platform.SavedVersion, Origin | None]:
        raise NotImplementedError

    def _check_before_save(self) -> str | None:
        raise NotImplementedError

    def _current_task_names(self) -> dict[int, str]:
        """Names of the tasks as loaded now, by id."""
        return {}

    # -- reaching the platform -----------------------------------------------------------------
    @staticmethod
    def _require_platform() -> _platform.Platform:
        """The configured platform.

        Raises:
            NotConfiguredError: there is none.
        """
        platform = _platform.get_platform()
        if platform is None:
            raise NotConfiguredError
        return platform

    def _configured(self, operation: str) -> _platform.Platform | Outcome:
        """The platform for an operation, or what the operation comes to without one."""
        try:
            platform = _platform.get_platform()
        except PlatformError as error:
            return failure(f"{operation} of {self.name!r} failed: {error}")
        return self._without_platform(operation) if platform is None else platform

    def _without_platform(self, operation: str) -> Outcome:
        """What an operation does when no platform is configured (clause B61)."""
        if operation in ("stop", "remove", "promote"):
            return failure(f"{operation} of {self.name!r} failed: {NotConfiguredError()}")
        raise NotImplementedError(f"{operation}() of {self.name!r} is impossible: {NotConfiguredError()}")

    def _is_suppressed(self) -> bool:
        return deployment_is_suppressed(internal_name(self.name), self.environment.value)

    @property
    def _is_workflow(self) -> bool:
        return self.type in (JobType.WORKFLOW, JobType.BATCH)

    def _announce(self, platform: _platform.Platform, what: str, version: int | None) -> Outcome:
        name = internal_name(self.name)
        numbered = "" if version is None else f" version {version}"
        text = f"{self.type.display_name()} {self.name!r}{numbered} {what}; its name in the CLI is {name}"
        base = self._public_url(platform)
        if base is not None and version is not None:
            text += f": {base}/job-details/{name}/{self.type}/{self.environment}/{version}?tab=definition"
        return success(text)

    @staticmethod
    def _public_url(platform: _platform.Platform) -> str | None:
        """Address of the pages; what was saved or started stays so when it cannot be learnt."""
        try:
            url = platform.public_url
        except PlatformError:
            return None
        return url.rstrip("/") if url else None

    # -- save, start, stop ---------------------------------------------------------------------
    def save(self) -> Outcome:
        """Save a new version; its image is prepared by the platform (clauses B95 to B101).

        Returns:
            (True, text), or (False, message) when the platform or the packaging refused.

        Raises:
            ValueError: a value of the definition that cannot be read.
            CyclicDependencyError: the tasks wait for one another.
            NotImplementedError: no platform is configured.
        """
        if self._is_suppressed():
            return True, ""
        platform = self._configured("save")
        if isinstance(platform, tuple):
            return platform
        problem = self._check_before_save()
        if problem is not None:
            return failure(problem)
        try:
            saved = self._save(platform)
            return self._announce(platform, "is saved", saved.version)
        except _REPORTED as error:
            return failure(f"saving {self.name!r} failed: {error}")

    def _save(self, platform: _platform.Platform) -> _platform.SavedVersion:
        saved, origin = self._save_version(platform)
        if origin is not None and origin.problem is not None:
            warn_unverified(f"{self.name!r} version {saved.version}", origin.problem)
        return saved

    def start(self) -> Outcome:
        """Start the latest saved version, or put it on its schedule (clauses B103 to B106)."""
        if self._is_suppressed():
            return True, ""
        platform = self._configured("start")
        if isinstance(platform, tuple):
            return platform
        try:
            return self._start(platform, None)
        except PlatformError as error:
            return failure(f"starting {self.name!r} failed: {error}")

    def _start(self, platform: _platform.Platform, version: int | None) -> Outcome:
        started = platform.start_job(internal_name(self.name), self.environment.value, version=version)
        self._run_cache.clear()
        self._take_over(started.job_id, started.version, started.state)
        if started.run_id is None:
            return self._announce(platform, "is on its schedule", started.version)
        return self._announce(platform, f"is started as run {started.run_id}", started.version)

    def _take_over(self, job_id: str, version: int, state: str) -> None:
        """Remember what the platform answered."""
        raise NotImplementedError

    def run(self) -> Outcome:
        """Save a new version and start exactly that (clause B102).

        A build that is still going on is waited for; its progress goes to stderr.
        """
        if self._is_suppressed():
            return True, ""
        platform = self._configured("run")
        if isinstance(platform, tuple):
            return platform
        problem = self._check_before_save()
        if problem is not None:
            return failure(problem)
        doing = "saving"
        try:
            saved = self._save(platform)
            # What this server does not run is refused at once, and not after a long build.
            if saved.image_key and self._is_workflow:
                doing = f"building the image of version {saved.version} of"
                platform.wait_for_image(saved.image_key, progress=progress)
            doing = f"version {saved.version} is saved, but starting"
            return self._start(platform, saved.version)
        except _REPORTED as error:
            return failure(f"{doing} {self.name!r} failed: {error}")

    def stop(self) -> Outcome:
        """End all running instances in the job's environment; a workflow leaves its schedule (B124)."""

        def work(platform: _platform.Platform) -> str:
            runs = platform.stop_job(internal_name(self.name), self.environment.value)
            self._run_cache.clear()
            return f"stopped {_runs_text(runs)} of {self.name!r}"

        return self._perform("stop", work)

    def remove(self, all_versions: bool = True) -> Outcome:
        """Stop the job and remove all versions, or only the latest (clause B125)."""

        def work(platform: _platform.Platform) -> str:
            versions = platform.remove_job(
                internal_name(self.name), self.environment.value, all_versions=all_versions
            )
            shown = ", ".join(str(version) for version in versions) or "none"
            return f"removed versions of {self.name!r} in {self.environment}: {shown}"

        return self._perform("remove", work)

    def promote(
        self, from_environment: Environment | str | None = None, version: str | int | None = None
    ) -> Outcome:
        """Copy a version to the next environment (clauses B119 to B123).

        Args:
            from_environment: dev or pre; None moves every environment's version by one step.
            version: None means the latest of the source environment.

        Raises:
            ValueError: no such environment, or a version that is no number.
        """
        source = Environment.parse(from_environment, field="from_environment")
        wanted = None if version is None else int(version)

        def work(platform: _platform.Platform) -> str:
            moves = platform.promote_job(
                internal_name(self.name), from_environment=source.value if source else None, version=wanted
            )
            if not moves:
                raise NotFoundError("there is no version that could be moved")
            return "; ".join(moves)

        return self._perform("promote", work)

    def _rerun(self, run_id: int | str, *, version: str | int | None, full: bool) -> Outcome:
        wanted = None if version is None else int(version)

        def work(platform: _platform.Platform) -> str:
            if not self._is_workflow:
                raise ConflictError("it is no workflow, so its runs cannot be repeated")
            number = _run_number(run_id)
            if number is None:
                raise NotFoundError(f"there is no run {run_id!r}")
            started = platform.rerun(
                number,
                name=internal_name(self.name),
                environment=self.environment.value,
                version=wanted,
                full=bool(full),
            )
            self._run_cache.clear()
            return (
                f"run {started.run_id} repeats run {run_id} of {self.name!r} with version {started.version}"
            )

        return self._perform("rerun", work)

    def _perform(self, operation: str, work: Any) -> Outcome:
        platform = self._configured(operation)
        if isinstance(platform, tuple):
            return platform
        try:
            return True, str(work(platform))
        except PlatformError as error:
            return failure(f"{operation} of {self.name!r} failed: {error}")

    def __run_command__(self, command: str, *args: Any, **kwargs: Any) -> Outcome:
        """Carry out run, save, start or rerun; another command is (False, message) (clause B133).

        Raises:
            ValueError: rerun without a run id (clause B132).
        """
        if command in ("run", "save", "start"):
            result: Outcome = getattr(self, command)()
            return result
        if command == "rerun":
            named = dict(zip(("run_id", "version", "full"), args)) | kwargs
            if named.get("run_id") is None:
                raise ValueError("rerun needs run_id, the number of the run to repeat")
            return self._rerun(
                named["run_id"], version=named.get("version"), full=bool(named.get("full", False))
            )
        return failure(f"unknown command {command!r}; it must be run, save, start or rerun")

    # -- looking -------------------------------------------------------------------------------
    def versions(self, environment: Environment | str | None = None) -> list[int]:
        """Version numbers in an environment, or in all of them, ascending (clause B118)."""
        where = Environment.parse(environment)
        found = self._require_platform().list_versions(
            internal_name(self.name), environment=where.value if where else None
        )
        return sorted({int(version) for version in found})

    @classmethod
    def ls(
        cls, environment: Environment | str | None = None, filter_by: str | None = None
    ) -> list[dict[str, Any]]:
        """The jobs that the signed-in user may read, in the form of `job ls` (clause B270).

        Called on App, Service, ExcelAddin or Workflow, only those.
        """
        where = Environment.parse(environment)
        found = cls._require_platform().list_jobs(
            environment=where.value if where else None, filter=filter_by
        )
        return [dict(job) for job in found if cls._LISTED is None or job["type"] == cls._LISTED]

    _LISTED: str | None = None

    def runs(
        self, start_time: datetime | None = None, end_time: datetime | None = None, refresh: bool = False
    ) -> list[dict[str, Any]]:
        """Runs of the job in its environment, newest first (clauses B143 to B147).

        Args:
            start_time: Only runs that started then or later; naive means local time.
            end_time: Only runs that started then or before.
            refresh: Always ask; otherwise an answer up to one second old may serve again.
        """
        bounds = microseconds(start_time, field="start_time"), microseconds(end_time, field="end_time")
        key = (internal_name(self.name), self.environment, *bounds)
        cached = None if refresh else self._run_cache.get(key)
        if cached is not None:
            return cached
        found = self._require_platform().list_runs(
            internal_name(self.name), self.environment.value, start_from=bounds[0], start_to=bounds[1]
        )
        runs = newest_first([run_entry(run) for run in found])
        self._run_cache.put(key, runs)
        return runs

    def _own_run(self, platform: _platform.Platform, run_id: int | str) -> Mapping[str, Any]:
        """A run of this job.

        Raises:
            ValueError: there is none of this number (clause B152).
        """
        name = internal_name(self.name)
        unknown = ValueError(f"job {self.name!r} has no run {run_id} in {self.environment}")
        number = _run_number(run_id)
        if number is None:
            raise unknown
        try:
            run = platform.get_run(number)
        except NotFoundError:
            raise unknown from None
        if run["job_name"] != name or run["environment"] != self.environment.value:
            raise unknown
        return run

    def run_details(self, run_id: int | str) -> dict[str, Any]:
        """One run with its tasks (clauses B148 to B152).

        Raises:
            ValueError: the job has no such run.
        """
        platform = self._require_platform()
        run = self._own_run(platform, run_id)
        details = run_entry(run)
        del details["job_name"]
        details["name"] = run.get("display_name") or self.name
        details["tasks"] = []
        if self._is_workflow:
            entries = task_entries(platform.list_run_tasks(int(run_id)))
            details["tasks"] = self.__enrich_task_runs__(entries, details["job_version"])
        return details

    def __enrich_task_runs__(self, task_runs: list[dict[str, Any]], job_version: int) -> list[dict[str, Any]]:
        """Attach name, dependencies and resources of the version that ran, and add the tasks that
        did not run (clauses B150, B151, B153). The list is changed and returned.

        Raises:
            ValueError: the job is no workflow.
        """
        if not self._is_workflow:
            raise ValueError(f"{self.name!r} is no workflow, so its runs have no tasks")
        definition = definition_of(
            self._require_platform(), internal_name(self.name), self.environment.value, int(job_version)
        )
        return enriched(task_runs, definition, self._current_task_names())

    def __resolve_task_id__(self, task_name: str | None, task_id: int | str | None = None) -> int | None:
        """Id of a task from an id, or from a name in the workflow as loaded now (clause B154).

        Raises:
            ValueError: no task of that name.
        """
        if not self._is_workflow:
            return None
        if task_id is not None:
            return int(task_id)
        if task_name is None:
            return None
        return self._id_of_name(task_name, self._current_task_names())

    def _id_of_name(self, task_name: str, names: Mapping[int, str]) -> int:
        for number, name in names.items():
            if name == task_name:
                return number
        raise ValueError(f"workflow {self.name!r} has no task named {task_name!r}")

    def _task_id_in_run(
        self, platform: _platform.Platform, run: Mapping[str, Any], task_name: str | None
    ) -> int | None:
        """Id of a task by its name in the version that ran (clauses B150, B155)."""
        if task_name is None:
            return None
        definition = definition_of(
            platform, internal_name(self.name), self.environment.value, int(run["job_version"])
        )
        if definition is None:
            return self.__resolve_task_id__(task_name)
        return self._id_of_name(task_name, {int(task["child_number"]): task["name"] for task in definition})

    def logs(
        self,
        run_id: int,
        task_name: str | None = None,
        stderr: bool = False,
        lines: int = 5000,
        task_id: int | None = None,
    ) -> str:
        """The last lines of a task's output; "" when there is none (clauses B155 to B158).

        Args:
            run_id: The run.
            task_name: Name of the task as in `run_details`; ignored for other types than workflows.
            stderr: The error stream instead of the output.
            lines: How many lines at most.
            task_id: The task's id; wins over the name. With neither: the run's own log.

        Raises:
            ValueError: the job has no such run, or the run no such task.
        """
        platform = self._require_platform()
        run = self._own_run(platform, run_id)
        number: int | None = None
        if self._is_workflow:
            number = int(task_id) if task_id is not None else self._task_id_in_run(platform, run, task_name)
        try:
            return platform.read_log(int(run_id), task_id=number, stderr=stderr, lines=lines)
        except NotFoundError as error:
            raise ValueError(f"run {run_id} of {self.name!r} has no task {number}") from error

    def result(self, run_id: int | str, task_name: str | None = None, task_id: int | None = None) -> Any:
        """The object that a task returned, None when there is none (clauses B159 to B161).

        Raises:
            ValueError: no task of that name.
            ResultLoadError: it needs a module or class that this interpreter lacks.
        """
        if not self._is_workflow:
            return None
        platform = self._require_platform()
        try:
            run = self._own_run(platform, run_id)
        except ValueError:
            return None
        number = int(task_id) if task_id is not None else self._task_id_in_run(platform, run, task_name)
        if number is None:
            return None
        try:
            data = platform.get_result(int(run_id), number)
        except NotFoundError:
            return None
        return (
            None if data is None else load_result(data, of=f"task {number} in run {run_id} of {self.name!r}")
        )


def _run_number(run_id: object) -> int | None:
    """The number of a run, None for what cannot be one."""
    try:
        return int(run_id)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return None


def _runs_text(runs: Any) -> str:
    shown = ", ".join(str(run) for run in runs)
    return f"runs {shown}" if shown else "no run (none was active)"
