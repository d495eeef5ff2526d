"""The one table from a failed gRPC call to an exception of `datatailr.errors`.

Every message has up to three parts: what failed (with the field or the address), why, and after
`hint:` what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from datatailr.catalogue import code_of_reason
from datatailr.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PlatformError,
    ProtocolMismatchError,
    ScheduleRefusedError,
    UnauthenticatedError,
    UnavailableError,
)
from datatailr.v1 import common_pb2

PROTOCOL_VERSION: Final = 1
"""The protocol that this client speaks."""

PROTOCOL_KEY: Final = "opentailr-protocol"
"""Metadata that carries the protocol's version, in requests and in the server's answers."""

ERROR_KEY: Final = "opentailr-error-bin"
"""Trailing metadata that carries a serialized ErrorDetail."""

REQUEST_ID_KEY: Final = "x-request-id"
"""Initial metadata that names the call in the log of the server."""

_TABLE: Final[Mapping[grpc.StatusCode, type[PlatformError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: ProtocolMismatchError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}

_BY_REASON: Final[Mapping[str, type[PlatformError]]] = {
    "protocol_mismatch": ProtocolMismatchError,
    "job_type_not_supported": NotSupportedError,
    "predecessor_missing": ScheduleRefusedError,
    "schedule_circle": ScheduleRefusedError,
}
"""Reasons of an ErrorDetail that say more than the code."""

# How gRPC words a peer that accepts connections but does not speak HTTP/2.
_NOT_GRPC: Final = ("SETTINGS", "parsing HTTP/2", "http1", "HTTP/1", "WRONG_VERSION_NUMBER")


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Code and text of a failed call; the base class alone promises neither."""
    code = getattr(error, "code", None)
    text = getattr(error, "details", None)

    if not callable(code) or not callable(text):
        return grpc.StatusCode.UNKNOWN, str(error)

    return code() or grpc.StatusCode.UNKNOWN, text() or ""


def error_detail(error: grpc.RpcError) -> common_pb2.ErrorDetail:
    """The server's ErrorDetail, empty when it sent none or an unreadable one."""
    detail = common_pb2.ErrorDetail()
    raw = _metadata(error, "trailing_metadata").get(ERROR_KEY)

    if isinstance(raw, bytes):
        try:
            detail.ParseFromString(raw)
        except DecodeError:
            detail.Clear()

    return detail


def to_exception(error: grpc.RpcError, *, address: str, token_sent: bool) -> PlatformError:
    """What a failed call means for the caller; the code of the exception is as precise as the server was.

    Args:
        error: The exception of a gRPC call or stream.
        address: `HOST:PORT` of the server, for the message.
        token_sent: Whether the call carried a token, to tell a missing from a wrong one.
    """
    detail = error_detail(error)
    failure = _failure(error, detail, address=address, token_sent=token_sent)
    failure.reason = detail.reason
    failure.request_id = detail.request_id or request_id_of(error)
    failure.code = code_of_reason(detail.reason) or failure.code
    return failure


def request_id_of(call: object) -> str:
    """What finds a call in the log of the server that answered it; empty if none did."""
    found = _metadata(call, "initial_metadata").get(REQUEST_ID_KEY, "")
    return found if isinstance(found, str) else found.decode("ascii", "replace")


def _failure(
    error: grpc.RpcError, detail: common_pb2.ErrorDetail, *, address: str, token_sent: bool
) -> PlatformError:
    code, text = status_of(error)
    kind = _BY_REASON.get(detail.reason) or _TABLE.get(code, PlatformError)

    if kind is UnavailableError:
        return UnavailableError(_unreachable(code, text, address))

    if kind is ProtocolMismatchError:
        return ProtocolMismatchError(_mismatch(error, text, address))

    if kind is UnauthenticatedError:
        return UnauthenticatedError(_not_signed_in(text, address, token_sent=token_sent))

    if kind is PlatformError:
        reason = f"{code.name}: {text}" if text else code.name
        request = f" (request {detail.request_id})" if detail.request_id else ""
        text = f"the server at {address} failed with {reason}{request}"
    elif kind is InvalidRequestError and detail.field and detail.field not in text:
        text = f"{detail.field}: {text}"

    return kind(_with_hint(text or code.name, detail.hint))


def _with_hint(text: str, hint: str) -> str:
    return f"{text}\nhint: {hint}" if hint else text


def _unreachable(code: grpc.StatusCode, text: str, address: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _with_hint(
            f"the server at {address} did not answer in time", "look at its state with `datatailr status`"
        )

    if any(mark in text for mark in _NOT_GRPC):
        hangs = ", or it hangs" if "timed out" in text else ""
        return _with_hint(
            f"what listens at {address} does not speak gRPC{hangs}",
            "check the port: this is for the gRPC port (7070 by default), the HTTP port is for browsers",
        )

    if "refused" in text or "failed to connect" in text or "No such file" in text:
        return _with_hint(f"no server at {address}: is it running?", "start it with `datatailr up`")

    if "DNS" in text or "resolution" in text:
        return _with_hint(f"the host of {address} cannot be found", "check DATATAILR_ADDRESS")

    reason = f": {text}" if text else ""
    return _with_hint(
        f"the connection to {address} was lost{reason}", "look at `datatailr status`, then try again"
    )


def _mismatch(error: grpc.RpcError, text: str, address: str) -> str:
    theirs = _metadata(error, "initial_metadata").get(PROTOCOL_KEY)
    theirs = theirs.decode("ascii", "replace") if isinstance(theirs, bytes) else theirs

    if theirs is None and error_detail(error).reason != "protocol_mismatch":
        return _with_hint(
            f"the gRPC server at {address} does not offer this service ({text or 'UNIMPLEMENTED'})",
            "check that the address is that of an Opentailr control plane, and that it is not older "
            "than this client",
        )

    if theirs == str(PROTOCOL_VERSION):
        return _with_hint(
            f"the server at {address} does not know this call ({text or 'UNIMPLEMENTED'})",
            "it is older than this client: upgrade the server",
        )

    speaks = f"protocol version {theirs}" if theirs else "another protocol version"
    return _with_hint(
        f"the server at {address} speaks {speaks}, this client {PROTOCOL_VERSION}",
        "install the same release of opentailr on both sides",
    )


def _not_signed_in(text: str, address: str, *, token_sent: bool) -> str:
    if not token_sent:
        return _with_hint(
            f"no token was sent to {address}",
            "set DATATAILR_TOKEN, or let `datatailr up` write the client configuration",
        )

    reason = f" ({text})" if text else ""
    return _with_hint(
        f"the server at {address} does not accept the token{reason}",
        "DATATAILR_TOKEN or the client configuration holds the token of another server, or it has expired",
    )


def _metadata(error: object, which: str) -> dict[str, str | bytes]:
    """Metadata of a failed call; empty for errors that never became a call."""
    read = getattr(error, which, None)
    return dict(read() or ()) if callable(read) else {}
