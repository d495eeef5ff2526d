"""What importing the package loads and exports, and where a platform is looked for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from sdk_builder import Builder

import datatailr
from datatailr.client.config import save_config
from datatailr.scheduler import _platform

HEAVY = {"grpc", "google", "rich", "typer", "sqlalchemy", "asyncio", "zoneinfo", "tomllib"}


def test_importing_loads_no_network_library() -> None:
    code = "import datatailr, datatailr.scheduler, datatailr.excel, datatailr.build, sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in output.split()}
    assert loaded & HEAVY == set()
    assert "datatailr.client" not in output


@pytest.mark.parametrize("program", ["dt", "platform"])
def test_the_programs_start_without_the_definitions(program: str) -> None:
    code = f"import datatailr.cli.{program}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in loaded if name.startswith(("datatailr.scheduler", "datatailr.client"))]
    assert not {name.split(".")[0] for name in loaded} & (HEAVY - {"typer", "zoneinfo", "asyncio"})


def test_the_top_level_offers_names_and_submodules_when_they_are_asked_for() -> None:
    code = (
        "import sys, datatailr\n"
        "assert 'datatailr.scheduler' not in sys.modules\n"
        "assert {'Workflow', 'scheduler', 'task'} <= set(dir(datatailr))\n"
        "assert datatailr.scheduler.Workflow is datatailr.Workflow\n"
        "assert datatailr.errors.TaskError.__name__ == 'TaskError'\n"
        "assert not hasattr(datatailr, 'Tsak')\n"
        "from datatailr import *\n"
        "assert task is datatailr.scheduler.task and App is datatailr.App\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_checker_sees_is_what_is_found() -> None:
    tree = ast.parse(Path(datatailr.__file__).read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"
    ]
    seen = {
        alias.name: node.module for node in imports for alias in node.names if node.module != "__future__"
    }
    assert set(seen) == {name for name in datatailr.__all__ if not name.startswith("__")}
    for name, module in seen.items():
        assert getattr(importlib.import_module(module or ""), name) is getattr(datatailr, name)


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


@pytest.mark.clause("B61")
def test_where_a_platform_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _platform.get_platform() is None
    assert not datatailr.is_dt_installed()
    save_config("127.0.0.1:7070", "from-file")
    found = _platform.get_platform()
    assert found is not None and found.address == "127.0.0.1:7070"
    assert datatailr.is_dt_installed()
    monkeypatch.setenv("DATATAILR_ADDRESS", "other:1")
    found = _platform.get_platform()
    assert found is not None and found.address == "other:1"


@pytest.mark.clause("B49", "B95")
def test_a_configuration_that_cannot_be_read_is_told_and_not_raised(
    package: Builder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATATAILR_ADDRESS", "http://127.0.0.1:7070")
    module = package(
        "flows.py",
        "from datatailr import task, workflow\n@task\ndef f(): pass\n@workflow\ndef flow(): f()\n",
    )
    assert module.flow() is None
    assert "DATATAILR_ADDRESS" in capsys.readouterr().err
    service = datatailr.Service("Svc", module.f)
    for operation in (service.save, service.run, service.start, service.stop):
        done, message = operation()
        assert not done and "HOST:PORT" in message
