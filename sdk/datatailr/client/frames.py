"""Errors of the platform without the frames of how it was asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from datatailr.client import trace
from datatailr.errors import DatatailrError

T = TypeVar("T")


def without_transport_frames(port: type[T]) -> type[T]:
    """Let errors of the package leave the public methods of a class as if they arose there.

    Which helper made which call on the wire says nothing to a user, and hides the line of theirs that
    does. With `DATATAILR_TRACE=1` all frames stay.
    """
    for name, member in list(vars(port).items()):
        if isinstance(member, FunctionType) and not name.startswith("_"):
            setattr(port, name, _shortened(member))

    return port


def _shortened(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except DatatailrError as error:
            failure = error

        # Outside the handler, so that nothing is chained to it that was not before.
        raise failure if trace.enabled() else failure.with_traceback(None)

    return call
