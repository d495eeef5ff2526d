"""Apps, services and add-ins as definitions (sections 12 to 14)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder

from datatailr import App, ExcelAddin, Resources, Service
from datatailr.excel import Addin, Queue
from datatailr.excel._queue import Message


def env_of(job: Any) -> dict[str, str]:
    return {name: value for entry in job.to_dict()["env"] for name, value in entry.items()}


def serve(port: int) -> None:
    pass


@pytest.mark.clause("B205")
def test_unknown_frameworks() -> None:
    for known in ("streamlit", "dash", "flask", "fastapi", "panel", "voila", "jupyter"):
        assert App("x", "json:dumps", framework=known).framework == known
    with pytest.raises(ValueError, match="'django'"):
        App("x", "json:dumps", framework="django")


@pytest.mark.clause("B206")
def test_packages_of_frameworks() -> None:
    with pytest.warns(UserWarning, match="gunicorn") as caught:
        App("x", "json:dumps", framework="dash", python_requirements=["dash", "gunicorn==1"])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="fastapi, uvicorn, jinja2, python-multipart"):
        App("x", "json:dumps", framework="fastapi", python_requirements=[])
    App("x", "json:dumps", framework="flask", python_requirements=["flask", "gunicorn"])
    App("x", "json:dumps", framework="flask", python_requirements="flask")
    job = App("x", "json:dumps", framework="voila", python_requirements=["voila", "jupyter"])
    assert job.image.python_requirements == "voila\njupyter"


@pytest.mark.clause("B204", "B73")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def main():\n    import streamlit as st\n", "streamlit"),
        (
            "try:\n    from flask.views import View\nexcept ImportError:\n    pass\ndef main(): pass\n",
            "flask",
        ),
        ("def main():\n    import panel, dash.html\n", "dash"),
        ("def main():\n    from .streamlit import x\n", None),
    ],
)
def test_detected_frameworks(package: Builder, source: str, expected: str | None) -> None:
    module = package("page/app.py", source, **{"page/__init__.py": ""})
    job = App("x", module.main, python_requirements="streamlit\nflask\npanel\ndash")
    assert job.framework == expected
    assert env_of(job).get("DATATAILR_JOB_ENV_DATATAILR_FRAMEWORK") == expected
    given = App(
        "x",
        module.main,
        env_vars={"DATATAILR_FRAMEWORK": "own"},
        python_requirements="flask\ndash\npanel\nstreamlit",
    )
    assert env_of(given) == {"DATATAILR_JOB_ENV_DATATAILR_FRAMEWORK": "own"}


@pytest.mark.clause("B204")
def test_a_notebook_is_voila(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    assert App("x", str(tmp_path / "a.ipynb")).framework == "voila"


@pytest.mark.clause("B73")
def test_variables_of_addins() -> None:
    assert env_of(ExcelAddin("x", "json:dumps")) == {"DATATAILR_JOB_ENV_DATATAILR_LOCAL": "false"}
    own = ExcelAddin("x", "json:dumps", env_vars={"DATATAILR_LOCAL": "true", "A": 1})
    assert env_of(own) == {"DATATAILR_JOB_ENV_DATATAILR_LOCAL": "true", "DATATAILR_JOB_ENV_A": "1"}


@pytest.mark.clause("B62", "B211")
def test_defaults_are_not_shared() -> None:
    first, second = (Service("x", "json:dumps") for _ in range(2))
    first.resources.memory = "9g"
    assert second.resources == Resources("128m", 0.25)
    assert Service("x", "json:dumps").resources == Resources("128m", 0.25)
    assert App("x", "json:dumps").to_dict()["app_section"] == ""
    assert App("x", "json:dumps", app_section="Risk").to_dict()["app_section"] == "Risk"


def test_an_entrypoint_is_needed() -> None:
    with pytest.raises(ValueError, match="needs an entrypoint"):
        Service("x", None)


@pytest.mark.parametrize("env_vars", [{"A=B": 1}, {"": 1}, {"A": "\0"}])
def test_variables_that_no_process_can_have(env_vars: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="env_vars of job 'x'"):
        Service("x", "json:dumps", env_vars=env_vars)


ADDIN = """
from datatailr.excel import Addin, Queue
my_addin = Addin("Options Pricer", "Option pricing functions")

@my_addin.expose(description="Price")
def price(spot, strike=1):
    return spot - strike

@my_addin.expose(description="Ticks", streaming=True)
def ticks(queue, symbol: str):
    queue.push(symbol)

@my_addin.expose(description="Typed", help="h", volatile=True)
def typed(a: float, b: int, c: bool, d: str, e: list):
    return a

def __excel_main__(port=8080, ws_port=8000):
    my_addin.run(port, ws_port)
"""


@pytest.mark.clause("B213", "B214")
def test_exposed_functions(package: Builder) -> None:
    module = package("priced.py", ADDIN)
    assert module.__dt_addin__ is module.my_addin
    assert module.price(5) == 4
    functions = module.my_addin.functions
    assert list(functions) == ["price", "ticks", "typed"]
    assert (functions["price"].help, functions["typed"].help) == ("", "h")
    assert (functions["typed"].volatile, functions["price"].volatile) == (True, False)
    assert [parameter.name for parameter in functions["ticks"].parameters] == ["symbol"]
    ExcelAddin("Options Pricer", module.__excel_main__)


@pytest.mark.clause("B215")
def test_streaming_with_a_progress_bar() -> None:
    with pytest.raises(ValueError, match="exclude"):
        Addin("x", "y").expose("d", streaming=True, progressbar=True)


class ndarray:
    """Stands for an array: only its type matters."""


@pytest.mark.clause("B216")
def test_arguments_are_checked(package: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = package("priced.py", ADDIN).my_addin.functions["typed"]
    good = {"a": 1, "b": 2, "c": 1, "d": "x", "e": [[1]]}
    typed.check(good)
    typed.check({**good, "a": 1.5, "c": False})
    for name, bad in (("a", "1"), ("a", True), ("b", 1.0), ("b", True), ("c", 2), ("d", 1), ("e", (1,))):
        with pytest.raises(TypeError, match=f"typed: {name} is "):
            typed.check({**good, name: bad})
    numpy = type(sys)("numpy")
    numpy.ndarray = ndarray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    typed.check({**good, "a": ndarray()})
    package("priced.py", ADDIN).my_addin.functions["price"].check({"spot": object()})


@pytest.mark.clause("B217")
def test_annotations_that_excel_cannot_serve(package: Builder) -> None:
    for annotation, future in (("dict", ""), ("dict", "from __future__ import annotations\n"), ("bytes", "")):
        source = future + ADDIN.replace("spot, strike=1", f"spot: {annotation}, strike=1")
        module = package("priced.py", source)
        with pytest.raises(ValueError, match=f"price: spot is annotated {annotation}"):
            ExcelAddin("Options Pricer", module.__excel_main__)
    queue = package("priced.py", ADDIN.replace("queue, symbol", "queue: Queue, symbol"))
    ExcelAddin("Options Pricer", queue.__excel_main__)
    wrong = package("priced.py", ADDIN.replace("queue, symbol", "q, symbol"))
    with pytest.raises(ValueError, match="'queue'"):
        ExcelAddin("Options Pricer", wrong.__excel_main__)


@pytest.mark.clause("B219", "B221")
def test_queues() -> None:
    queue = Addin("Options Pricer", "d").queue("ticks", "7")
    assert (queue.name, queue.id) == ("options pricer.ticks", "7")
    queue.push([1])
    queue.error("gone")
    assert [queue.take(), queue.take(), queue.take(timeout=0)] == [
        Message([1]),
        Message("gone", is_error=True),
        None,
    ]
    assert Queue("x", "1").take(timeout=0) is None


@pytest.mark.clause("B223")
def test_excel_imports_alone() -> None:
    code = "import datatailr.excel, sys; sys.exit(any(n in sys.modules for n in ('numpy', 'win32com')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_needs_the_server() -> None:
    with pytest.raises(RuntimeError, match="no add-in server"):
        Addin("x", "y").run(1, 2)
