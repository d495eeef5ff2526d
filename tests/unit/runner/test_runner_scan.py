from __future__ import annotations

from pathlib import Path

import pytest

from datatailr.runner.scan import foreign_imports


def write(root: Path, **files: str) -> str:
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_foreign_imports_are_followed_through_the_bundle(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        p__init="",
        p__flow="import os, pandas as pd\nfrom . import helper\n"
        "from .sub.deep import thing\nimport p.other\n",
        p__helper="from sklearn.linear_model import Ridge\n",
        p__other="import yaml.nodes\n",
        p__unused="import never\n",
        p__sub__deep="try:\n    import fast\nexcept ImportError:\n    import slow\n",
    )
    found = foreign_imports("p.flow", [root])
    assert set(found) == {
        "pandas",
        "sklearn.linear_model",
        "sklearn.linear_model.Ridge",
        "yaml.nodes",
        "fast",
        "slow",
    }


def test_what_does_not_run_at_import_does_not_count(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        m="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import types_only\n"
        "else:\n    import real\n"
        "def f():\n    import lazy\n"
        "class C:\n    import in_class\n",
    )
    assert foreign_imports("m", [root]) == ["real", "in_class"]


@pytest.mark.parametrize("source", ["def f(:\n", "\0", "(" * 100_000, "x = " + "-" * 200_000 + "1"])
def test_source_that_cannot_be_read_adds_nothing(tmp_path: Path, source: str) -> None:
    assert foreign_imports("m", [write(tmp_path, m=source)]) == []
    assert foreign_imports("absent", [str(tmp_path)]) == []
