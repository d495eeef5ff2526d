from __future__ import annotations

from typing import Any

import pytest

from datatailr.runner.binding import bind


def call(function: Any, stored: dict[str, Any], **environment: str) -> Any:
    positional, keywords = bind(
        function,
        stored,
        {f"DATATAILR_BATCH_ARG_{name.upper()}": value for name, value in environment.items()},
    )
    return function(*positional, **keywords)


@pytest.mark.clause("B17")
def test_positional_keyword_and_variable_arguments_come_back() -> None:
    def f(a: int, b: int = 2, *args: int, c: int = 3, **more: int) -> Any:
        return a, b, args, c, more

    assert call(f, {"a": 1, "b": 5, "args": (7, 8), "c": 9, "x": 10}) == (1, 5, (7, 8), 9, {"x": 10})
    assert call(f, {"a": 1, "b": 2, "args": (), "c": 3}) == (1, 2, (), 3, {})
    assert call(f, {"a": 1}) == (1, 2, (), 3, {})


@pytest.mark.clause("B17")
def test_positional_only_parameters_are_passed_by_position() -> None:
    def f(a: int, b: int = 2, /, c: int = 3) -> Any:
        return a, b, c

    assert call(f, {"a": 1, "c": 4}) == (1, 2, 4)


@pytest.mark.clause("B40", "B41", "B42")
def test_platform_parameters_are_filled_only_where_declared_and_not_given() -> None:
    def f(rundate: str, *args: int) -> Any:
        return rundate, args

    def g(a: int, job_name: str = "none") -> Any:
        return a, job_name

    assert call(f, {"args": (1, 2)}, rundate="2026-04-09") == ("2026-04-09", (1, 2))
    assert call(f, {"rundate": "given", "args": ()}, rundate="2026-04-09") == ("given", ())
    assert call(g, {"a": 1}, job_name="j", rundate="2026-04-09") == (1, "j")
    assert call(g, {"a": 1}) == (1, "none")


@pytest.mark.clause("B40")
def test_platform_values_never_enter_variable_parameters() -> None:
    def f(*rundate: str, **job_name: str) -> Any:
        return rundate, job_name

    assert call(f, {}, rundate="2026-04-09", job_name="j") == ((), {})


def test_arguments_that_do_not_fit_name_the_parameter() -> None:
    def f(needed: int, other: int = 1) -> None: ...

    with pytest.raises(TypeError, match="'needed'"):
        bind(f, {}, {})
    with pytest.raises(TypeError, match="'extra'"):
        bind(f, {"needed": 1, "extra": 2}, {})


def test_functions_without_a_signature_get_keywords() -> None:
    assert call(dict, {"a": 1}) == {"a": 1}
