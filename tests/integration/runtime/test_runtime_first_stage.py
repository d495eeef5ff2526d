"""A first stage that dies before anything was forked from it costs nobody anything."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from runtime_harness import Bench, keepers

from opentailr_agent.ports import EndState


def first_stages(keeper: int) -> list[int]:
    """Children of the keeper that are to become prepared interpreters."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == keeper and b"stage" in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


async def test_orders_that_wait_for_a_first_stage_survive_its_death(bench: Bench, tmp_path: Path) -> None:
    # Another environment than any before: the keeper has to make another first stage for each round.
    for number in range(5):
        source = f"import os\ndef task():\n    return {number}\n"
        orders = [bench.order(source, env={"ROUND": str(number)}) for _ in range(3)]
        before = {stage for keeper in keepers(tmp_path / "keepers") for stage in first_stages(keeper)}
        for order in orders:
            await bench.runtime.start(order)
        (keeper,) = keepers(tmp_path / "keepers")
        await bench.until(
            lambda keeper=keeper, before=before: set(first_stages(keeper)) - before  # type: ignore[misc]
        )
        for stage in set(first_stages(keeper)) - before:
            os.kill(stage, signal.SIGKILL)
        for order in orders:
            assert (await bench.end(order)).state is EndState.SUCCEEDED
    logs = [path.read_text() for path in (tmp_path / "keepers").glob("*/keeper.log")]
    assert logs == [""], "the keeper had nothing to complain about"
