"""Progress for people: lines, spinner, switches."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pytest

from datatailr.client.progress import Progress, size_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_elsewhere() -> None:
    out = io.StringIO()
    progress = Progress(out, environ={})

    with progress.step("upload") as step:
        step.update("half")
        step.done("all sent")

    assert out.getvalue() == "upload: all sent\n"


class Heard(io.StringIO):
    """Lets a test wait for what is written."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text: str) -> int:
        with self._changed:
            written = super().write(text)
            self._changed.notify_all()
            return written

    def until(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.getvalue(), timeout=10)


def test_what_a_step_waits_for_is_a_line_once() -> None:
    out = Heard()

    with Progress(out, environ={}, patience=0).step("environment") as step:
        step.wait("no node is there")
        out.until("no node is there\n")
        step.wait("no node is there")
        step.update("building")
        step.wait("no node has Python 3.14")
        out.until("3.14\n")
        step.done("ready")

    assert out.getvalue() == (
        "environment: waiting: no node is there\n"
        "environment: waiting: no node has Python 3.14\n"
        "environment: ready\n"
    )
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_what_passes_at_once_is_no_line() -> None:
    out = Heard()

    with Progress(out, environ={}, patience=60).step("environment") as step:
        step.wait("vm begins to build it")
        step.done("ready")

    assert out.getvalue() == "environment: ready\n"
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_failed_step_leaves_no_line() -> None:
    out = io.StringIO()

    with pytest.raises(ValueError), Progress(out, environ={}).step("upload"):
        raise ValueError("no")

    assert out.getvalue() == ""


@pytest.mark.parametrize("value", ["0", "false", "off", "NO"])
def test_it_can_be_switched_off_but_notes_stay(value: str) -> None:
    out = io.StringIO()
    progress = Progress(out, environ={"DATATAILR_PROGRESS": value})

    with progress.step("upload") as step:
        step.done("all sent")

    progress.note("it waits")
    assert out.getvalue() == "note: it waits\n"


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_has_colours_unless_they_are_unwanted(environ: dict[str, str], coloured: bool) -> None:
    out = Terminal()
    Progress(out, environ=environ).line("started", "run 1")
    assert ("\x1b" in out.getvalue()) is coloured
    assert "started" in out.getvalue()


def test_a_long_step_has_a_spinner_with_its_news() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(out, environ={}, clock=clock)

    with progress.step("environment") as step:
        step.update("too early")
        clock.now = 2.0
        step.update("Installing numpy")
        step.done("ready after 2.0 s")

    assert "too early" not in out.getvalue()
    assert "Installing numpy" in out.getvalue()
    assert out.getvalue().endswith("\x1b[32m✓\x1b[0m environment: ready after 2.0 s\n")


def test_a_quick_step_does_not_import_rich() -> None:
    code = (
        "import sys; from datatailr.client.progress import Progress\n"
        "p = Progress(sys.stderr, environ={})\n"
        "with p.step('upload') as step: step.update('x'); step.done('sent')\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'rich'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == "upload: sent\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (12_345, "12 kB"), (999_600, "1.0 MB"), (10**8, "100 MB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
