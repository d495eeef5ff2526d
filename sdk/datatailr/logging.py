"""Logging and colours for programs that run on the platform (section 19)."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, TextIO

__all__ = [
    "BLUE",
    "BOLD",
    "CYAN",
    "GREEN",
    "MAGENTA",
    "RED",
    "YELLOW",
    "DatatailrLogger",
    "color_text",
    "get_log_level",
]

_CODES = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bold": "1",
}
# Read once, as a program should not change its looks while it runs (clause B266).
_NO_COLOR = bool(os.environ.get("NO_COLOR"))
_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
}
_FILE_BYTES = 10 * 1024 * 1024
_FILES_KEPT = 5
_FORMAT = "%(asctime)s - %(levelname)s - {user} - {job} - %(name)s - [Line %(lineno)d]: %(message)s"


def color_text(text: object, color_name: str) -> str:
    """Wrap a text in the codes of a colour, also without a terminal; NO_COLOR turns it off.

    Raises:
        ValueError: no such colour.
    """
    code = _CODES.get(color_name.lower())
    if code is None:
        raise ValueError(f"color_name is {color_name!r}; it must be one of {', '.join(_CODES)}")
    return str(text) if _NO_COLOR else f"\x1b[{code}m{text}\x1b[0m"


def RED(text: object) -> str:
    """The text in red."""
    return color_text(text, "red")


def GREEN(text: object) -> str:
    """The text in green."""
    return color_text(text, "green")


def YELLOW(text: object) -> str:
    """The text in yellow."""
    return color_text(text, "yellow")


def BLUE(text: object) -> str:
    """The text in blue."""
    return color_text(text, "blue")


def MAGENTA(text: object) -> str:
    """The text in magenta."""
    return color_text(text, "magenta")


def CYAN(text: object) -> str:
    """The text in cyan."""
    return color_text(text, "cyan")


def BOLD(text: object) -> str:
    """The text in bold."""
    return color_text(text, "bold")


def get_log_level() -> int:
    """The level that DATATAILR_LOG_LEVEL asks for, INFO when it says nothing known (B265)."""
    return _LEVELS.get(os.environ.get("DATATAILR_LOG_LEVEL", "").strip().upper(), logging.INFO)


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    # not subscriptable at run time before Python 3.11
    _StreamHandler = logging.StreamHandler


class _StandardStreamHandler(_StreamHandler):
    """Writes to the stream that is the standard one at that moment.

    Streams are replaced during a program's life: by notebooks, by test tools, by the platform.
    """

    def __init__(self, stream_name: str, *, errors: bool) -> None:
        self._stream_name = stream_name
        self._errors = errors
        super().__init__()

    @property
    def stream(self) -> TextIO:
        found: TextIO = getattr(sys, self._stream_name)
        return found

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """The base class assigns a stream once; the name decides here."""

    def filter(self, record: logging.LogRecord) -> Any:
        if (record.levelno >= logging.WARNING) != self._errors:
            return False
        return super().filter(record)


class DatatailrLogger:
    """A logger whose lines name user and job (clause B264).

    Up to INFO lines go to stdout, from WARNING on to stderr. A line reads
    `time - LEVEL - user - job name - logger - [Line n]: message`. Making it twice for one name
    does not double lines.

    Args:
        name: Name of the logger, usually `__name__`.
        log_file: Also write to this file; a new one is begun after 10 MiB, 5 old ones are kept.
        log_level: Number or name of a level; by default what DATATAILR_LOG_LEVEL says.
    """

    def __init__(self, name: str, log_file: str | None = None, log_level: int | str | None = None) -> None:
        self._logger = logging.getLogger(name)
        self._logger.setLevel(_level(log_level))
        self._logger.propagate = False
        formatter = logging.Formatter(
            _FORMAT.format(
                user=_escaped(os.environ.get("DATATAILR_USER") or _system_user()),
                job=_escaped(os.environ.get("DATATAILR_JOB_NAME", "local")),
            )
        )
        present = [
            handler for handler in self._logger.handlers if isinstance(handler, _StandardStreamHandler)
        ]
        if not present:
            present = [
                _StandardStreamHandler("stdout", errors=False),
                _StandardStreamHandler("stderr", errors=True),
            ]
            for handler in present:
                self._logger.addHandler(handler)
        for handler in present:
            handler.setFormatter(formatter)
        if log_file is not None:
            self._add_file(os.path.abspath(log_file), formatter)

    def _add_file(self, path: str, formatter: logging.Formatter) -> None:
        for handler in self._logger.handlers:
            if isinstance(handler, RotatingFileHandler) and handler.baseFilename == path:
                return
        added = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8")
        added.setFormatter(formatter)
        self._logger.addHandler(added)

    def get_logger(self) -> logging.Logger:
        """The logger."""
        return self._logger

    def enable_opentelemetry(self) -> None:
        """Also hand the records to OpenTelemetry.

        Raises:
            RuntimeError: the package opentelemetry-sdk is not installed.
        """
        try:
            # an optional package, looked up by name as it need not be there
            handler_class = __import__("opentelemetry.sdk._logs", fromlist=["LoggingHandler"]).LoggingHandler
        except (ImportError, AttributeError) as error:
            raise RuntimeError("OpenTelemetry is not available; install opentelemetry-sdk") from error
        if not any(isinstance(handler, handler_class) for handler in self._logger.handlers):
            self._logger.addHandler(handler_class())


def _level(value: int | str | None) -> int:
    if value is None:
        return get_log_level()
    if isinstance(value, int):
        return value
    found = _LEVELS.get(value.strip().upper())
    if found is None:
        raise ValueError(f"log_level is {value!r}; it must be one of {', '.join(_LEVELS)}")
    return found


def _system_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry in the system's list
        return str(os.getuid())


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
