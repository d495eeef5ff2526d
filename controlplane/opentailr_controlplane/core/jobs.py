"""Commands about jobs and runs: save, start, stop, rerun, promote, remove, restore."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from .commands import (
    CancelRun,
    Promote,
    PromoteReply,
    Remove,
    Rerun,
    RerunReply,
    Restore,
    SaveReply,
    SaveVersion,
    StartReply,
    StartVersion,
    StopJob,
    StopReply,
    VersionsReply,
)
from .definition import Plan, check_definition
from .errors import FailedPrecondition, InvalidArgument, NotFound
from .flow import cancel_run, check_fit, start_run
from .images import check_pre_script, ensure_image
from .model import Job, NeedsPlan, NeedsPrior, State, Version
from .people import run_state, version_state
from .schedules import check_predecessor
from .values import Acl, Environment, ImageState, Instant, JobDefinition, JobType, PeopleState, RunState
from .waiting import start_notices


def find_job(state: State, name: str, environment: Environment) -> Job:
    """The job of an internal name (B5).

    Raises:
        NotFound: no such job in the environment.
    """
    job_id = state.job_names.get((name, environment))
    if job_id is None:
        raise NotFound(
            "job_not_found",
            f"No job {name!r} in {environment.text}.",
            field="name",
            hint="Save it first, or name another environment.",
        )
    return state.jobs[job_id]


def find_version(job: Job, number: int) -> Version:
    """A version that is not removed, 0 for the latest (B104).

    Raises:
        NotFound: there is none.
    """
    version = job.versions.get(number) if number else job.latest()
    if version is None or version.removed:
        what = f"version {number}" if number else "version that is not removed"
        raise NotFound(
            "version_not_found",
            f"Job {job.name!r} in {job.environment.text} has no {what}.",
            field="version",
            hint="List its versions, or restore it.",
        )
    return version


def save(state: State, command: SaveVersion, now: Instant) -> SaveReply:
    """Saves a new immutable version; its image begins to be built (B57a, B98 to B101)."""
    checked = command.checked or check_definition(command.definition)
    definition = checked.definition
    if definition.environment is not Environment.DEV and not definition.repository_verified:
        raise FailedPrecondition(
            "repository_not_verified",
            f"{definition.name!r} cannot be saved to {definition.environment.text} directly: its repository "
            "is not verified; deploy to dev and promote.",
            field="definition.environment",
            hint="Commit and push, deploy to dev, and promote that version.",
        )
    job_id = state.job_names.get((definition.name, definition.environment))
    job = state.jobs[job_id] if job_id is not None else None
    if job is not None and job.type is not definition.type:
        raise FailedPrecondition(
            "job_type_clash",
            f"Job {job.name!r} in {job.environment.text} is of type {job.type.text}, "
            f"not {definition.type.text}.",
            field="definition.type",
            hint="Choose another name.",
        )
    check_pre_script(state, definition.recipe)
    if command.instant:
        _check_instant(definition)
    check_predecessor(state, definition)
    if job is None:
        acl = command.acl if command.acl is not None else command.default_acl
        job = _new_job(state, definition.name, definition.environment, definition.type, acl, now)
        job.display_name = definition.display_name
    elif not command.instant:
        job.acl = command.acl if command.acl is not None else job.acl
        job.display_name = definition.display_name
    definition_id = state.next_definition
    state.next_definition += 1
    state.dirty.counters = True
    version = Version(
        job.job_id,
        job.next_version,
        definition_id,
        checked.image_key,
        len(definition.tasks),
        definition.repository_verified,
        not definition.schedule.empty,
        now.wall,
        command.actor,
        instant=command.instant,
    )
    job.next_version += 1
    job.versions[version.version] = version
    state.dirty.jobs[job.job_id] = job
    state.dirty.versions[job.job_id, version.version] = version
    state.dirty.definitions[definition_id] = checked
    state.plans[definition_id] = checked.plan(definition_id)
    image = ensure_image(state, definition.recipe, definition.bundle, checked.image_key, now)
    return SaveReply(
        job.job_id,
        version.version,
        version_state(job, version, image),
        now.wall,
        checked.image_key,
        definition.run_as,
    )


def start(state: State, command: StartVersion, now: Instant) -> StartReply:
    """Starts a version, or puts it on its schedule (B103 to B106)."""
    run_date = _run_date(command.run_date)
    job = find_job(state, command.name, command.environment)
    version = find_version(job, command.version)
    if version.has_schedule and not command.now:
        if job.scheduled_version == version.version:
            raise FailedPrecondition(
                "already_scheduled",
                f"Version {version.version} of {job.name!r} is on its schedule already.",
                field="version",
                hint="Stop it first.",
            )
        job.scheduled_version = version.version
        state.dirty.jobs[job.job_id] = job
        notice = "The schedule is stored; this version of the platform does not start runs by schedules yet."
        return StartReply(0, version.version, PeopleState.SCHEDULED, job.job_id, (notice,))
    _startable(state, job, version)
    plan = _plan(state, version)
    run = start_run(state, version, plan, actor=command.actor, run_date=run_date, now=now)
    return StartReply(run.run_id, version.version, run_state(run), job.job_id, start_notices(state, run))


def rerun(state: State, command: Rerun, now: Instant) -> RerunReply:
    """Starts a new run after a finished one (B126 to B132)."""
    active = state.runs.get(command.run_id)
    if active is not None:
        raise FailedPrecondition(
            "run_active",
            f"Run {command.run_id} is still active.",
            field="run_id",
            hint="Wait for its end, or stop it.",
        )
    prior = state.priors.get(command.run_id)
    if prior is None or (prior.state is not None and not prior.state.terminal):
        # Not active here and not ended there: its end is in the commit under way, and is read after that.
        raise NeedsPrior(command.run_id)
    job = state.jobs.get(prior.job_id)
    if prior.state is None or job is None:
        raise _no_run(command.run_id)
    environment = command.environment
    if (command.name and command.name != job.name) or (environment and environment is not job.environment):
        raise NotFound(
            "run_of_another_job",
            f"Run {command.run_id} is one of {job.name!r} in {job.environment.text}.",
            field="run_id",
            hint="Name a run of this job.",
        )
    ran = job.versions.get(prior.version)
    # Of an instant run no saved version has the code.
    default = ran.version if ran is not None and ran.instant else 0
    version = find_version(job, command.version or default)
    _startable(state, job, version)
    plan = _plan(state, version)
    if not command.full:
        if prior.state is RunState.EXPIRED:
            raise FailedPrecondition(
                "results_expired",
                f"The results of run {command.run_id} have expired.",
                field="run_id",
                hint="Rerun everything (full).",
            )
        check_fit(plan, prior)
    run = start_run(
        state, version, plan, actor=command.actor, run_date="", now=now, prior=prior, partial=not command.full
    )
    return RerunReply(run.run_id, version.version)


def stop(state: State, command: StopJob, now: Instant) -> StopReply:
    """Ends active runs of a job; without a run id also takes it off its schedule (B124)."""
    job = find_job(state, command.name, command.environment)
    of_job = state.job_runs.get(job.job_id, {})
    if command.run_id:
        if command.run_id in state.runs and command.run_id not in of_job:
            raise NotFound(
                "run_of_another_job",
                f"Run {command.run_id} is not one of {job.name!r} in {job.environment.text}.",
                field="run_id",
                hint="Name a run of this job.",
            )
        chosen = [command.run_id] if command.run_id in of_job else []
    else:
        chosen = list(of_job)
        _unschedule(state, job)
    return _cancel(state, chosen, command.actor, now)


def cancel(state: State, command: CancelRun, now: Instant) -> StopReply:
    """Ends one run; a run that has ended is none to end."""
    if not 0 < command.run_id < state.next_run:
        raise _no_run(command.run_id)
    return _cancel(state, [command.run_id] if command.run_id in state.runs else [], command.actor, now)


def _cancel(state: State, run_ids: list[int], actor: str, now: Instant) -> StopReply:
    for run_id in run_ids:
        cancel_run(state, state.runs[run_id], actor, now)
    return StopReply(tuple(run_ids))


def promote(state: State, command: Promote, now: Instant) -> PromoteReply:
    """Copies versions one environment on, all judged on the state at the call (B119 to B123)."""
    if command.environment is Environment.PROD:
        raise FailedPrecondition(
            "promote_from_prod",
            "prod is the last environment.",
            field="from_environment",
            hint="Name dev or pre.",
        )
    wanted = [command.environment] if command.environment else [Environment.PRE, Environment.DEV]
    moves: list[tuple[Job, Version, Environment]] = []
    for source in wanted:
        job_id = state.job_names.get((command.name, source))
        if command.environment:
            job = find_job(state, command.name, source)
            version = find_version(job, command.version)
        else:
            if job_id is None:
                continue
            job = state.jobs[job_id]
            found = job.versions.get(command.version) if command.version else job.latest()
            if found is None or found.removed:
                continue
            version = found
        if version.instant:
            raise FailedPrecondition(
                "version_instant",
                f"Version {version.version} of {job.name!r} was made for one instant run only.",
                field="version",
                hint="Save the workflow and promote that version.",
            )
        if not version.verified:
            raise FailedPrecondition(
                "repository_not_verified",
                f"Version {version.version} of {job.name!r} in {source.text} was saved without a verified "
                "repository.",
                field="version",
                hint="Commit and push, save again, and promote that version.",
            )
        target = Environment(source + 1)
        _check_target(state, job, version, target)
        moves.append((job, version, target))
    if not moves:
        raise NotFound(
            "nothing_to_promote",
            f"Neither dev nor pre has such a version of {command.name!r}.",
            field="name",
            hint="Save it first.",
        )
    for job, version, target in moves:
        _copy(state, job, version, target, command.actor, now)
    return PromoteReply(
        tuple(
            f"{job.name} version {version.version}: {job.environment.text} to {target.text}"
            for job, version, target in moves
        )
    )


def _check_target(state: State, job: Job, version: Version, environment: Environment) -> None:
    target_id = state.job_names.get((job.name, environment))
    if target_id is None:
        return
    target = state.jobs[target_id]
    if target.type is not job.type:
        raise FailedPrecondition(
            "job_type_clash",
            f"Job {job.name!r} in {environment.text} is of type {target.type.text}, not {job.type.text}.",
            field="name",
            hint="Rename one of them.",
        )
    there = target.versions.get(version.version)
    if there is not None and there.definition_id != version.definition_id:
        raise FailedPrecondition(
            "version_differs",
            f"{environment.text} has another version {version.version} of {job.name!r}.",
            field="version",
            hint="Save a new version and promote that.",
        )


def _copy(
    state: State, job: Job, version: Version, environment: Environment, actor: str, now: Instant
) -> None:
    target_id = state.job_names.get((job.name, environment))
    if target_id is None:
        target = _new_job(state, job.name, environment, job.type, job.acl, now)
    else:
        target = state.jobs[target_id]
    there = target.versions.get(version.version)
    if there is None:
        there = replace(version, job_id=target.job_id, create_time=now.wall, created_by=actor)
        target.versions[there.version] = there
        target.versions = dict(sorted(target.versions.items()))
        target.next_version = max(target.next_version, there.version + 1)
    elif not there.removed:
        return
    there.removed = False
    target.display_name = job.display_name
    state.dirty.jobs[target.job_id] = target
    state.dirty.versions[target.job_id, there.version] = there


def remove(state: State, command: Remove, now: Instant) -> VersionsReply:
    """Stops and hides all versions, or one (B125)."""
    job = find_job(state, command.name, command.environment)
    one = find_version(job, 0 if command.all_versions else command.version)
    chosen = (
        [version for version in job.versions.values() if not version.removed]
        if command.all_versions
        else [one]
    )
    numbers = {version.version for version in chosen}
    for version in chosen:
        version.removed = True
        state.dirty.versions[job.job_id, version.version] = version
    if job.scheduled_version in numbers:
        _unschedule(state, job)
    active = [
        run_id for run_id in state.job_runs.get(job.job_id, {}) if state.runs[run_id].version in numbers
    ]
    _cancel(state, active, command.actor, now)
    return _told(job, command.version, numbers)


def restore(state: State, command: Restore, now: Instant) -> VersionsReply:
    """Brings removed versions back; one that is there already is no error."""
    job = find_job(state, command.name, command.environment)
    if command.version and command.version not in job.versions:
        raise NotFound(
            "version_not_found",
            f"Job {job.name!r} in {job.environment.text} never had a version {command.version}.",
            field="version",
            hint="List its versions.",
        )
    chosen = [
        version
        for version in job.versions.values()
        if version.removed and command.version in (0, version.version)
    ]
    for version in chosen:
        version.removed = False
        state.dirty.versions[job.job_id, version.version] = version
    return _told(job, command.version, {version.version for version in chosen})


def _told(job: Job, asked: int, numbers: set[int]) -> VersionsReply:
    """The numbers without those of instant versions, which nobody saved, unless one was asked for."""
    return VersionsReply(
        tuple(sorted(number for number in numbers if number == asked or not job.versions[number].instant))
    )


def _check_instant(definition: JobDefinition) -> None:
    if definition.type is not JobType.BATCH or definition.environment is not Environment.DEV:
        raise InvalidArgument(
            "instant_not_possible",
            f"{definition.name!r} is of type {definition.type.text} in {definition.environment.text}; "
            "instant runs are for workflows in dev.",
            field="instant",
            hint="Save a version and start that.",
        )
    if not definition.schedule.empty:
        raise InvalidArgument(
            "instant_not_possible",
            f"{definition.name!r} has a schedule; an instant run happens once, at once.",
            field="definition.schedule",
            hint="Leave the schedule out.",
        )


def _new_job(
    state: State, name: str, environment: Environment, job_type: JobType, acl: Acl, now: Instant
) -> Job:
    job = Job(f"job_{state.installation}_{state.next_job}", name, name, environment, job_type, acl, now.wall)
    state.next_job += 1
    state.dirty.counters = True
    state.jobs[job.job_id] = job
    state.job_names[name, environment] = job.job_id
    state.dirty.jobs[job.job_id] = job
    return job


def _unschedule(state: State, job: Job) -> None:
    if job.scheduled_version:
        job.scheduled_version = 0
        state.dirty.jobs[job.job_id] = job


def _startable(state: State, job: Job, version: Version) -> None:
    if job.type is not JobType.BATCH:
        raise FailedPrecondition(
            "job_type_not_supported",
            f"{job.name!r} is of type {job.type.text}; this version of the platform runs workflows only.",
            field="name",
            hint="Save it now and start it after an upgrade.",
        )
    image = state.images[version.image_key]
    if image.state is ImageState.FAILED:
        message = image.cause.message if image.cause is not None else ""
        raise FailedPrecondition(
            "build_failed",
            f"The build for version {version.version} of {job.name!r} failed: {message}",
            field="version",
            hint="Read the build log, correct the recipe and save again; saving also retries the build.",
        )


def _plan(state: State, version: Version) -> Plan:
    plan = state.plans.get(version.definition_id)
    if plan is None:
        raise NeedsPlan(version.definition_id)
    return plan


def _no_run(run_id: int) -> NotFound:
    return NotFound("run_not_found", f"There is no run {run_id}.", field="run_id", hint="List the runs.")


def _run_date(text: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidArgument(
            "bad_run_date", f"{text[:40]!r} is not a date.", field="run_date", hint="Write it as YYYY-MM-DD."
        ) from None
