"""Reads that take several calls or pages, as plain iterations over messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from datatailr.client.connection import Connection
from datatailr.client.words import environment_number
from datatailr.v1 import identity_pb2, job_pb2, node_pb2, run_pb2

_JOBS_A_PAGE = 500
_RUNS_A_PAGE = 1_000
_TASKS_A_PAGE = 5_000


def caller(connection: Connection) -> identity_pb2.GetCallerResponse:
    """Who the token belongs to, and the versions and addresses that the server tells with it."""
    return connection.call(lambda s: s.identity.GetCaller, identity_pb2.GetCallerRequest())


def job(connection: Connection, name: str, environment: str, *, version: int | None = None) -> job_pb2.Job:
    """One version of a job, the latest by default; `name` may be its display name or id."""
    request = job_pb2.GetJobRequest(
        name=name, environment=environment_number(environment), version=version or 0
    )
    return connection.call(lambda s: s.jobs.GetJob, request).job


def jobs(
    connection: Connection,
    *,
    environment: str | None = None,
    include_removed: bool = False,
    filter: str = "",
    sort: str = "",
    offset: int = 0,
    page_size: int = _JOBS_A_PAGE,
) -> Iterator[job_pb2.Job]:
    """The latest version of every job that the caller may read.

    Args:
        connection: The server.
        environment: None for all.
        include_removed: Also jobs of which every version was removed.
        filter: Only those that fit (clauses B276 to B281).
        sort: Their order (clause B282); by name if empty.
        offset: How many to leave out first.
        page_size: How many the server sends at once; whoever needs only the first few asks for few.
    """
    request = job_pb2.ListJobsRequest(
        environment=environment_number(environment),
        page_size=min(page_size, _JOBS_A_PAGE),
        include_removed=include_removed,
        filter=filter,
        sort=sort,
        offset=offset,
    )

    while True:
        page = connection.call(lambda s: s.jobs.ListJobs, request)
        yield from page.jobs

        if not page.next_page_token:
            return

        request.page_token = page.next_page_token


def version_tasks(connection: Connection, version: job_pb2.Job) -> Iterator[job_pb2.TaskDefinition]:
    """The tasks of one version by id, without their arguments."""
    request = job_pb2.ListVersionTasksRequest(
        job_id=version.id,
        environment=version.definition.environment,
        version=version.version,
        page_size=_TASKS_A_PAGE,
    )

    while version.task_count:
        page = connection.call(lambda s: s.jobs.ListVersionTasks, request)
        yield from page.tasks

        if not page.next_page_token:
            return

        request.page_token = page.next_page_token


def versions(connection: Connection, name: str, *, environment: str | None = None) -> list[int]:
    """Version numbers of a job, ascending; none for an unknown job (clause B118)."""
    request = job_pb2.ListVersionsRequest(name=name, environment=environment_number(environment))
    return list(connection.call(lambda s: s.jobs.ListVersions, request).versions)


def run(connection: Connection, run_id: int) -> run_pb2.Run:
    """One run without its tasks."""
    return connection.call(lambda s: s.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id)).run


def runs(
    connection: Connection,
    name: str = "",
    *,
    environment: str | None = None,
    start_from: int | None = None,
    start_to: int | None = None,
    filter: str = "",
    sort: str = "",
    offset: int = 0,
    page_size: int = _RUNS_A_PAGE,
) -> Iterator[run_pb2.Run]:
    """Runs of a job, or of all jobs, newest first.

    Args:
        connection: The server.
        name: Internal name or id; empty for all jobs.
        environment: None for all.
        start_from: Lower bound of start_time in microseconds, inclusive.
        start_to: Upper bound likewise.
        filter: Only those that fit (clauses B276 to B281).
        sort: Their order (clause B282); newest first if empty.
        offset: How many to leave out first.
        page_size: How many the server sends at once; whoever needs only the first few asks for few.
    """
    request = run_pb2.ListRunsRequest(
        name=name,
        environment=environment_number(environment),
        start_time_from=start_from or 0,
        start_time_to=start_to or 0,
        filter=filter,
        sort=sort,
        offset=offset,
        page_size=min(page_size, _RUNS_A_PAGE),
    )

    while True:
        page = connection.call(lambda s: s.runs.ListRuns, request)
        yield from page.runs

        if not page.next_page_token:
            return

        request.page_token = page.next_page_token


def run_tasks(connection: Connection, run_id: int) -> Iterator[run_pb2.RunTask]:
    """The tasks of a run by id, those that did not run included."""
    request = run_pb2.ListRunTasksRequest(run_id=run_id, page_size=_TASKS_A_PAGE)

    while True:
        page = connection.call(lambda s: s.runs.ListRunTasks, request)
        yield from page.tasks

        if not page.next_page_token:
            return

        request.page_token = page.next_page_token


def attempts(connection: Connection, run_id: int, task_ids: Iterable[int] = ()) -> Iterator[run_pb2.Attempt]:
    """The tries of the tasks of a run by task and number; of at most 500 tasks if any are named."""
    request = run_pb2.ListAttemptsRequest(run_id=run_id, task_ids=task_ids, page_size=_TASKS_A_PAGE)

    while True:
        page = connection.call(lambda s: s.runs.ListAttempts, request)
        yield from page.attempts

        if not page.next_page_token:
            return

        request.page_token = page.next_page_token


def set_node_schedulable(
    connection: Connection, node: str, *, schedulable: bool, drain_within: int = 0, reason: str = ""
) -> node_pb2.Node:
    """Takes a node (id or name) out of service or back into it; `drain_within` in microseconds, 0: no end."""
    request = node_pb2.SetNodeSchedulableRequest(
        node=node, schedulable=schedulable, drain_within=drain_within, reason=reason
    )
    return connection.call(lambda s: s.nodes.SetNodeSchedulable, request).node


def nodes(connection: Connection) -> list[node_pb2.Node]:
    """All worker hosts by name."""
    return list(connection.call(lambda s: s.nodes.ListNodes, node_pb2.ListNodesRequest()).nodes)
