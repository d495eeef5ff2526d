"""What the agent must not forget: one SQLite file.

    meta      key TEXT PRIMARY KEY   value TEXT
              schema        version of this layout, 1
              journal_id    name of this journal; reports are numbered within it
              machine_boot  the machine's boot id when the journal was last written
              next_seq      number of the next report
              revision      of the control plane's list that the journal reflects
    attempts  attempt_id TEXT PRIMARY KEY   fence INTEGER   phase INTEGER
    reports   seq INTEGER PRIMARY KEY       body BLOB        a ReportEntry message

Intent is written before the action, a report before it is sent. The file runs with WAL and
`synchronous=NORMAL`: a killed agent loses nothing, a crashed machine may lose the last commits.
Three rules make that sound:

1. The machine's boot id is recorded. When it has changed, every attempt in the journal is over
   and must be reported so, because its start may have been forgotten; none is started again. The new
   id is written together with these ends: an agent killed before that finds the old one again.
2. A changed boot id also begins a new `journal_id`: after a loss numbers of reports could be used
   twice, and the second use would be taken for a repeat.
3. A result that does not travel inside its report is synced before the report is written.

Specs are not kept: they hold tokens and the user's variables, and every session brings them again.
Commits run in the event loop: 0.01 to 0.1 ms, less than the way to a thread and back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentailr_agent import wire
from opentailr_agent.core import effects as do
from opentailr_agent.core.model import AnyReport, AttemptRecord, NodeState, Phase
from opentailr_agent.core.outbox import Entry

SCHEMA: Final = 1

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts (attempt_id TEXT PRIMARY KEY, fence INTEGER NOT NULL, phase INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE reports (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


class NewerJournalError(RuntimeError):
    """The journal was written by a newer version of the agent."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found at the opening."""

    journal_id: str
    revision: int
    rebooted: bool
    """The machine restarted since the last opening."""
    replaced: Path | None
    """Where an unreadable file was put aside; then nothing was remembered."""


class Journal:
    """The journal of one agent; one process at a time, guarded by the lock of the data directory.

    Args:
        path: The database file, made with mode 0600.
        machine_boot: Identity of the present boot of the machine.
        new_id: Source of journal ids.

    Raises:
        NewerJournalError: The file has a layout that this version does not know.
    """

    def __init__(self, path: Path, *, machine_boot: str, new_id: Callable[[], str]) -> None:
        self.path = path
        self._new_boot = ""
        """Boot id to be written with the next commit."""
        replaced = None

        try:
            self._db, self.opened = self._open(machine_boot, new_id, replaced)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise

            replaced = self._put_aside()
            self._db, self.opened = self._open(machine_boot, new_id, replaced)

    def load(self, state: NodeState) -> None:
        """Fills a fresh state with what is remembered."""
        for attempt_id, fence, phase in self._db.execute("SELECT attempt_id, fence, phase FROM attempts"):
            state.attempts[attempt_id] = AttemptRecord(attempt_id, fence, Phase(phase))

        entries = [wire.decode_entry(body) for (body,) in self._db.execute(_ALL_REPORTS)]
        state.outbox.entries.extend(entries)
        state.outbox.next_seq = int(self._meta("next_seq"))
        state.outbox.restart()
        state.revision = self.opened.revision

        for entry in entries:
            record = state.attempts.get(entry.report.subject)

            if record is not None:
                record.told = max(record.told, int(entry.report.state))

    def commit(self, effects: Iterable[do.JournalEffect]) -> None:
        """Writes all effects in one transaction.

        Raises:
            sqlite3.OperationalError: The disk is full or fails; nothing was written.
        """
        with self._db:
            for effect in effects:
                self._write(effect)

            if self._new_boot:
                self._set("machine_boot", self._new_boot)

        self._new_boot = ""

    def close(self) -> None:
        """Closes the file; harmless to repeat."""
        self._db.close()

    def _write(self, effect: do.JournalEffect) -> None:
        execute = self._db.execute

        match effect:
            case do.SaveAttempt():
                execute(
                    "INSERT INTO attempts VALUES (?, ?, ?) ON CONFLICT (attempt_id) "
                    "DO UPDATE SET fence = excluded.fence, phase = excluded.phase",
                    (effect.attempt_id, effect.fence, int(effect.phase)),
                )
            case do.DropAttempt():
                execute("DELETE FROM attempts WHERE attempt_id = ?", (effect.attempt_id,))
            case do.SaveReport():
                self._save_report(effect.entry)
            case do.DropReports():
                execute("DELETE FROM reports WHERE seq <= ?", (effect.seq,))
            case do.SaveRevision():
                self._set("revision", str(effect.revision))

    def _save_report(self, entry: Entry[AnyReport]) -> None:
        body = wire.encode_entry(entry).SerializeToString()
        self._db.execute("INSERT OR REPLACE INTO reports VALUES (?, ?)", (entry.seq, body))
        self._set("next_seq", str(entry.seq + 1))

    def _open(
        self, machine_boot: str, new_id: Callable[[], str], replaced: Path | None
    ) -> tuple[sqlite3.Connection, Opened]:
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path)

        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            known = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
            self._db = db

            if not known:
                with db:
                    for statement in _TABLES.split(";"):
                        db.execute(statement)

                    for key, value in (("schema", str(SCHEMA)), ("next_seq", "1"), ("revision", "0")):
                        self._set(key, value)

                    self._set("journal_id", new_id())
                    self._set("machine_boot", machine_boot)

            schema = int(self._meta("schema"))

            if schema > SCHEMA:
                raise NewerJournalError(
                    f"{self.path} has layout {schema}, this agent knows {SCHEMA}: use a newer agent"
                )

            rebooted = self._meta("machine_boot") != machine_boot

            if rebooted:
                self._begin_anew(new_id)
                self._new_boot = machine_boot

            if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("malformed")

            return db, Opened(self._meta("journal_id"), int(self._meta("revision")), rebooted, replaced)
        except BaseException:
            db.close()
            raise

    def _begin_anew(self, new_id: Callable[[], str]) -> None:
        """A new boot: a new name, and what was not acknowledged is numbered from 1 again."""
        with self._db:
            bodies = self._db.execute(_ALL_REPORTS).fetchall()
            self._db.execute("DELETE FROM reports")
            self._set("next_seq", "1")

            for number, (body,) in enumerate(bodies, start=1):
                self._save_report(Entry(number, wire.decode_entry(body).report))

            self._set("journal_id", new_id())

    def _put_aside(self) -> Path:
        number = 1

        while (aside := self.path.with_name(f"{self.path.name}.unreadable-{number}")).exists():
            number += 1

        self.path.rename(aside)

        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

        return aside

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()

        if row is None:
            raise sqlite3.DatabaseError(f"malformed: no {key}")

        return str(row[0])

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


_ALL_REPORTS: Final = "SELECT body FROM reports ORDER BY seq"
