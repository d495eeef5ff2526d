"""A short text that shows a result to people."""

from __future__ import annotations

import json
import reprlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MAX_PREVIEW = 4096
"""Bytes of JSON text."""
MAX_TEXT = 2000
"""Characters of the text inside."""
SECONDS = 0.5
"""Time that a class may take to describe itself."""

_PLAIN = (str, int, float, bool, type(None))


class _TooSlow(BaseException):
    """Raised inside a `__repr__` that takes too long; no `except Exception` may swallow it."""


class _Repr(reprlib.Repr):
    """Cuts containers and strings before they are turned into text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 20
        self.maxdeque = self.maxarray = 20
        self.maxstring = 400
        self.maxlong = 100
        self.maxother = MAX_TEXT

    def repr_instance(self, x: Any, level: int) -> str:
        text = repr(x)
        return text if len(text) <= self.maxother else text[: self.maxother] + "…"


def preview(value: Any) -> str:
    """JSON object with `type`, `text` and, for small plain values, `value`; at most 4 KiB.

    Never raises, whatever the class of the value does.
    """
    kind = _type_name(value)
    if _is_plain(value, depth=4, budget=[200]):
        # Nothing of the user's is called for these, so nothing can take long.
        text = json.dumps({"type": kind, "text": _Repr().repr(value)[:MAX_TEXT], "value": value})
        if len(text) <= MAX_PREVIEW:
            return text
    shown = {"type": kind, "text": _text(value)}
    text = json.dumps(shown)
    while len(text) > MAX_PREVIEW:
        shown["text"] = shown["text"][: len(shown["text"]) * 2 // 3] + "…"
        shown["type"] = kind[:200]
        text = json.dumps(shown)
    return text


def _type_name(value: Any) -> str:
    kind = type(value)
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except Exception:
        return "object"
    return name if module == "builtins" else f"{module}.{name}"


def _text(value: Any) -> str:
    try:
        with _time_limit(SECONDS):
            return _Repr().repr(value)[:MAX_TEXT]
    except _TooSlow:
        return f"<{_type_name(value)}: its description took longer than {SECONDS} s>"
    except BaseException as error:
        return f"<{_type_name(value)}: its description failed with {type(error).__name__}>"


def _is_plain(value: Any, *, depth: int, budget: list[int]) -> bool:
    """True for small JSON values of exactly the built-in types; nothing of the user's is called."""
    budget[0] -= 1
    if budget[0] < 0 or depth < 0:
        return False
    kind = type(value)
    if kind is float:
        return bool(value == value and value not in (float("inf"), float("-inf")))
    if kind is int:
        return bool(value.bit_length() <= 256)
    if kind in _PLAIN:
        return kind is not str or len(value) <= MAX_TEXT
    if kind is list:
        return len(value) <= 100 and all(_is_plain(item, depth=depth - 1, budget=budget) for item in value)
    if kind is dict:
        return len(value) <= 100 and all(
            type(key) is str and len(key) <= 200 and _is_plain(item, depth=depth - 1, budget=budget)
            for key, item in value.items()
        )
    return False


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupts the block after some time; only where signals reach Python code, the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
