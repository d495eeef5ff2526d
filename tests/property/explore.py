"""Every history of both cores up to a bound: breadth first, no world twice.

Two worlds are one when nothing but absolute numbers tells them apart: epochs, revisions and numbers of
reports count from the present ones, and times from now.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from opentailr_agent.core import effects as do
from opentailr_controlplane.core import effects as fx
from opentailr_controlplane.core.commands import AgentHello
from opentailr_controlplane.core.model import Agent

from .joint import Action, Joint
from .sides import Link, Node

SETTLED = 20
"""From every so many worlds, and from each where nothing goes on by itself, the end is looked for."""


@dataclass
class Explored:
    """What was seen."""

    worlds: int = 0
    steps: int = 0
    depth: int = 0
    """Every history of so many actions was carried out."""
    settled: int = 0
    """Worlds from which it was seen that everything ends once faults stop."""
    complete: bool = False
    """No history leads anywhere else, however long."""
    actions: Counter[str] = field(default_factory=Counter)


def explore(world: Joint, *, faults: int, kinds: Iterable[str], limit: int, depth: int = 1_000) -> Explored:
    """Carries out every history with at most so many faults, until `limit` steps or `depth` are reached.

    Args:
        world: Where to begin.
        faults: Most faults in one history.
        kinds: Names of the faults that may happen.
        limit: Most steps; a depth that is not finished by then does not count.
        depth: Longest histories.
    """
    allowed = frozenset(kinds)
    seen = Explored()
    known = {_key(world, faults)}
    frontier: list[tuple[bytes, int, tuple[Action, ...]]] = [(world.copy(), faults, ())]
    while frontier and seen.depth < depth:
        following: list[tuple[bytes, int, tuple[Action, ...]]] = []
        for number, (data, left, history) in enumerate(frontier):
            here = Joint.restore(data)
            choices = [(action, left) for action in here.actions()]
            if left:
                choices += [(action, left - 1) for action in here.faults() if action[0] in allowed]
            if number % SETTLED == 0 or not any(True for _ in here.actions()):
                _settle(here, history)
                seen.settled += 1
            for action, rest in choices:
                there = Joint.restore(data)
                try:
                    there.act(action)
                except Exception as error:
                    error.add_note(f"after {[*history, action]}")
                    raise
                seen.steps += 1
                seen.actions[action[0]] += 1
                key = _key(there, rest)
                if key not in known:
                    known.add(key)
                    following.append((there.copy(), rest, (*history, action)))
            if seen.steps >= limit:
                seen.worlds = len(known)
                return seen
        frontier = following
        seen.depth += 1
    seen.worlds = len(known)
    seen.complete = not frontier
    return seen


def _settle(world: Joint, history: tuple[Action, ...]) -> None:
    try:
        world.settle()
    except Exception as error:
        error.add_note(f"once faults stop, after {[*history]}")
        raise


def _key(world: Joint, left: int) -> bytes:
    parts = (left, _control_plane(world), tuple(_node(world, node) for node in world.nodes), _links(world))
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _control_plane(world: Joint) -> Any:
    state, now = world.state, world.now
    runs = tuple(
        (
            key,
            run.state.name,
            tuple(
                (task.state.name, task.fence, task.infra_failures, max(0, task.not_before - now.wall))
                for task in run.tasks.values()
            ),
        )
        for key, run in state.runs.items()
    )
    attempts = tuple(
        (key, attempt.state.name, attempt.stop_wanted) for key, attempt in sorted(state.attempts.items())
    )
    agents = tuple(
        (
            key, agent.state.name, agent.schedulable, agent.attempt_limit - agent.attempts_sent,
            agent.build_limit - agent.builds_sent, agent.full_wanted, agent.full_revision - agent.revision,
            min(now.mono - agent.lease_start, state.settings.lost_after), tuple(agent.attempts),
            tuple((build.build_id, build.state.name) for build in agent.builds.values()),
        )
        for key, agent in sorted(state.agents.items())
    )  # fmt: skip
    images = tuple((image.state.name, image.tries) for image in state.images.values())
    order = tuple(state.open_agents), tuple(state.build_queue), max(0, state.lease_floor - now.mono)
    return runs, attempts, agents, images, order


def _node(world: Joint, node: Node) -> Any:
    core = node.core
    known = world.state.agents.get(node.agent_id)
    acked = known.acked_seq if known and known.journal_id == f"{node.agent_id}/{node.journal}" else -1
    revision = known.revision if known else 0
    records = tuple(
        (
            key, record.phase.name, record.desired.name, record.told, record.handed_over, record.stop_sent,
            record.forgotten, record.drained, record.logs_shipped, record.spec is None,
        )
        for key, record in sorted(core.attempts.items())
    )  # fmt: skip
    outbox = tuple((e.seq - acked, e.report.subject, int(e.report.state)) for e in core.outbox.entries)
    waiting = tuple((key, int(report.state)) for key, report in core.outbox.waiting.items())
    builds = tuple((key, record.done) for key, record in sorted(core.builds.items()))
    return (
        records, outbox, waiting, builds, core.outbox.sent - acked, core.connected, core.synced,
        core.revision - revision, node.revision - revision, sorted(core.desired),
        core.attempt_limit - core.received_attempts, core.build_limit - core.received_builds,
        sorted(node.processes), sorted((key, end.state.name) for key, end in node.outcomes.items()),
        [_work(item) for item in node.work], node.journal, node.epoch == (known.epoch if known else 0),
    )  # fmt: skip


def _work(item: do.Action | tuple[str, str]) -> str:
    if isinstance(item, tuple):
        return repr(item)
    name = getattr(item, "attempt_id", "") or getattr(item, "log_id", "") or getattr(item, "build_id", "")
    return f"{type(item).__name__} {name}"


def _links(world: Joint) -> Any:
    return tuple(_link(link, world.state.agents.get(link.agent_id)) for link in world.links)


def _link(link: Link, agent: Agent | None) -> Any:
    base = agent.revision if agent is not None else 0
    acked = agent.acked_seq if agent is not None else 0
    epoch = agent.epoch if agent is not None else 0
    up = tuple(_frame(frame, base, acked, epoch) for frame in link.up)
    down = tuple(_effect(effect, base, acked) for effect in link.down)
    return link.agent_id, link.alive, link.open, link.epoch == epoch, bool(link.epoch), up, down


def _frame(frame: Any, base: int, acked: int, epoch: int) -> Any:
    if isinstance(frame, AgentHello):
        return (
            "hello",
            frame.journal_id,
            epoch - frame.last_epoch if frame.last_epoch else -1,
            frame.inventory,
        )
    if frame[0] == "applied":
        return "applied", frame[1] - base, frame[2]
    if frame[0] == "report":
        return tuple((e.seq - acked, e.report.subject, int(e.report.state)) for e in frame[1])
    return frame


def _effect(effect: fx.Effect, base: int, acked: int) -> Any:
    match effect:
        case fx.Desired():
            orders = tuple((order.attempt_id, order.stop) for order in effect.attempts)
            builds = tuple(order.build_id for order in effect.builds)
            since = effect.full or effect.base - base
            return since, effect.revision - base, orders, builds, effect.removed
        case fx.Acknowledge():
            return "ack", effect.report_seq - acked
        case fx.Welcome():
            return "welcome", effect.verdicts, effect.acked_seq - acked
        case fx.Directive():
            return "directive", effect.schedulable
        case _:
            return type(effect).__name__


def after(world: Joint, done: Callable[[Joint], bool]) -> Joint:
    """Goes the usual course until something holds."""
    while not done(world):
        world.act(next(world.actions()))
    return world
