"""What the agent remembers over its own end and the machine's."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from opentailr_agent.core import effects as do
from opentailr_agent.core.model import (
    AttemptReport,
    AttemptState,
    BuildReport,
    BuildState,
    Cause,
    CauseKind,
    NodeState,
    Phase,
    StoredResult,
)
from opentailr_agent.core.outbox import Entry
from opentailr_agent.journal import Journal, NewerJournalError

KILLED = Cause(CauseKind.SIGNAL, "m", "t", 1, 9)
REPORTS = [
    AttemptReport("att_1", 1, AttemptState.SUCCEEDED, 5, None, 3, 4, StoredResult(1, b"r"), "1", 9),
    AttemptReport("att_2", 2, AttemptState.SUCCEEDED, 5, result=StoredResult(1, None, "d")),
    AttemptReport(
        "att_3", 3, AttemptState.FAILED, 5, Cause(CauseKind.SIGNAL, "m", "t", 1, 9), exception=b"e"
    ),
    BuildReport("bld_1", "key", BuildState.FAILED, 5, Cause(CauseKind.BUILD_FAILED, "m"), "n"),
]


def opened(path: Path, boot: str = "boot", name: str = "jrn_1") -> Journal:
    return Journal(path, machine_boot=boot, new_id=lambda: name)


def filled(path: Path) -> None:
    journal = opened(path)
    journal.commit(
        [
            do.SaveAttempt("att_1", 1, Phase.STARTING),
            *(do.SaveReport(Entry(7 + index, report)) for index, report in enumerate(REPORTS)),
            do.SaveRevision(12),
        ]
    )
    journal.close()


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    journal = opened(path, name="other")
    state = NodeState(slots=1)
    journal.load(state)
    journal.close()
    assert journal.opened.journal_id == "jrn_1"
    assert not journal.opened.rebooted
    assert state.revision == 12
    assert state.attempts["att_1"].phase is Phase.STARTING
    assert [(entry.seq, entry.report) for entry in state.outbox.entries] == list(enumerate(REPORTS, start=7))
    assert state.outbox.next_seq == 11


def test_numbers_go_on_after_everything_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    journal = opened(path)
    journal.commit([do.DropReports(10)])
    journal.close()
    journal = opened(path)
    state = NodeState(slots=1)
    journal.load(state)
    journal.close()
    assert not state.outbox.entries
    assert state.outbox.next_seq == 11


def test_a_new_boot_begins_a_new_journal_with_the_same_reports(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    journal = opened(path, boot="another", name="jrn_2")
    state = NodeState(slots=1)
    journal.load(state)
    journal.commit([do.SaveAttempt("att_9", 1, Phase.DONE)])
    journal.close()
    assert journal.opened.rebooted
    assert journal.opened.journal_id == "jrn_2"
    assert [(entry.seq, entry.report) for entry in state.outbox.entries] == list(enumerate(REPORTS, start=1))
    again = opened(path, boot="another", name="jrn_3")
    again.close()
    assert again.opened.journal_id == "jrn_2"
    assert not again.opened.rebooted


def test_a_new_boot_is_new_until_what_it_ended_is_written(tmp_path: Path) -> None:
    """An agent killed before that must not take the attempts of the earlier boot for its own."""
    path = tmp_path / "journal.db"
    filled(path)
    opened(path, boot="another", name="jrn_2").close()
    again = opened(path, boot="another", name="jrn_3")
    again.close()
    assert again.opened.rebooted
    assert again.opened.journal_id == "jrn_3"


def test_a_failed_commit_leaves_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db")

    with pytest.raises(sqlite3.IntegrityError):
        journal.commit(
            [do.SaveAttempt("att_1", 1, Phase.ACCEPTED), do.SaveAttempt("att_2", None, Phase.ACCEPTED)]  # type: ignore[arg-type]
        )

    state = NodeState(slots=1)
    journal.load(state)
    journal.close()
    assert not state.attempts


def test_an_unreadable_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is no database at all" * 100)
    journal = opened(path, name="jrn_new")
    journal.close()
    assert journal.opened.journal_id == "jrn_new"
    assert journal.opened.replaced == tmp_path / "journal.db.unreadable-1"
    assert journal.opened.replaced.read_bytes().startswith(b"this is no database")


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path)

    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '9' WHERE key = 'schema'")

    db.close()

    with pytest.raises(NewerJournalError, match="layout 9, this agent knows 1"):
        opened(path)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    assert path.stat().st_mode & 0o077 == 0


def test_a_killed_process_loses_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    code = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from opentailr_agent.journal import Journal\n"
        "from opentailr_agent.core import effects as do\n"
        "from opentailr_agent.core.model import Phase\n"
        "journal = Journal(Path(sys.argv[1]), machine_boot='boot', new_id=lambda: 'j')\n"
        "for number in range(50):\n"
        "    journal.commit([do.SaveAttempt(f'att_{number}', 1, Phase.ACCEPTED)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, os.fspath(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    journal = opened(path)
    state = NodeState(slots=1)
    journal.load(state)
    journal.close()
    assert len(state.attempts) == 50
