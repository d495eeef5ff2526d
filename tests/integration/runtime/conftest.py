"""A process runtime over a scratch folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from runtime_harness import Bench, processes_below

from opentailr_agent.runtimes.process import ProcessRuntime


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers"))
    yield found
    await found.finish()
    await found.until(lambda: not processes_below(tmp_path), "the end of all processes")
