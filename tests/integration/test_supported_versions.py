"""The SDK under every supported interpreter of this machine, stubs with the oldest and newest runtime."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")
WORKFLOW = """
from datatailr import task, workflow

@task()
def number():
    return 20

@task(memory="256m", cpu=1)
def add(a, b, *more, scale=1):
    print("adding", a, b)
    return (a + b + sum(more)) * scale

@workflow(name="Sum Up")
def sum_up():
    return add(number(), 1, number(), scale=2)

if __name__ == "__main__":
    import json
    sum_up(local_run=True)
    document = json.loads(sum_up(to_json=True))
    assert [job["name"] for job in document["jobs"]] == ["number", "number-1", "add"], document
    assert document["jobs"][2]["depends_on"] == [0, 1], document
    assert add(1, 2) == 3
"""
STUBS = """
import importlib, pkgutil, warnings
warnings.simplefilter("error")
import datatailr.v1 as package
names = [info.name for info in pkgutil.iter_modules(package.__path__)]
assert len(names) >= 18, names
for name in names:
    importlib.import_module("datatailr.v1." + name)
from datatailr.v1 import agent_pb2, common_pb2
import google.protobuf, grpc
report = agent_pb2.ReportEntry(report_seq=7, attempt=agent_pb2.AttemptReport(
    attempt_id="att_1", result=common_pb2.Payload(inline=b"x", size=1)))
assert agent_pb2.ReportEntry.FromString(report.SerializeToString()) == report
print(google.protobuf.__version__, grpc.__version__)
"""


def interpreters() -> dict[str, str]:
    """Finds the supported interpreters of this machine, by minor version."""
    found = {}
    roots = [Path(entry) for entry in os.environ["PATH"].split(os.pathsep)]
    roots += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    for minor in SUPPORTED:
        for root in roots:
            candidate = root / f"python{minor}"
            if (
                candidate.exists()
                and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0
            ):
                found[minor] = str(candidate)
                break
    return found


def oldest(name: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        match = re.match(rf"{name}>=([0-9.]+)", requirement)
        if match:
            return match[1]
    raise AssertionError(f"{name} has no lower bound in pyproject.toml")


def make_environment(folder: Path, python: str, *requirements: str) -> Path:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is part of the development dependencies"
    subprocess.run([uv, "venv", "-q", "--python", python, folder], check=True)
    interpreter = folder / "bin" / "python"
    if requirements:
        subprocess.run([uv, "pip", "install", "-q", "--python", interpreter, *requirements], check=True)
    return interpreter


def run(interpreter: Path | str, *arguments: str, cwd: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "sdk"), "XDG_CONFIG_HOME": str(cwd)}
    env.pop("DATATAILR_ADDRESS", None)
    done = subprocess.run([interpreter, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("minor", sorted(interpreters()))
def test_definitions_need_nothing_but_the_interpreter(minor: str, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(WORKFLOW)
    assert "adding 20 1" in run(interpreters()[minor], "flow.py", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["oldest", "newest"])
@pytest.mark.parametrize(
    "minor", sorted({min(interpreters()), max(interpreters())}, key=lambda m: int(m[2:]))
)
def test_stubs_with_the_bounds_of_the_runtime(minor: str, bound: str, tmp_path: Path) -> None:
    pinned = [f"{name}=={oldest(name)}.*" if bound == "oldest" else name for name in ("grpcio", "protobuf")]
    interpreter = make_environment(tmp_path / "env", interpreters()[minor], *pinned)
    versions = run(interpreter, "-c", STUBS, cwd=tmp_path)
    if bound == "oldest":
        assert versions.startswith(oldest("protobuf")), versions
