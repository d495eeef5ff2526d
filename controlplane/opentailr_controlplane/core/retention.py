"""What leaves by retention, as far as the hot state knows of it.

Which runs are old enough is found in the store, outside the engine; here it is judged once more by what is
true now, so that nothing leaves that something still needs.
"""

from __future__ import annotations

from .commands import Retire, RetireReply
from .model import Agent, State
from .placement import close, live, release
from .values import AgentState, ImageState

_ENDED = (ImageState.READY, ImageState.FAILED)


def retire(state: State, command: Retire) -> RetireReply:
    """Takes out finished runs, instant versions without one, nodes not heard of for long, unused images."""
    agents = _agents(state, command.nodes_before) if command.nodes_before else []
    runs = _runs(state, command.run_ids) if command.run_ids else []
    instants = _instants(state, command.instants) if command.instants else []
    images = _images(state, command.images_before) if command.images_before else []
    retired = state.dirty.retired
    retired.runs.extend(runs)
    retired.agents.extend(agents)
    retired.images.extend(images)
    retired.versions.extend(instants)
    return RetireReply(tuple(runs), tuple(agents), tuple(images), tuple(instants))


def _runs(state: State, run_ids: tuple[int, ...]) -> list[int]:
    """Those that are over, with no attempt whose processes may still exist on a node and no rerun under way.

    The store knows nothing of a rerun that was committed after it was asked.
    """
    present = {attempt.run_id for attempt in state.attempts.values()}
    needed = present.union(state.runs, (run.original_run_id for run in state.runs.values()))
    chosen = [run_id for run_id in run_ids if run_id not in needed]
    for run_id in chosen:
        state.expiries.pop(run_id, None)
    return chosen


def _instants(state: State, versions: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    """Versions made for one instant run, unless one of their runs goes on."""
    active = {run.plan.definition_id for run in state.runs.values()}
    chosen = []
    for job_id, number in versions:
        job = state.jobs.get(job_id)
        version = job.versions.get(number) if job is not None else None
        if job is None or version is None or not version.instant or version.definition_id in active:
            continue
        del job.versions[number]
        state.plans.pop(version.definition_id, None)
        state.dirty.versions.pop((job_id, number), None)
        chosen.append((job_id, number))
    return chosen


def _agents(state: State, before: int) -> list[str]:
    """Nodes that are down and were last heard before a time.

    Attempts that a node took along count as gone from then on. A node that a person keeps from new work
    stays, as that decision has to be there when it comes back.
    """
    chosen = []
    for agent in list(state.agents.values()):
        if agent.state is not AgentState.DOWN or agent.last_heard >= before or agent.builds:
            continue
        if any(live(attempt) for attempt in agent.attempts.values()):
            continue
        _give_up_attempts(state, agent)
        if agent.schedulable:
            close(state, agent)
            state.outgoing.pop(agent.agent_id, None)
            state.dirty.agents.pop(agent.agent_id, None)
            del state.agents[agent.agent_id]
            chosen.append(agent.agent_id)
    return chosen


def _give_up_attempts(state: State, agent: Agent) -> None:
    for attempt in list(agent.attempts.values()):
        attempt.gone = True
        state.dirty.attempts[attempt.attempt_id] = attempt
        release(state, agent, attempt)


def _images(state: State, before: int) -> list[str]:
    used = {version.image_key for job in state.jobs.values() for version in job.versions.values()}
    chosen = [
        image.image_key
        for image in state.images.values()
        if image.state in _ENDED
        and image.image_key not in used
        and not image.waiting
        and (image.end_time or image.create_time) < before
    ]
    for key in chosen:
        del state.images[key]
        state.dirty.images.pop(key, None)
    return chosen
