"""Tokens: bearer words for people and agents, and signed ones for runs.

Only SHA-256 hashes of tokens stay in memory; the files that hold tokens and the
key are readable by their owner alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..files import write_whole

_PREFIX = "otr1"
_FILE_LIMIT = 4096


class Role(Enum):
    """What kind of caller a token stands for."""

    USER = "user"
    AGENT = "agent"
    RUN = "run"


class InsecureFile(Exception):
    """A file with a secret can be read by others, or does not hold what it should."""


def read_or_make_secret(path: Path) -> str:
    """The secret in the file; a new random one is made, durably, if the file is missing.

    Raises:
        InsecureFile: Others than the owner may read it, or it is empty.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise InsecureFile(f"{path} can be read by other users; run: chmod 600 {path}")
            text = file.read(_FILE_LIMIT).decode("ascii", "replace").strip()
    except FileNotFoundError:
        text = secrets.token_urlsafe(32)
        write_whole(path, text.encode() + b"\n")
    if not text:
        raise InsecureFile(f"{path} is empty; remove it and a new one is made at the next start")
    return text


def hash_token(token: str) -> bytes:
    """What is kept of a token. Random tokens need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).digest()


class TokenTable:
    """The known bearer tokens, as hashes."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, Role, int]] = []

    def add(self, token: str, role: Role, *, user_id: int = 0) -> None:
        """Makes a token known; `user_id` says whose it is when the role is USER."""
        self._entries.append((hash_token(token), role, user_id))

    def find(self, token: str) -> tuple[Role, int] | None:
        """Role and user of a token, or None. Takes the same time wherever and whether it matches."""
        wanted, found = hash_token(token), None
        for known, role, user_id in self._entries:
            if hmac.compare_digest(known, wanted):
                found = (role, user_id)
        return found


@dataclass(frozen=True, slots=True)
class RunClaim:
    """What a run token says: code of this run, acting as this user."""

    run_id: int
    user: str


class RunTokens:
    """Signed tokens for the code of runs; nothing is stored for them.

    A token is valid as long as its run is active, which the caller of `verify` checks, and until
    the key file is replaced. `earlier` keys, each valid for runs below a number, are those of before a
    restore: code of runs that the restored state knows may go on, that of later ones, whose numbers will
    be given again, may not.
    """

    def __init__(self, key: bytes, earlier: Sequence[tuple[bytes, int]] = ()) -> None:
        self._key = key
        self._earlier = tuple(earlier)

    @classmethod
    def from_file(cls, path: Path) -> RunTokens:
        """With the key in the file, made at the first start (mode 0600), and the earlier ones beside it."""
        key = read_or_make_secret(path).encode()
        beside = earlier_keys(path)
        lines = read_or_make_secret(beside).splitlines() if beside.exists() else []
        try:
            pairs = [(word.encode(), int(limit)) for word, limit in (line.split() for line in lines)]
        except ValueError:
            raise InsecureFile(
                f"{beside} does not hold a key and a number a line; remove it, and attempts that were "
                "started before the restore lose their access"
            ) from None
        return cls(key, pairs)

    def issue(self, run_id: int, user: str) -> str:
        """A token for the code of a run. The same arguments give the same token."""
        text = json.dumps([run_id, user], separators=(",", ":")).encode()
        return f"{_PREFIX}.{_encode(text)}.{_encode(self._sign(text))}"

    def verify(self, token: str) -> RunClaim | None:
        """What the token says, or None if it was not issued with this key."""
        parts = token.split(".")
        if len(parts) != 3 or parts[0] != _PREFIX:
            return None
        try:
            text, signature = _decode(parts[1]), _decode(parts[2])
        except (ValueError, binascii.Error):
            return None
        if hmac.compare_digest(signature, self._sign(text)):
            run_id, user = json.loads(text)
            return RunClaim(run_id, user)
        for key, limit in self._earlier:
            if hmac.compare_digest(signature, _sign(key, text)):
                run_id, user = json.loads(text)
                return RunClaim(run_id, user) if run_id < limit else None
        return None

    def _sign(self, text: bytes) -> bytes:
        return _sign(self._key, text)


def earlier_keys(path: Path) -> Path:
    """The file beside a key file that holds the keys of before a restore, each with a number, a line each."""
    return path.with_name(f"{path.name}.earlier")


def _sign(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, b"run\0" + text, "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
