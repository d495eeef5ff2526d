"""Puts a backup in the place of a data directory.

Everything is verified and laid out beside the place first; the place itself changes by renaming only. So a
damaged backup, a full disk or a kill leaves what was there.

What comes back is an older state, while nodes may live that remember a newer one. Nothing of the two may mix:

- The installation gets a new second word. Ids of attempts, builds and jobs are made of it, so none that is
  made from now on was ever given before: nodes do not know them, and what nodes report of ids that the
  restored state does not know is acknowledged and forgotten, or ended (PROTOCOL's verdicts).
- Sessions go on far above the epochs that were given, and every node counts as one with a new journal: what
  it lists goes on, and what the state takes to be there and the node does not list is lost and tried again.
- Numbers of runs go on at the next thousand that is at least a thousand away. Should more runs have been lost
  than that, a number comes again; so the key of run tokens is new, and the old one is valid only for runs
  that the restored state knows.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .backup_format import (
    BackupError,
    Entry,
    Manifest,
    NewerBackup,
    copy,
    damaged,
    lineage,
    place_of,
    read_index,
    read_manifest,
    sync_tree,
)
from .datadir import DirectoryInUse
from .files import sync_directory, write_whole
from .security.tokens import earlier_keys
from .store.migrate import known_schemas

EPOCH_STEP: Final = 1 << 16
"""Sessions of one node that may have been opened after the backup."""

RUN_STEP: Final = 1000
"""Runs that may have been made after the backup without a number coming again."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    manifest: Manifest
    aside: Path | None
    """Where what was in the place is now."""
    next_run: int
    """Number of the next run."""


def restore_backup(source: Path, data: Path, *, force: bool = False) -> Restored:
    """Puts the backup in `source` in the place `data`, which is empty or missing.

    Args:
        source: A finished backup.
        data: The data directory of a control plane that does not run.
        force: Move what is in the place aside instead of refusing.

    Raises:
        DirectoryInUse: a control plane runs in the place.
        NewerBackup: a newer release made the backup.
        BackupError: it is damaged, or the place is not empty.
    """
    source, data = source.absolute(), data.absolute()
    manifest = read_manifest(source)
    if manifest.schema not in known_schemas():
        raise NewerBackup(
            f"{source} was made by release {manifest.release} with schema {manifest.schema}, which this "
            "release does not know; install that release or a later one"
        )
    if source.resolve().is_relative_to(data.resolve()):
        raise BackupError(f"the backup {source} lies inside {data}; move it elsewhere first")
    staging = data.with_name(f"{data.name}.restoring")
    with _own(data):
        present = sorted(path.name for path in data.iterdir() if path.name != "lock")
        if present and not force:
            raise BackupError(
                f"{data} is not empty; give another directory, or --force to move what is there aside"
            )
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            for entry in read_index(source, manifest):
                _put(source, manifest, entry, staging)
            next_run = _put_database(source, manifest, staging)
            sync_tree(staging)
            aside = _exchange(data, staging, keep=bool(present))
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            raise BackupError(f"the restore failed{where}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Restored(manifest, aside, next_run)


@contextmanager
def _own(data: Path) -> Iterator[None]:
    """Holds the lock of a running control plane, so that none begins meanwhile."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise DirectoryInUse(
                f"a control plane runs in {data} (process {holder}); stop it first, with `datatailr down`"
            ) from None
        yield
    finally:
        os.close(lock)


def _put(source: Path, manifest: Manifest, entry: Entry, staging: Path) -> None:
    path = place_of(source, manifest, entry)
    folder = staging if entry.kind == "file" else staging / f"{entry.kind}s"
    target = folder / entry.path
    if not target.resolve().is_relative_to(staging.resolve()):
        raise damaged(path, f"its name {entry.path!r} leads outside")
    _copy_verified(path, target, entry.size, entry.sha256, entry.mode)


def _copy_verified(path: Path, target: Path, size: int, sha256: str, mode: int) -> None:
    try:
        found = copy(path, target, size=size, mode=mode)
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    if found != (size, sha256):
        raise damaged(path, f"its content changed ({found[0]} of {size} bytes)")


def _put_database(source: Path, manifest: Manifest, staging: Path) -> int:
    path = source / "database" / f"{manifest.database}.db"
    target = staging / "state.db"
    _copy_verified(path, target, manifest.database_size, manifest.database, 0o600)
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        verdict = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, verdict)
        database.execute("BEGIN")
        known_runs, next_run = _begin_anew(database)
        database.execute("COMMIT")
    key = staging / "run.key"
    if key.exists():
        _renew_key(key, known_runs)
    return next_run


def _begin_anew(database: sqlite3.Connection) -> tuple[int, int]:
    """Sets the state apart from every later one of the same installation; the old and the new next run."""
    installation, known_runs = database.execute("SELECT installation, next_run FROM counters").fetchone()
    word = "".join(secrets.choice(_LETTERS) for _ in range(6))
    next_run = -(-(known_runs + RUN_STEP) // RUN_STEP) * RUN_STEP
    database.execute(
        "UPDATE counters SET installation = ?, next_run = ?", (f"{lineage(installation)}-{word}", next_run)
    )
    database.execute("UPDATE agents SET epoch = epoch + ?, journal_id = '', acked_seq = 0", (EPOCH_STEP,))
    return known_runs, next_run


def _renew_key(key: Path, known_runs: int) -> None:
    """A new key for run tokens; the old one stays valid for runs that the restored state knows."""
    beside = earlier_keys(key)
    lines = beside.read_text().splitlines() if beside.exists() else []
    lines.append(f"{key.read_text().strip()} {known_runs}")
    write_whole(beside, "".join(f"{line}\n" for line in lines).encode())
    write_whole(key, secrets.token_urlsafe(32).encode() + b"\n")


def _exchange(data: Path, staging: Path, *, keep: bool) -> Path | None:
    """Puts the staged directory in the place; what was there, if anything, is kept beside it."""
    aside = _free_name(data) if keep else None
    if aside is not None:
        os.rename(data, aside)
    else:
        (data / "lock").unlink()
        data.rmdir()
    os.rename(staging, data)
    sync_directory(data.parent)
    return aside


def _free_name(data: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    names = (data.with_name(f"{data.name}.replaced-{stamp}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
