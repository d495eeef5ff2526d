"""Each kind of process killed, paused and ended, alone, in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datatailr.v1 import common_pb2

from .conftest import MakeSession
from .driver import RunRecord
from .scenes import begun, grown_up, steady, under
from .servers import eventually
from .session import Session
from .workload import TaskPlan, make_plan
from .world import SHORT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

Harm = Callable[[Session], None]

SERVERS: dict[str, Harm] = {
    "kill-controlplane": lambda s: s.faults.kill(s.world.controlplane),
    "kill-agent": lambda s: s.faults.kill(s.world.nodes[0].server),
    "kill-both": lambda s: _both(s),
    "pause-controlplane": lambda s: s.faults.pause(s.world.controlplane, 2),
    "pause-agent": lambda s: s.faults.pause(s.world.nodes[0].server, 2),
    "terminate-controlplane": lambda s: s.faults.terminate(s.world.controlplane),
    "terminate-agent": lambda s: s.faults.terminate(s.world.nodes[0].server),
    "pause-keeper": lambda s: s.faults.pause_keeper(s.world.nodes[0], 2),
    "kill-stage": lambda s: s.faults.kill_stage(s.world.nodes[0]),
    "pause-user": lambda s: s.faults.pause_user(2),
}
"""None of these may cost an attempt."""


def _both(session: Session) -> None:
    agent = session.beside(lambda: session.faults.kill(session.world.nodes[0].server, down=0.5))
    session.faults.kill(session.world.controlplane, down=0.5)
    agent.join()


def starts(session: Session, record: RunRecord) -> list[int]:
    """Tasks of a run, once for each time that one began."""
    entries = session.world.ledger.entries()
    return sorted(entry.task for entry in entries if entry.run == record.run_id and entry.event == "start")


def test_no_attempt_is_lost_with_a_server(make_session: MakeSession) -> None:
    session = make_session()
    for name, harm in SERVERS.items():
        record = under(session, steady(name), harm)
        assert starts(session, record) == list(range(len(record.plan.tasks))), (name, session.story())
        assert all(task.tried_to_start_time == 1 for task in record.tasks.values()), name
    assert_kept(session)


def test_a_killed_keeper_costs_one_more_attempt(make_session: MakeSession) -> None:
    session = make_session()
    record = under(session, steady("keeper"), lambda s: s.faults.kill_keeper(s.world.nodes[0]))
    tried = [task.tried_to_start_time for task in record.tasks.values()]
    assert max(tried) == 2 and tried.count(2) <= 8, tried
    assert_kept(session)


def test_a_killed_user_process_is_the_users_failure(make_session: MakeSession) -> None:
    session = make_session()
    record = under(session, steady("user"), lambda s: s.faults.kill_user())
    failed = [task for task in record.tasks.values() if task.state == common_pb2.STATE_FAILED]
    assert [(task.cause.kind, task.cause.signal) for task in failed] == [(common_pb2.CAUSE_KIND_SIGNAL, 9)]
    assert failed[0].tried_to_start_time == 1
    assert_kept(session)


def test_a_drained_agents_work_is_done_elsewhere(make_session: MakeSession) -> None:
    session = make_session(agents=2)
    node = session.world.nodes[0]
    node.stops_attempts = True
    node.server.terminate()
    node.server.start()
    under(session, steady("drain", seconds=1.5), lambda s: s.faults.terminate(node.server))
    assert [fault.kind for fault in session.faults.log] == ["agent drain"]
    assert_kept(session)


@pytest.mark.parametrize("victim", ["controlplane", "agent1", "keeper"])
def test_a_pause_longer_than_the_lease(make_session: MakeSession, victim: str) -> None:
    session = make_session(agents=2, leases=SHORT)
    span = session.world.leases.deadly
    node = session.world.nodes[0]
    servers = {server.name: server for server in session.world.servers}
    harm: Harm
    if victim == "keeper":
        harm = lambda s: s.faults.pause_keeper(node, span)  # noqa: E731
    else:
        harm = lambda s: s.faults.pause(servers[victim], span)  # noqa: E731
    grown_up(session)
    record = under(session, steady("long pause", chains=8, seconds=1), harm, seconds=90)
    if victim != "agent1":
        # Nobody but the agent answers for its attempts: neither pause costs one.
        assert all(task.tried_to_start_time == 1 for task in record.tasks.values())
    else:
        assert any(task.tried_to_start_time == 2 for task in record.tasks.values())
    assert_kept(session)


def test_an_agent_that_slept_begins_nothing_that_was_given_away(make_session: MakeSession) -> None:
    """Prepared while it was paused: begun only if the control plane still wants it there."""
    session = make_session(agents=2, leases=SHORT, slots=4)
    grown_up(session)
    tasks = [TaskPlan((), salt=number, seconds=0.3) for number in range(8)]
    record = session.driver.submit(make_plan("asleep", tasks))
    sleeper = eventually(
        lambda: next((n for n in session.world.nodes if "build begins" in n.server.last_words()), None),
        seconds=30,
        what="a build that begins",
        pause=0.005,
    )
    assert sleeper is not None
    session.faults.pause(sleeper.server, session.world.leases.deadly)
    assert not session.driver.wait_all(seconds=90)
    entries = [entry for entry in session.world.ledger.entries() if entry.event == "start"]
    places = {session.world.ledger.agent_of(entry) for entry in entries}
    assert starts(session, record) == list(range(len(tasks))), (places, session.story())
    assert_kept(session)


def test_a_stop_sticks_whatever_dies(make_session: MakeSession) -> None:
    session = make_session()
    for name in ("kill-controlplane", "kill-agent", "kill-both"):
        plan = steady(f"stop {name}", seconds=2, links=6)
        record = session.driver.submit(plan)
        begun(session, record, 3)
        session.driver.cancel(record)
        SERVERS[name](session)
        assert not session.driver.wait_all(seconds=60)
        assert record.run is not None and record.run.state == common_pb2.STATE_STOPPED
    assert_kept(session)


def test_one_key_one_run_over_a_kill(make_session: MakeSession) -> None:
    session = make_session()
    tasks = [TaskPlan((), salt=number) for number in range(5)]
    for number in range(4):
        plan = make_plan(f"twice {number}", tasks, twice=True)
        session.driver.save(plan)
        killing = session.beside(lambda: session.faults.kill(session.world.controlplane, down=0))
        session.driver.start(plan)
        killing.join()
    assert not session.driver.wait_all(seconds=60)
    assert_kept(session)


def assert_kept(session: Session) -> None:
    found = session.finish()
    assert not found, "\n".join([*found, session.story()])
