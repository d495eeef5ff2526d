"""Rules of schedules that only a look at the other jobs can check (B90, B94)."""

from __future__ import annotations

from .errors import FailedPrecondition, InvalidArgument
from .model import Job, NeedsPlan, State
from .values import Environment, JobDefinition, Schedule


def check_predecessor(state: State, definition: JobDefinition) -> None:
    """Refuses a schedule whose predecessor does not exist, or leads back to the job itself (B94).

    Which predecessor another job has is told by its version that is on its schedule, else by its latest one.

    Raises:
        FailedPrecondition: there is no such job, or the chain is a circle; the message shows it.
        InvalidArgument: several jobs have the display name.
        NeedsPlan: the definition of a job in the chain must be read first.
    """
    schedule, environment = definition.schedule, definition.environment
    predecessor = find_predecessor(state, schedule, environment)
    if predecessor is None:
        if not _named(schedule):
            return
        raise FailedPrecondition(
            "predecessor_missing",
            f"There is no job {_named(schedule)[:80]!r} in {environment.text} to run after.",
            field=_field(schedule),
            hint="Save that job first, or correct the name.",
        )
    chain = [definition.name]
    while predecessor is not None and predecessor.name not in chain:
        chain.append(predecessor.name)
        predecessor = _predecessor_of(state, predecessor)
    if predecessor is not None and predecessor.name == definition.name:
        raise FailedPrecondition(
            "schedule_circle",
            f"{definition.name!r} would run after itself: {' after '.join([*chain, definition.name])}.",
            field=_field(schedule),
            hint="Take the predecessor of one of them away.",
        )


def find_predecessor(state: State, schedule: Schedule, environment: Environment) -> Job | None:
    """The job that a schedule waits for: by id if there is one, else by internal or display name (B90).

    A job of which every version was removed does not count.
    """
    if schedule.run_after_job_id:
        job = state.jobs.get(schedule.run_after_job_id)
        found = [job] if job is not None and job.environment is environment else []
    else:
        name = schedule.run_after_job_name
        job_id = state.job_names.get((name, environment)) if name else None
        found = [state.jobs[job_id]] if job_id is not None else []
        if name and not found:
            found = [
                job
                for job in state.jobs.values()
                if job.environment is environment and job.display_name == name
            ]
    found = [job for job in found if job.latest() is not None]
    if len(found) > 1:
        names = ", ".join(sorted(job.name for job in found)[:10])
        raise InvalidArgument(
            "name_ambiguous",
            f"{schedule.run_after_job_name[:80]!r} is the display name of several jobs: {names}.",
            field=_field(schedule),
            hint="Give the internal name.",
        )
    return found[0] if found else None


def _predecessor_of(state: State, job: Job) -> Job | None:
    version = job.versions.get(job.scheduled_version) or job.latest()
    if version is None or not version.has_schedule:
        return None
    plan = state.plans.get(version.definition_id)
    if plan is None:
        raise NeedsPlan(version.definition_id)
    return find_predecessor(state, plan.definition.schedule, job.environment)


def _named(schedule: Schedule) -> str:
    return schedule.run_after_job_id or schedule.run_after_job_name


def _field(schedule: Schedule) -> str:
    by_id = bool(schedule.run_after_job_id)
    return "definition.schedule.run_after_job_id" if by_id else "definition.schedule.run_after_job_name"
