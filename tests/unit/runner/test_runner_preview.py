from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from datatailr.runner import preview as module
from datatailr.runner.preview import MAX_PREVIEW, preview


class Raises:
    def __repr__(self) -> str:
        raise SystemExit(3)


class Endless:
    def __repr__(self) -> str:
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: PERF203
                continue


class Huge:
    def __repr__(self) -> str:
        return "é" * 10_000_000


class NotText:
    def __repr__(self) -> Any:
        return 5


class Pretends(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise AssertionError("user code was called")


@pytest.mark.parametrize("value", [None, 1, 2.5, "text", [1, {"a": [True]}], {}, {"k": None}])
def test_small_plain_values_are_shown_as_themselves(value: object) -> None:
    shown = json.loads(preview(value))
    assert shown["value"] == value and shown["text"] == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        Raises(),
        Huge(),
        NotText(),
        Pretends(a=1),
        float("nan"),
        float("inf"),
        10**10_000,
        list(range(10**6)),
        dict.fromkeys(range(1000), "x" * 1000),
        "\ud800 \x00 é" * 5000,
        b"\xff" * 10_000,
        type("N" * 10_000, (), {})(),
        [[[[[[[[]]]]]]]],
    ],
    ids=lambda value: type(value).__name__[:10],
)
def test_any_value_gives_short_valid_json(value: object) -> None:
    text = preview(value)
    assert len(text.encode()) <= MAX_PREVIEW
    assert set(json.loads(text)) <= {"type", "text", "value"}


def test_a_cycle_is_cut() -> None:
    value: list[Any] = []
    value.append(value)
    assert len(preview(value)) < MAX_PREVIEW


def test_a_description_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    assert "took longer" in json.loads(preview(Endless()))["text"]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
