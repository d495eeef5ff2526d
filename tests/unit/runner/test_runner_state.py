from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from datatailr.runner import state

SDK = Path(__file__).parents[3] / "sdk"


@pytest.mark.clause("B60", "B60a")
def test_importing_nests_and_ends() -> None:
    assert not state.importing_user_code()
    with state.importing(), pytest.raises(ValueError), state.importing():
        assert state.importing_user_code()
        raise ValueError
    assert not state.importing_user_code()


@pytest.mark.clause("B14")
def test_the_current_task_is_the_innermost() -> None:
    assert state.current_task() is None
    with state.task_scope("m:a"):
        with state.task_scope("m:b"):
            assert state.current_task() == "m:b"
        assert state.current_task() == "m:a"
    assert state.current_task() is None


def run(tmp_path: Path, text: str, **variables: str) -> str:
    (tmp_path / "main.py").write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env={"PYTHONPATH": str(SDK), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


@pytest.mark.clause("B60a")
def test_workers_of_a_pool_count_imports_as_the_platforms(tmp_path: Path) -> None:
    """A process below a task that imports a module is not one that a user started by hand."""
    (tmp_path / "flow.py").write_text(
        "from datatailr.runner import state\nprint(state.importing_user_code())\n"
    )
    text = "import flow\nfrom datatailr.runner import state\nprint(state.importing_user_code())\n"
    assert run(tmp_path, text, DATATAILR_RUNNER="1") == "True\nFalse\n"
    assert run(tmp_path, text) == "False\nFalse\n"


def test_the_switch_of_the_environment_is_for_the_process_and_those_below(tmp_path: Path) -> None:
    text = """
        import subprocess, sys
        from datatailr.runner import state
        print(state.in_platform_process())
        state.enter_platform_process()
        print(state.in_platform_process(), flush=True)
        code = "from datatailr.runner import state; print(state.in_platform_process())"
        subprocess.run([sys.executable, "-c", code], check=True)
    """
    assert run(tmp_path, text) == "False\nTrue\nTrue\n"
