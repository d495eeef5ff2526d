"""Page tokens: where a list goes on, opaque to callers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from ..core.errors import InvalidArgument

MESSAGE_BYTES = 3 * 1024 * 1024
"""Most bytes of a page: below the 4 MiB that a message may have, with room for the rest of it."""

M = TypeVar("M", bound=Message)


def fit(messages: Sequence[M]) -> list[M]:
    """As many of the messages from the first one on as one answer can carry, at least one."""
    room = MESSAGE_BYTES
    for number, message in enumerate(messages):
        room -= message.ByteSize() + 8
        if room < 0:
            return list(messages[: max(1, number)])
    return list(messages)


def make_token(kind: str, *cursor: str | int) -> str:
    """The token of the page that begins after the cursor; `kind` names the list."""
    text = json.dumps([kind, *cursor], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_token(token: str, kind: str, *types: type) -> tuple[str | int, ...] | None:
    """The cursor in a token; None for the first page.

    Raises:
        InvalidArgument: The token is not one of this list.
    """
    if not token:
        return None
    try:
        content = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        content = None
    fits = (
        isinstance(content, list)
        and len(content) == len(types) + 1
        and content[0] == kind
        and all(type(value) is wanted for value, wanted in zip(content[1:], types))
        and all(abs(value) < 1 << 62 for value in content[1:] if isinstance(value, int))
    )
    if not fits:
        raise InvalidArgument(
            "bad_page_token",
            f"page_token {token[:40]!r} does not belong to this list",
            field="page_token",
            hint="give next_page_token of the page before, with the same request otherwise",
        )
    return tuple(content[1:])
