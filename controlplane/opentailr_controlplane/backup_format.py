"""What a backup looks like on disk.

BACKUP              which installation this is a backup of; the first file written
manifest.json       what the backup consists of; the last file written, replaced whole
index/SHA.jsonl     every file with its size and SHA-256, one JSON list a line
database/SHA.db     the database at one moment, compact
objects/ab/DIGEST   content-addressed objects, shared by all backups made into the directory
logs/WORD/ab/ID.out logs as far as they went; WORD names the installation and its latest restore
files/SHA           the other files of the data directory: tokens, keys, ports

Names change with the content, or the content only grows: a backup into the same directory that is broken off
leaves the earlier one whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from .files import sync_directory, write_whole

FORMAT: Final = 1
"""Format of backups that this release writes; raised when an older release could not restore them."""

MANIFEST: Final = "manifest.json"
MARKER: Final = "BACKUP"
BLOCK: Final = 1 << 20


class BackupError(Exception):
    """A backup cannot be made, or not restored; the text is one line that names what and the remedy."""


class NewerBackup(BackupError):
    """The backup was made by a newer release."""


class Entry(NamedTuple):
    """One file of a backup."""

    kind: str
    """`object`, `log` or `file`."""
    path: str
    """Below the data directory, for objects and logs below theirs."""
    size: int
    sha256: str
    mode: int
    """Permission bits."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup consists of. Times in microseconds."""

    format: int
    release: str
    """That made it."""
    schema: str
    """Of the database."""
    installation: str
    """Word of the installation, with that of its latest restore."""
    created: int
    seconds: float
    """How long it took."""
    counts: dict[str, int]
    bytes: int
    """Of all its files."""
    database: str
    """SHA-256 of the database, which is its name."""
    database_size: int
    index: str
    """SHA-256 of the index, which is its name."""
    unavailable: tuple[str, ...] = ()
    """Objects that were missing or damaged in the data directory."""


def lineage(installation: str) -> str:
    """What an installation and its restored forms have in common."""
    return installation.partition("-")[0]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Makes the backup valid: everything it names is on disk by now."""
    document = asdict(manifest)
    document["checksum"] = _checksum(document)
    write_whole(directory / MANIFEST, json.dumps(document, indent=2).encode() + b"\n")


def read_manifest(directory: Path) -> Manifest:
    """The manifest, checked.

    Raises:
        NewerBackup: a newer release wrote it.
        BackupError: there is none, or it is damaged.
    """
    path = directory / MANIFEST
    try:
        document = json.loads(path.read_bytes())
        number = document["format"]
    except FileNotFoundError:
        raise BackupError(f"{directory} holds no finished backup: there is no {MANIFEST}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(number, int) or number > FORMAT:
        raise NewerBackup(
            f"{path} has format {number}, this release knows up to {FORMAT}; install the release "
            f"that made it ({document.get('release', 'unknown')}) or a later one"
        )
    if document.pop("checksum", None) != _checksum(document):
        raise damaged(path, "its checksum differs")
    document["unavailable"] = tuple(document["unavailable"])
    return Manifest(**document)


def write_index(directory: Path, entries: list[Entry]) -> str:
    """Writes the index and returns its name."""
    data = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries).encode()
    name = hashlib.sha256(data).hexdigest()
    (directory / "index").mkdir(mode=0o700, exist_ok=True)
    write_whole(directory / "index" / f"{name}.jsonl", data)
    return name


def read_index(directory: Path, manifest: Manifest) -> list[Entry]:
    """The files of a backup.

    Raises:
        BackupError: the index is damaged.
    """
    path = directory / "index" / f"{manifest.index}.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if hashlib.sha256(data).hexdigest() != manifest.index:
        raise damaged(path, "its content changed")
    return [Entry(*json.loads(line)) for line in data.splitlines()]


def place_of(directory: Path, manifest: Manifest, entry: Entry) -> Path:
    """Where a file of a backup lies."""
    if entry.kind == "log":
        return directory / "logs" / manifest.installation / entry.path
    if entry.kind == "file":
        return directory / "files" / entry.sha256
    return directory / "objects" / entry.path


def damaged(path: Path, why: str) -> BackupError:
    """The error that names a damaged file of a backup."""
    return BackupError(f"the backup is damaged at {path}: {why}; use another backup")


def blocks(path: Path, size: int | None = None) -> Iterator[bytes]:
    """The content of a file in blocks, at most its first `size` bytes."""
    left = size
    with path.open("rb") as file:
        while left is None or left > 0:
            block = file.read(BLOCK if left is None else min(BLOCK, left))
            if not block:
                return
            if left is not None:
                left -= len(block)
            yield block


def digest_of(path: Path, size: int | None = None) -> tuple[int, str]:
    """Length and SHA-256 of a file, or of its first `size` bytes."""
    hasher, length = hashlib.sha256(), 0
    for block in blocks(path, size):
        hasher.update(block)
        length += len(block)
    return length, hasher.hexdigest()


def copy(source: Path, target: Path, *, size: int | None = None, mode: int = 0o600) -> tuple[int, str]:
    """Copies a file, or its first `size` bytes, and returns length and SHA-256 of what was read.

    The copy appears under its name whole, is read once more and compared.

    Raises:
        BackupError: the copy does not have what was read.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    hasher, length = hashlib.sha256(), 0
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            for block in blocks(source, size):
                hasher.update(block)
                length += len(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        found = (length, hasher.hexdigest())
        if digest_of(temporary) != found:
            raise BackupError(f"{target} was not written as it was read; check the disk")
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return found


def sync_tree(root: Path) -> None:
    """Makes the names in a directory and all below it durable."""
    for folder, _, _ in os.walk(root):
        sync_directory(Path(folder))


def _checksum(document: dict[str, Any]) -> str:
    text = json.dumps({name: document[name] for name in sorted(document) if name != "checksum"})
    return hashlib.sha256(text.encode()).hexdigest()
