"""Logging and colours (section 19)."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from datatailr.logging import BOLD, CYAN, GREEN, RED, DatatailrLogger, color_text, get_log_level

LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (\w+) - (.+?) - (.+?) - (\S+) - \[Line \d+\]: (.*)$"
)


@pytest.fixture
def name() -> Iterator[str]:
    unique = f"test.{uuid.uuid4().hex}"
    yield unique
    logger = logging.getLogger(unique)
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


@pytest.mark.clause("B264")
def test_lines_and_streams(name: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATATAILR_USER", "al%ice")
    monkeypatch.setenv("DATATAILR_JOB_NAME", "my-job")
    logger = DatatailrLogger(name, log_level="DEBUG").get_logger()
    DatatailrLogger(name, log_level="DEBUG")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, level)("text of %s", level)
    output = capsys.readouterr()
    found = [LINE.fullmatch(line) for line in (output.out + output.err).splitlines()]
    assert [match.groups() for match in found if match] == [
        (level.upper(), "al%ice", "my-job", name, f"text of {level}")
        for level in ("debug", "info", "warning", "error", "critical")
    ]
    assert len(output.out.splitlines()) == 2
    assert len(output.err.splitlines()) == 3
    assert isinstance(logger, logging.Logger)


@pytest.mark.clause("B264")
def test_log_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    logger = DatatailrLogger(name, log_file=str(file)).get_logger()
    DatatailrLogger(name, log_file=str(file))
    logger.warning("once")
    assert file.read_text().count("once") == 1
    (handler,) = [entry for entry in logger.handlers if isinstance(entry, RotatingFileHandler)]
    assert (handler.maxBytes, handler.backupCount) == (10 * 1024 * 1024, 5)


@pytest.mark.clause("B265")
@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("TRACE", 10),
        ("debug", 10),
        ("INFO", 20),
        ("WARNING", 30),
        ("ERROR", 40),
        ("CRITICAL", 50),
        ("x", 20),
        ("", 20),
    ],
)
def test_levels(name: str, monkeypatch: pytest.MonkeyPatch, text: str, level: int) -> None:
    monkeypatch.setenv("DATATAILR_LOG_LEVEL", text)
    assert get_log_level() == level
    assert DatatailrLogger(name).get_logger().level == level
    with pytest.raises(ValueError, match="'LOUD'"):
        DatatailrLogger(name, log_level="LOUD")


@pytest.mark.clause("B266")
def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datatailr.logging._NO_COLOR", False)
    assert RED("x") == "\x1b[31mx\x1b[0m" == color_text("x", "red")
    assert BOLD("x") == "\x1b[1mx\x1b[0m"
    assert CYAN(3) == "\x1b[36m3\x1b[0m"
    assert GREEN("x") == color_text("x", "GREEN")
    with pytest.raises(ValueError, match="'pink'"):
        color_text("x", "pink")


@pytest.mark.clause("B266")
@pytest.mark.parametrize(("value", "expected"), [("1", "x"), ("", "\x1b[31mx\x1b[0m")])
def test_no_color_is_read_at_import(value: str, expected: str) -> None:
    code = "import os; from datatailr.logging import RED; os.environ.pop('NO_COLOR'); print(RED('x'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"NO_COLOR": value}, capture_output=True, text=True, check=True
    )
    assert done.stdout == expected + "\n"
