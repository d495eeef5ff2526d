"""Tracebacks that read like those of a local run."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

MAX_TEXT = 64 << 10
"""Characters of a traceback that are kept."""
MAX_MESSAGE = 8 << 10

_RUNNER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORT_MACHINERY = "<frozen importlib"


def format_failure(error: BaseException, *, root: str | None) -> str:
    """The traceback as the interpreter prints it, without the platform's frames.

    Files below `root`, the folder that the code was imported from, are shown
    relative to it. Causes, contexts and groups keep their own tracebacks. Never
    raises.
    """
    try:
        captured = traceback.TracebackException(type(error), error, _user_part(error.__traceback__))
        _localise(captured, root, set())
        text = "".join(captured.format())
    except Exception as trouble:
        text = f"{type(error).__name__} (its traceback could not be formatted: {type(trouble).__name__})\n"
    if len(text) > MAX_TEXT:
        half = MAX_TEXT // 2
        text = f"{text[:half]}\n  [... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """The exception's own words, cut; never raises."""
    try:
        text = str(error)
    except BaseException as trouble:
        text = f"<its message could not be read: {type(trouble).__name__}>"
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


def last_line(error: BaseException) -> str:
    """Class and words of an exception, as they end a traceback; never raises."""
    text = message_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_root(module: str, file: str | None) -> str | None:
    """Folder from which a module was imported, None when it has no file."""
    if not file:
        return None
    folder = os.path.dirname(os.path.abspath(file))
    if os.path.basename(file).startswith("__init__."):
        folder = os.path.dirname(folder)
    for _ in range(module.count(".")):
        folder = os.path.dirname(folder)
    return folder


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is the user's."""
    while trace is not None and _is_platform(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_platform(filename: str) -> bool:
    return filename.startswith((_RUNNER, _IMPORT_MACHINERY))


def _localise(captured: traceback.TracebackException, root: str | None, seen: set[int]) -> None:
    if id(captured) in seen:
        return
    seen.add(id(captured))
    frames = [frame for frame in captured.stack if not _is_platform(frame.filename)]
    captured.stack[:] = frames
    if root is not None:
        prefix = root.rstrip(os.sep) + os.sep
        for frame in frames:
            frame.line  # noqa: B018 - reads the source line while the name of the file is still the real one
            if frame.filename.startswith(prefix):
                frame.filename = frame.filename[len(prefix) :]
        name = getattr(captured, "filename", None)  # only a SyntaxError has one
        if isinstance(name, str) and name.startswith(prefix):
            captured.filename = name[len(prefix) :]
    for other in (captured.__cause__, captured.__context__, *(getattr(captured, "exceptions", None) or ())):
        if other is not None:
            _localise(other, root, seen)
