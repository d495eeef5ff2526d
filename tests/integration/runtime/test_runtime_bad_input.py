"""Everything that user code can do wrong ends in an outcome that says so."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from runtime_harness import Bench, alive, processes_below, stderr, stdout, value

from opentailr_agent.ports import EndState

END = "====== DT USER LOGS END ======"


@pytest.mark.clause("B110")
async def test_an_exception_is_told_as_a_local_traceback(bench: Bench) -> None:
    outcome, order = await bench.call(
        """
        def helper(n):
            return 1 / n
        def task():
            try:
                helper(0)
            except ZeroDivisionError as error:
                raise ValueError("too small") from error
        """
    )
    failure = outcome.failure
    assert outcome.state is EndState.FAILED and outcome.exit_code == 1 and failure is not None
    assert (failure.kind, failure.message) == ("ValueError", "too small")
    assert 'File "code.py", line 3, in helper' in failure.traceback
    assert "return 1 / n" in failure.traceback and "direct cause" in failure.traceback
    assert "runner" not in failure.traceback and str(bench.root) not in failure.traceback
    assert failure.traceback in stderr(order)
    assert failure.exception is not None
    assert isinstance(pickle.loads(failure.exception), ValueError)


@pytest.mark.clause("B110", "B267")
@pytest.mark.parametrize(
    ("body", "state", "exit_code", "number", "kind"),
    [
        ("sys.exit(3)", EndState.FAILED, 3, None, "exit"),
        ("sys.exit('bad luck')", EndState.FAILED, 1, None, "exit"),
        ("sys.exit(0)", EndState.SUCCEEDED, 0, None, None),
        ("sys.exit()", EndState.SUCCEEDED, 0, None, None),
        ("os._exit(4)", EndState.FAILED, 4, None, "exit"),
        ("os._exit(0)", EndState.SUCCEEDED, 0, None, None),
        ("os.kill(os.getpid(), 9)", EndState.FAILED, None, 9, "signal"),
        ("os.kill(os.getpid(), 15)", EndState.FAILED, None, 15, "signal"),
        ("os.abort()", EndState.FAILED, None, 6, "signal"),
        ("__import__('ctypes').string_at(0)", EndState.FAILED, None, 11, "signal"),
        ("raise KeyboardInterrupt", EndState.FAILED, 1, None, "KeyboardInterrupt"),
        ("exec('f = lambda: f()\\nf()', {})", EndState.FAILED, 1, None, "RecursionError"),
    ],
)
async def test_every_way_to_end_is_told(
    bench: Bench, body: str, state: EndState, exit_code: int | None, number: int | None, kind: str | None
) -> None:
    outcome, order = await bench.call(f"import os, sys\ndef task():\n    print('part', end='')\n    {body}\n")
    assert (outcome.state, outcome.exit_code, outcome.signal) == (state, exit_code, number)
    assert (outcome.failure.kind if outcome.failure else None) == kind
    # output without a last newline does not run into the marker
    assert stdout(order).splitlines()[-2:] == ["part", END]
    assert stderr(order).splitlines()[-1] == END
    if state is EndState.SUCCEEDED:
        assert value(outcome) is None


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def task(:\n", "SyntaxError: invalid syntax (code.py, line 1)"),
        ("import not_there_at_all\ndef task(): pass\n", "not_there_at_all"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys; sys.exit(0)\n", "SystemExit"),
        ("x = 1\n", "has no attribute 'task'"),
        ("task = 5\n", "not a function"),
    ],
    ids=["syntax", "missing", "raises", "exits", "absent", "no-function"],
)
async def test_an_import_that_fails_fails_each_attempt(
    bench: Bench, source: str, words: str, fresh: bool
) -> None:
    orders = [bench.order(source, fresh=fresh) for _ in range(2)]
    for order in orders:
        await bench.runtime.start(order)
    for order in orders:
        outcome = await bench.end(order)
        assert outcome.state is EndState.FAILED and outcome.failure is not None
        assert outcome.failure.kind == "import" and words in outcome.failure.message
        assert words.partition(":")[0] in stderr(order) and "runner" not in outcome.failure.traceback
    assert value((await bench.call("def task():\n    return 'well'\n"))[0]) == "well"


@pytest.mark.parametrize(
    ("body", "exit_code", "number"),
    [("os._exit(5)", 5, None), ("os._exit(0)", 0, None), ("__import__('ctypes').string_at(0)", None, 11)],
    ids=["exit5", "exit0", "segfault"],
)
async def test_an_import_that_ends_the_process_fails_the_attempt(
    bench: Bench, body: str, exit_code: int | None, number: int | None
) -> None:
    outcome, _ = await bench.call(f"import os\n{body}\ndef task(): pass\n")
    assert (outcome.state, outcome.exit_code, outcome.signal) == (EndState.FAILED, exit_code, number)
    assert outcome.failure is not None and outcome.failure.kind == "import"
    assert value((await bench.call("def task():\n    return 'well'\n"))[0]) == "well"


async def test_an_import_that_failed_once_is_tried_again(bench: Bench, tmp_path: Path) -> None:
    source = f"import os\nassert os.path.exists({str(tmp_path / 'ready')!r})\ndef task():\n    return 1\n"
    failed, _ = await bench.call(source)
    assert failed.state is EndState.FAILED
    (tmp_path / "ready").touch()
    assert value((await bench.call(source))[0]) == 1


@pytest.mark.clause("B44")
async def test_a_result_that_cannot_be_pickled_names_task_and_type(bench: Bench) -> None:
    outcome, order = await bench.call("import threading\ndef task():\n    return [threading.Lock()]\n")
    assert outcome.failure is not None and outcome.failure.kind == "result"
    assert "task 'my task' (code:task)" in outcome.failure.message
    assert "builtins.list" in outcome.failure.message
    assert outcome.failure.message in stderr(order)


async def test_a_result_with_a_hostile_description_is_still_a_result(bench: Bench) -> None:
    outcome, _ = await bench.call(
        """
        class Hostile:
            def __repr__(self):
                while True:
                    pass
        def task():
            return Hostile()
        """
    )
    assert outcome.state is EndState.SUCCEEDED and "took longer" in outcome.preview


async def test_arguments_that_cannot_be_read_fail_the_attempt(bench: Bench) -> None:
    outcome, _ = await bench.call("def task(): pass\n", arguments=b"not a pickle")
    assert outcome.state is EndState.FAILED and outcome.failure is not None


async def test_an_interpreter_that_does_not_exist_is_an_error_at_once(bench: Bench) -> None:
    order = bench.order("def task(): pass\n", python=Path("/nowhere/python"))
    with pytest.raises((OSError, RuntimeError)):
        await bench.runtime.start(order)
    assert bench.order_of_events == []


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"A": "x\0y"}, {"": "x"}])
async def test_a_variable_that_no_process_can_have_fails_the_attempt(
    bench: Bench, env: dict[str, str]
) -> None:
    order = bench.order("def task(): pass")
    outcome = await bench.run(replace(order, env={**order.env, **env}))
    assert outcome.state is EndState.FAILED and outcome.failure is not None
    assert "could not be started" in outcome.failure.message


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
async def test_a_task_that_replaces_its_own_files_holds_nobody(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "other").write_text("untouched")
    put = {
        "pipe": "os.mkfifo(path)",
        "link": f"os.symlink({str(tmp_path / 'other')!r}, path)",
        "folder": "os.mkdir(path)",
    }[kind]
    outcome, _ = await bench.call(
        f"""
        import os, signal
        def task():
            for name in ("stdout", "stderr", "report"):
                path = os.path.join("..", name)
                if os.path.exists(path):
                    os.remove(path)
                {put}
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert (outcome.state, outcome.signal) == (EndState.FAILED, 9)
    assert value((await bench.call("def task():\n    return 'fine'\n"))[0]) == "fine"
    assert (tmp_path / "other").read_text() == "untouched"


async def test_much_output_and_bytes_of_any_kind(bench: Bench) -> None:
    outcome, order = await bench.call(
        """
        import sys
        def task():
            block = b"\\xff\\xfe" + b"x" * 1_000_000 + b"\\n"
            for _ in range(200):
                sys.stdout.buffer.write(block)
        """
    )
    assert outcome.state is EndState.SUCCEEDED
    assert (order.folder / "stdout").stat().st_size > 200_000_000
    with (order.folder / "stdout").open("rb") as file:
        file.seek(-64, os.SEEK_END)
        assert file.read().endswith((END + "\n").encode())
    (order.folder / "stdout").unlink()


@pytest.mark.parametrize(
    "body",
    ["sys.stdout.close()", "os.close(1)", "os.closerange(0, 1024)", "sys.stdout = None"],
)
async def test_closed_streams_and_descriptors_lose_no_result(bench: Bench, body: str) -> None:
    outcome, order = await bench.call(f"import os, sys\ndef task():\n    {body}\n    return 'kept'\n")
    assert value(outcome) == "kept"
    assert order.attempt_id in bench.started


async def test_a_fork_that_returns_does_not_speak_for_the_task(bench: Bench) -> None:
    outcome, _ = await bench.call(
        """
        import os
        def task():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                return "parent"
            return "child"
        """
    )
    assert value(outcome) == "parent"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_pools_of_processes_work_inside_a_task(bench: Bench, method: str) -> None:
    outcome, order = await bench.call(
        """
        import multiprocessing
        def square(n):
            return n * n
        def task(method):
            with multiprocessing.get_context(method).Pool(2) as pool:
                return pool.map(square, range(4))
        """,
        arguments={"method": method},
    )
    assert value(outcome) == [0, 1, 4, 9], stderr(order)


STRAYS = {
    "child": "subprocess.Popen(['sleep', '1000'])",
    "session": "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "shell": "subprocess.Popen('(setsid sleep 1000 &) ; exit 0', shell=True).wait()",
    "bare": "subprocess.Popen(['setsid', 'sleep', '1000'], env={})",
    "forks": "daemon()",
}


@pytest.mark.parametrize("kind", sorted(STRAYS))
@pytest.mark.parametrize("end", ["return", "killed"])
async def test_nothing_that_a_task_leaves_behind_lives_on(bench: Bench, kind: str, end: str) -> None:
    outcome, order = await bench.call(
        f"""
        import os, subprocess, time
        def daemon():
            read, write = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                    os.write(write, b"x")
                    time.sleep(1000)
                os._exit(0)
            os.read(read, 1)
        def task():
            {STRAYS[kind]}
            children = subprocess.run(["pgrep", "-x", "sleep"], capture_output=True, text=True).stdout.split()
            print("pids", *children)
            {"return 1" if end == "return" else "os.kill(os.getpid(), 9)"}
        """
    )
    assert outcome.state is (EndState.SUCCEEDED if end == "return" else EndState.FAILED)
    left = [pid for pid in processes_below(order.folder) if alive(pid)]
    assert left == []
    marked = [
        pid for pid in map(int, stdout(order).partition("pids")[2].split("\n")[0].split()) if alive(pid)
    ]
    assert [pid for pid in marked if Path(f"/proc/{pid}/cwd").readlink() == order.folder / "work"] == []


async def test_an_orphan_lives_as_long_as_its_attempt(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = bench.order(
        """
        import os, subprocess, time
        def task(gate):
            pid = int(subprocess.check_output("setsid sleep 1000 >/dev/null 2>&1 & echo $!", shell=True))
            print("orphan", pid, flush=True)
            while not os.path.exists(gate):
                time.sleep(0.005)
            return os.path.exists(f"/proc/{pid}")
        """,
        arguments={"gate": str(gate)},
    )
    await bench.runtime.start(slow)
    await bench.until(lambda: (slow.folder / "stdout").exists() and "orphan" in stdout(slow))
    for _ in range(3):
        await bench.call("def task():\n    return 1\n")
    gate.touch()
    assert value(await bench.end(slow)) is True
    assert not alive(int(stdout(slow).split()[stdout(slow).split().index("orphan") + 1]))


@pytest.mark.clause("B65a", "B110")
@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
@pytest.mark.parametrize("place", ["self", "child", "import"])
async def test_too_much_private_memory_ends_the_attempt(bench: Bench, place: str, fresh: bool) -> None:
    take = "hold = [bytearray(4 << 20) for _ in range(100)]; time.sleep(60)"
    source = {
        "self": f"import time\ndef task():\n    {take}\n",
        "child": f"import time, subprocess, sys\ndef task():\n"
        f"    subprocess.run([sys.executable, '-c', 'import time; {take}'])\n    time.sleep(60)\n",
        "import": f"import time\n{take}\ndef task(): pass\n",
    }[place]
    outcome, order = await bench.call(source, memory_bytes=150 << 20, fresh=fresh)
    assert outcome.state is EndState.OUT_OF_MEMORY, outcome
    assert outcome.failure is not None and "150 MiB" in outcome.failure.message
    assert outcome.peak_memory_bytes > 150 << 20
    assert "150 MiB" in stderr(order)


@pytest.mark.clause("B65a")
async def test_memory_shared_with_the_template_does_not_count(bench: Bench) -> None:
    outcome, _ = await bench.call(
        """
        import time
        shared = [bytes(1 << 20) for _ in range(100)]
        def task():
            time.sleep(0.3)
            return sum(map(len, shared))
        """,
        memory_bytes=120 << 20,
    )
    assert value(outcome) == 100 << 20
    assert outcome.peak_memory_bytes < 50 << 20


@pytest.mark.parametrize("deaf", [False, True])
async def test_stop_asks_first_and_kills_after_the_grace(bench: Bench, deaf: bool) -> None:
    order = bench.order(
        """
        import signal, subprocess, time
        def task(deaf):
            if deaf:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            print("running", flush=True)
            time.sleep(1000)
        """,
        arguments={"deaf": deaf},
    )
    await bench.runtime.start(order)
    await bench.until(lambda: (order.folder / "stdout").exists() and "running" in stdout(order))
    await bench.runtime.stop(order.attempt_id, 0.2 if deaf else 20.0)
    outcome = await bench.end(order)
    assert (outcome.state, outcome.signal) == (EndState.STOPPED, 9 if deaf else 15)
    assert processes_below(order.folder) == []


async def test_stop_while_the_module_is_imported(bench: Bench) -> None:
    order = bench.order("import time\ntime.sleep(1000)\ndef task(): pass\n")
    await bench.runtime.start(order)
    await bench.runtime.stop(order.attempt_id, 0.1)
    outcome = await bench.end(order)
    assert outcome.state is EndState.STOPPED and outcome.started_at == 0
