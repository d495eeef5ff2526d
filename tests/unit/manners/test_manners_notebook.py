"""A run in a notebook: one output that is kept up to date, escaped, and folded when it is done."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from datatailr.scheduler import _notebook
from datatailr.scheduler._notebook import Looking, page, show

BEGIN = datetime(2026, 1, 2, 3, 4, 5)


def details(state: str, *tasks: str) -> dict[str, Any]:
    """A run in a state with tasks in theirs."""
    return {
        "state": state,
        "start_time": BEGIN,
        "end_time": BEGIN.replace(second=7) if state == "completed" else None,
        "tasks": [
            {"id": number, "name": f"<t{number}>", "state": word, "start_time": None, "end_time": None}
            for number, word in enumerate(tasks)
        ],
    }


class Kernel:
    """A notebook that remembers what was displayed and how it was updated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.displays: list[Mapping[str, str]] = []
        self.updates: list[Mapping[str, str]] = []
        package, module = ModuleType("IPython"), ModuleType("IPython.display")
        vars(package).update(get_ipython=lambda: SimpleNamespace(kernel=self))
        vars(module).update(display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", module)
        monkeypatch.setattr(_notebook, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(_notebook, "_LONGEST_PAUSE", 0.001)

    def display(self, bundle: Mapping[str, str], *, raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw and display_id
        self.displays.append(bundle)
        return SimpleNamespace(update=self.update)

    def update(self, bundle: Mapping[str, str], *, raw: bool) -> None:
        assert raw
        self.updates.append(bundle)


def test_one_output_is_updated_until_the_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    running = details("running", "running", "pending")
    states = iter(
        [running, running, details("running", "completed", "running"), details("completed", "completed")]
    )
    thread = show("handle", Looking("run 4 of Flow", lambda: next(states)))
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    assert len(kernel.displays) == 1 and kernel.displays[0]["text/plain"] == "'handle'"
    assert kernel.displays[0]["text/html"].startswith("<details open>")
    assert kernel.updates[-1]["text/html"].startswith("<details><summary>run 4 of Flow: "), (
        "folded at the end"
    )
    assert "after 2.0 s (1 completed)" in kernel.updates[-1]["text/html"]


def test_a_run_that_has_ended_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    assert show("handle", Looking("run 4", lambda: details("failed", "failed"))) is None
    assert len(kernel.displays) == 1 and not kernel.updates
    assert kernel.displays[0]["text/html"].startswith("<details open>"), "what failed stays open"


def test_a_platform_that_stays_away_ends_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)

    def fail() -> Mapping[str, Any]:
        raise ConnectionError("no <answer>\nhint: wait")

    thread = show("handle", Looking("run 4", fail))
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    assert kernel.displays[0]["text/html"] == "<p>run 4: no &lt;answer&gt;</p>"


def test_without_a_notebook_it_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert show("handle", Looking("run 4", lambda: details("running"))) is None
    assert capsys.readouterr().out == "'handle'\n"


def test_words_of_the_user_are_escaped() -> None:
    text = page("run 1 of <script>", details("running", "running"))
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "<t0>" not in text and "<td>&lt;t0&gt;</td>" in text


def test_a_large_workflow_shows_what_matters() -> None:
    text = page("run 1", details("failed", *["completed"] * 500, "failed", *["completed"] * 500))
    assert text.count("<tr>") == 22 and "… and 981 more tasks" in text
    assert "&lt;t500&gt;" in text, "the failed one is among those shown"
