"""Processes that attempts leave behind.

The keeper is the subreaper of everything below it, so what outlives its parent
becomes the keeper's child. Whose it is, its mark tells, or its session.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from . import procs
from .attempt import Attempt


class Strays:
    """Finds and ends the orphans among the keeper's children."""

    def __init__(
        self,
        template_pids: Callable[[], set[int]],
        mains: Mapping[int, Attempt],
        attempts: Mapping[str, Attempt],
    ) -> None:
        self._template_pids = template_pids
        self._mains = mains
        self._attempts = attempts

    def _orphans(self) -> list[int]:
        children = procs.children(os.getpid())
        if not children:
            return children
        known = self._template_pids()
        return [pid for pid in children if pid not in known and pid not in self._mains]

    def by_attempt(self) -> dict[str, list[int]]:
        """Orphans of living attempts, by the attempt's id."""
        found: dict[str, list[int]] = {}
        orphans = self._orphans()
        if orphans:
            owners = self._owners()
            for pid in orphans:
                owner = self._owner(pid, owners)
                if owner is not None:
                    found.setdefault(owner.id, []).append(pid)
        return found

    def kill(self, attempt: Attempt) -> bool:
        """Kills what an ended attempt left behind; True while something of it is still there.

        An orphan that nobody can be named for is ended with the last attempt.
        """
        orphans = self._orphans()
        if not orphans:
            return False
        owners = self._owners()
        alone = all(other is attempt or other.exited or not other.sent for other in self._attempts.values())
        targets = []
        for pid in orphans:
            owner = self._owner(pid, owners)
            if owner is attempt or (owner is None and (alone or self._is_foreign(pid, owners))):
                targets.append(pid)
        for pid in procs.descendants(targets):
            procs.send(pid, signal.SIGKILL)
        return bool(targets)

    def _owners(self) -> dict[str | int, Attempt]:
        owners: dict[str | int, Attempt] = {}
        for attempt in self._attempts.values():
            owners[attempt.mark] = attempt
            if attempt.pid:
                owners[attempt.pid] = attempt
        return owners

    @staticmethod
    def _owner(pid: int, owners: Mapping[str | int, Attempt]) -> Attempt | None:
        mark = procs.mark_of(pid)
        if mark in owners:
            return owners[mark]  # type: ignore[index]
        found = procs.stat(pid)
        return owners.get(found.session) if found is not None else None

    @staticmethod
    def _is_foreign(pid: int, owners: Mapping[str | int, Attempt]) -> bool:
        """Marked, but for no attempt that still lives."""
        mark = procs.mark_of(pid)
        return mark is not None and mark not in owners
