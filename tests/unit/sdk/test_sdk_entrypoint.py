"""Entrypoints (section 11), and what the script being run pickles."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder

from datatailr import Workflow, task
from datatailr.scheduler import EntryPoint, JobType

SOURCE = """
import functools

def main(port=1):
    return port

class Server:
    def __call__(self, port):
        return port
    def method(self):
        pass

server = Server()
shortcut = functools.partial(main, 2)
alias_of_main = lambda: 1
"""


@pytest.fixture
def code(package: Builder) -> Any:
    return package("served/app.py", SOURCE, **{"served/__init__.py": ""})


@pytest.mark.clause("B189")
def test_functions_and_modules(code: Any, tmp_path: Path) -> None:
    entry = EntryPoint(JobType.SERVICE, code.main)
    assert str(entry) == "served.app:main"
    assert entry.package is not None
    assert entry.package.directory == tmp_path / "project" / "served"
    assert str(EntryPoint(JobType.APP, code)) == "served.app:served.app"


@pytest.mark.clause("B190")
def test_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books/one.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    app = EntryPoint(JobType.APP, "books/one.ipynb")
    assert str(app) == "books:one.ipynb"
    assert app.package is not None
    assert app.package.directory == tmp_path / "books"
    assert str(EntryPoint(JobType.WORKFLOW, "books/one.ipynb")) == f"{tmp_path / 'books'}:one.ipynb"
    with pytest.raises(FileNotFoundError, match="two"):
        EntryPoint(JobType.APP, "books/two.ipynb")


@pytest.mark.clause("B191")
def test_texts(package: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = "raise RuntimeError('imported')\ndef serve(port): pass\nnamed = 1\n"
    package(
        "harmless.py", "", **{"lazy/__init__.py": "raise RuntimeError('imported')\n", "lazy/app.py": poison}
    )
    assert str(EntryPoint("service", "lazy.app:serve")) == "lazy.app:serve"
    assert str(EntryPoint("service", "lazy.app:named")) == "lazy.app:named"
    assert str(EntryPoint("service", "lazy.app")) == "lazy.app:lazy.app"
    monkeypatch.chdir(tmp_path / "project" / "lazy")
    from_path = EntryPoint("service", "app.py")
    assert str(from_path) == "lazy.app:lazy.app"
    assert from_path.package is not None
    assert from_path.package.directory == tmp_path / "project" / "lazy"
    assert EntryPoint("service", Path("app.py")) == from_path
    for missing in ("lazy.app:nobody", "lazy.nobody", "nobody:serve", "gone.py", "a b", "lazy:", ":x", ""):
        with pytest.raises(ValueError, match="entrypoint"):
            EntryPoint("service", missing)


@pytest.mark.clause("B192")
def test_callable_objects(code: Any) -> None:
    assert str(EntryPoint("service", code.server)) == "served.app:server"
    assert str(EntryPoint("service", code.Server)) == "served.app:Server"
    assert str(EntryPoint("service", code.shortcut)) == "served.app:shortcut"
    with pytest.raises(ValueError, match="no attribute of a module"):
        EntryPoint("service", functools.partial(code.main, 3))


@pytest.mark.clause("B193")
@pytest.mark.parametrize("bad", [7, None, b"x", len, [1]])
def test_anything_else(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        EntryPoint("service", bad)


@pytest.mark.clause("B194")
def test_calling(package: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    import os
    from datatailr.runner import state
    DISABLED = state.importing_user_code()
    def f(x):
        return x, os.environ.get("FROM_CALL"), DISABLED
    """
    module = package("called.py", source)
    assert EntryPoint(JobType.WORKFLOW, module.f)(1) == (1, None, False)
    entry = EntryPoint(JobType.WORKFLOW, "called:f")
    del sys.modules["called"]
    monkeypatch.setenv("FROM_CALL", "")
    assert entry(2, env={"FROM_CALL": 5}) == (2, "5", True)
    assert os.environ["FROM_CALL"] == "5"
    with pytest.raises(NotImplementedError):
        EntryPoint(JobType.SERVICE, module.f)(1)


def test_stored_entrypoints(code: Any) -> None:
    entry = EntryPoint(JobType.SERVICE, code.main)
    stored = EntryPoint.from_dict(entry.to_dict())
    assert stored == entry
    assert hash(stored) == hash(entry)
    assert stored.package is None
    assert str(EntryPoint.from_stored("app", "a.b:a.b")) == "a.b:a.b"
    with pytest.raises(ValueError, match="entrypoint"):
        EntryPoint.from_dict({})


@task()
def top_level() -> None:
    pass


@pytest.mark.clause("B95")
def test_a_nested_function_cannot_be_saved(platform: Any) -> None:
    @task()
    def nested() -> None:
        pass

    with Workflow("x") as flow:
        nested()
        flow.set_autorun(False)
    done, message = flow.save()
    assert not done
    assert "not at the top level" in message
    assert "'nested'" in message
    assert platform.calls == []


SCRIPT = """
import enum, pickle, sys
from dataclasses import dataclass
from datatailr import Workflow, task

class Color(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: int
    class Inner:
        def __init__(self, y): self.y = y
        def __eq__(self, other): return type(other) is type(self) and other.y == self.y

class Sentinel:
    def __reduce__(self): return "MISSING"
MISSING = Sentinel()

def helper(): return "helped"

@task()
def use(*values): pass

if __name__ == "__main__":
    with Workflow("Main") as flow:
        first = use()
        use(Point(1), Point.Inner(2), Color.RED, helper, MISSING, [first], use, "main_script")
        flow.set_autorun(False)
    (_, definition) = flow._task_definitions()
    sys.stdout.buffer.write(definition.arguments)
"""
READER = """
import pickle, sys
class U(pickle.Unpickler):
    def persistent_load(self, pid):
        assert pid == ("task", 0), pid
        return "result"
values = U(sys.stdin.buffer).load()["values"]
import main_script as m
assert values[:5] == (m.Point(1), m.Point.Inner(2), m.Color.RED, m.helper, m.MISSING), values
assert values[3]() == "helped" and values[4] is m.MISSING
assert values[5] == ["result"] and values[6] is m.use and values[7] == "main_script"
assert pickle.loads(pickle.dumps(values[0])) == values[0]
print("same")
"""


@pytest.mark.clause("B44", "B43", "B189")
def test_what_the_script_defines_travels_under_the_modules_name(tmp_path: Path) -> None:
    script = tmp_path / "main_script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    written = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    assert b"__main__" not in written
    # the module's own imports aside, nothing but the standard library is needed to load it
    assert b"datatailr" not in written
    read = subprocess.run(
        [sys.executable, "-c", READER], input=written, capture_output=True, cwd=tmp_path, check=False
    )
    assert read.stdout.decode().strip() == "same", read.stderr.decode()


@pytest.mark.clause("B44")
def test_results_come_back_as_classes_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "main_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import subprocess, sys
            from datatailr.scheduler._pickling import load_result
            class Point:
                pass
            class Outer:
                class Inner:
                    pass
            if __name__ == "__main__":
                code = "import main_script as m, pickle, sys;" \\
                    "sys.stdout.buffer.write(pickle.dumps([m.Point(), m.Outer.Inner], 5))"
                data = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
                found = load_result(data, of="a task")
                assert type(found[0]) is Point and found[1] is Outer.Inner
                assert "main_script" not in sys.modules
                print("same")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.clause("B189")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["-m", "tools.deploy"], "tools.deploy"), (["tools/deploy.py"], "deploy")],
    ids=["module", "file"],
)
def test_the_script_being_run_has_the_name_it_is_imported_under(
    tmp_path: Path, arguments: list[str], name: str
) -> None:
    script = tmp_path / "tools" / "deploy.py"
    script.parent.mkdir()
    script.write_text(
        "from datatailr.scheduler import EntryPoint\ndef start(): pass\nprint(EntryPoint('service', start))\n"
    )
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"{name}:start", done.stderr
