"""A run in a notebook: one small table that is kept up to date, and folds when the run has ended well.

Where no notebook is there to update it, in a terminal or in an export, it is shown once as it stands.
Nothing here needs IPython; who has a notebook has it.
"""

from __future__ import annotations

import html
import importlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

__all__ = ["ENDED", "Looking", "page", "show"]

ENDED: Final = frozenset({"completed", "failed", "failed_after", "out_of_memory", "stopped", "expired"})
"""States after which a run does not change (clause B107), but for `expired` after `completed`."""

_WELL: Final = frozenset({"completed", "expired"})
_COLOURS: Final[Mapping[str, str]] = {
    "completed": "#1a7f37",
    "running": "#0969da",
    "starting": "#0969da",
    "failed": "#cf222e",
    "failed_after": "#cf222e",
    "out_of_memory": "#cf222e",
    "stopped": "#9a6700",
}
_FIRST: Final = ("failed", "out_of_memory", "failed_after", "running", "starting", "pending", "stopped")
"""Which tasks are kept when there are too many for one table."""

_MOST_ROWS: Final = 20
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks at a run."""
_MOST_FAILURES: Final = 20
"""Looks in a row that may fail before the table stays as it is."""


def page(title: str, details: Mapping[str, Any]) -> str:
    """The HTML of a run; all words of the user's are escaped.

    Args:
        title: What is run, for instance `run 4 of Flow`.
        details: The run with its tasks, as in clause B148.
    """
    state, tasks = str(details["state"]), list(details["tasks"])
    counts = Counter(str(task["state"]) for task in tasks)
    total = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    took = _took(details)
    head = f"{html.escape(f'{title}: ')}{_coloured(state)}{html.escape(f' after {took}' if took else '')}"
    chosen = _choose(tasks)
    rows = "".join(
        f"<tr><td>{html.escape(str(task['name']))}</td><td>{_coloured(str(task['state']))}</td>"
        f"<td>{html.escape(_took(task))}</td></tr>"
        for task in chosen
    )
    more = len(tasks) - len(chosen)
    rest = f"<tr><td colspan='3'>… and {more} more tasks</td></tr>" if more else ""
    is_open = "" if state in _WELL else " open"
    table = f"<table><tr><th>task</th><th>state</th><th>took</th></tr>{rows}{rest}</table>"
    return f"<details{is_open}><summary>{head} ({html.escape(total)})</summary>{table}</details>"


def show(run: object, look: Callable[[], tuple[str, bool]]) -> threading.Thread | None:
    """Show a run in the notebook that runs this program, or as text where there is none.

    Args:
        run: Its `repr` is the text form.
        look: The HTML as it stands now, and whether that is the last; may raise nothing.

    Returns:
        The thread that keeps it up to date until the run has ended; None where none is needed.
    """
    if not _in_notebook():
        print(repr(run))
        return None

    text, is_last = look()
    handle = importlib.import_module("IPython.display").display(_bundle(run, text), raw=True, display_id=True)

    if is_last or handle is None:
        return None

    thread = threading.Thread(
        target=_keep, args=(run, look, handle.update), name="datatailr-notebook", daemon=True
    )
    thread.start()
    return thread


def _keep(run: object, look: Callable[[], tuple[str, bool]], update: Callable[..., object]) -> None:
    pause, before, is_last = _FIRST_PAUSE, "", False
    never = threading.Event()

    while not is_last:
        never.wait(pause)
        pause = min(pause * 1.3, _LONGEST_PAUSE)
        text, is_last = look()

        if text != before:
            before = text
            update(_bundle(run, text), raw=True)


class Looking:
    """Looks at a run again and again; gives up after many failures in a row."""

    def __init__(self, title: str, details: Callable[[], Mapping[str, Any]]) -> None:
        self._title = title
        self._details = details
        self._failures = 0

    def __call__(self) -> tuple[str, bool]:
        """The HTML as it stands now, and whether nothing will change any more."""
        try:
            details = self._details()
        except Exception as error:
            self._failures += 1
            words = str(error).partition("\n")[0]
            return f"<p>{html.escape(f'{self._title}: {words}')}</p>", self._failures >= _MOST_FAILURES

        self._failures = 0
        return page(self._title, details), details["state"] in ENDED


def _bundle(run: object, text: str) -> dict[str, str]:
    return {"text/plain": repr(run), "text/html": text}


def _in_notebook() -> bool:
    """Whether this program is the kernel of a notebook; a terminal could not update what it showed."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


def _choose(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if len(tasks) <= _MOST_ROWS:
        return list(tasks)

    def interest(task: Mapping[str, Any]) -> int:
        state = str(task["state"])
        return _FIRST.index(state) if state in _FIRST else len(_FIRST)

    return sorted(sorted(tasks, key=interest)[:_MOST_ROWS], key=lambda task: int(task["id"]))


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"<span style='color: {colour}'>{state}</span>" if colour else html.escape(state)


def _took(entry: Mapping[str, Any]) -> str:
    begin, end = entry.get("start_time"), entry.get("end_time")

    if not isinstance(begin, datetime):
        return ""

    seconds = ((end if isinstance(end, datetime) else datetime.now()) - begin).total_seconds()
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes)} min {rest:02.0f} s" if minutes else f"{rest:.1f} s"
