from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from datatailr.runner import tracebacks

SOURCE = """
def inner(n):
    return 1 / n

def chained():
    try:
        inner(0)
    except ZeroDivisionError as error:
        raise KeyError("outer") from error

def many():
    errors = []
    for n in (0, 0):
        try:
            inner(n)
        except ZeroDivisionError as error:
            errors.append(error)
    raise ExceptionGroup("both", errors)

def deep(n):
    return deep(n + 1)
"""


def load(root: Path) -> ModuleType:
    path = root / "package" / "flow.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("package.flow", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raised(module: ModuleType, name: str, *arguments: object) -> BaseException:
    try:
        getattr(module, name)(*arguments)
    except BaseException as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        return error
    raise AssertionError("nothing was raised")


def test_files_are_shown_relative_to_the_code_and_the_chain_is_kept(tmp_path: Path) -> None:
    text = tracebacks.format_failure(raised(load(tmp_path), "chained"), root=str(tmp_path))
    assert 'File "package/flow.py", line 3, in inner' in text
    assert "return 1 / n" in text and "direct cause" in text and text.endswith("KeyError: 'outer'\n")
    assert str(tmp_path) not in text


def test_frames_of_the_runner_are_removed(tmp_path: Path) -> None:
    from datatailr.runner import binding

    try:
        binding.bind(lambda needed: None, {}, {})
    except TypeError as error:
        assert "binding.py" not in tracebacks.format_failure(error, root=None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_groups_keep_their_members(tmp_path: Path) -> None:
    text = tracebacks.format_failure(raised(load(tmp_path), "many"), root=str(tmp_path))
    assert text.count("ZeroDivisionError") == 2 and str(tmp_path) not in text


def test_syntax_errors_show_the_relative_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    try:
        compile("def f(:\n", str(path), "exec")
    except SyntaxError as error:
        text = tracebacks.format_failure(error, root=str(tmp_path))
        assert 'File "bad.py", line 1' in text


def test_long_and_hostile_exceptions_are_cut(tmp_path: Path) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert len(tracebacks.format_failure(ValueError("x" * 10**6), root=None)) < 70_000
    assert len(tracebacks.message_of(ValueError("x" * 10**6))) < 9_000
    assert "could not be read" in tracebacks.message_of(Hostile())
    assert tracebacks.message_of(ValueError("\ud800")) == "\\ud800"
    text = tracebacks.format_failure(raised(load(tmp_path), "deep", 0), root=str(tmp_path))
    assert "RecursionError" in text and len(text) < 10_000


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("b"), "KeyError: 'b'"),
        (ValueError(), "ValueError"),
        (
            SyntaxError("invalid syntax", ("broken.py", 1, 7, "def f(:")),
            "SyntaxError: invalid syntax (broken.py, line 1)",
        ),
    ],
)
def test_the_last_line_has_the_class(error: Exception, line: str) -> None:
    assert tracebacks.last_line(error) == line


@pytest.mark.parametrize(
    ("module", "file", "root"),
    [
        ("app", "/b/app.py", "/b"),
        ("p.flow", "/b/p/flow.py", "/b"),
        ("p", "/b/p/__init__.py", "/b"),
        ("p.q", "/b/p/q/__init__.py", "/b"),
        ("p", None, None),
    ],
)
def test_the_root_of_the_code_follows_from_module_and_file(
    module: str, file: str | None, root: str | None
) -> None:
    assert tracebacks.code_root(module, file) == root
