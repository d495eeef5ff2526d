"""`datatailr up`, `down` and `status` over processes that stand in for the two servers."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datatailr.cli.children import sweep
from datatailr.cli.places import Places, is_process, start_of
from datatailr.runner import procs

SERVERS = Path(__file__).parent / "servers"
SECONDS = 20.0


def eventually(what: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true answer of `what`; fails when there is none in time."""
    deadline = time.monotonic() + seconds

    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)

    return answer


def lives(pid: int) -> bool:
    found = procs.stat(pid)
    return found is not None and found.state not in "ZX"


class Up:
    """One `datatailr up` and its directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.ready = root / "ready.json"
        self.failures = root / "failures.txt"
        self.failures.write_text("")
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(SERVERS),
            "STAND_IN_FAILURES": str(self.failures),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_DATA_HOME": str(root / "share"),
        }
        self.processes: list[subprocess.Popen[str]] = []

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        return subprocess.run(
            [sys.executable, "-m", "datatailr.cli.platform", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *arguments: str, ports: tuple[str, ...] = ("0", "0")) -> subprocess.Popen[str]:
        """Start `up` and leave it running."""
        flags = ["--grpc-port", ports[0], "--http-port", ports[1], "--ready-file", str(self.ready)]
        process = subprocess.Popen(
            [sys.executable, "-m", "datatailr.cli.platform", "up", *flags, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_here(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `up` in the directory `data`."""
        return self.start("--data-dir", str(self.data), *arguments)

    def document(self, *, other_than: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the ready file says, as soon as it says something new."""

        def look() -> dict[str, Any] | None:
            try:
                document: dict[str, Any] = json.loads(self.ready.read_text())
            except FileNotFoundError:
                return None

            return document if document != other_than else None

        found: dict[str, Any] = eventually(look)
        return found

    def keeper(self) -> int:
        """The process that the agent left behind itself."""
        return int(json.loads((self.data / "run" / "agent.json").read_text())["keeper"])


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up

    for process in up.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)

        process.communicate(timeout=SECONDS)

    for directory in (up.data, tmp_path / "share" / "opentailr"):
        sweep(directory / "agent", 2.0)


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str, float]:
    """End `up` with a signal; what it printed and how long it took."""
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    return out, err, time.monotonic() - begin


def test_the_ready_file_tells_the_truth_and_everything_ends(up: Up) -> None:
    process = up.start_here("--memory", "2g")
    document = up.document()
    assert set(document) == {"grpc", "http", "token", "controlplane_pid", "agent_pid"}
    assert document["token"] == "token-of-admin"
    assert document["http"].startswith("http://127.0.0.1:")
    assert stat.S_IMODE(up.ready.stat().st_mode) == 0o600
    pids = [document["controlplane_pid"], document["agent_pid"], up.keeper()]
    assert all(map(lives, pids))
    # Groups of their own: Ctrl-C at the terminal reaches `up` alone.
    assert len({os.getpgid(pid) for pid in [process.pid, *pids]}) == 4
    out, err, seconds = stop(process)
    assert (process.returncode, err) == (0, "")
    assert seconds < 10
    assert document["grpc"] in out and document["http"] in out and str(up.data) in out
    assert "token-of-admin" not in out and "admin.token" in out
    assert not any(map(lives, pids))
    assert not up.ready.exists() and not (up.data / "up.json").exists()
    assert (up.data / "order.txt").read_text() == "agent ended\ncontrolplane ended\n"
    assert (up.data / "agent" / "seen.txt").read_text().split()[1:] == ["process", "2g"]
    assert not (up.root / "config").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(up: Up, number: int) -> None:
    process = up.start_here()
    document = up.document()
    stop(process, number)
    assert process.returncode == 0
    assert not lives(document["controlplane_pid"]) and not lives(document["agent_pid"])


def test_ports_are_kept_over_restarts(up: Up) -> None:
    process = up.start_here()
    first = up.document()
    stop(process)
    up.start_here()
    second = up.document()
    assert (second["grpc"], second["http"]) == (first["grpc"], first["http"])


@pytest.mark.parametrize("who", ["agent", "controlplane"])
def test_a_dead_process_is_started_again(up: Up, who: str) -> None:
    process = up.start_here()
    first = up.document()
    other = {"agent": "controlplane_pid", "controlplane": "agent_pid"}[who]
    os.kill(first[f"{who}_pid"], signal.SIGKILL)
    second = up.document(other_than=first)
    assert second[f"{who}_pid"] != first[f"{who}_pid"]
    assert second[other] == first[other]
    assert second["grpc"] == first["grpc"]
    _, err, _ = stop(process)
    assert f"{who} ended with signal 9; starting it again" in err


def test_it_goes_on_starting_one_that_dies_again_and_again(up: Up) -> None:
    up.start_here()
    first = up.document()
    up.failures.write_text("agent exit:1\nagent exit:1\nagent exit:0")
    os.kill(first["agent_pid"], signal.SIGKILL)
    second = up.document(other_than=first)
    assert second["agent_pid"] != first["agent_pid"]
    assert up.failures.read_text() == ""


def test_what_a_killed_agent_left_is_ended_with_it(up: Up) -> None:
    process = up.start_here()
    first = up.document()
    keepers = [up.keeper()]
    os.kill(first["agent_pid"], signal.SIGKILL)
    up.document(other_than=first)
    keepers.append(up.keeper())
    assert all(map(lives, keepers))
    stop(process)
    eventually(lambda: not any(map(lives, keepers)))


@pytest.mark.slow
def test_deaf_processes_are_killed_within_ten_seconds(up: Up) -> None:
    up.failures.write_text("agent deaf\ncontrolplane deaf")
    process = up.start_here()
    document = up.document()
    pids = [document["controlplane_pid"], document["agent_pid"], up.keeper()]
    _, _, seconds = stop(process)
    assert seconds < 10
    eventually(lambda: not any(map(lives, pids)))


def test_a_killed_up_leaves_no_server(up: Up) -> None:
    process = up.start_here()
    document = up.document()
    keeper = up.keeper()
    process.kill()
    process.communicate(timeout=SECONDS)
    eventually(lambda: not (lives(document["controlplane_pid"]) or lives(document["agent_pid"])))
    assert lives(keeper), "tasks go on, for the next one to find"
    answer = json.loads(up.program("down", "--data-dir", str(up.data), "--json").stdout)
    assert (answer["stopped"], answer["left_behind"]) == (False, 1)
    eventually(lambda: not lives(keeper))
    assert up.program("down", "--data-dir", str(up.data)).stdout == f"nothing runs in {up.data}\n"
    up.ready.unlink()
    up.start_here()
    assert up.document()["grpc"] == document["grpc"]


@pytest.mark.parametrize("code", [2, 3, 4])
@pytest.mark.parametrize("who", ["controlplane", "agent"])
def test_a_configuration_error_ends_it_with_the_reason(up: Up, who: str, code: int) -> None:
    up.failures.write_text(f"{who} exit:{code}")
    process = up.start_here()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (code, "")
    assert err == f"error: {who} cannot start for reason {code}\n"
    assert not up.ready.exists() and not (up.data / "up.json").exists()


def test_a_configuration_error_at_a_restart_ends_it(up: Up) -> None:
    process = up.start_here()
    first = up.document()
    up.failures.write_text("controlplane exit:4")
    os.kill(first["controlplane_pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 4
    assert err.endswith("error: controlplane cannot start for reason 4\n")
    assert not lives(first["agent_pid"])


def test_a_failure_before_it_is_ready_shows_the_log(up: Up) -> None:
    up.failures.write_text("agent exit:1")
    process = up.start_here()
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "agent ended with code 1 before it was ready:\na line of the log\nerror: agent cannot" in err
    assert str(up.data / "logs" / "agent.log") in err


def test_a_directory_in_use_is_one_clear_line(up: Up) -> None:
    first = up.start_here()
    document = up.document()
    second = up.program("up", "--data-dir", str(up.data), "--grpc-port", "0", "--http-port", "0")
    assert second.returncode == 3
    assert second.stderr.count("\n") == 1
    assert f"{up.data} is in use by process {first.pid}" in second.stderr
    assert "datatailr down" in second.stderr
    assert up.document() == document and lives(document["agent_pid"])


def test_a_directory_that_cannot_be_made_is_named(up: Up) -> None:
    up.data.write_text("a file")
    done = up.program("up", "--data-dir", str(up.data), "--grpc-port", "0", "--http-port", "0")
    assert done.returncode == 2
    assert str(up.data) in done.stderr and "--data-dir" in done.stderr


def test_without_a_directory_the_client_is_configured(up: Up) -> None:
    process = up.start()
    document = up.document()
    config = up.root / "config" / "opentailr" / "client.json"
    eventually(config.exists)
    assert json.loads(config.read_text()) == {"address": document["grpc"], "token": "token-of-admin"}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    out, _, _ = stop(process)
    assert str(config) in out and "export" not in out
    assert (up.root / "share" / "opentailr" / "logs" / "agent.log").exists()


def test_a_configuration_for_another_server_is_kept_beside(up: Up) -> None:
    config = up.root / "config" / "opentailr" / "client.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"address": "elsewhere:7070", "token": "precious"}')
    process = up.start()
    document = up.document()
    eventually(lambda: config.exists() and document["grpc"] in config.read_text())
    _, err, _ = stop(process)
    assert "precious" in config.with_suffix(".json.old").read_text()
    assert "elsewhere:7070" in err and "precious" not in err


def test_down_stops_it_and_waits(up: Up) -> None:
    process = up.start_here()
    document = up.document()
    done = up.program("down", "--data-dir", str(up.data), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["stopped"], answer["pid"]) == (0, True, process.pid)
    assert not lives(document["controlplane_pid"]) and not lives(document["agent_pid"])
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    again = up.program("down", "--data-dir", str(up.data))
    assert (again.returncode, again.stdout) == (0, f"nothing runs in {up.data}\n")


def test_down_never_ends_a_process_that_is_another(up: Up) -> None:
    up.data.mkdir()
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    try:
        state = {"pid": foreign.pid, "started": start_of(foreign.pid) + "0", "grpc": ""}
        (up.data / "up.json").write_text(json.dumps(state))
        done = up.program("down", "--data-dir", str(up.data))
        assert (done.returncode, done.stdout) == (0, f"nothing runs in {up.data}\n")
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_status_shows_processes_and_says_why_it_is_not_well(up: Up) -> None:
    missing = up.program("status", "--data-dir", str(up.data))
    assert missing.returncode == 7 and "datatailr up" in missing.stdout
    process = up.start_here()
    document = up.document()
    done = up.program("status", "--data-dir", str(up.data), "--json")
    answer = json.loads(done.stdout)
    assert (answer["running"], answer["reachable"], answer["grpc"]) == (True, False, document["grpc"])
    assert [(entry["name"], entry["pid"], entry["alive"]) for entry in answer["processes"]] == [
        ("up", process.pid, True),
        ("controlplane", document["controlplane_pid"], True),
        ("agent", document["agent_pid"], True),
    ]
    # The stand-in listens nowhere.
    assert "no server at" in answer["error"] and done.returncode == 7
    assert "token-of-admin" not in done.stdout


@pytest.mark.parametrize("who", ["controlplane", "agent"])
def test_a_server_alone_gets_all_arguments_and_gives_its_code(up: Up, who: str) -> None:
    up.failures.write_text(f"{who} exit:4")
    flags = {
        "controlplane": ["--grpc-port", "0", "--agent-port", "0", "--http-port", "0"],
        "agent": ["--address", "a:1", "--token-file", "t", "--runtime", "process"],
    }[who]
    done = up.program(who, "--data-dir", str(up.data), "--ready-file", str(up.ready), *flags)
    assert done.returncode == 4
    assert done.stderr.endswith(f"{who} cannot start for reason 4\n")
    assert "--ready-file" in up.program(who, "--help").stdout


def test_servers_that_are_not_installed_are_told_with_the_remedy(up: Up) -> None:
    (up.root / "structlog.py").write_text("raise ImportError")
    blocker = up.root / "sitecustomize.py"
    blocker.write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'structlog' else find(name, package)\n"
    )
    up.environ["PYTHONPATH"] = f"{up.root}:{SERVERS}"

    for arguments in (["up"], ["agent", "--help"]):
        done = up.program(*arguments)
        assert done.returncode == 1
        assert "structlog missing" in done.stderr and "pip install 'opentailr[all]'" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--runtime", "podman"], ["--grpc-port", "70000"], ["--http-port", "x"], ["--nothing"]]
)
def test_wrong_use_is_refused(up: Up, arguments: list[str]) -> None:
    done = up.program("up", "--data-dir", str(up.data), *arguments)
    assert done.returncode == 2
    assert done.stdout == "" and not up.data.exists()


def test_version_names_release_and_servers(up: Up) -> None:
    answer = json.loads(up.program("version", "--json").stdout)
    assert answer["servers"] == ["controlplane", "agent"]
    assert answer["opentailr"]


def test_a_process_is_known_by_number_and_start() -> None:
    own = os.getpid()
    assert is_process(own, start_of(own))
    assert not is_process(own, start_of(own) + "1")
    assert not is_process("1", start_of(own)) and not is_process(own, None)
    assert start_of(2**22 + 1) == ""


def test_places_hold_nothing_of_one_another(tmp_path: Path) -> None:
    places = Places(tmp_path)
    paths = [places.controlplane, places.agent, places.log("agent").parent, places.ready("agent").parent]
    assert len(set(paths)) == 4 and all(path.parent == tmp_path for path in paths)
