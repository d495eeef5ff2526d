"""Keepers that are found again: many at once, twice in a row, cut off, killed, and of another release."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from runtime_harness import Bench, alive, keepers, stdout, value
from test_runtime_survival import WAITS, kill_agent, other_agent, running

from opentailr_agent.ports import AttemptOrder, EndState
from opentailr_agent.runtimes.keeper_files import RUNNER_FILE, outcome_of
from opentailr_agent.runtimes.process import ProcessRuntime

FAMILY = """
    import os, time
    def task(gate, pids):
        # A child of a child in a session of its own: nothing but its mark tells whose it is.
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                with open(pids, "a") as file:
                    file.write(f"{os.getpid()}\\n")
                time.sleep(600)
            os._exit(0)
        os.wait()
        print("running", os.getpid(), flush=True)
        while not os.path.exists(gate):
            time.sleep(0.01)
        return "went on"
"""


def folders(orders: list[AttemptOrder]) -> dict[str, Path]:
    """The journal's view of the orders."""
    return {order.attempt_id: order.folder for order in orders}


async def test_ten_keepers_with_a_hundred_attempts_are_found_again(bench: Bench, tmp_path: Path) -> None:
    """The time is printed and judged by nobody here: other tests use the machine, too."""
    gate = tmp_path / "gate"
    orders = [
        bench.order(WAITS, arguments={"gate": str(gate)}, image_key=f"image {number % 10}")
        for number in range(100)
    ]
    agent = await other_agent(bench, orders)
    pids = await running(bench, *orders)
    kill_agent(agent)
    assert len(keepers(tmp_path / "keepers")) == 10 and all(alive(pid) for pid in pids)

    began = time.perf_counter()
    adopted = await bench.runtime.adopt(folders(orders))
    print(f"\n100 attempts of 10 keepers adopted in {(time.perf_counter() - began) * 1000:.0f} ms")
    assert {found.attempt_id: (found.running, found.pid) for found in adopted} == {
        order.attempt_id: (True, pid) for order, pid in zip(orders, pids)
    }
    for order in orders:
        await bench.runtime.start(order)
    gate.touch()
    for order, pid in zip(orders, pids):
        assert value(await bench.end(order)) == "went on"
        lines = stdout(order).splitlines()
        assert lines[1:-1] == [f"running {pid}"], "started once, and the log is whole"
        await bench.runtime.remove(order.attempt_id)


async def test_a_keeper_outlives_two_agents_in_a_row(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(3)]
    first = await other_agent(bench, orders)
    pids = await running(bench, *orders)
    kill_agent(first)

    second = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers"))
    assert sum(found.running for found in await second.runtime.adopt(folders(orders))) == 3
    os.kill(pids[0], signal.SIGKILL)
    assert (await second.end(orders[0])).signal == signal.SIGKILL
    # It dies before it could acknowledge that.
    await second.runtime.close(stop_attempts=False)
    await second._reader

    found = {one.attempt_id: one for one in await bench.runtime.adopt(folders(orders))}
    ended = found[orders[0].attempt_id]
    assert ended.outcome is not None and ended.outcome.signal == signal.SIGKILL, (
        "told until it is acknowledged"
    )
    assert [found[order.attempt_id].pid for order in orders[1:]] == pids[1:]
    gate.touch()
    for order in orders[1:]:
        assert value(await bench.end(order)) == "went on"


async def test_a_cut_connection_is_taken_up_again(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(3)]
    for order in orders:
        await bench.runtime.start(order)
    pids = await running(bench, *orders)
    (link,) = bench.runtime._links.values()
    assert link._writer is not None
    # What ends while nobody is connected must not be lost either.
    os.kill(pids[0], signal.SIGSTOP)
    link._writer.transport.abort()
    os.kill(pids[0], signal.SIGKILL)
    assert (await bench.end(orders[0])).signal == signal.SIGKILL
    await bench.until(lambda: link not in bench.runtime._links.values(), "another connection")
    late = bench.order(WAITS, arguments={"gate": str(gate)})
    await bench.runtime.start(late)
    gate.touch()
    for order in [*orders[1:], late]:
        assert value(await bench.end(order)) == "went on"
    assert len(keepers(tmp_path / "keepers")) == 1


async def test_a_killed_keeper_leaves_no_grandchild(bench: Bench, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    orders = [
        bench.order(FAMILY, arguments={"gate": str(tmp_path / "never"), "pids": str(pids)}, fresh=fresh)
        for fresh in (False, False, True)
    ]
    for order in orders:
        await bench.runtime.start(order)
    mains = await running(bench, *orders)
    grandchildren = [int(line) for line in pids.read_text().split()]
    assert len(grandchildren) == 3 and all(map(alive, grandchildren))
    (keeper,) = keepers(tmp_path / "keepers")
    os.kill(keeper, signal.SIGKILL)
    for order in orders:
        assert (await bench.end(order)).state is EndState.LOST
    assert not any(map(alive, [*mains, *grandchildren])), "told when nothing of them is left"


async def test_a_killed_keeper_and_agent_leave_no_grandchild_to_the_next_agent(
    bench: Bench, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    orders = [
        bench.order(FAMILY, arguments={"gate": str(tmp_path / "never"), "pids": str(pids)}) for _ in range(2)
    ]
    agent = await other_agent(bench, orders)
    mains = await running(bench, *orders)
    grandchildren = [int(line) for line in pids.read_text().split()]
    (keeper,) = keepers(tmp_path / "keepers")
    kill_agent(agent)
    os.kill(keeper, signal.SIGKILL)
    assert await bench.runtime.adopt(folders(orders)) == []
    assert not any(map(alive, [*mains, *grandchildren]))


@pytest.mark.parametrize("told", [None, "of another release"])
async def test_a_keeper_of_another_release_goes_on_and_gets_nothing_new(
    bench: Bench, tmp_path: Path, told: str | None
) -> None:
    gate = tmp_path / "gate"
    first = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers", idle_seconds=0.5))
    order = first.order(WAITS, arguments={"gate": str(gate)})
    await first.runtime.start(order)
    (pid,) = await running(first, order)
    await first.runtime.close(stop_attempts=False)
    await first._reader
    (old,) = keepers(tmp_path / "keepers")
    runner = next((tmp_path / "keepers").glob(f"*/{RUNNER_FILE}"))
    if told is None:
        runner.unlink()
    else:
        runner.write_text(told)

    (found,) = await bench.runtime.adopt(folders([order]))
    assert found.running and found.pid == pid
    bench._count = 10
    other = bench.order(WAITS, arguments={"gate": str(gate)})
    await bench.runtime.start(other)
    await running(bench, other)
    assert len(keepers(tmp_path / "keepers")) == 2, "the same environment, and a keeper of this release"
    gate.touch()
    for one in (order, other):
        assert value(await bench.end(one)) == "went on"
        await bench.runtime.remove(one.attempt_id)
    await bench.until(lambda: not alive(old), "the end of the old keeper")


def test_an_outcome_with_fewer_words_is_understood() -> None:
    outcome = outcome_of(json.loads('{"id": "1.1", "state": "succeeded", "result": "gAVOLg==", "size": 4}'))
    assert (outcome.state, outcome.result, outcome.preview, outcome.peak_memory_bytes) == (
        EndState.SUCCEEDED,
        b"\x80\x05N.",
        "",
        0,
    )


async def test_a_torn_last_line_hides_no_earlier_outcome(bench: Bench, tmp_path: Path) -> None:
    orders = [bench.order("def task():\n    return 'kept'\n") for _ in range(2)]
    agent = await other_agent(bench, orders)
    log = next((tmp_path / "keepers").glob("*/outcomes.log"))
    await bench.until(lambda: log.read_text().count('"ended"') == 2, "two outcomes in the log")
    kill_agent(agent)
    (keeper,) = keepers(tmp_path / "keepers")
    os.kill(keeper, signal.SIGKILL)
    await bench.until(lambda: not alive(keeper))
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = next(i for i, line in reversed(list(enumerate(lines))) if b'"outcome"' in line)
    first = orders[0 if orders[0].attempt_id.encode() not in lines[last] else 1]
    log.write_bytes(b"".join(lines[:last]) + lines[last][: len(lines[last]) // 2])
    found = {one.attempt_id: one for one in await bench.runtime.adopt(folders(orders))}
    assert set(found) == {first.attempt_id}
    kept = found[first.attempt_id].outcome
    assert kept is not None and value(kept) == "kept"
    await bench.runtime.remove(first.attempt_id)
