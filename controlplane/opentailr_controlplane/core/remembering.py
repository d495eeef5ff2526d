"""Equal key and request give the first answer again; an equal key with another request is refused
(invariant 24)."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from .commands import PromoteReply, Reply, RerunReply, SaveReply, StartReply, VersionsReply
from .errors import AlreadyExists
from .model import Remembered, State
from .values import Instant, PeopleState

_KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (SaveReply, StartReply, RerunReply, PromoteReply, VersionsReply)
}


def recall(state: State, actor: str, key: str, request_digest: str) -> Reply | None:
    """The first answer to this request, if there was one.

    Raises:
        AlreadyExists: the key was used for another request.
    """
    if not key:
        return None
    kept = state.remembered.get((actor, key))
    if kept is None:
        return None
    if kept.request_digest != request_digest:
        raise AlreadyExists(
            "idempotency_conflict",
            f"The idempotency key {key[:80]!r} was used for a different request.",
            field="idempotency_key",
            hint="Choose a new key for each intended change.",
        )
    return kept.reply


def remember(state: State, actor: str, key: str, request_digest: str, reply: Reply, now: Instant) -> None:
    """Keeps an answer for a day."""
    if not key:
        return
    kept = Remembered(request_digest, reply, now.wall + state.settings.idempotency_life)
    state.remembered[actor, key] = kept
    state.dirty.remembered[actor, key] = kept
    if (actor, key) in state.dirty.forgotten:
        # Its last answer ran out in this very round; the row is written anew and must not go.
        state.dirty.forgotten.remove((actor, key))
    if len(state.remembered) > state.settings.idempotency_limit:
        _forget(state, next(iter(state.remembered)))


def forget_old(state: State, now: Instant) -> None:
    """Drops what has been kept long enough; answers are kept in the order they were given."""
    while state.remembered:
        key, kept = next(iter(state.remembered.items()))
        if kept.expire_time > now.wall:
            return
        _forget(state, key)


def _forget(state: State, key: tuple[str, str]) -> None:
    del state.remembered[key]
    state.dirty.remembered.pop(key, None)
    state.dirty.forgotten.append(key)


def encode_reply(reply: Reply) -> tuple[str, str]:
    """Kind and JSON text, for the store."""
    return type(reply).__name__, json.dumps(dataclasses.asdict(reply), separators=(",", ":"))


def decode_reply(kind: str, text: str) -> Reply:
    """The inverse of `encode_reply`."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
    }
    if "state" in fields:
        fields["state"] = PeopleState(fields["state"])
    reply: Reply = _KINDS[kind](**fields)
    return reply
