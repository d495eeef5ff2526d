"""Makes a backup of a data directory, whether a control plane runs in it or not.

The database is copied by one read transaction, which no commit waits for. Everything it refers to exists by
then and stays until the copy is done, as retention keeps away from a directory whose `backup.lock` is held;
so what is copied after it, while work goes on, is at least what the database knows of. Objects and finished
logs that an earlier backup in the same place has are not copied again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import __version__
from .backup_format import (
    FORMAT,
    MANIFEST,
    MARKER,
    BackupError,
    Entry,
    Manifest,
    copy,
    digest_of,
    lineage,
    place_of,
    read_index,
    read_manifest,
    sync_tree,
    write_index,
    write_manifest,
)
from .datadir import FORMAT as DIRECTORY_FORMAT
from .files import write_whole
from .logstore import Stream, log_path
from .retention import HOLD_FILE
from .services.runlog import run_log_id

_APART: Final = frozenset({"state.db", "state.db-wal", "state.db-shm", "objects", "logs", "lock", HOLD_FILE})
"""What of a data directory is not copied as it is."""


@dataclass(slots=True)
class _Work:
    """A backup under way."""

    data: Path
    target: Path
    known: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """Files of the earlier backup that need not be copied again."""
    entries: list[Entry] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    copied: int = 0
    """Files copied."""


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup."""

    manifest: Manifest
    copied: int
    """Files copied; the others were there from an earlier backup."""


def make_backup(data: Path, target: Path) -> Made:
    """Makes a backup of the data directory in `target`, which is empty or holds one of the same installation.

    Raises:
        BackupError: it cannot be made; an earlier backup in the same place is whole.
    """
    begun = time.time()
    _check_data(data)
    target = target.absolute()
    if target.resolve().is_relative_to(data.resolve()):
        raise BackupError(
            f"{target} is inside the data directory {data}; name a place outside, best another disk"
        )
    with _own(target), _hold(data):
        snapshot = target / ".database.tmp"
        snapshot.unlink(missing_ok=True)
        try:
            word = _installation(data)
            earlier = _adopt(target, word)
            _copy_database(data / "state.db", snapshot)
            work = _Work(data, target)
            if earlier is not None:
                work.known = _reusable(target, earlier, word)
            with closing(sqlite3.connect(snapshot)) as database:
                counts, schema = _facts(database)
                _copy_objects(work, database)
                _copy_logs(work, database, word)
            _copy_files(work)
            size, digest = digest_of(snapshot)
            (target / "database").mkdir(mode=0o700, exist_ok=True)
            os.replace(snapshot, target / "database" / f"{digest}.db")
        finally:
            snapshot.unlink(missing_ok=True)
        index = write_index(target, work.entries)
        sync_tree(target)
        manifest = Manifest(
            format=FORMAT,
            release=__version__,
            schema=schema,
            installation=word,
            created=int(begun * 1e6),
            seconds=round(time.time() - begun, 3),
            counts=counts
            | {"objects": _count(work, "object"), "logs": _count(work, "log"), "files": _count(work, "file")},
            bytes=size + sum(entry.size for entry in work.entries),
            database=digest,
            database_size=size,
            index=index,
            unavailable=tuple(work.unavailable),
        )
        write_manifest(target, manifest)
        _prune(target, manifest, work.entries)
    return Made(manifest, work.copied)


# --------------------------------------------------------------------------- the places


def _check_data(data: Path) -> None:
    try:
        text = (data / "VERSION").read_text().strip()
    except OSError:
        raise BackupError(f"{data} is no data directory of a control plane: it has no VERSION") from None
    if not text.isdigit() or int(text) > DIRECTORY_FORMAT:
        raise BackupError(
            f"the data directory {data} has format {text[:40]}, this release knows up to {DIRECTORY_FORMAT}; "
            "make the backup with the release that wrote it"
        )
    if not (data / "state.db").is_file():
        raise BackupError(f"{data} holds no database yet; start the control plane once")


@contextmanager
def _own(target: Path) -> Iterator[None]:
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BackupError(f"{target} cannot be used: {error.strerror}; name another directory") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BackupError(f"another backup is being made in {target}; wait for it") from None
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise BackupError(f"the backup failed{where}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise BackupError(f"the database of the data directory cannot be copied: {error}") from None
    finally:
        os.close(handle)


@contextmanager
def _hold(data: Path) -> Iterator[None]:
    """Keeps retention from removing anything; it takes the lock for moments only, so this waits no longer."""
    handle = os.open(data / HOLD_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _installation(data: Path) -> str:
    with closing(_open(data / "state.db")) as database:
        row = database.execute("SELECT installation FROM counters").fetchone()
    if row is None:
        raise BackupError(f"{data} holds no database that was used; start the control plane once")
    return str(row[0])


def _adopt(target: Path, word: str) -> Manifest | None:
    """The earlier backup in the place, if there is a finished one; marks the place as ours."""
    marker = target / MARKER
    names = {path.name for path in target.iterdir()}
    if not names:
        write_whole(marker, f"Backup of the Opentailr installation {lineage(word)}\n".encode())
        return None
    try:
        owner = marker.read_text().split()[-1]
    except (OSError, ValueError, IndexError):
        raise BackupError(
            f"{target} is not empty and holds no backup; name a directory that is empty or does not exist"
        ) from None
    if owner != lineage(word):
        raise BackupError(
            f"{target} holds a backup of another installation ({owner}, not {lineage(word)}); "
            "name another directory"
        )
    return read_manifest(target) if MANIFEST in names else None


def _reusable(target: Path, earlier: Manifest, word: str) -> dict[tuple[str, str], Entry]:
    """Files that cannot have changed since and are there in their whole length."""
    known = {}
    for entry in read_index(target, earlier):
        final = entry.kind == "object" or (
            entry.kind == "log" and earlier.installation == word and not entry.mode & stat.S_IWUSR
        )
        if final and _length(place_of(target, earlier, entry)) == entry.size:
            known[entry.kind, entry.path] = entry
    return known


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


# --------------------------------------------------------------------------- the parts


def _open(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{database}?mode=rw", uri=True, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 10000").close()
    return connection


def _copy_database(source: Path, target: Path) -> None:
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with closing(_open(source)) as database:
            database.execute("VACUUM INTO ?", (str(target),))
        os.fsync(handle)
    finally:
        os.close(handle)
    with closing(sqlite3.connect(target)) as copied:
        verdict = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise BackupError(f"the database {source} is damaged: {verdict}")


def _facts(database: sqlite3.Connection) -> tuple[dict[str, int], str]:
    def number(sql: str) -> int:
        return int(database.execute(sql).fetchone()[0])

    counts = {
        "jobs": number("SELECT count(*) FROM jobs"),
        "versions": number("SELECT count(*) FROM versions"),
        "runs": number("SELECT count(*) FROM runs"),
        "active_runs": number("SELECT count(*) FROM runs WHERE state < 100"),
    }
    return counts, str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _copy_objects(work: _Work, database: sqlite3.Connection) -> None:
    wanted = database.execute(
        "SELECT result_digest FROM run_tasks WHERE result_digest IS NOT NULL AND NOT result_inline "
        "UNION SELECT arguments_digest FROM definition_tasks "
        "WHERE arguments_digest IS NOT NULL AND NOT arguments_inline "
        "UNION SELECT json_extract(header, '$.bundle.digest') FROM definitions "
        "UNION SELECT json_extract(bundle, '$.digest') FROM images WHERE bundle <> '' ORDER BY 1"
    )
    for (digest,) in wanted:
        name = f"{digest[:2]}/{digest}"
        entry = work.known.get(("object", name))
        if entry is None:
            target = work.target / "objects" / name
            try:
                size, found = copy(work.data / "objects" / name, target, mode=0o400)
            except FileNotFoundError:
                work.unavailable.append(digest)
                continue
            if found != digest:
                target.unlink()
                work.unavailable.append(digest)
                continue
            entry = Entry("object", name, size, digest, 0o400)
            work.copied += 1
        work.entries.append(entry)


def _copy_logs(work: _Work, database: sqlite3.Connection, word: str) -> None:
    ids = database.execute("SELECT attempt_id FROM attempts UNION ALL SELECT build_id FROM builds")
    runs = database.execute("SELECT run_id FROM runs")
    for log_id in (*(row[0] for row in ids), *(run_log_id(row[0]) for row in runs)):
        for stream in Stream:
            name = log_path(log_id, stream)
            try:
                found = (work.data / "logs" / name).stat()
            except FileNotFoundError:
                continue
            entry = work.known.get(("log", name))
            if entry is None or entry.size != found.st_size:
                target = work.target / "logs" / word / name
                mode = stat.S_IMODE(found.st_mode)
                # As long as it is now: it may be growing. A copy that is there is not longer than that.
                size, digest = copy(work.data / "logs" / name, target, size=found.st_size)
                entry = Entry("log", name, size, digest, mode)
                work.copied += 1
            work.entries.append(entry)


def _copy_files(work: _Work) -> None:
    for folder, folders, names in os.walk(work.data):
        here = Path(folder)
        if here == work.data:
            folders[:] = [name for name in folders if name not in _APART]
            names = [name for name in names if name not in _APART]
        for name in sorted(names):
            path = here / name
            if path.is_symlink() or not path.is_file() or (name.startswith(".") and name.endswith(".tmp")):
                continue
            relative = path.relative_to(work.data).as_posix()
            mode = stat.S_IMODE(path.stat().st_mode)
            # Under a name of its content: an earlier backup here may have another file of this name.
            size, digest = digest_of(path)
            if copy(path, work.target / "files" / digest, size=size) != (size, digest):
                raise BackupError(f"{path} changed while it was copied; make the backup again")
            work.entries.append(Entry("file", relative, size, digest, mode))
            work.copied += 1


def _count(work: _Work, kind: str) -> int:
    return sum(entry.kind == kind for entry in work.entries)


def _prune(target: Path, manifest: Manifest, entries: list[Entry]) -> None:
    """Removes what belonged to earlier backups alone."""
    needed = {place_of(target, manifest, entry) for entry in entries}
    needed |= {target / "database" / f"{manifest.database}.db", target / "index" / f"{manifest.index}.jsonl"}
    for name in ("database", "index", "objects", "logs", "files"):
        for folder, _, files in os.walk(target / name, topdown=False):
            for file in files:
                path = Path(folder) / file
                if path not in needed:
                    path.unlink()
    for path in (target / "logs").glob("*"):
        if path.name != manifest.installation:
            shutil.rmtree(path)
