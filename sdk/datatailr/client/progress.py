"""What a person sees on stderr while a job is packaged, uploaded, built and started.

On a terminal a step that takes longer than a moment has a spinner and its latest news; when it is
done one line stays. Elsewhere each finished step is one plain line. `DATATAILR_PROGRESS=0`
switches all of it off, `NO_COLOR` the colours. `rich` is imported only when a spinner is shown,
which a quick call never needs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.status import Status

_QUICK: Final = 0.3
"""Seconds that a step may take before a spinner appears."""

_PATIENCE: Final = 1.0
"""Seconds that a step may wait for one thing before a line says so."""


class Step:
    """One step under way."""

    def __init__(
        self,
        name: str,
        show: Callable[[Step], None],
        tell: Callable[[str, str], None],
        *,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        self.name = name
        self.news = ""
        self.outcome = ""
        self._show = show
        self._tell = tell
        self._patience = patience
        self._reason = ""
        self._timer: threading.Timer | None = None
        self._clock = clock
        self._begin = clock()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._clock() - self._begin

    def update(self, news: str) -> None:
        """Tell the latest news, for instance the last line of a log."""
        self.stop_waiting()
        self.news = news
        self._show(self)

    def wait(self, reason: str) -> None:
        """Tell what it waits for.

        Where nothing is live, a step would say nothing until it is done, which may be hours later:
        there a reason that lasts becomes a line that stays, once.
        """
        self.update(f"waiting: {reason}")

        if reason != self._reason:
            self._timer = threading.Timer(self._patience, self._lasts, (reason,))
            self._timer.daemon = True
            self._timer.start()

    def stop_waiting(self) -> None:
        """Nothing is waited for any more, or something else."""
        timer, self._timer = self._timer, None

        if timer is not None:
            timer.cancel()
            timer.join()

    def _lasts(self, reason: str) -> None:
        self._reason = reason
        self._tell(self.name, f"waiting: {reason}")

    def done(self, outcome: str) -> None:
        """Say how it ended; without this the line that stays holds the name alone."""
        self.outcome = outcome


class Progress:
    """Shows steps on one stream.

    Args:
        stream: stderr unless told otherwise, looked up at each use.
        environ: Where the switches are read; the process's environment by default.
        clock: Seconds, for the length of steps.
        patience: Seconds that a step may wait for one thing before a line says so.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = _PATIENCE,
    ) -> None:
        self._stream = stream
        self._patience = patience
        self._environ = os.environ if environ is None else environ
        self._clock = clock
        self._status: Status | None = None

    @property
    def enabled(self) -> bool:
        """False after `DATATAILR_PROGRESS=0`."""
        return self._environ.get("DATATAILR_PROGRESS", "1").strip().lower() not in {"0", "false", "off", "no"}

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show a step until the block is left; one that fails shows no outcome line."""
        step = Step(name, self._show, self._tell_waiting, clock=self._clock, patience=self._patience)

        try:
            yield step
        finally:
            step.stop_waiting()
            self._stop_spinner()

        self.line(name, step.outcome)

    def line(self, name: str, text: str) -> None:
        """One line that stays."""
        if not self.enabled:
            return

        mark = f"\x1b[32m✓\x1b[0m {name}" if self._colours else name
        print(f"{mark}: {text}" if text else mark, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Something the user should know at once; shown also when progress is switched off."""
        self._stop_spinner()
        mark = "\x1b[33mnote:\x1b[0m" if self._colours else "note:"
        print(f"{mark} {text}", file=self._out, flush=True)

    @property
    def _out(self) -> TextIO:
        return sys.stderr if self._stream is None else self._stream

    @property
    def _live(self) -> bool:
        return self.enabled and self._out.isatty() and self._environ.get("TERM", "") != "dumb"

    @property
    def _colours(self) -> bool:
        return self._live and not self._environ.get("NO_COLOR")

    def _tell_waiting(self, name: str, text: str) -> None:
        if not self._live:
            self.line(name, text)

    def _show(self, step: Step) -> None:
        if not self._live or (self._status is None and step.seconds < _QUICK):
            return

        from rich.text import Text

        text = Text.assemble((step.name, "bold"), f"  {step.seconds:.0f} s  ", (step.news, "dim"))
        text.no_wrap = True
        text.overflow = "ellipsis"

        if self._status is not None:
            self._status.update(text)
            return

        from rich.console import Console

        console = Console(file=self._out, no_color=bool(self._environ.get("NO_COLOR")))
        self._status = console.status(text)
        self._status.start()

    def _stop_spinner(self) -> None:
        status, self._status = self._status, None

        if status is not None:
            status.stop()


def size_text(size: int) -> str:
    """A number of bytes for people, in decimal units: `999 B`, `1.2 kB`, `100 MB`."""
    if size < 1000:
        return f"{size} B"

    unit, value = "kB", size / 1000

    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break

        unit, value = larger, value / 1000

    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
