"""Arguments in, results out, and what user code finds around it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from runtime_harness import SDK, Bench, keepers, stderr, stdout, value

from opentailr_agent.ports import EndState

START = "====== DT USER LOGS START ======"
END = "====== DT USER LOGS END ======"

VERSIONS = sorted(
    path
    for name in ("3.10.*", "3.12.*", "3.13.*", "3.14.*")
    for path in (Path.home() / ".pyenv" / "versions").glob(name + "/bin/python")
)


@pytest.mark.clause("B43", "B17")
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_function_gets_its_arguments_and_returns_its_result(bench: Bench, fresh: bool) -> None:
    outcome, order = await bench.call(
        """
        def task(a, *args, b=2, **more):
            print("hello", a)
            return {"a": a, "args": args, "b": b, "more": more}
        """,
        arguments={"a": 3, "args": (1, 2), "b": 4, "c": 5},
        fresh=fresh,
    )
    assert value(outcome) == {"a": 3, "args": (1, 2), "b": 4, "more": {"c": 5}}
    assert "hello 3" in stdout(order)
    assert outcome.state is EndState.SUCCEEDED and outcome.exit_code == 0
    assert outcome.ended_at >= outcome.started_at > 0
    assert bench.order_of_events == [("started", order.attempt_id), ("ended", order.attempt_id)]
    assert json.loads(outcome.preview)["text"].startswith("{'a': 3")


@pytest.mark.parametrize("python", VERSIONS, ids=lambda path: path.parts[-3])
@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
async def test_every_interpreter_that_the_runner_supports(bench: Bench, python: Path, fresh: bool) -> None:
    source = """
        import sys
        def task(n):
            print("on", sys.version_info[:2])
            return list(range(n))
        def fails():
            raise ValueError("as it should")
    """
    changes = {"python": python, "image_key": python.parts[-3], "fresh": fresh}
    outcome, order = await bench.call(source, arguments={"n": 3}, **changes)
    assert value(outcome) == [0, 1, 2]
    assert "on (3, " in stdout(order) and not stderr(order).replace(START, "").replace(END, "").strip()
    failed, _ = await bench.call(source, "fails", **changes)
    assert failed.failure is not None and "as it should" in failed.failure.traceback


@pytest.mark.clause("B43")
async def test_results_of_other_tasks_take_the_place_of_their_references(
    bench: Bench, tmp_path: Path
) -> None:
    class Reference:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("task", 7) if isinstance(thing, Reference) else None

    upstream = tmp_path / "seven.pkl"
    upstream.write_bytes(pickle.dumps(["seven"], 5))
    stored = tmp_path / "arguments.pkl"
    with stored.open("wb") as file:
        Pickler(file, 5).dump({"a": Reference(), "b": {"x": (Reference(), "7")}})
    outcome, _ = await bench.call(
        "def task(a, b):\n    return a, b, a is b['x'][0]",
        arguments=stored.read_bytes(),
        inputs={7: upstream},
    )
    assert value(outcome) == (["seven"], {"x": (["seven"], "7")}, True)


@pytest.mark.clause("B40", "B41", "B42")
async def test_platform_parameters_come_from_the_environment(bench: Bench) -> None:
    order = bench.order("def task(rundate, *args):\n    return rundate, args", arguments={"args": (1, 2)})
    order.env["DATATAILR_BATCH_ARG_RUNDATE"] = "2026-04-09"  # type: ignore[index]
    order.env["RUNDATE"] = "wrong"  # type: ignore[index]
    assert value(await bench.run(order)) == ("2026-04-09", (1, 2))


@pytest.mark.clause("B267")
async def test_markers_stand_around_user_output_in_both_streams(bench: Bench) -> None:
    _, order = await bench.call(
        """
        import sys
        print("while importing")
        def task():
            print("out"); print("err", file=sys.stderr)
            raise ValueError("told")
        """
    )
    assert stdout(order).splitlines() == [START, "while importing", "out", END]
    lines = stderr(order).splitlines()
    assert lines[0] == START and lines[1] == "err" and lines[-2] == "ValueError: told" and lines[-1] == END


async def test_what_importing_prints_goes_to_the_first_attempt_only(bench: Bench) -> None:
    source = "print('imported')\ndef task():\n    print('called')\n"
    _, first = await bench.call(source)
    _, second = await bench.call(source)
    assert "imported" in stdout(first) and "imported" not in stdout(second)
    assert "called" in stdout(second)


@pytest.mark.clause("B226", "B228", "B229")
@pytest.mark.parametrize("fresh", [False, True])
async def test_the_environment_is_exactly_what_was_ordered(
    bench: Bench, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "from the agent")
    order = bench.order("import os\ndef task():\n    return dict(os.environ)\n", fresh=fresh)
    order.env["MINE"] = "ü"  # type: ignore[index]
    found = value(await bench.run(order))
    added = set(found) - set(order.env)
    assert {name: found[name] for name in order.env} == dict(order.env)
    assert added <= {"DATATAILR_RUNNER", "DATATAILR_ATTEMPT_MARK", "LC_CTYPE"}


async def test_each_attempt_is_a_process_with_its_own_folder_and_session(bench: Bench) -> None:
    source = """
        import os, sys
        counter = []
        def task():
            counter.append(1)
            descriptors = os.listdir("/proc/self/fd")
            return os.getpid(), os.getsid(0), os.getcwd(), len(counter), sys.stdin.read(), descriptors
    """
    first, one = await bench.call(source)
    second, two = await bench.call(source)
    assert value(first)[0] != value(second)[0]
    for outcome, order in ((first, one), (second, two)):
        pid, session, folder, count, stdin, descriptors = value(outcome)
        assert pid == session == bench.started[order.attempt_id].pid
        assert folder == str(order.folder / "work") and count == 1 and stdin == ""
        assert len(descriptors) <= 9, descriptors


async def test_random_numbers_differ_between_attempts(bench: Bench) -> None:
    source = "import random\ndef task():\n    return random.random()\n"
    values = [value((await bench.call(source))[0]) for _ in range(3)]
    assert len(set(values)) == 3


@pytest.mark.parametrize("size", [65_000, 70_000, 5_000_000])
async def test_results_of_any_size_arrive(bench: Bench, size: int) -> None:
    outcome, _ = await bench.call("def task(n):\n    return b'x' * n\n", arguments={"n": size})
    assert value(outcome) == b"x" * size
    assert (outcome.result_file is not None) == (size > 65_536)


@pytest.mark.clause("B158")
async def test_output_is_visible_while_the_task_runs(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    order = bench.order(
        """
        import os, sys, time
        def task(gate):
            print("progress", end="")
            os.write(1, b" raw")
            while not os.path.exists(gate):
                time.sleep(0.005)
        """,
        arguments={"gate": str(gate)},
    )
    await bench.runtime.start(order)
    await bench.until(lambda: (order.folder / "stdout").exists() and "progress raw" in stdout(order))
    assert order.attempt_id not in bench.ended
    gate.touch()
    assert value(await bench.end(order)) is None


@pytest.mark.clause("B60", "B60a", "B14")
@pytest.mark.parametrize("fresh", [False, True])
async def test_the_sdk_learns_where_it_runs(bench: Bench, fresh: bool) -> None:
    order = bench.order(
        """
        import os
        from datatailr.runner import state
        from datatailr.runner.state import in_platform_process
        seen = (in_platform_process(), state.importing_user_code(), state.current_task())
        def task():
            return seen, (state.importing_user_code(), state.current_task(), in_platform_process())
        """,
        fresh=fresh,
    )
    order.env["PYTHONPATH"] = str(SDK)  # type: ignore[index]
    assert value(await bench.run(order)) == ((True, True, None), (False, "code:task", True))


async def test_a_decorated_task_is_called_as_the_plain_function(bench: Bench) -> None:
    outcome, _ = await bench.call(
        """
        import functools
        def mark(f):
            @functools.wraps(f)
            def wrapper(*a, **k):
                return "wrapper"
            wrapper.__datatailr_task__ = True
            return wrapper
        @mark
        def task():
            return "plain"
        """
    )
    assert value(outcome) == "plain"


async def test_exit_handlers_and_threads_finish_before_the_outcome(bench: Bench, tmp_path: Path) -> None:
    outcome, order = await bench.call(
        """
        import atexit, threading
        def task(path):
            atexit.register(lambda: print("handler"))
            threading.Thread(target=lambda: open(path, "w").write("thread")).start()
        """,
        arguments={"path": str(tmp_path / "seen")},
    )
    assert outcome.state is EndState.SUCCEEDED
    assert stdout(order).splitlines() == [START, "handler", END]
    assert (tmp_path / "seen").read_text() == "thread"


async def test_an_edit_needs_only_a_new_second_stage(bench: Bench) -> None:
    source = "import colorsys\ndef task():\n    import os\n    return os.getppid(), {}\n"
    first = value((await bench.call(source.format(1)))[0])
    again = value((await bench.call(source.format(1)))[0])
    edited = value((await bench.call(source.format(2)))[0])
    assert first[0] == again[0] != edited[0]


@pytest.mark.parametrize(
    ("import_time", "body"),
    [
        ("import os\nSEEN = os.environ.get('DATATAILR_JOB_ID')", "SEEN"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "1"),
        ("FILE = open('notes.txt', 'w')\nimport os", "FILE.write('x')"),
        ("import subprocess\nCHILD = subprocess.Popen(['sleep', '60'])", "CHILD.poll()"),
    ],
    ids=["environment", "thread", "file", "process"],
)
async def test_modules_that_cannot_be_shared_run_in_fresh_interpreters(
    bench: Bench, import_time: str, body: str
) -> None:
    source = f"{import_time}\nimport os\ndef task():\n    return os.getpid(), os.getppid(), {body}\n"
    order = bench.order(source)
    _, parent, seen = value(await bench.run(order))
    second = bench.order(source)
    other = value(await bench.run(second))
    assert [parent, other[1]] == keepers(bench.root / "keepers") * 2, (
        "a fresh interpreter is the keeper's child"
    )
    if "SEEN" in import_time:
        assert (seen, other[2]) == (order.attempt_id, second.attempt_id)


async def test_what_the_import_sets_stays_set(bench: Bench) -> None:
    outcome, _ = await bench.call(
        """
        import os, sys
        os.environ["SET_BY_IMPORT"] = "1"
        os.chdir("/usr")
        sys.path.append("/added")
        def task():
            return os.environ["SET_BY_IMPORT"], os.getcwd(), "/added" in sys.path
        """
    )
    assert value(outcome) == ("1", "/usr", True)


async def test_the_modules_of_the_runner_do_not_shadow_the_users(bench: Bench) -> None:
    source = """
        import importlib.util
        def task():
            return [n for n in ("state", "wire", "pool", "keeper") if importlib.util.find_spec(n)]
    """
    for fresh in (False, True):
        assert value((await bench.call(source, fresh=fresh))[0]) == []


async def test_starting_twice_is_harmless_and_removing_forgets(bench: Bench) -> None:
    order = bench.order("def task():\n    return 1\n")
    await bench.runtime.start(order)
    await bench.runtime.start(order)
    assert value(await bench.end(order)) == 1
    await bench.runtime.remove(order.attempt_id)
    await bench.runtime.remove(order.attempt_id)
    await bench.runtime.stop(order.attempt_id, 1.0)
    assert bench.order_of_events == [("started", order.attempt_id), ("ended", order.attempt_id)]
