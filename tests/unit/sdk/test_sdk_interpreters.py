"""The SDK on every supported interpreter that this machine has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SDK = Path(__file__).parents[3] / "sdk"
FOUND = sorted(Path.home().glob(".pyenv/versions/3.1[0-4]*/bin/python"))
SCRIPT = """
from datatailr import Schedule, Workflow, task, workflow
from datatailr.excel import Addin
from datatailr.logging import DatatailrLogger
from datatailr.scheduler._bundle import packed

@task(memory="1g")
def add(a, b=1, *more, **named):
    return a + b

@workflow(schedule=None, fail_after="1h")
def flow(n):
    add(add(1, n), 2, [add(3)], key=add(4))

if __name__ == "__main__":
    flow(5, local_run=True)
    assert '"my-flow"' not in flow(1, to_json=True)
    assert str(Schedule(every_minute=5, timezone="Europe/Paris")) == "0 */5 * * * *"
    DatatailrLogger("x").get_logger().info("works")
    with Workflow("Packed") as made:
        add(1)
        made.set_autorun(False)
    assert made._task_definitions()[0].arguments
    with packed(made._package()) as bundle:
        print(bundle.digest)
"""


@pytest.mark.skipif(not FOUND, reason="no other interpreter on this machine")
def test_definitions_work_and_pack_alike_everywhere(tmp_path: Path) -> None:
    script = tmp_path / "proj" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    digests = set()
    for interpreter in [Path(sys.executable), *FOUND]:
        done = subprocess.run(
            [str(interpreter), "-B", "-W", "error", str(script)],
            env={"PYTHONPATH": str(SDK), "HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{interpreter}: {done.stderr}"
        assert "works" in done.stdout
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 1
