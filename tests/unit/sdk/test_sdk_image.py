"""Images as values, missing packages (section 10, first half), and JSON (section 5)."""

from __future__ import annotations

import json
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import App, Image, Resources, Service, Workflow
from datatailr.build._requirements import missing_packages, requirement_names
from datatailr.scheduler import Job

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.clause("B169")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", RUNNING),
        ("AUTO", RUNNING),
        (None, "3.13"),
        ("", "3.13"),
        ("3.10", "3.10"),
        ("3.14.2", "3.14.2"),
    ],
)
def test_python_versions(given: Any, expected: str) -> None:
    assert Image(python_version=given).python_version == expected


@pytest.mark.clause("B169")
@pytest.mark.parametrize("given", ["3.9", "3.15", "3.1", "2.7", "3.12.x", "python3", "3.12 "[:-1] + "."])
def test_unsupported_python_versions(given: str) -> None:
    with pytest.raises(ValueError, match="python_version"):
        Image(python_version=given)
    with pytest.raises(TypeError, match="python_version"):
        Image(python_version=3.12)  # type: ignore[arg-type]


@pytest.mark.clause("B170")
def test_default_python_versions(package: Builder) -> None:
    module = package("served.py", "def serve(port): pass\n")
    assert App("a", module.serve).image.python_version == "3.12"
    assert Service("a", module.serve).image.python_version == "3.12"
    assert Job("j").image.python_version == RUNNING
    assert Workflow("w").image.python_version == RUNNING


@pytest.mark.clause("B171")
def test_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reqs.txt"
    file.write_text("numpy\npandas\n")
    assert Image(python_requirements=["a", "b==1"]).python_requirements == "a\nb==1"
    from_file = Image(python_requirements=str(file))
    file.write_text("changed")
    assert from_file.python_requirements == "numpy\npandas\n"
    monkeypatch.chdir(tmp_path)
    assert Image(python_requirements="reqs.txt").python_requirements == "changed"
    assert Image(python_requirements="a, b,c").python_requirements == "a\nb\nc"
    assert Image(python_requirements="a\nb").python_requirements == "a\nb"
    for bad in (7, None, ["a", 1]):
        with pytest.raises(TypeError, match="python_requirements"):
            Image(python_requirements=bad)  # type: ignore[arg-type]


@pytest.mark.clause("B171")
def test_frozen_requirements() -> None:
    lines = Image(python_requirements="auto").python_requirements.splitlines()
    assert f"pytest=={metadata.version('pytest')}" in lines
    assert not any(line.lower().startswith(("opentailr", "pip==")) for line in lines)
    assert lines == sorted(
        lines, key=lambda line: line.split("==")[0].lower().replace("_", "-").replace(".", "-")
    )


@pytest.mark.clause("B172")
def test_a_missing_requirements_file_warns() -> None:
    with pytest.warns(UserWarning, match=r"'nowhere\.txt', which does not exist"):
        assert Image(python_requirements="nowhere.txt").python_requirements == ""


PROJECT = '[project]\nname = "x"\nrequires-python = "{}"\ndependencies = ["numpy>=1,<3", "pandas"]\n'


@pytest.mark.clause("B173")
def test_a_project_states_its_requirements(tmp_path: Path, package: Builder) -> None:
    root = tmp_path / "project"
    (root / ".git").mkdir()
    (root / "pyproject.toml").write_text(PROJECT.format(">=3.9"))
    named = Image(python_requirements=str(root / "pyproject.toml"))
    assert named.python_requirements == "numpy>=1,<3\npandas"
    module = package("pkg/served.py", "def serve(port): pass\n", **{"pkg/__init__.py": ""})
    job = Service("Svc", module.serve, python_version="auto", python_requirements="auto")
    assert job.image.python_requirements == "numpy>=1,<3\npandas"
    assert job.image.python_version == RUNNING
    (root / "pyproject.toml").write_text(PROJECT.format(">=3.10,<3.11"))
    assert Service("Svc", module.serve, python_version="auto").image.python_version == "3.10"
    (root / "pkg" / ".python-version").write_text("3.14.1\n")
    assert Service("Svc", module.serve, python_version="auto").image.python_version == "3.14.1"
    (root / "pkg/pyproject.toml").write_text('[project]\nname = "y"\ndependencies = []\n')
    nearest = Service("Svc", module.serve, python_requirements="auto")
    assert nearest.image.python_requirements == ""


@pytest.mark.clause("B174")
def test_build_scripts(tmp_path: Path) -> None:
    (tmp_path / "pre.sh").write_text("apt-get update\n")
    image = Image(build_script_pre=str(tmp_path / "pre.sh"), build_script_post="RUN echo a\\nRUN echo b")
    assert image.build_script_pre == "apt-get update\n"
    assert image.build_script_post == "echo a\necho b"
    assert Image(build_script_pre="echo RUN x").build_script_pre == "echo RUN x"
    for field in ("build_script_pre", "build_script_post"):
        with pytest.raises(TypeError, match=field):
            Image(**{field: ["x"]})


@pytest.mark.clause("B179")
def test_equality_and_update() -> None:
    first, second = Image("3.12", ["a"]), Image("3.12", "a")
    assert first == second
    for name in first.to_dict():
        changed = Image("3.12", ["a"])
        changed.update(**{name: "3.11" if name == "python_version" else "other"})
        assert changed != first
    with pytest.raises(AttributeError, match="nonsense"):
        first.update(python_version="3.11", nonsense=1)
    assert first == second
    with pytest.raises(TypeError, match="branch_name"):
        first.update(branch_name=7)
    with pytest.raises(TypeError):
        first.update(python_requirements=7)
    loaded = Image().from_dict({**second.to_dict(), "image_id": "i", "image_name": "n"})
    assert loaded == second
    assert (loaded.image_id, loaded.image_name) == ("i", "n")


@pytest.mark.clause("B71", "B72")
def test_image_in_json() -> None:
    image = Image("3.12", ["a", "b"])
    expected = {
        "python_version": "3.12",
        "python_requirements": "a\nb",
        "build_script_pre": "",
        "build_script_post": "",
        "branch_name": None,
        "commit_hash": None,
        "path_to_repo": None,
        "path_to_module": None,
    }
    assert image.to_dict() == expected
    assert image.to_json() == json.dumps(expected, indent=4)


@pytest.mark.clause("B66", "B67", "B68", "B72", "B62")
def test_json_of_a_service(package: Builder) -> None:
    module = package("served.py", "def serve(port): pass\n")
    job = Service("My Svc", module.serve, run_as="bob", env_vars={"B": True, "A": 1})
    document = job.to_dict()
    assert document.pop("image") == job.image.to_dict()
    assert document == {
        "environment": "dev",
        "type": "service",
        "display_name": "My Svc",
        "name": "my-svc",
        "run_as": "bob",
        "memory": "128m",
        "num_cpus": 0.25,
        "app_section": "",
        "entrypoint": "served:serve",
        "env": [{"DATATAILR_JOB_ENV_B": "True"}, {"DATATAILR_JOB_ENV_A": "1"}],
    }
    assert job.to_json() == json.dumps(job.to_dict())
    assert Job("x").to_dict()["entrypoint"] is None
    assert Job("x").resources == Resources("128m", 0.25)


@pytest.mark.clause("B66", "B69", "B72", "B63")
def test_json_of_a_workflow(package: Builder, tmp_path: Path) -> None:
    source = """
    from datatailr import task
    @task()
    def get_number(): pass
    @task(memory="512m", cpu=2)
    def add(a, b): pass
    """
    module = package("my_pkg/tasks.py", source, **{"my_pkg/__init__.py": ""})
    with Workflow(
        "My Flow - ALICE", env_vars={"A": 1}, fail_after="1h 30m", run_as="alice", python_version="3.12"
    ) as flow:
        module.add(module.get_number(), 1).alias("sum")
        flow.set_autorun(False)
    env = [{"DATATAILR_JOB_ENV_A": "1"}]
    shared = {"env": env}
    assert flow.to_dict() == {
        "environment": "dev",
        "image": {
            **Image("3.12").to_dict(),
            "path_to_repo": str(tmp_path / "project"),
            "path_to_module": "my_pkg",
        },
        "type": "batch",
        "display_name": "My Flow - ALICE",
        "name": "my-flow-alice",
        "run_as": "alice",
        "memory": "100m",
        "num_cpus": 1,
        "app_section": "",
        "jobs": [
            {
                "display_name": "get_number",
                "name": "get_number",
                "child_number": 0,
                "entrypoint": "my_pkg.tasks:get_number",
                "memory": "128m",
                "num_cpus": 0.25,
                "depends_on": [],
                **shared,
            },
            {
                "display_name": "sum",
                "name": "sum",
                "child_number": 1,
                "entrypoint": "my_pkg.tasks:add",
                "memory": "512m",
                "num_cpus": 2,
                "depends_on": [0],
                **shared,
            },
        ],
        "schedule": None,
        "fail_after": 5400000000,
        "expire_after": None,
    }
    assert flow.to_json() == json.dumps(flow.to_dict(), indent=4)


IMPORTS = """
import os, json
import numpy.linalg
from pytest import fixture
from . import relative
import datatailr
import sibling

def serve(port):
    import yaml, dt
"""


@pytest.mark.clause("B181")
def test_imports_that_nothing_provides() -> None:
    imports = ["os", "numpy", "yaml", "datatailr", "mine", "pytest"]
    assert missing_packages(imports, "NumPy>=1\npytest[x]==2", ["mine"]) == ["yaml"]
    assert missing_packages(["_pytest", "xdist"], "pytest\npytest_xdist", []) == []
    # neither is installed here, so only what is known of the names can tell
    assert missing_packages(["cv2", "serial"], "opencv_python-headless>=4", []) == ["serial"]
    names = requirement_names("A.b_c>=1\n# comment\n-r other.txt\nd @ https://x/y\ngit+https://h/r#egg=e_f\n")
    assert names == {"a-b-c", "d", "e-f"}


@pytest.mark.clause("B181")
def test_a_warning_names_missing_packages_once(package: Builder, tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir(exist_ok=True)
    (root / "sibling.py").touch()
    source = IMPORTS.replace("import numpy.linalg\n", "").replace("from . import relative\n", "")
    module = package("served.py", source)
    (root / "served.py").write_text(IMPORTS)
    with pytest.warns(UserWarning, match="numpy, pytest, yaml$") as caught:
        Service("Svc", module.serve, python_requirements="")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    Service("Svc", module.serve, python_requirements=["numpy", "PyTest", "yaml"])


@pytest.mark.clause("B181")
def test_workflows_warn_when_the_graph_is_finished(package: Builder, platform: FakePlatform) -> None:
    source = (
        "from datatailr import task, workflow\nimport pytest\n@task\ndef f(): pass\n@workflow\ndef w(): f()\n"
    )
    module = package("warned.py", source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.w(local_run=True)
    for options in ({}, {"save_only": True}, {"to_json": True}):
        with pytest.warns(UserWarning, match="pytest$") as caught:
            module.w(**options)
        assert len(caught) == 1
