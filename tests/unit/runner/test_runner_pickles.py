from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datatailr.runner import pickles


class Unfriendly(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("only one argument is kept")


class Reference:
    pass


class Pickler(pickle.Pickler):
    def persistent_id(self, thing: object) -> object:
        return getattr(thing, "pid", None)


def store(path: Path, arguments: object, pid: object = ("task", 1)) -> str:
    Reference.pid = pid  # type: ignore[attr-defined]
    with path.open("wb") as file:
        Pickler(file, 5).dump(arguments)
    return str(path)


@pytest.mark.clause("B43")
def test_one_result_is_read_once_and_shared(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(pickle.dumps({"big": 1}))
    path = store(tmp_path / "arguments", {"a": Reference(), "b": [Reference()], "c": "task"})
    found = pickles.read_arguments(path, {1: str(tmp_path / "one")})
    assert found == {"a": {"big": 1}, "b": [{"big": 1}], "c": "task"}
    assert found["a"] is found["b"][0]


@pytest.mark.parametrize("pid", [("task", 2), ("other", 1), "task"])
def test_references_that_were_not_handed_over_are_errors(tmp_path: Path, pid: object) -> None:
    path = store(tmp_path / "arguments", {"a": Reference()}, pid)
    with pytest.raises(pickle.UnpicklingError):
        pickles.read_arguments(path, {1: str(tmp_path / "one")})


def test_arguments_must_be_a_dictionary(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="list"):
        pickles.read_arguments(store(tmp_path / "arguments", [1]), {})


@pytest.mark.parametrize("size", [0, 1, 60_000, 65_536, 200_000, 3_000_000])
def test_results_stay_in_memory_up_to_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "result"
    data, written = pickles.write_result(["x", bytes(size)], str(path), task="t")
    content = data if data is not None else path.read_bytes()
    assert (data is None) == (written > 64 << 10) == path.exists()
    assert len(content) == written and pickle.loads(content) == ["x", bytes(size)]


@pytest.mark.clause("B44")
def test_a_result_that_fails_late_leaves_no_file_and_names_the_task(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with pytest.raises(
        pickles.ResultError, match=r"of task 'my task' \(a\.b:f\) cannot.*builtins\.tuple.*lock"
    ) as caught:
        pickles.write_result((bytes(200_000), threading.Lock()), str(path), task="task 'my task' (a.b:f)")
    assert not path.exists() and isinstance(caught.value.__cause__, TypeError)


def test_cloudpickle_takes_over_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second:
        def __init__(self, file: Any, protocol: int) -> None:
            self._file = file

        def dump(self, value: object) -> None:
            self._file.write(pickle.dumps("by the second"))

    module = ModuleType("cloudpickle")
    module.Pickler = Second  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cloudpickle", module)
    data, _ = pickles.write_result(lambda: 1, str(tmp_path / "result"), task="t")
    assert data is not None and pickle.loads(data) == "by the second"


def test_exceptions_are_pickled_only_if_they_can_be_read_back() -> None:
    data = pickles.pickle_exception(KeyError("k"))
    assert data is not None and pickle.loads(data).args == ("k",)
    assert pickles.pickle_exception(Unfriendly(1, 2)) is None
    assert pickles.pickle_exception(ValueError(threading.Lock())) is None
    assert pickles.pickle_exception(ValueError("x" * 100_000)) is None
