"""Rules for random histories of a node's core: events in any order, crashes and reboots at any time.

The model beside the core is a perfect runtime: it knows what was started, and how often.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.invariants import validate
from opentailr_agent.core.machine import step
from opentailr_agent.core.model import (
    BuildState,
    Cause,
    CauseKind,
    Desired,
    NodeState,
    Phase,
    StoredResult,
)
from opentailr_agent.journal import Journal
from opentailr_agent.ports import Adopted, EndState, Outcome

SESSION = frozenset(
    {
        ("OFFLINE", "GREETED"),
        ("GREETED", "ACTIVE"),
        ("GREETED", "OFFLINE"),
        ("ACTIVE", "OFFLINE"),
        ("ACTIVE", "GREETED"),
        ("ACTIVE", "DRAINING"),
        ("GREETED", "DRAINING"),
        ("OFFLINE", "DRAINING"),
    }
)
"""Moves of a session as the core sees it. A Welcome may come before the cut was told."""

SPOILERS = ("", "stop", "forget", "crash", "crash and forget", "refuse", "fail")

LINKS = ("OFFLINE", "GREETED", "ACTIVE")

IDS = st.sampled_from([f"att_{n}" for n in range(4)])
BUILDS = st.sampled_from(["bld_1", "bld_2", "bld_3"])


class NodeMachine(RuleBasedStateMachine):
    """Feeds events in any order, legal or not, and restarts the agent at any time."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.large = False
        self.boot = "boot-0"
        self.starts: dict[str, int] = {}
        self.running: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.limit = 0
        self.now = 1
        self.removed: set[str] = set()
        self.generation: dict[str, int] = {}
        self.session_moves: set[tuple[str, str]] = set()
        path = self.directory / "journal.db"

        for file in self.directory.iterdir():
            file.unlink()

        self.path = path
        self.journal = self._journal()
        self.state = NodeState(slots=3)
        self.journal.load(self.state)

    def _journal(self) -> Journal:
        self.number += 1
        return Journal(self.path, machine_boot=self.boot, new_id=lambda: f"jrn_{self.number}")

    def session(self) -> str:
        if self.state.draining:
            return "DRAINING"

        return "ACTIVE" if self.state.synced else "GREETED" if self.state.connected else "OFFLINE"

    def feed(self, event: ev.Event) -> None:
        self.now += 1
        before = self.session()
        effects = step(self.state, event, self.now)

        if self.session() != before:
            self.session_moves.add((before, self.session()))

        self.journal.commit([e for e in effects if isinstance(e, do.JournalEffect)])

        for effect in effects:
            match effect:
                case do.Start():
                    self.starts[effect.attempt_id] = self.starts.get(effect.attempt_id, 0) + 1
                    self.running.add(effect.attempt_id)
                case do.SendCredit():
                    assert effect.attempt_limit >= self.limit
                    self.limit = effect.attempt_limit
                case do.Remove():
                    assert effect.attempt_id not in self.running, "files of what runs stay"
                    self.removed.add(effect.attempt_id)
                case do.SendReports():
                    assert self.state.connected
                case _:
                    pass

    @initialize()
    def begin(self) -> None:
        self.feed(ev.Recovered({}))
        self.welcome(frozenset(), frozenset(), 0)
        self.assign(True, 0, [], [], [])

    @rule(stop=st.frozensets(IDS, max_size=1), forget=st.frozensets(IDS, max_size=1), back=st.integers(0, 3))
    def welcome(self, stop: frozenset[str], forget: frozenset[str], back: int) -> None:
        stop, forget = (frozenset(map(self.current, keys)) for keys in (stop, forget))
        self.limit = 0
        self.feed(ev.Welcomed(frozenset(), stop, forget, max(0, self.state.outbox.sent - back)))

    @rule()
    def disconnect(self) -> None:
        self.feed(ev.Disconnected())

    @rule(
        full=st.booleans(),
        wrong_base=st.integers(0, 1),
        wanted=st.lists(st.tuples(IDS, st.sampled_from(Desired)), max_size=3),
        builds=st.lists(BUILDS, max_size=2),
        removed=st.lists(st.one_of(IDS, BUILDS), max_size=2),
    )
    def assign(
        self,
        full: bool,
        wrong_base: int,
        wanted: list[tuple[str, Desired]],
        builds: list[str],
        removed: list[str],
    ) -> None:
        if not self.state.connected:
            return

        base = self.state.revision + wrong_base
        # An id that was removed after its end is never used again; a fence is for one attempt.
        entries = [
            ev.WantedAttempt(key, 1, want, 1.0, "spec" if want is Desired.RUN else None)
            for key, want in {self.current(key): want for key, want in wanted}.items()
            if key in self.state.attempts or key not in self.starts
        ]
        names = {entry.attempt_id for entry in entries} | set(builds)
        self.feed(
            ev.Assigned(
                full,
                base,
                base + 1,
                entries,
                [ev.WantedBuild(key, f"key-{key}", "recipe") for key in dict.fromkeys(builds)],
                [key for key in map(self.listed, removed) if key not in names],
            )
        )

    @rule(key=IDS)
    def fresh(self, key: str) -> None:
        """A new attempt of the same task, in a session."""
        if not self.state.connected:
            self.welcome(frozenset(), frozenset(), 0)

        if not self.state.synced:
            self.assign(True, 0, [(key, Desired.RUN) for key in self.state.attempts], [], [])

        self.generation[key] = self.generation.get(key, 0) + 1
        self.assign(False, 0, [(self.current(key), Desired.RUN)], [], [])

    @rule(
        key=IDS,
        times=st.integers(0, 4),
        spoiler=st.sampled_from(SPOILERS),
        large=st.booleans(),
    )
    def life(self, key: str, times: int, spoiler: str, large: bool) -> None:
        """The life of a new attempt, spoiled at some point."""
        self.large = large
        self.fresh(key)
        key = self.current(key)

        for _ in range(times):
            self.one_step(key)

        match spoiler:
            case "stop":
                self.assign(False, 0, [(key, Desired.STOP)], [], [])
            case "forget":
                self.welcome(frozenset(), frozenset({key}), 0)
                self.ended(key, EndState.STOPPED, False)
            case "crash" | "crash and forget":
                self.restart(False, False)
                self.welcome(frozenset(), frozenset({key}) if spoiler != "crash" else frozenset(), 0)
            case "refuse":
                self.handed_over(key, True)
            case "fail":
                self.prepare_failed(key, CauseKind.NODE_FAULT)
                self.ended(key, EndState.FAILED, False)
            case _:
                pass

        for _ in range(4):
            self.one_step(key)

    @rule(link=st.sampled_from(LINKS), key=IDS)
    def drain_in(self, link: str, key: str) -> None:
        """The operator ends the agent, whatever the session is doing, and begins it again."""
        self.fresh(key)

        if link == "OFFLINE":
            self.feed(ev.Disconnected())
        elif link == "GREETED":
            self.welcome(frozenset(), frozenset(), 0)

        self.feed(ev.Drain())
        self.fresh(key)
        self.restart(False, False)

    def stories(self) -> list[Callable[[], None]]:
        """Each life with each spoiler at each point, and each end of the agent."""
        return [partial(self.drain_in, link, "att_0") for link in LINKS] + [
            partial(self.life, f"att_{number % 4}", times, spoiler, large)
            for number, (times, spoiler, large) in enumerate(product(range(5), SPOILERS, (False, True)))
        ]

    def one_step(self, key: str) -> None:
        record = self.state.attempts.get(key)

        match record.phase if record else None:
            case Phase.PREPARING:
                self.feed(ev.Prepared(key))
            case Phase.STARTING if self.now % 3 == 0:
                self.ended(key, EndState.SUCCEEDED, self.large)
            case Phase.STARTING:
                self.feed(ev.ProcessStarted(key, self.now))
            case Phase.RUNNING:
                self.ended(key, EndState.SUCCEEDED, self.large)
            case Phase.ENDED:
                self.stored(key, True)
            case Phase.DONE if self.state.connected:
                self.feed(ev.Acknowledged(self.state.outbox.sent))
            case Phase.ACKNOWLEDGED:
                self.feed(ev.LogsShipped(key))
                self.files_removed()
            case _:
                pass

    def listed(self, key: str) -> str:
        return key if key.startswith("bld") else self.current(key)

    def current(self, key: str) -> str:
        return key if "." in key else f"{key}.{self.generation.get(key, 0)}"

    @rule(back=st.integers(0, 2))
    def acknowledge(self, back: int) -> None:
        if self.state.connected:
            self.feed(ev.Acknowledged(max(0, self.state.outbox.sent - back)))

    @rule(key=IDS)
    def prepared(self, key: str) -> None:
        key = self.current(key)
        self.feed(ev.Prepared(key))

    @rule(key=IDS, kind=st.sampled_from([CauseKind.NODE_FAULT, CauseKind.BUILD_FAILED]))
    def prepare_failed(self, key: str, kind: CauseKind) -> None:
        key = self.current(key)
        self.feed(ev.PrepareFailed(key, Cause(kind, "no")))

    @rule(key=IDS, fails=st.booleans())
    def handed_over(self, key: str, fails: bool) -> None:
        key = self.current(key)
        if key in self.running:
            record = self.state.attempts[key]

            if fails and not record.handed_over and record.phase is Phase.STARTING:
                self.running.discard(key)
                self.feed(ev.StartFailed(key, "no"))
            else:
                self.feed(ev.HandedOver(key))

    @rule(key=IDS)
    def started(self, key: str) -> None:
        key = self.current(key)
        if key in self.running:
            self.feed(ev.ProcessStarted(key, self.now))

    @rule(key=IDS, end=st.sampled_from(EndState), large=st.booleans())
    def ended(self, key: str, end: EndState, large: bool) -> None:
        key = self.current(key)
        if key in self.running:
            self.running.discard(key)
            small = b"r" if end is EndState.SUCCEEDED and not large else None
            file = Path("r") if end is EndState.SUCCEEDED and large else None
            self.outcomes[key] = Outcome(key, end, result=small, result_file=file)
            self.feed(ev.ProcessEnded(self.outcomes[key]))

    @rule(key=IDS, well=st.booleans())
    def stored(self, key: str, well: bool) -> None:
        key = self.current(key)
        self.feed(ev.ResultStored(key, StoredResult(1, digest="d")) if well else ev.StoreFailed(key, "full"))

    @rule(key=st.one_of(IDS, BUILDS))
    def shipped(self, key: str) -> None:
        record = self.state.attempts.get(self.listed(key))

        if record is not None and record.phase >= Phase.ENDED:
            self.feed(ev.LogsShipped(record.attempt_id))

    @rule()
    def files_removed(self) -> None:
        for key in sorted(self.removed):
            self.removed.discard(key)
            self.feed(ev.Removed(key))

    @rule(key=BUILDS, state=st.sampled_from([BuildState.READY, BuildState.FAILED]))
    def built(self, key: str, state: BuildState) -> None:
        self.feed(ev.BuildEnded(key, state))

    @rule(reason=st.sampled_from(["", "disk"]))
    def pressure(self, reason: str) -> None:
        self.feed(ev.PressureChanged(reason))

    @rule()
    def flush(self) -> None:
        self.feed(ev.FlushDue())

    @rule(luck=st.integers(0, 6))
    def drain(self, luck: int) -> None:
        if not luck:
            self.feed(ev.Drain())

    @rule(steps=st.sampled_from([-1_000_000, 0, 1 << 40]))
    def set_clock(self, steps: int) -> None:
        """Times are for reports only; nothing may depend on them."""
        self.now = max(1, self.now + steps)

    @rule(key=st.sampled_from(["att_never", "bld_never"]))
    def nobody(self, key: str) -> None:
        """Events about what the node does not have change nothing."""
        before = (dict(self.state.attempts), dict(self.state.builds), list(self.state.outbox.entries))
        outcome = Outcome(key, EndState.SUCCEEDED, result=b"r")
        for event in (
            ev.Prepared(key), ev.HandedOver(key), ev.StartFailed(key, "no"), ev.ProcessStarted(key, 1),
            ev.ProcessEnded(outcome), ev.ResultStored(key, StoredResult(1)), ev.StoreFailed(key, "no"),
            ev.LogsShipped(key), ev.Removed(key), ev.BuildEnded(key, BuildState.READY),
        ):  # fmt: skip
            self.feed(event)

        after = (dict(self.state.attempts), dict(self.state.builds), list(self.state.outbox.entries))
        assert before == after

    @rule(reboot=st.booleans(), keeper_dies=st.booleans())
    def restart(self, reboot: bool, keeper_dies: bool) -> None:
        """Kills the agent; with `reboot` the machine, so that user processes are gone too."""
        pending = {e.report.subject: e.report for e in self.state.outbox.entries if e.report.terminal}
        self.journal.close()

        if reboot:
            self.boot += "+"

        if reboot or keeper_dies:
            self.running.clear()
            self.outcomes.clear()

        self.journal = self._journal()
        self.state = NodeState(slots=3)
        self.journal.load(self.state)
        again = {e.report.subject: e.report for e in self.state.outbox.entries if e.report.terminal}
        assert pending == again, "what was to be reported survives"
        assert self.journal.opened.rebooted == reboot
        found = {key: Adopted(key, running=True) for key in self.running}
        found |= {
            key: Adopted(key, running=False, outcome=outcome)
            for key, outcome in self.outcomes.items()
            if key not in self.running
        }
        self.feed(ev.Recovered(found, rebooted=self.journal.opened.rebooted))

    @invariant()
    def rules_hold(self) -> None:
        validate(self.state)
        assert all(count == 1 for count in self.starts.values()), "nothing is started twice"

    def settle(self) -> None:
        """Faults stop: everything ends, is told, acknowledged and removed (invariants 16, 31)."""
        self.restart(False, False)
        self.welcome(frozenset(), frozenset(), 0)
        wanted = [ev.WantedAttempt(key, 1, Desired.RUN, 1.0, "spec") for key in self.state.attempts]
        base = self.state.revision
        self.feed(ev.Assigned(True, base, base + 1, wanted))
        keys = list(self.state.attempts)

        for _ in range(8):
            for key in keys:
                self.one_step(key)

            self.feed(ev.FlushDue())
            self.feed(ev.Acknowledged(self.state.outbox.sent))

        self.feed(ev.Assigned(True, base + 1, base + 2))
        assert not self.state.attempts and not self.state.builds, "something is left on the node"
        assert not self.state.outbox.entries and not self.state.outbox.waiting, "something was not told"
        assert not self.running, "a process goes on that nobody asked for"

    def teardown(self) -> None:
        try:
            self.settle()
            self.report_reached()
        finally:
            self.journal.close()

    def report_reached(self) -> None:
        """For who counts the moves that were made."""
