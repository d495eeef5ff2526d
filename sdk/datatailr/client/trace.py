"""What `dt -vv` shows: each call on the wire with its duration, outcome and request id, on stderr.

Set `DATATAILR_TRACE=1` for the same in any program. Neither contents nor the token are shown: of a
request only its size, of the metadata nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from datatailr.client.status import request_id_of, status_of

VARIABLE: Final = "DATATAILR_TRACE"
"""Any value but 0 and the empty one switches the display on."""


def enabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether calls are to be shown."""
    return (os.environ if environ is None else environ).get(VARIABLE, "").strip() not in {"", "0"}


def traced(channel: grpc.Channel) -> grpc.Channel:
    """The channel itself, or one that shows each call made on it if that is asked for."""
    return grpc.intercept_channel(channel, _Interceptor()) if enabled() else channel


def tell_repetition(number: int, pause: float, error: grpc.RpcError) -> None:
    """Say that a call is made again after a pause in seconds."""
    if enabled():
        code, text = status_of(error)
        _line(f"repetition {number} in {pause:.2f} s, because of {code.name}: {text}")


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _timed(continuation, details, request, size=request.ByteSize())

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _timed(continuation, details, request, size=request.ByteSize())

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return _timed(continuation, details, requests)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return _timed(continuation, details, requests)


def _timed(continuation: Callable[..., Any], details: Any, request: Any, *, size: int | None = None) -> Any:
    begin = time.monotonic()
    call = continuation(details, request)

    def tell(ended: Any) -> None:
        took = (time.monotonic() - begin) * 1000
        name = details.method.rpartition(".")[2]
        sent = "" if size is None else f"  {size} B"
        _line(f"{name}  {ended.code().name}  {took:.1f} ms{sent}  {request_id_of(ended) or '-'}")

    if call.done():
        tell(call)
    else:
        call.add_done_callback(tell)

    return call


def _line(text: str) -> None:
    print(f"rpc: {text}", file=sys.stderr, flush=True)
