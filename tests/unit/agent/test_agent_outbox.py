"""Numbers, windows and batches of reports."""

from __future__ import annotations

from opentailr_agent.core.model import AttemptReport, AttemptState
from opentailr_agent.core.outbox import Outbox


def told(number: int, state: AttemptState = AttemptState.SUCCEEDED, text: str = "") -> AttemptReport:
    return AttemptReport(f"att_{number}", 1, state, 0, preview=text)


def test_window_bounds_what_is_under_way() -> None:
    box: Outbox[AttemptReport] = Outbox(window=3, batch_entries=2)

    for number in range(5):
        box.put(told(number))

    assert [[entry.seq for entry in batch] for batch in box.take()] == [[1, 2], [3]]
    assert box.take() == []
    box.acknowledge(2)
    assert [[entry.seq for entry in batch] for batch in box.take()] == [[4, 5]]


def test_a_full_window_merges_what_is_not_terminal() -> None:
    box: Outbox[AttemptReport] = Outbox(window=1)
    box.put(told(1))
    box.put(told(2, AttemptState.PREPARING))
    box.put(told(2, AttemptState.RUNNING))
    assert box.flush() == []
    box.acknowledge(1)
    assert [entry.report.state for entry in box.flush()] == [AttemptState.RUNNING]


def test_batches_stay_below_a_weight() -> None:
    box: Outbox[AttemptReport] = Outbox(batch_weight=2_000)

    for number in range(4):
        box.put(told(number, text="x" * 900))

    assert [len(batch) for batch in box.take()] == [1, 1, 1, 1]


def test_acknowledging_everything_leaves_nothing_to_repeat() -> None:
    box: Outbox[AttemptReport] = Outbox()
    box.put(told(1))
    box.take()
    box.acknowledge(1)
    box.restart()
    assert box.take() == []
    assert box.next_seq == 2
