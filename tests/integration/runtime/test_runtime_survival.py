"""What survives the death of an agent, a keeper, a template, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_harness import Bench, alive, keepers, processes_below, stdout, value

from opentailr_agent.ports import AttemptOrder, EndState
from opentailr_agent.runtimes.process import ProcessRuntime

WAITS = """
    import os, time
    def task(gate):
        print("running", os.getpid(), flush=True)
        while not os.path.exists(gate):
            time.sleep(0.005)
        return "went on"
"""

AGENT = """
import asyncio, pickle, sys
from pathlib import Path
from opentailr_agent.runtimes.process import ProcessRuntime

async def main():
    runtime = ProcessRuntime(Path(sys.argv[1]))
    for order in pickle.loads(Path(sys.argv[2]).read_bytes()):
        await runtime.start(order)
    print("all started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def running(bench: Bench, *orders: AttemptOrder) -> list[int]:
    """Waits until the user code of the attempts runs; their pids."""
    for order in orders:
        await bench.until(lambda o=order: (o.folder / "stdout").exists() and "running" in stdout(o))  # type: ignore[misc]
    return [int(stdout(order).split("running ")[1].split()[0]) for order in orders]


async def other_agent(bench: Bench, orders: list[AttemptOrder]) -> subprocess.Popen[str]:
    """An agent in a process of its own that has started the attempts."""
    import pickle

    path = bench.root / "orders.pkl"
    path.write_bytes(pickle.dumps(orders))
    folders = [str(Path(p)) for p in sys.path if p]
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(bench.root / "keepers"), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    assert agent.stdout is not None
    line = await asyncio.to_thread(agent.stdout.readline)
    assert line == "all started\n"
    return agent


def kill_agent(agent: subprocess.Popen[str]) -> None:
    agent.kill()
    agent.wait()
    assert agent.stdout is not None
    agent.stdout.close()


async def test_attempts_outlive_a_killed_agent_and_are_adopted(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(5)]
    stray = bench.order(WAITS, arguments={"gate": str(gate)})
    agent = await other_agent(bench, [*orders, stray])
    pids = await running(bench, *orders, stray)
    kill_agent(agent)
    assert all(alive(pid) for pid in pids)

    adopted = await bench.runtime.adopt({order.attempt_id: order.folder for order in orders})
    assert {found.attempt_id: (found.running, found.pid) for found in adopted} == {
        order.attempt_id: (True, pid) for order, pid in zip(orders, pids)
    }
    await bench.until(lambda: not alive(pids[-1]), "the end of the attempt that no journal names")
    gate.touch()
    for order in orders:
        assert value(await bench.end(order)) == "went on"
        await bench.runtime.remove(order.attempt_id)
    assert stray.attempt_id not in bench.ended


async def test_what_ended_without_an_agent_is_told_to_the_next(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(3)]
    agent = await other_agent(bench, orders)
    pids = await running(bench, *orders)
    kill_agent(agent)
    gate.touch()
    await bench.until(lambda: not any(alive(pid) for pid in pids))
    adopted = await bench.runtime.adopt({order.attempt_id: order.folder for order in orders})
    assert all(not found.running or found.outcome is None for found in adopted)
    for order in orders:
        found = next(entry for entry in adopted if entry.attempt_id == order.attempt_id)
        outcome = found.outcome or await bench.end(order)
        assert value(outcome) == "went on"


async def test_a_killed_keeper_makes_its_attempts_lost_and_leaves_no_process(
    bench: Bench, tmp_path: Path
) -> None:
    orders = [bench.order(WAITS, arguments={"gate": str(tmp_path / "never")}) for _ in range(3)]
    orders.append(bench.order(WAITS, arguments={"gate": str(tmp_path / "never")}, fresh=True))
    for order in orders:
        await bench.runtime.start(order)
    pids = await running(bench, *orders)
    (keeper,) = keepers(tmp_path / "keepers")
    os.kill(keeper, signal.SIGKILL)
    for order in orders:
        outcome = await bench.end(order)
        assert outcome.state is EndState.LOST and outcome.failure is not None
    assert not any(alive(pid) for pid in pids)
    after, _ = await bench.call("def task():\n    return 'next keeper'\n")
    assert value(after) == "next keeper"


async def test_an_outcome_in_the_log_of_a_dead_keeper_counts(bench: Bench, tmp_path: Path) -> None:
    done = bench.order("def task():\n    return 'done'\n")
    unknown = bench.order(WAITS, arguments={"gate": str(tmp_path / "never")})
    agent = await other_agent(bench, [done, unknown])
    (pid,) = await running(bench, unknown)
    log = next((tmp_path / "keepers").glob("*/outcomes.log"))
    await bench.until(lambda: f'"ended":"{done.attempt_id}"' in log.read_text())
    kill_agent(agent)
    (keeper,) = keepers(tmp_path / "keepers")
    os.kill(keeper, signal.SIGKILL)
    with log.open("a") as file:
        file.write('{"outcome": {"id": "cut o')

    journal = {done.attempt_id: done.folder, unknown.attempt_id: unknown.folder}
    (found,) = await bench.runtime.adopt(journal)
    assert found.attempt_id == done.attempt_id and found.outcome is not None
    assert value(found.outcome) == "done"
    assert not alive(pid)

    await bench.runtime.start(unknown)
    assert (await bench.end(unknown)).state is EndState.LOST, "an attempt is never started twice"
    await bench.runtime.remove(done.attempt_id)
    assert not log.exists()


async def test_a_keeper_of_an_earlier_boot_is_dead_whatever_has_its_pid(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "keepers" / "old"
    folder.mkdir(parents=True)
    started = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
    identity = {"pid": os.getpid(), "boot_id": "another", "started": started, "image_key": "image"}
    (folder / "keeper.json").write_text(json.dumps(identity))
    assert await bench.runtime.adopt({"1.1": tmp_path}) == []
    assert not folder.exists()


async def test_attempts_survive_the_death_of_their_template(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(3)]
    for order in orders:
        await bench.runtime.start(order)
    pids = await running(bench, *orders)
    template = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    (keeper,) = keepers(tmp_path / "keepers")
    assert template != keeper
    os.kill(template, signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    killed = await bench.end(orders[0])
    assert (killed.state, killed.signal) == (EndState.FAILED, signal.SIGKILL)
    after, _ = await bench.call(WAITS.replace("went on", "another"), arguments={"gate": str(tmp_path)})
    assert value(after) == "another"
    gate.touch()
    for order in orders[1:]:
        assert value(await bench.end(order)) == "went on"


async def test_orders_under_way_survive_the_death_of_their_template(bench: Bench) -> None:
    source = "import os\ndef task():\n    return os.getppid()\n"
    template = value((await bench.call(source))[0])
    orders = [bench.order(source) for _ in range(20)]
    for order in orders[:10]:
        await bench.runtime.start(order)
    os.kill(template, signal.SIGKILL)
    for order in orders[10:]:
        await bench.runtime.start(order)
    for order in orders:
        assert (await bench.end(order)).state is EndState.SUCCEEDED


async def test_an_idle_keeper_ends_by_itself_and_a_new_one_takes_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers", idle_seconds=0.2))
    try:
        first, order = await bench.call("def task():\n    return 1\n")
        (keeper,) = keepers(tmp_path / "keepers")
        await bench.runtime.remove(order.attempt_id)
        await bench.until(lambda: not alive(keeper), "the end of the idle keeper")
        await bench.until(lambda: not list((tmp_path / "keepers").iterdir()))
        second, _ = await bench.call("def task():\n    return 2\n")
        assert (value(first), value(second)) == (1, 2)
    finally:
        await bench.finish()
    await bench.until(lambda: not processes_below(tmp_path))


async def test_an_idle_keeper_leaves_what_nobody_came_for_on_the_disk(tmp_path: Path) -> None:
    first = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers", idle_seconds=0.2))
    _, order = await first.call("def task():\n    return 'kept'\n")
    (keeper,) = keepers(tmp_path / "keepers")
    await first.until(lambda: not alive(keeper), "the end of the idle keeper")
    await first.runtime.close(stop_attempts=False)
    second = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers"))
    try:
        (found,) = await second.runtime.adopt({order.attempt_id: order.folder})
        assert not found.running and found.outcome is not None
        assert value(found.outcome) == "kept"
        await second.runtime.remove(order.attempt_id)
        assert not list((tmp_path / "keepers").iterdir())
    finally:
        await second.finish()


async def test_an_outcome_is_removed_after_its_keeper_has_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers", idle_seconds=0.2))
    try:
        _, order = await bench.call("def task():\n    return 1\n")
        (keeper,) = keepers(tmp_path / "keepers")
        await bench.until(lambda: not alive(keeper), "the end of the idle keeper")
        await bench.runtime.remove(order.attempt_id)
        await bench.until(lambda: not list((tmp_path / "keepers").iterdir()), "the end of its folder")
    finally:
        await bench.finish()


async def test_prepared_interpreters_are_bounded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers", max_prepared=2, max_bases=1))
    try:
        parents = set()
        for number in range(5):
            outcome, _ = await bench.call(f"import os\ndef task():\n    return os.getppid(), {number}\n")
            parents.add(value(outcome)[0])
        assert len(parents) == 5
        await bench.until(lambda: sum(alive(pid) for pid in parents) <= 2)
    finally:
        await bench.finish()


async def test_closing_with_the_attempts_ends_them_as_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers"))
    order = bench.order(WAITS, arguments={"gate": str(tmp_path / "never")})
    await bench.runtime.start(order)
    (pid,) = await running(bench, order)
    await bench.finish()
    assert bench.ended[order.attempt_id].state is EndState.STOPPED
    assert not alive(pid) and processes_below(tmp_path) == []
    with pytest.raises(RuntimeError, match="closing"):
        await bench.runtime.start(bench.order(WAITS))


async def test_closing_without_the_attempts_leaves_them_to_the_next(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = Bench(tmp_path, ProcessRuntime(tmp_path / "keepers"))
    order = bench.order(WAITS, arguments={"gate": str(gate)})
    await first.runtime.start(order)
    (pid,) = await running(first, order)
    await first.runtime.close(stop_attempts=False)
    await first._reader
    assert alive(pid)
    (found,) = await bench.runtime.adopt({order.attempt_id: order.folder})
    assert found.running
    gate.touch()
    assert value(await bench.end(order)) == "went on"


async def test_a_data_directory_with_a_long_path_works(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 30) / ("path" * 30)
    root.mkdir(parents=True)
    bench = Bench(root, ProcessRuntime(root / "keepers"))
    try:
        assert value((await bench.call("def task():\n    return 1\n"))[0]) == 1
    finally:
        await bench.finish()


async def test_the_keeper_holds_many_attempts_at_once(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    orders = [bench.order(WAITS, arguments={"gate": str(gate)}) for _ in range(60)]
    for order in orders:
        await bench.runtime.start(order)
    await bench.until(lambda: len(bench.started) == 60)
    gate.touch()
    for order in orders:
        assert value(await bench.end(order)) == "went on"
