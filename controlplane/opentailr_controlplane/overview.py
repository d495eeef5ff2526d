"""What the status page shows, read from the engine and the store."""

from __future__ import annotations

from .core.values import Environment, PeopleState
from .http import NodeLine, Overview, OverviewSource, RunLine
from .ports import Engine
from .security.access import Permission, allowed
from .security.authentication import Caller
from .store.listings import Page, RunQuery
from .store.reads import Reads

_RUNS = 20


def overview_source(engine: Engine, reads: Reads, version: str) -> OverviewSource:
    """The source of the page; lists stay empty without a caller, and hold what the caller may read."""

    async def read(caller: Caller | None) -> Overview:
        nodes = engine.nodes()
        states = await reads.run_counts()
        active = sum(states.get(state, 0) for state in (PeopleState.STARTING, PeopleState.RUNNING))
        counts = [
            ("Nodes connected", str(sum(node.state.connected for node in nodes))),
            ("Tasks on nodes", str(sum(node.attempts for node in nodes))),
            ("Runs waiting", str(states.get(PeopleState.PENDING, 0))),
            ("Runs going on", str(active)),
            ("Runs completed", str(states.get(PeopleState.COMPLETED, 0))),
            ("Runs failed", str(states.get(PeopleState.FAILED, 0))),
        ]
        if caller is None or caller.user is None:
            return Overview(version, counts, (), ())
        user = caller.user
        readable = (
            None
            if user.is_admin
            else [job.job_id for job in engine.jobs() if allowed(user, job.acl, Permission.READ)]
        )
        runs = await reads.runs(RunQuery(job_ids=readable), Page(_RUNS))
        return Overview(
            version,
            counts,
            [
                NodeLine(
                    node.name,
                    node.state.name.lower(),
                    node.attempts,
                    f"{_gib(node.memory_reserved)} of {_gib(node.memory_bytes)}",
                    f"{node.cpu_reserved:g} of {node.cpu:g}",
                )
                for node in nodes
            ],
            [
                RunLine(
                    run.run_id,
                    run.display_name,
                    Environment(run.environment).text,
                    run.version,
                    PeopleState(run.people_state).name.lower(),
                    f"{run.tasks_completed}/{run.tasks_total}",
                    run.submit_time,
                )
                for run, _ in runs
            ],
        )

    return read


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
