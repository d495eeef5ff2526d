"""Reports that the control plane has not acknowledged yet.

Terminal reports get their number at once. Others wait a moment without a number: a short task
ends before its RUNNING would have been sent, and then only the end travels. Numbers are
contiguous per journal; what has a number is in the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Reportable(Protocol):
    """What the outbox needs to know of a report."""

    @property
    def subject(self) -> str: ...
    @property
    def terminal(self) -> bool: ...
    @property
    def weight(self) -> int: ...


R = TypeVar("R", bound=Reportable)


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    """A report with its number."""

    seq: int
    report: R


@dataclass(slots=True)
class Outbox(Generic[R]):
    """Numbers, merges and repeats reports.

    `window` bounds what may be under way without an acknowledgement; beyond it reports without a
    number go on replacing one another by subject, so memory is bounded by the number of subjects.
    """

    next_seq: int = 1
    window: int = 1024
    batch_entries: int = 256
    batch_weight: int = 1 << 20
    entries: deque[Entry[R]] = field(default_factory=deque)
    waiting: dict[str, R] = field(default_factory=dict)
    sent: int = 0
    """Largest number sent in the present session."""

    def put(self, report: R) -> Entry[R] | None:
        """Takes a report; returns the numbered entry of a terminal one, which must be journalled."""
        if not report.terminal:
            self.waiting[report.subject] = report
            return None

        self.waiting.pop(report.subject, None)
        return self._number(report)

    def flush(self) -> list[Entry[R]]:
        """Numbers the reports that waited, as far as the window reaches."""
        numbered = []

        while self.waiting and len(self.entries) < self.window:
            subject = next(iter(self.waiting))
            numbered.append(self._number(self.waiting.pop(subject)))

        return numbered

    def forget(self, subject: str) -> None:
        """Drops what waits for a subject that nobody asks for any more."""
        self.waiting.pop(subject, None)

    def acknowledge(self, seq: int) -> list[Entry[R]]:
        """Drops and returns all entries up to `seq`."""
        dropped = []

        while self.entries and self.entries[0].seq <= seq:
            dropped.append(self.entries.popleft())

        return dropped

    def restart(self) -> None:
        """A new session: everything that is not acknowledged is sent again."""
        self.sent = self.entries[0].seq - 1 if self.entries else self.next_seq - 1

    def take(self) -> list[list[Entry[R]]]:
        """Batches to send now, in order, within the window."""
        first = self.entries[0].seq if self.entries else self.next_seq
        batches: list[list[Entry[R]]] = []
        weight = 0

        for entry in self._unsent():
            if entry.seq >= first + self.window:
                break

            if (
                not batches
                or len(batches[-1]) >= self.batch_entries
                or weight + entry.report.weight > (self.batch_weight)
            ):
                batches.append([])
                weight = 0

            batches[-1].append(entry)
            weight += entry.report.weight
            self.sent = entry.seq

        return batches

    def _unsent(self) -> Iterable[Entry[R]]:
        if not self.entries:
            return ()

        start = max(0, self.sent - self.entries[0].seq + 1)
        return [self.entries[index] for index in range(start, len(self.entries))]

    def _number(self, report: R) -> Entry[R]:
        entry = Entry(self.next_seq, report)
        self.next_seq += 1
        self.entries.append(entry)
        return entry
