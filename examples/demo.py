"""The program of `make demo`: starts a platform, runs a workflow on real data, stops everything.

The data directory `.demo` in the clone is kept, so that a second call finds its environment built.
Exit codes: 0 all went well, 1 something failed (the last lines say what), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
DATA = DEMO / "platform"
PICTURE = DEMO / "confusion-matrix.png"
COMMANDS = Path(sys.executable).parent
START_SECONDS = 60
STOP_SECONDS = 10
RUN_SECONDS = 600
FINISHED = {"completed", "failed", "failed_after", "out_of_memory", "stopped", "expired"}
STYLES = {"completed": "green", "running": "cyan", "starting": "cyan", "pending": "dim", "did_not_run": "dim"}


class DemoError(Exception):
    """The demo cannot go on; the message is for its user."""


def main() -> int:
    """Runs the demo from end to end; the answer is the exit code."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, interrupted)
    began = time.monotonic()
    try:
        with platform(console) as address:
            step(console, "deploy and run a workflow: examples/digits")
            name = deploy()
            run = follow(console, name)
            report(console, name, run)
        step(console, f"the platform is stopped; all of this took {time.monotonic() - began:.0f} s")
        explore(console, name, address)
    except DemoError as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo interrupted; what it started is stopped", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def platform(console: Console) -> Iterator[str]:
    """Starts `datatailr up` on free ports and points the SDK of this process at it; stops it at the end."""
    step(console, "start a platform on free ports: a control plane and an agent")
    DEMO.mkdir(exist_ok=True)
    ready = DEMO / "ready.json"
    ready.unlink(missing_ok=True)
    log_path = DEMO / "up.log"
    command = [str(COMMANDS / "datatailr"), "up", "--data-dir", str(DATA), "--ready-file", str(ready)]
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C reaches only this program, which then stops the platform in order.
        child = subprocess.Popen(
            [*command, "--grpc-port", "0", "--http-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        about = wait_until_ready(child, ready, log_path)
        os.environ["DATATAILR_ADDRESS"] = about["grpc"]
        os.environ["DATATAILR_TOKEN"] = about["token"]
        console.print(
            f"  gRPC at {about['grpc']}, status page at {about['http']}, data in {shown(DATA)}",
            soft_wrap=True,
        )
        yield str(about["grpc"])
    finally:
        stop(child)


def wait_until_ready(child: subprocess.Popen[bytes], ready: Path, log_path: Path) -> dict[str, Any]:
    """What the ready file says, as soon as it is there."""
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if child.poll() is not None:
            raise DemoError(f"`datatailr up` ended with code {child.returncode}:\n{tail(log_path)}")
        if time.monotonic() > deadline:
            raise DemoError(f"the platform was not ready after {START_SECONDS} s:\n{tail(log_path)}")
        time.sleep(0.05)
    about: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
    return about


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ends the platform, also while another Ctrl-C comes in."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS + 2)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise DemoError(f"the platform did not stop within {STOP_SECONDS} s and was killed") from None
    finally:
        signal.signal(signal.SIGINT, before)


def deploy() -> str:
    """Calls the workflow, as its author would; the name under which the platform knows it."""
    from digits.flow import recognise_digits

    recognise_digits()
    return "Recognise Digits"


def follow(console: Console, name: str) -> dict[str, Any]:
    """Shows the tasks of the newest run until it has ended; its details then."""
    from datatailr import Workflow
    from datatailr.errors import DatatailrError

    try:
        flow = Workflow(name=name, get_existing=True)
        runs = flow.runs(refresh=True)
    except DatatailrError as error:
        raise DemoError(f"the workflow was not deployed: {error}") from error
    if not runs:
        raise DemoError("the workflow did not start; the lines above say why")
    run_id = runs[0]["run_id"]
    deadline = time.monotonic() + RUN_SECONDS
    details: dict[str, Any] = flow.run_details(run_id)
    with progress(console) as show:
        show(details)
        while details["state"] not in FINISHED:
            if time.monotonic() > deadline:
                raise DemoError(f"run {run_id} has not ended after {RUN_SECONDS} s; it is {details['state']}")
            time.sleep(0.1)
            details = flow.run_details(run_id)
            show(details)
    console.print(tasks_table(details))
    if details["state"] != "completed":
        for entry in details["tasks"]:
            if entry["state"] not in {"completed", "did_not_run"}:
                console.print(f"--- stderr of {entry['name']}", style="red", markup=False)
                console.print(flow.logs(run_id, task_name=entry["name"], stderr=True, lines=30), markup=False)
        raise DemoError(f"run {run_id} ended {details['state']}")
    return details


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows a run as it goes on: a live table on a terminal, one line per change elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda details: live.update(tasks_table(details), refresh=True)
        return
    known: dict[str, str] = {}

    def print_changes(details: dict[str, Any]) -> None:
        for entry in details["tasks"]:
            if known.get(entry["name"], "pending") != entry["state"]:
                console.print(f"  {entry['name']}: {entry['state']}", markup=False)
            known[entry["name"]] = entry["state"]

    yield print_changes


def tasks_table(details: dict[str, Any]) -> Table:
    """Every task with its state and how long it took, and how long the run took."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"run {details['run_id']} of {details['name']}: {details['state']}"
    )
    table.add_column("task")
    table.add_column("needs")
    table.add_column("state")
    table.add_column("time", justify="right")
    names = {entry["id"]: entry["name"] for entry in details["tasks"]}
    for entry in details["tasks"]:
        needs = [names[dependency] for dependency in entry["dependencies"]]
        shortened = ", ".join(needs) if len(needs) <= 2 else f"{len(needs)} tasks"
        state = entry["state"]
        style = STYLES.get(state, "red")
        table.add_row(
            entry["name"], shortened, f"[{style}]{state}[/{style}]", seconds(entry), end_section=False
        )
    table.add_section()
    table.add_row("whole run", "", details["state"], seconds(details))
    return table


def seconds(entry: dict[str, Any]) -> str:
    """How long a run or task has been running, empty before it began."""
    began, ended = entry["start_time"], entry["end_time"]
    if began is None:
        return ""
    return f"{((ended or datetime.now()) - began).total_seconds():.2f} s"


def report(console: Console, name: str, details: dict[str, Any]) -> None:
    """The tail of a log, the figures, and the picture in a file."""
    from datatailr import Workflow

    flow = Workflow(name=name, get_existing=True)
    run_id = details["run_id"]
    step(console, "the log of a task: choose")
    console.print(flow.logs(run_id, task_name="choose", lines=12).rstrip(), markup=False)
    figures = flow.result(run_id, task_name="evaluate")
    picture = flow.result(run_id, task_name="draw")
    if not isinstance(figures, dict) or not isinstance(picture, bytes):
        raise DemoError(f"run {run_id} completed, but its results are not there")
    PICTURE.write_bytes(picture)
    step(console, "the result, fetched as Python objects")
    for label in ("model", "test pictures", "accuracy", "macro F1", "mistakes"):
        value = figures[label]
        console.print(
            f"  {label:14} {value:.3f}" if isinstance(value, float) else f"  {label:14} {value}", markup=False
        )
    console.print(f"  {'picture':14} {shown(PICTURE)}", markup=False)


def explore(console: Console, name: str, address: str) -> None:
    """Commands to go on with."""
    commands = shown(COMMANDS)
    lines = [
        "# in one terminal: the platform of this demo again, on the same ports",
        f"{commands}/datatailr up --data-dir {shown(DATA)} --grpc-port 0 --http-port 0",
        "# in another one:",
        f'export DATATAILR_ADDRESS={address} DATATAILR_TOKEN="$(cat {shown(token_file())})"',
        f"{commands}/dt job ls",
        f"{commands}/dt job runs",
        f'{commands}/dt log read "{name}" --child-num 8',
        f"{commands}/python examples/hello.py",
        "# or a platform to stay, which all commands find by themselves:",
        f"{commands}/datatailr up",
    ]
    step(console, "explore further")
    for line in lines:
        console.print(
            f"  {line}", style="dim" if line.startswith("#") else None, markup=False, soft_wrap=True
        )


def token_file() -> Path:
    """Where the platform keeps the administrator's token."""
    found = next(iter(sorted(DATA.rglob("admin.token"))), None)
    if found is None:
        raise DemoError(f"no admin.token below {DATA}")
    return found


def step(console: Console, text: str) -> None:
    """One heading of the story."""
    console.print(f"[bold]==> {text}[/bold]")


def shown(path: Path) -> str:
    """The path as one would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def interrupted(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
