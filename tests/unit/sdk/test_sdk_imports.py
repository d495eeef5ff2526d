"""What importing the package loads and exports, and where a platform is looked for."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import datatailr
from datatailr.errors import InvalidRequestError
from datatailr.scheduler import _platform
from datatailr.scheduler._platform import ClientConfiguration, configuration_path, read_configuration

HEAVY = {"grpc", "google", "rich", "typer", "sqlalchemy", "asyncio", "zoneinfo", "tomllib"}


def test_importing_loads_no_network_library() -> None:
    code = "import datatailr, datatailr.scheduler, datatailr.excel, datatailr.build, sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in output.split()}
    assert loaded & HEAVY == set()
    assert "datatailr.client" not in output


@pytest.mark.parametrize(
    "module",
    [
        "datatailr",
        "datatailr.scheduler",
        "datatailr.scheduler.batch",
        "datatailr.scheduler.utils",
        "datatailr.excel",
    ],
)
def test_exports_exist_and_are_public(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        assert value is not None
        assert name.startswith("__") or not name.startswith("_")
        assert (getattr(value, "__doc__", None) or "").strip() or isinstance(value, str)
    assert sorted(loaded.__all__) == sorted(set(loaded.__all__))


def test_the_version_is_that_of_the_distribution() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'version = "{datatailr.__version__}"' in text


def configure(**content: Any) -> None:
    configuration_path().parent.mkdir(parents=True, exist_ok=True)
    configuration_path().write_text(json.dumps(content))


@pytest.mark.clause("B61")
def test_where_a_platform_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_configuration() is None
    assert _platform.get_platform() is None
    assert not datatailr.is_dt_installed()
    configure(address="127.0.0.1:7070", token="from-file")
    assert read_configuration() == ClientConfiguration("127.0.0.1:7070", "from-file")
    assert datatailr.is_dt_installed()
    monkeypatch.setenv("DATATAILR_TOKEN", "from-env")
    assert read_configuration() == ClientConfiguration("127.0.0.1:7070", "from-env")
    monkeypatch.setenv("DATATAILR_ADDRESS", "other:1")
    assert read_configuration() == ClientConfiguration("other:1", "from-env")
    monkeypatch.delenv("DATATAILR_TOKEN")
    # the token of one server is never sent to another
    assert read_configuration() == ClientConfiguration("other:1", "")


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ClientConfiguration("a:1", "secret"))


@pytest.mark.parametrize("text", ["", "[1]", '{"token": "x"}', '{"address": 7}'])
def test_a_broken_configuration_is_named(text: str) -> None:
    configuration_path().parent.mkdir(parents=True)
    configuration_path().write_text(text)
    with pytest.raises(InvalidRequestError, match=r"client\.json"):
        read_configuration()


def test_the_default_place_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert configuration_path() == Path(os.path.expanduser("~/.config/opentailr/client.json"))
