"""The runs' own logs: what is told, and what no more."""

from __future__ import annotations

from typing import Any, cast

from opentailr_controlplane.core.rows import RunRow
from opentailr_controlplane.core.values import PeopleState, RunState
from opentailr_controlplane.ports import RunChange
from opentailr_controlplane.services.runlog import RunLogWriter


class Logs:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bool]] = []

    async def append_own(self, log_id: str, data: bytes, *, end: bool) -> None:
        self.written.append((log_id, end))


class Reads:
    """A store without tasks."""

    async def tasks(self, run_id: int, *, after: int, limit: int) -> list[object]:
        return []


def row(state: RunState, people: PeopleState) -> RunRow:
    values: dict[str, Any] = dict.fromkeys(RunRow._fields, 0)
    texts = dict.fromkeys(("job_name", "started_by", "run_as", "cause_message"), "x")
    return RunRow(**values | texts | {"run_id": 7, "state": int(state), "people_state": int(people)})


async def test_a_run_whose_results_leave_gets_no_second_story() -> None:
    logs = Logs()
    writer = RunLogWriter(cast(Any, None), cast(Any, Reads()), cast(Any, logs))
    await writer._tell([RunChange(7, row(RunState.SUCCEEDED, PeopleState.COMPLETED))])
    assert logs.written == [("run_7", True)]
    await writer._tell([RunChange(7, row(RunState.EXPIRED, PeopleState.EXPIRED))])
    assert logs.written == [("run_7", True)]
    assert not (writer._known or writer._told_runs or writer._rows)
