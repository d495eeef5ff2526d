"""What the store keeps of causes and of reports that came too late."""

from __future__ import annotations

from pathlib import Path

import pytest
from cp_world import World, task

from opentailr_controlplane.core.commands import InventoryEntry
from opentailr_controlplane.core.rows import LateRow
from opentailr_controlplane.core.values import AttemptState, CauseKind
from opentailr_controlplane.store.migrate import migrate
from opentailr_controlplane.store.reads import Reads
from opentailr_controlplane.store.sqlite import connect
from opentailr_controlplane.store.writer import write


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    migrate(path)
    return path


def stored(world: World, path: Path) -> None:
    """Writes all that the world committed."""
    connection = connect(path)
    try:
        for batch in world.batches:
            write(connection, batch)
        world.batches.clear()
    finally:
        connection.close()


def lost_and_late(world: World, state: AttemptState = AttemptState.SUCCEEDED) -> str:
    """A task whose first attempt is lost and reports its end after that; the attempt's id."""
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.report(attempt, AttemptState.RUNNING, started=True)
    world.join("agt_2")
    world.cut()
    for _ in range(6):
        world.pass_time(4)
        world.beat("agt_2")
    world.join(inventory=(InventoryEntry(attempt.attempt_id, 1, AttemptState.RUNNING),))
    world.report(attempt, state, kind=CauseKind.EXIT_CODE if state is AttemptState.FAILED else None)
    return attempt.attempt_id


async def test_evidence_stands_beside_the_attempt(database: Path) -> None:
    world = World()
    attempt_id = lost_and_late(world, AttemptState.FAILED)
    stored(world, database)
    reads = Reads(database)
    try:
        first, second = await reads.run_attempts(1, limit=10)
        late = await reads.late_outcomes([first.attempt_id, second.attempt_id])
        assert (first.attempt_id, first.state, first.fence) == (attempt_id, AttemptState.LOST, 1)
        assert first.cause_kind == CauseKind.LEASE_LOST and '"node":"node agt_1"' in first.cause_detail
        assert set(late) == {attempt_id}
        told = late[attempt_id]
        assert (told.state, told.heard_time) == (AttemptState.FAILED, world.now.wall)
        assert (told.cause_kind, told.cause_message) == (CauseKind.EXIT_CODE, "because")
        assert await reads.run_attempts(1, after=(0, 1), limit=10) == [second]
        assert await reads.run_attempts(1, task_ids=[5], limit=10) == []
    finally:
        await reads.close()


def test_only_the_first_report_of_the_owner_is_kept(database: Path) -> None:
    world = World()
    attempt_id = lost_and_late(world)
    stored(world, database)
    connection = connect(database)
    try:
        batch_of = world.batches
        good = LateRow(attempt_id, 1, "agt_1", int(AttemptState.FAILED), 5, 0, 0, 0, "", "")
        for row in (good, good._replace(agent_id="agt_2"), good._replace(fence=2)):
            world.state.dirty.late.append(row)
            world.pass_time(0)
        for batch in batch_of:
            write(connection, batch)
        kept = connection.execute("SELECT attempt_id, state FROM late_outcomes").fetchall()
        assert kept == [(attempt_id, int(AttemptState.SUCCEEDED))]
    finally:
        connection.close()


def test_an_attempt_that_was_not_given_up_gets_no_evidence(database: Path) -> None:
    world = World()
    run = world.ready(task(0))
    attempt = world.attempt(run)
    world.state.dirty.late.append(
        LateRow(attempt.attempt_id, 1, "agt_1", int(AttemptState.FAILED), 5, 0, 0, 0, "", "")
    )
    world.pass_time(0)
    stored(world, database)
    connection = connect(database)
    try:
        assert connection.execute("SELECT count(*) FROM late_outcomes").fetchone() == (0,)
    finally:
        connection.close()


def test_evidence_goes_with_its_attempt(database: Path) -> None:
    world = World()
    lost_and_late(world)
    stored(world, database)
    connection = connect(database)
    try:
        connection.execute("DELETE FROM attempts")
        assert connection.execute("SELECT count(*) FROM late_outcomes").fetchone() == (0,)
    finally:
        connection.close()
