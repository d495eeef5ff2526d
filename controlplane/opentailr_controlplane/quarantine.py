"""Reports that break a step: found one by one, then left out, so that no agent can stop the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import structlog

from .core.commands import AgentEvent, AgentReport, Command

log = structlog.get_logger(__name__)

_LIMIT = 10_000  # suspects remembered; beyond it the oldest is forgotten
_SUSPECT, _GUILTY = 1, 2


class Quarantine:
    """Remembers which reports a failed step was about.

    A batch that failed makes all its reports suspects. When they come again each is stepped alone, marked
    guilty before and cleared after; what is guilty when it comes once more is left out. Its number is
    acknowledged with the next, so that the agent forgets it too.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int], int] = {}

    def condemn(self, event: Command | AgentEvent | None) -> None:
        """The step of this event failed by a defect."""
        if isinstance(event, AgentReport):
            for entry in event.entries:
                self._marks.setdefault((event.agent_id, entry.report_seq), _SUSPECT)
            while len(self._marks) > _LIMIT:
                del self._marks[next(iter(self._marks))]

    def split(self, event: AgentReport) -> Iterator[AgentReport]:
        """The event in parts that may be stepped; usually the event itself."""
        if not any((event.agent_id, entry.report_seq) in self._marks for entry in event.entries):
            yield event
            return
        for entry in event.entries:
            key = (event.agent_id, entry.report_seq)
            mark = self._marks.get(key)
            if mark == _GUILTY:
                log.error("a report is left out", agent=event.agent_id, report_seq=entry.report_seq)
                continue
            if mark is not None:
                self._marks[key] = _GUILTY
            yield replace(event, entries=(entry,))
            # Reached only if the step came back: innocent after all.
            self._marks.pop(key, None)
        yield replace(event, entries=())
