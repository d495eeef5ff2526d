"""What the requests for lists share: filter, order, and page tokens, which say where a list goes on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from datatailr.filters import Expression, FilterError, Listing, SortKey, parse_filter, parse_sort

from ..core.errors import InvalidArgument
from ..store.filtering import Order
from ..store.listings import Page

MESSAGE_BYTES = 3 * 1024 * 1024
"""Most bytes of a page: below the 4 MiB that a message may have, with room for the rest of it."""

_MAX_OFFSET = 1 << 40

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class ListRequest(Protocol):
    """The fields that requests for filtered lists have in common."""

    filter: str
    sort: str
    offset: int
    page_token: str


def filter_in(request: ListRequest, listing: Listing) -> Expression | None:
    """The filter of a request (clauses B276 to B281); None for an empty one.

    Raises:
        InvalidArgument: It has a mistake; the message marks the token at fault.
    """
    return _understood(parse_filter, request.filter, listing, "filter")


def sort_in(request: ListRequest, listing: Listing) -> tuple[SortKey, ...]:
    """The order of a request (clause B282); empty for the list's own.

    Raises:
        InvalidArgument: It has a mistake; the message marks the token at fault.
    """
    return _understood(parse_sort, request.sort, listing, "sort")


def page_in(request: ListRequest, kind: str, terms: Sequence[Order], limit: int) -> Page:
    """The page that a request asks for.

    Args:
        request: Its token goes on with a list of the same filter and order only.
        kind: Names the list.
        terms: The order's terms, of which the cursor has the values.
        limit: Most rows.

    Raises:
        InvalidArgument: The token is not one of this list, or the offset is no count.
    """
    if not 0 <= request.offset < _MAX_OFFSET:
        raise InvalidArgument(
            "bad_offset",
            f"offset {request.offset} is no count of rows",
            field="offset",
            hint="give 0 or more",
        )
    cursor = read_token(request.page_token, _kind(request, kind), *(term.cursor for term in terms))
    return Page(limit, after=cursor, offset=request.offset)


def next_page(request: ListRequest, kind: str, values: Sequence[Any]) -> str:
    """The token of the page after the row with these values of the order's terms."""
    return make_token(_kind(request, kind), *values)


def _understood(read: Callable[[str, Listing], T], text: str, listing: Listing, field: str) -> T:
    try:
        return read(text, listing)
    except FilterError as error:
        raise InvalidArgument(f"bad_{field}", error.text, field=field, hint=error.hint) from None


def _kind(request: ListRequest, kind: str) -> str:
    if not request.filter and not request.sort:
        return kind
    asked = json.dumps([request.filter, request.sort]).encode()
    return f"{kind} {hashlib.sha256(asked).hexdigest()[:16]}"


def fit(messages: Sequence[M]) -> list[M]:
    """As many of the messages from the first one on as one answer can carry, at least one."""
    room = MESSAGE_BYTES
    for number, message in enumerate(messages):
        room -= message.ByteSize() + 8
        if room < 0:
            return list(messages[: max(1, number)])
    return list(messages)


def make_token(kind: str, *cursor: str | int | float) -> str:
    """The token of the page that begins after the cursor; `kind` names the list."""
    text = json.dumps([kind, *cursor], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_token(token: str, kind: str, *types: type) -> tuple[Any, ...] | None:
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
        and all(_is_a(value, wanted) for value, wanted in zip(content[1:], types))
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


def _is_a(value: object, wanted: type) -> bool:
    # JSON has one kind of number: 1.0 may come as 1.
    return type(value) is wanted or (wanted is float and type(value) is int)
