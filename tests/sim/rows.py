"""What the control plane's store holds, judged commit by commit against the rules and the truth.

Reads nothing of the core: it has tables of its own, so that a mistake there cannot hide here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from opentailr_controlplane.core.batch import WriteBatch
from opentailr_controlplane.core.values import AttemptState as A
from opentailr_controlplane.core.values import BuildState, CauseKind
from opentailr_controlplane.core.values import RunState as R
from opentailr_controlplane.core.values import TaskState as T

if TYPE_CHECKING:
    from .oracle import Oracle

USER_CAUSES = frozenset(
    {CauseKind.EXCEPTION, CauseKind.EXIT_CODE, CauseKind.SIGNAL, CauseKind.IMPORT, CauseKind.RESULT}
)
LEASE, RECOVERY = 20.0, 30.0
SLACK = 0.998
"""Clocks may drift by 1 in 1,000 against each other and against true time."""


class Rows:
    """The committed rows, and what must be true of them."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.definitions: dict[int, Any] = {}
        self.run_definition: dict[int, int] = {}
        self.runs: dict[int, Any] = {}
        self.tasks: dict[tuple[int, int], Any] = {}
        self.open: dict[int, set[int]] = {}
        self.attempts: dict[str, Any] = {}
        self.live: dict[tuple[int, int], str] = {}
        self.fences: dict[tuple[int, int], int] = defaultdict(int)
        self.ends: dict[tuple[int, int], list[Any]] = defaultdict(list)
        self.agents: dict[str, Any] = {}
        self.acked: dict[tuple[str, str], int] = defaultdict(int)
        self.held: dict[str, dict[str, Any]] = defaultdict(dict)
        self.builds: dict[str, Any] = {}
        self.live_builds: dict[str, str] = {}
        self.payloads: set[str] = set()
        self.expired: set[int] = set()
        self.keys: dict[tuple[str, str], str] = {}

    def _demand(self, holds: bool, number: int, text: str) -> None:
        if not holds:
            self._oracle.fail(f"invariant {number}: {text}")

    def committed(self, batch: WriteBatch) -> None:
        """A transaction is on disk."""
        self.definitions.update(batch.definitions)
        for checked in batch.definitions.values():
            self.payloads.update(
                task.arguments.digest for task in checked.definition.tasks if task.arguments is not None
            )
        self.payloads.update(batch.payloads)
        self.expired.update(batch.expired_runs)
        for row in batch.agents:
            self._agent(row)
        ending = {row.run_id for row in self.runs.values() if row.state in (R.CANCELLING, R.TIMING_OUT)}
        for run_id, definition_id in batch.new_runs.items():
            self.run_definition[run_id] = definition_id
            self.open[run_id] = set(self.definitions[definition_id].tasks)
        fresh = [row for row in batch.attempts if row.attempt_id not in self.attempts]
        for row in batch.attempts:
            self._attempt(row)
        for row in batch.tasks:
            self._task(row)
        for row in batch.runs:
            self._run(row)
        for row in fresh:
            self._fresh(row, ending)
        for run_id in {row.run_id for row in batch.tasks} | {row.run_id for row in batch.runs}:
            self._closure(run_id)
        for agent_id in {row.agent_id for row in batch.attempts}:
            self._capacity(agent_id)
        for row in batch.builds:
            self._build(row)
        for row in batch.remembered:
            key = (row[0], row[1])
            reply = repr(row[2:5])
            self._demand(self.keys.setdefault(key, reply) == reply, 24, f"key {key} has two answers")

    # ------------------------------------------------------------------ single rows

    def _agent(self, row: Any) -> None:
        old = self.agents.get(row.agent_id)
        if old is not None:
            self._demand(row.epoch >= old.epoch, 11, f"{row.agent_id}: epoch fell to {row.epoch}")
            if old.journal_id == row.journal_id:
                self._demand(row.acked_seq >= old.acked_seq, 13, f"{row.agent_id}: acknowledged number fell")
        self.agents[row.agent_id] = row
        key = (row.agent_id, row.journal_id)
        self.acked[key] = max(self.acked[key], row.acked_seq)

    def _attempt(self, row: Any) -> None:
        key = (row.run_id, row.task_id)
        old = self.attempts.get(row.attempt_id)
        self.attempts[row.attempt_id] = row
        terminal = row.state >= A.SUCCEEDED
        if old is None:
            self._demand(row.fence > self.fences[key], 3, f"{row.attempt_id}: fence {row.fence} again")
            self.fences[key] = max(row.fence, self.fences[key])
            other = self.attempts.get(self.live.get(key, ""))
            if other is not None and other.attempt_id != row.attempt_id:
                # The other may end in this same transaction; looked at again when all rows are in.
                self._oracle.later.append((key, other.attempt_id, row.attempt_id))
        elif old.state >= A.SUCCEEDED:
            self._demand(old.state == row.state, 2, f"{row.attempt_id}: {A(old.state).name} was final")
        else:
            self._demand(row.state >= old.state, 2, f"{row.attempt_id}: back from {old.state} to {row.state}")
            if row.state == A.WITHDRAWN:
                self._demand(old.state == A.ASSIGNED, 2, f"{row.attempt_id}: withdrawn after it began")
        if terminal:
            if self.live.get(key) == row.attempt_id:
                del self.live[key]
            if old is None or old.state < A.SUCCEEDED:
                self.ends[key].append(row)
                self._oracle.judge_end(row)
        elif not terminal:
            self.live[key] = row.attempt_id
        held = self.held[row.agent_id]
        if row.gone:
            held.pop(row.attempt_id, None)
            proc = self._oracle.procs.get(row.attempt_id)
            self._demand(
                proc is None or not proc.alive, 9, f"{row.attempt_id}: released although its process lives"
            )
            self._demand(terminal, 9, f"{row.attempt_id}: released before its end")
        else:
            self._demand(old is None or not old.gone, 9, f"{row.attempt_id}: came back after its release")
            if terminal and row.state not in (A.LOST, A.WITHDRAWN):
                self._demand(False, 9, f"{row.attempt_id}: ended and still reserved")
            held[row.attempt_id] = row

    def _fresh(self, row: Any, ending: set[int]) -> None:
        key = (row.run_id, row.task_id)
        self._demand(row.run_id not in ending, 19, f"{row.attempt_id}: made in a run that ends")
        definition = self.definitions[self.run_definition[row.run_id]]
        for upstream in definition.tasks[row.task_id].depends_on:
            done = self.tasks.get((row.run_id, upstream))
            self._demand(
                done is not None and done.state in (T.SUCCEEDED, T.CACHED),
                7,
                f"{row.attempt_id}: upstream {upstream} is not done",
            )
        agent = self.agents.get(row.agent_id)
        self._demand(
            agent is not None and bool(agent.schedulable), 20, f"{row.attempt_id}: given to a drained node"
        )
        task = self.tasks.get(key)
        self._demand(
            task is not None and task.attempt_id == row.attempt_id and task.state == T.ACTIVE,
            3,
            f"{row.attempt_id}: not its task's",
        )
        self._oracle.assigned(row)

    def _task(self, row: Any) -> None:
        key = (row.run_id, row.task_id)
        old = self.tasks.get(key)
        self.tasks[key] = row
        if old is not None:
            self._demand(row.fence >= old.fence, 3, f"task {key}: fence fell")
            if old.state >= T.SUCCEEDED:
                self._demand(old.state == row.state, 5, f"task {key}: {T(old.state).name} was final")
                self._demand(
                    old.result_digest == row.result_digest or row.run_id in self.expired,
                    5,
                    f"task {key}: its result changed",
                )
        if row.state < T.SUCCEEDED:
            return
        self.open[row.run_id].discard(row.task_id)
        self._demand(self.live.get(key) is None, 26, f"task {key}: ended with a live attempt")
        ends = self.ends[key]
        charged = [end for end in ends if self._by_user(end)]
        platform = [end for end in ends if end not in charged and end.cause_kind != CauseKind.NODE_DRAINED]
        budget = self._oracle.world.settings.infra_budget
        self._demand(len(charged) <= 1, 8, f"task {key}: {len(charged)} attempts charged to the user")
        self._demand(len(platform) <= budget + 1, 8, f"task {key}: {len(ends)} attempts, over the budget")
        if row.state == T.SUCCEEDED and (old is None or old.state != T.SUCCEEDED):
            end = self.attempts.get(row.attempt_id)
            self._demand(
                end is not None and end.state == A.SUCCEEDED, 5, f"task {key}: done without a done attempt"
            )
            self._oracle.judge_result(row)

    @staticmethod
    def _by_user(row: Any) -> bool:
        if row.state in (A.SUCCEEDED, A.OUT_OF_MEMORY, A.CANCELLED):
            return True
        return bool(row.state == A.FAILED and row.cause_kind in USER_CAUSES)

    def _run(self, row: Any) -> None:
        old = self.runs.get(row.run_id)
        self.runs[row.run_id] = row
        if old is None:
            return
        if old.state >= R.SUCCEEDED and old.state != row.state:
            self._demand(False, 26, f"run {row.run_id}: {R(old.state).name} was final")
        if old.state == R.CANCELLING:
            self._demand(
                row.state in (R.CANCELLING, R.CANCELLED), 19, f"run {row.run_id}: cancelled, then {row.state}"
            )

    def _closure(self, run_id: int) -> None:
        row = self.runs.get(run_id)
        if row is None:
            return
        ended = row.state >= R.SUCCEEDED
        self._demand(
            ended == (not self.open[run_id]),
            26,
            f"run {run_id} is {R(row.state).name}, open: {self.open[run_id]}",
        )

    def _capacity(self, agent_id: str) -> None:
        held = self.held[agent_id]
        node = self._oracle.world.node_of(agent_id)
        memory = sum(row.memory_bytes for row in held.values())
        self._demand(memory <= node.memory, 9, f"{agent_id}: {memory} bytes reserved of {node.memory}")
        self._demand(len(held) <= node.slots, 9, f"{agent_id}: {len(held)} attempts on {node.slots} slots")

    def _build(self, row: Any) -> None:
        old = self.builds.get(row.build_id)
        self.builds[row.build_id] = row
        if old is not None and old.state >= BuildState.READY:
            self._demand(old.state == row.state, 25, f"{row.build_id}: its end changed")
        if row.state < BuildState.READY:
            other = self.builds.get(self.live_builds.get(row.image_key, ""))
            self._demand(
                other is None or other.build_id == row.build_id or other.state >= BuildState.READY,
                25,
                f"{row.image_key[:8]}: two live builds",
            )
            self.live_builds[row.image_key] = row.build_id
