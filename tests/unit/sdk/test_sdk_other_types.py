"""Apps, services and add-ins on their way to the platform; small names of the package."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

import datatailr
from datatailr import App, ExcelAddin, Service, Task, Workflow, task
from datatailr.errors import NotSupportedError
from datatailr.scheduler import Job, JobType


@task()
def number() -> int:
    return 3


@task()
def scaled(value: Any, factor: int = 2) -> Any:
    return [factor * item for item in value["items"]]


def stored(platform: FakePlatform, name: str) -> Any:
    return platform.latest(name)


@pytest.mark.clause("B73", "B190", "B204", "B209")
def test_a_notebook_is_shipped_with_its_directory(platform: FakePlatform, tmp_path: Path) -> None:
    folder = tmp_path / "boards"
    folder.mkdir()
    (folder / "Daily.ipynb").write_text('{"cells": []}')
    (folder / "helpers.py").write_text("X = 1\n")
    app = App("Board", str(folder / "Daily.ipynb"), python_version="3.11", app_section="Desk")
    assert app.save()[0]
    definition = stored(platform, "board").definition
    assert definition.entrypoint == "boards:Daily.ipynb"
    assert definition.app_section == "Desk"
    assert ("DATATAILR_FRAMEWORK", "voila") in definition.env
    assert stored(platform, "board").files == {
        "boards/Daily.ipynb": b'{"cells": []}',
        "boards/helpers.py": b"X = 1\n",
    }


@pytest.mark.clause("B189", "B191", "B192")
@pytest.mark.parametrize(
    ("target", "entrypoint"),
    [
        ("function", "desk.page:main"),
        ("module", "desk.page:desk.page"),
        ("desk.page:main", "desk.page:main"),
        ("desk.page", "desk.page:desk.page"),
        ("file", "desk.page:desk.page"),
        ("callable", "desk.page:server"),
    ],
)
def test_every_form_of_entrypoint_is_saved(
    platform: FakePlatform, package: Builder, target: str, entrypoint: str
) -> None:
    source = (
        "import streamlit_of_ours\n"
        "class Server:\n    def __call__(self, port): pass\n"
        "server = Server()\n"
        "def main(port=8080): pass\n"
    )
    package("streamlit_of_ours.py", "")
    module = package("desk/page.py", source, **{"desk/__init__.py": ""})
    given: Any = {
        "function": module.main,
        "module": module,
        "file": module.__file__,
        "callable": module.server,
    }.get(target, target)
    for kind in (App, Service, ExcelAddin):
        with pytest.warns(UserWarning, match="streamlit_of_ours"):
            job = kind("Page", given)  # type: ignore[operator]
        platform.versions.clear()
        assert job.save()[0]
        definition = stored(platform, "page").definition
        assert definition.entrypoint == job.to_dict()["entrypoint"] == entrypoint
        assert definition.type == str(job.type) == job.to_dict()["type"]
        assert set(stored(platform, "page").files) == {"desk/page.py", "desk/__init__.py"}


@pytest.mark.clause("B95", "B102")
def test_a_type_that_the_server_does_not_run_is_saved_and_told(
    platform: FakePlatform,
    package: Builder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotSupportedError("'svc' is of type service; workflows only")

    monkeypatch.setattr(platform, "start_job", refuse)
    service = Service("Svc", package("served.py", "def serve(port): pass\n").serve)
    done, message = service.run()
    assert not done
    assert message.startswith("version 1 is saved, but starting 'Svc' failed: 'svc' is of type service")
    assert service.version == 1
    assert platform.built == [], "nobody waits for a build that cannot be used"
    assert "workflows only" in capsys.readouterr().err
    assert service.start()[0] is False
    assert service.__run_command__("save")[0] is True


@pytest.mark.clause("B112", "B113", "B116", "B134")
def test_a_loaded_app_is_what_was_saved(platform: FakePlatform, package: Builder) -> None:
    package("served.py", "def serve(port): pass\n")
    app = App("My App", "served:serve", framework="flask", env_vars={"A": 1}, app_section="Desk")
    assert app.save()[0]
    loaded = App("my-app", None, get_existing=True)
    assert (loaded.name, loaded.version, loaded.app_section) == ("My App", 1, "Desk")
    assert loaded.framework == "flask"
    assert loaded.env_vars == {"A": "1", "DATATAILR_FRAMEWORK": "flask"}
    assert loaded.to_dict()["entrypoint"] == "served:serve"
    filled = Job("other", type=JobType.APP)
    filled.from_dict(platform.get_job("my-app", "dev"))
    assert (filled.name, filled.id, str(filled.type)) == ("My App", loaded.id, "app")


@pytest.mark.clause("B17", "B19", "B37")
def test_arguments_given_to_the_constructor_of_a_task() -> None:
    flow = Workflow("Flow", python_version="3.11")
    first = Task("first", number, dag=flow)
    second = Task("second", scaled, dag=flow, argument_mapping={"value": {"items": [first, 1]}, "factor": 5})
    assert second.args == {"value": {"items": [first, 1]}, "factor": 5}
    assert second.translate_dependencies() == {0}
    flow.set_local_run(True)
    assert flow.run() == (True, "")
    assert second.run() == [15, 5]
    with pytest.raises(TypeError):
        Task("third", scaled, dag=flow, argument_mapping=3)  # type: ignore[arg-type]


def test_who_provides_the_package() -> None:
    assert datatailr.__provider__ == "opentailr"
    for name in ("wrapper", "excel", "build"):
        assert importlib.import_module(f"datatailr.{name}") is getattr(datatailr, name)
