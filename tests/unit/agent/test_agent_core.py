"""The agent's decisions, one rule at a time."""

from __future__ import annotations

from typing import TypeVar

import pytest

from datatailr.v1 import agent_pb2, common_pb2, image_pb2
from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core import model
from opentailr_agent.core.attempts import IllegalMove, advance
from opentailr_agent.core.invariants import validate
from opentailr_agent.core.machine import step
from opentailr_agent.core.model import AttemptReport, AttemptState, CauseKind, Desired, NodeState, Phase
from opentailr_agent.ports import Adopted, EndState, Failure, Outcome

E = TypeVar("E")


class Node:
    """A node under test: feeds events, checks the invariants, keeps what was done."""

    def __init__(self, slots: int = 4) -> None:
        self.state = NodeState(slots=slots)
        self.done: list[do.Effect] = []
        self.now = 1_000

    def feed(self, *events: ev.Event) -> list[do.Effect]:
        out: list[do.Effect] = []

        for event in events:
            self.now += 1
            out += step(self.state, event, self.now)
            validate(self.state)

        self.done += out
        return out

    def welcome(self, **verdicts: frozenset[str]) -> list[do.Effect]:
        none: frozenset[str] = frozenset()
        return self.feed(
            ev.Welcomed(
                verdicts.get("keep", none), verdicts.get("stop", none), verdicts.get("forget", none), 0
            )
        )

    def assign(self, *entries: ev.WantedAttempt, full: bool = True, **more: object) -> list[do.Effect]:
        revision = self.state.revision
        return self.feed(ev.Assigned(full, revision, revision + 1, attempts=entries, **more))  # type: ignore[arg-type]

    def run_until(self, phase: Phase, attempt_id: str = "att_1") -> None:
        self.welcome()
        self.assign(run(attempt_id))
        steps: list[ev.Event] = [
            ev.Prepared(attempt_id),
            ev.HandedOver(attempt_id),
            ev.ProcessStarted(attempt_id, 5),
            ev.ProcessEnded(Outcome(attempt_id, EndState.SUCCEEDED, result=b"r")),
        ]

        while self.state.attempts[attempt_id].phase < phase:
            self.feed(steps.pop(0))

    def outcome(self) -> AttemptReport:
        report = self.state.outbox.entries[-1].report
        assert isinstance(report, AttemptReport)
        return report


def run(attempt_id: str = "att_1", *, spec: object | None = "spec") -> ev.WantedAttempt:
    return ev.WantedAttempt(attempt_id, 1, Desired.RUN, spec=spec)


def stop(attempt_id: str = "att_1", grace: float = 7.0) -> ev.WantedAttempt:
    return ev.WantedAttempt(attempt_id, 1, Desired.STOP, grace)


def only(effects: list[do.Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


@pytest.mark.parametrize(
    ("ours", "wire", "prefix"),
    [
        (model.AttemptState, agent_pb2.AttemptState, "ATTEMPT_STATE_"),
        (model.CauseKind, common_pb2.CauseKind, "CAUSE_KIND_"),
        (model.BuildState, image_pb2.ImageState, "IMAGE_STATE_"),
    ],
)
def test_numbers_equal_those_on_the_wire(ours: type, wire: object, prefix: str) -> None:
    for member in ours:  # type: ignore[attr-defined]
        assert wire.Value(prefix + member.name) == member.value  # type: ignore[attr-defined]


def test_intent_is_journalled_before_anything_is_done() -> None:
    node = Node()
    node.welcome()
    effects = node.assign(run())
    assert effects[0] == do.SaveAttempt("att_1", 1, Phase.ACCEPTED)
    assert only(effects, do.Prepare)
    started = node.feed(ev.Prepared("att_1"))
    assert started[0] == do.SaveAttempt("att_1", 1, Phase.STARTING)
    assert only(started, do.Start) == [do.Start("att_1", "spec")]


def test_a_repeated_assignment_starts_nothing_twice() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    assert not only(node.assign(run()), do.Prepare)
    node.feed(ev.Prepared("att_1"), ev.HandedOver("att_1"))
    assert len(only(node.done, do.Start)) == 1


def test_a_finished_attempt_leaves_when_acknowledged_shipped_and_off_the_list() -> None:
    node = Node()
    node.run_until(Phase.DONE)
    assert node.outcome().state is AttemptState.SUCCEEDED
    assert only(node.done, do.FinishLogs)
    assert not only(node.feed(ev.Acknowledged(1)), do.Remove)
    assert only(node.feed(ev.LogsShipped("att_1")), do.Remove)
    assert not only(node.feed(ev.Removed("att_1")), do.DropAttempt)
    assert not only(node.assign(run()), do.Prepare), "its entry guards against a second start"
    assert only(node.assign(removed=["att_1"], full=False), do.DropAttempt)
    assert not node.state.attempts


def test_short_tasks_are_told_once() -> None:
    node = Node()
    node.run_until(Phase.DONE)
    assert [entry.report.state for batch in only(node.done, do.SendReports) for entry in batch.entries] == [
        AttemptState.SUCCEEDED
    ]


def test_longer_tasks_are_told_as_running() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    effects = node.feed(ev.FlushDue())
    assert [e.entry.report.state for e in only(effects, do.SaveReport)] == [AttemptState.RUNNING]
    assert only(effects, do.SendReports)


def test_a_large_result_is_stored_before_it_is_told() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    from pathlib import Path

    outcome = Outcome("att_1", EndState.SUCCEEDED, result_file=Path("r"), result_size=9)
    effects = node.feed(ev.ProcessEnded(outcome))
    assert only(effects, do.StoreResult)
    assert not only(effects, do.SaveReport)
    assert node.state.live_attempts == 1, "the slot is held until the result is stored"
    node.feed(ev.ResultStored("att_1", model.StoredResult(9, digest="d")))
    report = node.outcome()
    assert report.result == model.StoredResult(9, digest="d")
    assert report.state is AttemptState.SUCCEEDED


@pytest.mark.clause("B44")
def test_a_result_that_cannot_be_stored_fails_the_task() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    from pathlib import Path

    node.feed(ev.ProcessEnded(Outcome("att_1", EndState.SUCCEEDED, result_file=Path("r"))))
    node.feed(ev.StoreFailed("att_1", "disk full"))
    report = node.outcome()
    assert report.state is AttemptState.FAILED
    assert report.cause is not None
    assert report.cause.kind is CauseKind.RESULT
    assert "disk full" in report.cause.message


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("ValueError", CauseKind.EXCEPTION),
        ("exit", CauseKind.EXIT_CODE),
        ("signal", CauseKind.SIGNAL),
        ("result", CauseKind.RESULT),
        ("import", CauseKind.IMPORT),
    ],
)
def test_failures_keep_their_cause(kind: str, cause: CauseKind) -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    failure = Failure(kind, "words", "Traceback", b"pickle")
    node.feed(ev.ProcessEnded(Outcome("att_1", EndState.FAILED, exit_code=3, signal=9, failure=failure)))
    report = node.outcome()
    assert report.state is AttemptState.FAILED
    message = "ValueError: words" if cause is CauseKind.EXCEPTION else "words"
    assert report.cause == model.Cause(cause, message, "Traceback", 3, 9)
    assert report.exception == b"pickle"


def test_an_exception_without_words_is_told_by_its_class() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    node.feed(
        ev.ProcessEnded(Outcome("att_1", EndState.FAILED, exit_code=1, failure=Failure("KeyError", "")))
    )
    cause = node.outcome().cause
    assert cause is not None and cause.message == "KeyError"


@pytest.mark.clause("B65a")
def test_out_of_memory_is_a_state_of_its_own() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    failure = Failure("out_of_memory", "limit 256m, peak 300m")
    outcome = Outcome("att_1", EndState.OUT_OF_MEMORY, failure=failure, peak_memory_bytes=300)
    node.feed(ev.ProcessEnded(outcome))
    report = node.outcome()
    assert report.state is AttemptState.OUT_OF_MEMORY
    assert report.cause == model.Cause(CauseKind.OUT_OF_MEMORY, "limit 256m, peak 300m")
    assert report.peak_memory_bytes == 300


@pytest.mark.parametrize("phase", [Phase.PREPARING])
def test_a_stop_before_the_start_ends_at_once(phase: Phase) -> None:
    node = Node()
    node.run_until(phase)
    effects = node.assign(stop())
    assert only(effects, do.CancelPreparation)
    assert node.outcome().state is AttemptState.CANCELLED
    assert not only(node.feed(ev.Prepared("att_1")), do.Start)


def test_a_stop_reaches_the_runtime_after_the_order() -> None:
    node = Node()
    node.run_until(Phase.STARTING)
    assert not only(node.assign(stop()), do.Stop), "the runtime does not have it yet"
    assert only(node.feed(ev.HandedOver("att_1")), do.Stop) == [do.Stop("att_1", 7.0)]
    assert not only(node.assign(stop()), do.Stop)
    node.feed(ev.ProcessEnded(Outcome("att_1", EndState.STOPPED)))
    assert node.outcome().state is AttemptState.CANCELLED


def test_an_outcome_before_the_stop_stays() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    node.assign(stop())
    node.feed(ev.ProcessEnded(Outcome("att_1", EndState.SUCCEEDED, result=b"r")))
    assert node.outcome().state is AttemptState.SUCCEEDED


def test_nothing_can_be_started_where_preparation_failed() -> None:
    node = Node()
    node.run_until(Phase.PREPARING)
    node.feed(ev.PrepareFailed("att_1", model.Cause(CauseKind.NODE_FAULT, "no disk")))
    assert node.outcome().state is AttemptState.REJECTED


def test_a_forgotten_attempt_is_ended_without_a_report() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    effects = node.welcome(forget=frozenset({"att_1"}))
    assert only(effects, do.Stop)
    effects = node.feed(ev.ProcessEnded(Outcome("att_1", EndState.STOPPED)))
    assert only(effects, do.Remove)
    assert not only(effects, do.SaveReport)
    node.assign()
    node.feed(ev.Removed("att_1"))
    assert not node.state.attempts


def test_a_verdict_to_stop_is_followed() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    assert only(node.welcome(stop=frozenset({"att_1"})), do.Stop)


def test_a_difference_to_another_base_asks_for_a_full_set() -> None:
    node = Node()
    node.welcome()
    node.assign()
    effects = node.feed(ev.Assigned(False, base=40, revision=41, attempts=[run()]))
    assert effects == [do.SendApplied(1, need_full=True)]
    assert not node.state.attempts


def test_credit_is_cumulative_and_follows_free_slots() -> None:
    node = Node(slots=2)
    node.welcome()
    assert only(node.assign(), do.SendCredit) == [do.SendCredit(2, 2)]
    assert not only(node.assign(run("att_1"), run("att_2"), full=False), do.SendCredit)
    node.feed(ev.Prepared("att_1"), ev.HandedOver("att_1"), ev.ProcessStarted("att_1", 1))
    effects = node.feed(ev.ProcessEnded(Outcome("att_1", EndState.SUCCEEDED, result=b"")))
    assert only(effects, do.SendCredit) == [do.SendCredit(3, 2)]
    node.feed(ev.PressureChanged("disk"))
    node.feed(ev.PrepareFailed("att_2", model.Cause(CauseKind.NODE_FAULT)))
    assert node.state.attempt_limit == 3
    assert only(node.feed(ev.PressureChanged("")), do.SendCredit) == [do.SendCredit(4, 2)]


def recovered(phase: Phase, found: dict[str, Adopted], *, rebooted: bool = False) -> Node:
    node = Node()
    node.state.attempts["att_1"] = model.AttemptRecord("att_1", 1, phase)
    node.feed(ev.Recovered(found, rebooted))
    return node


def test_after_a_restart_what_runs_goes_on() -> None:
    node = recovered(Phase.STARTING, {"att_1": Adopted("att_1", running=True)})
    assert node.state.attempts["att_1"].phase is Phase.RUNNING
    node.welcome(keep=frozenset({"att_1"}))
    assert not only(node.assign(run()), do.Prepare)


def test_after_a_restart_what_ended_is_told() -> None:
    outcome = Outcome("att_1", EndState.SUCCEEDED, result=b"r")
    node = recovered(Phase.STARTING, {"att_1": Adopted("att_1", running=False, outcome=outcome)})
    assert node.outcome().state is AttemptState.SUCCEEDED


def test_after_a_restart_what_vanished_is_lost_and_never_started_again() -> None:
    node = recovered(Phase.STARTING, {})
    report = node.outcome()
    assert report.cause is not None
    assert report.cause.kind is CauseKind.LOST_BY_RUNTIME
    node.welcome()
    node.assign(run())
    assert not only(node.done, do.Prepare)


def test_after_a_restart_what_was_only_accepted_waits_for_the_session() -> None:
    node = recovered(Phase.ACCEPTED, {})
    assert not node.done
    node.welcome(keep=frozenset({"att_1"}))
    assert only(node.assign(run()), do.Prepare)


@pytest.mark.parametrize("phase", [Phase.ACCEPTED, Phase.STARTING])
def test_after_a_reboot_of_the_machine_nothing_is_started_again(phase: Phase) -> None:
    node = recovered(phase, {}, rebooted=True)
    report = node.outcome()
    assert report.cause is not None
    assert report.cause.kind is CauseKind.NODE_RESTARTED
    node.welcome()
    node.assign(run())
    assert not only(node.done, do.Prepare)


def test_drain_ends_everything_and_takes_nothing_new() -> None:
    node = Node()
    node.run_until(Phase.RUNNING)
    assert only(node.feed(ev.Drain()), do.Stop)
    node.feed(ev.ProcessEnded(Outcome("att_1", EndState.STOPPED)))
    report = node.outcome()
    assert report.state is AttemptState.FAILED
    assert report.cause is not None
    assert report.cause.kind is CauseKind.NODE_DRAINED
    assert not only(node.assign(run("att_2"), full=False), do.Prepare)


def test_builds_are_shared_reported_and_forgotten() -> None:
    node = Node()
    node.welcome()
    build = ev.WantedBuild("bld_1", "key", "recipe")
    assert only(node.assign(builds=[build]), do.Build) == [do.Build("bld_1", "key", "recipe")]
    assert not only(node.assign(builds=[build]), do.Build)
    node.feed(ev.BuildEnded("bld_1", model.BuildState.READY, notice="3.12 instead of 3.14"))
    report = node.state.outbox.entries[-1].report
    assert isinstance(report, model.BuildReport)
    assert report.notice == "3.12 instead of 3.14"
    node.assign(full=False, removed=["bld_1"])
    assert not node.state.builds
    assert node.state.outbox.entries, "the report stays until it is acknowledged"


def test_a_build_that_nobody_wants_is_ended() -> None:
    node = Node()
    node.welcome()
    node.assign(builds=[ev.WantedBuild("bld_1", "key", "recipe")])
    assert only(node.assign(), do.CancelBuild)


def test_a_build_whose_end_is_not_acknowledged_is_not_built_again() -> None:
    node = Node()
    node.welcome()
    build = ev.WantedBuild("bld_1", "key", "recipe")
    node.assign(builds=[build])
    node.feed(ev.BuildEnded("bld_1", model.BuildState.READY))
    # As after a restart: the journal has the report, the build itself is forgotten.
    node.state.builds.clear()
    assert not only(node.assign(builds=[build]), do.Build)
    assert len(node.state.outbox.entries) == 1


def test_reports_are_sent_again_in_a_new_session() -> None:
    node = Node()
    node.run_until(Phase.DONE)
    node.feed(ev.Disconnected())
    batches = only(node.welcome(), do.SendReports)
    assert [entry.seq for batch in batches for entry in batch.entries] == [1]


def test_moves_off_the_table_are_refused() -> None:
    record = model.AttemptRecord("att_1", 1, Phase.DONE)

    with pytest.raises(IllegalMove, match="DONE -> RUNNING"):
        advance(record, Phase.RUNNING)
