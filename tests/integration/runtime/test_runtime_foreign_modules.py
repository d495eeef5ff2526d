"""Forks of interpreters that have loaded real numerical libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_harness import Bench, keepers, stderr, value

from opentailr_agent.ports import EndState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with NumPy, joblib and cloudpickle."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    found = folder / "bin" / "python"
    packages = ["numpy", "joblib", "cloudpickle"]
    subprocess.run([uv, "pip", "install", "-q", "--python", found, *packages], check=True)
    return found


@pytest.mark.clause("B65a")
async def test_numpy_is_imported_once_and_works_in_every_fork(bench: Bench, python: Path) -> None:
    source = """
        import os
        import numpy as np
        from numpy.random import random
        def task():
            a = np.ones((300, 300))
            return os.getppid(), float((a @ a).sum()), float(np.random.rand())
    """
    values = [value((await bench.call(source, python=python))[0]) for _ in range(3)]
    assert len({parent for parent, _, _ in values}) == 1, "all are forks of one template"
    assert {total for _, total, _ in values} == {300.0**3}
    assert len({drawn for _, _, drawn in values}) == 3


async def test_a_large_array_travels_and_its_memory_counts(bench: Bench, python: Path) -> None:
    source = """
        import time
        import numpy as np
        def task(n):
            a = np.ones(n)
            time.sleep(0.3)
            return a
    """
    outcome, _ = await bench.call(source, arguments={"n": 5_000_000}, python=python, memory_bytes=1 << 30)
    assert outcome.state is EndState.SUCCEEDED and outcome.result_size > 40_000_000
    assert outcome.peak_memory_bytes > 38_000_000
    small, _ = await bench.call(source, arguments={"n": 50_000_000}, python=python, memory_bytes=200 << 20)
    assert small.state is EndState.OUT_OF_MEMORY


async def test_pools_of_joblib_work_and_leave_nothing(bench: Bench, python: Path) -> None:
    outcome, order = await bench.call(
        """
        from joblib import Parallel, delayed
        def square(n):
            return n * n
        def task():
            return Parallel(n_jobs=2)(delayed(square)(n) for n in range(6))
        """,
        python=python,
    )
    assert value(outcome) == [0, 1, 4, 9, 16, 25], stderr(order)


@pytest.mark.clause("B44")
async def test_cloudpickle_of_the_environment_takes_over(bench: Bench, python: Path) -> None:
    outcome, _ = await bench.call("def task():\n    return lambda: 1\n", python=python)
    assert outcome.state is EndState.SUCCEEDED and outcome.result is not None
    assert b"cloudpickle" in outcome.result


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core needs no native threads")
async def test_a_module_that_uses_native_threads_while_imported_runs_fresh(
    bench: Bench, python: Path
) -> None:
    source = """
        import numpy, os
        table = numpy.ones((900, 900)) @ numpy.ones((900, 900))
        def task():
            return os.getppid(), float((table @ table).sum())
    """
    outcome, _ = await bench.call(source, python=python)
    assert value(outcome) == (keepers(bench.root / "keepers")[0], 900.0**5)
