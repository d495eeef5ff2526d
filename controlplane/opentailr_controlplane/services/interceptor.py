"""The one chain that every call passes, whatever its kind.

In this order: request id, authentication, protocol version, role, deadline,
and around the handler the mapping of errors and the metrics. Handlers below it
raise CoreError and know nothing of status codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog

from datatailr.v1 import common_pb2

from ..core.errors import (
    AlreadyExists,
    CoreError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from ..errors import Aborted, DataLoss, Unauthenticated
from ..metrics import Metrics
from ..security.authentication import Authenticator, check_role, set_caller

PROTOCOL = 1
"""The version of the wire that this server speaks."""

PROTOCOL_KEY = "opentailr-protocol"
ERROR_KEY = "opentailr-error-bin"

DEFAULT_DEADLINE = 60.0
"""Seconds that a call with one answer may take when its caller set no deadline."""

_TEXT_LIMIT = 2000
"""Most bytes of each text of an error. Clients take 8 KiB of metadata in all, and a byte that is not plain
ASCII travels as three."""

_DRAIN_SECONDS = 0.1
"""How long a refused stream is read on; see `_drain`."""

_WITHOUT_TOKEN = "/grpc.health.v1.Health/"

_STATUS: dict[type[CoreError], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Aborted: grpc.StatusCode.ABORTED,
    DataLoss: grpc.StatusCode.DATA_LOSS,
}

Handler = Any
"""A grpc.RpcMethodHandler; its behaviours are untyped."""

Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("opentailr.rpc")


def status_of(error: CoreError) -> grpc.StatusCode:
    """The status that an error of the core becomes."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return grpc.StatusCode.INTERNAL


class CallChain(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server.

    Args:
        authenticator: Finds the caller.
        metrics: Counts calls.
        deadline: Seconds for calls with one answer whose caller set none.
    """

    def __init__(
        self, authenticator: Authenticator, metrics: Metrics, *, deadline: float = DEFAULT_DEADLINE
    ) -> None:
        self._authenticator = authenticator
        self._metrics = metrics
        self._deadline = deadline
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                # Unknown methods are not remembered: their names are the caller's to choose.
                return grpc.stream_stream_rpc_method_handler(self._stream("unknown", _unknown, drain=True))
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **codec)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, handler.stream_unary), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **codec)
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, handler.stream_stream, drain=True), **codec
        )

    def _unary(self, method: str, inner: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            request_id, begun = _new_request_id(), time.perf_counter()
            try:
                await self._admit(method, context, request_id)
                if context.time_remaining() is not None:
                    return await inner(request, context)
                limit = asyncio.timeout(self._deadline)
                try:
                    async with limit:
                        return await inner(request, context)
                except TimeoutError:
                    if not limit.expired():
                        raise
                    await context.abort(
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        f"not answered within {self._deadline:g} s",
                        _trailer("deadline", request_id=request_id),
                    )
            except Exception as error:
                await self._fail(method, context, request_id, error)
            finally:
                self._metrics.seconds.labels(method).observe(time.perf_counter() - begun)
                self._count(method, context)

        return call

    def _stream(self, method: str, inner: Callable[..., Any], *, drain: bool = False) -> Callable[..., Any]:
        if not inspect.isasyncgenfunction(inner):

            async def write(request: Any, context: Context) -> None:
                request_id = _new_request_id()
                try:
                    await self._admit(method, context, request_id)
                    await inner(request, context)
                except Exception as error:
                    if drain and isinstance(error, CoreError):
                        await _drain(request)
                    await self._fail(method, context, request_id, error)
                finally:
                    self._count(method, context)

            return write

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            request_id = _new_request_id()
            responses = inner(request, context)
            try:
                await self._admit(method, context, request_id)
                async for response in responses:
                    yield response
            except Exception as error:
                if drain and isinstance(error, CoreError):
                    await _drain(request)
                await self._fail(method, context, request_id, error)
            finally:
                await responses.aclose()
                self._count(method, context)

        return generate

    async def _admit(self, method: str, context: Context, request_id: str) -> None:
        structlog.contextvars.bind_contextvars(request_id=request_id, method=method)
        await context.send_initial_metadata(((PROTOCOL_KEY, str(PROTOCOL)), ("x-request-id", request_id)))
        if method.startswith(_WITHOUT_TOKEN):
            return
        sent = context.invocation_metadata() or ()
        metadata = {key: value for key, value in sent if isinstance(value, str)}
        caller = self._authenticator.by_header(metadata.get("authorization"))
        set_caller(caller)
        if caller.user is not None:
            structlog.contextvars.bind_contextvars(user=caller.user.name)
        spoken = metadata.get(PROTOCOL_KEY)
        if spoken is not None and spoken != str(PROTOCOL):
            raise FailedPrecondition(
                "protocol_mismatch",
                f"the client speaks protocol {spoken[:20]!r}, this server speaks {PROTOCOL}",
                field=PROTOCOL_KEY,
                hint="install the client and the server of the same release",
            )
        check_role(caller, method)

    async def _fail(self, method: str, context: Context, request_id: str, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, CoreError):
            await context.abort(
                status_of(error),
                _short(error.message),
                _trailer(error.reason, field=error.field, hint=error.hint, request_id=request_id),
            )
        if isinstance(error, grpc.aio.UsageError) or context.cancelled():
            # The caller has gone while an answer was being written: nobody to tell, nothing wrong.
            raise error
        _log.error("call failed unexpectedly", exc_info=error)
        await context.abort(
            grpc.StatusCode.INTERNAL,
            f"the server failed to answer; its log has the details under {request_id}",
            _trailer(
                "internal",
                hint="this is a defect of the server: report it with the lines of its log that name this",
                request_id=request_id,
            ),
        )

    def _count(self, method: str, context: Context) -> None:
        if context.cancelled():
            code = "CANCELLED"
        else:
            value = context.code()
            code = value.name if isinstance(value, grpc.StatusCode) else "OK"
        self._metrics.calls.labels(method, code).inc()


async def _unknown(request: Any, context: Context) -> None:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED, "this server has no such method; list its services by reflection"
    )


async def _drain(requests: AsyncIterator[Any]) -> None:
    """Reads on for a moment before a stream is refused.

    A client whose write meets a call that is over already may report that, in place of our status.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in requests:
                pass


def _new_request_id() -> str:
    return f"req_{secrets.token_hex(8)}"


def _short(text: str) -> str:
    room = _TEXT_LIMIT
    for position, character in enumerate(text):
        room -= 1 if " " <= character <= "~" else 3 * len(character.encode("utf-8", "replace"))
        if room < 0:
            return text[:position] + "..."
    return text


def _trailer(
    reason: str, *, field: str = "", hint: str = "", request_id: str
) -> tuple[tuple[str, bytes], ...]:
    detail = common_pb2.ErrorDetail(
        reason=reason, field=field[:200], hint=_short(hint), request_id=request_id
    )
    return ((ERROR_KEY, detail.SerializeToString()),)
