"""Makes the data of a release that the upgrade tests open: run with that release's code, see README.md.

    PYTHONPATH=TREE/sdk:TREE/controlplane:TREE/agent python tests/upgrade/make_store.py OUT.tar.xz

A platform of the release runs workflows that complete, fail, are stopped, expire and are run again, and is
killed in the middle of one. What its own SDK said of all that is put beside, as `facts.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

SOURCE = """
    import os
    import time

    from datatailr import task, workflow


    @task(memory="64m", cpu=0.1)
    def load(count):
        print("loading", count)
        return list(range(count))


    @task(memory="64m", cpu=0.1)
    def total(numbers):
        print("adding", len(numbers))
        return {{"sum": sum(numbers), "version": {version}}}


    @task(memory="64m", cpu=0.1)
    def broken(numbers):
        raise ValueError(f"cannot use {{len(numbers)}} numbers")


    @task(memory="64m", cpu=0.1)
    def endless(numbers):
        print("waiting", flush=True)
        time.sleep(3600)


    @task(memory="64m", cpu=0.1)
    def second_time(numbers):
        print("attempt", os.environ["DATATAILR_ATTEMPT_FENCE"], flush=True)
        if os.environ["DATATAILR_ATTEMPT_FENCE"] == "1":
            time.sleep(3600)
        return len(numbers)


    @workflow(name="good")
    def good():
        total(load(30_000))


    @workflow(name="bad")
    def bad():
        total(broken(load(10)))


    @workflow(name="stopped")
    def stopped():
        endless(load(10))


    @workflow(name="expiring", expire_after="1s")
    def expiring():
        total(load(10))


    @workflow(name="active")
    def active():
        second_time(load(20))
"""

FINISHED = {"completed", "failed", "stopped", "out_of_memory", "failed_after", "expired"}
KEPT_OF_AGENT = ("VERSION", "agent_id", "journal.db", "journal.db-wal", "attempts")


def until(probe: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s")
        time.sleep(0.05)
    return answer


def main(out: Path) -> None:
    """Makes the store."""
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        folder = Path(name)
        data = folder / "data"
        up = subprocess.Popen(
            [
                *(sys.executable, "-m", "datatailr.cli.platform", "up", "--data-dir", str(data)),
                *("--grpc-port", "0", "--http-port", "0", "--ready-file", str(folder / "ready.json")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            ready = until(lambda: read_json(folder / "ready.json"))
            os.environ["DATATAILR_ADDRESS"] = ready["grpc"]
            os.environ["DATATAILR_TOKEN"] = ready["token"]
            facts = fill(folder / "project")
        finally:
            kill_all(up, folder)
        pack(data, facts, out)


def fill(project: Path) -> dict[str, Any]:
    """Runs the workflows; what the release says of them."""
    from datatailr import Workflow

    def job(name: str) -> Any:
        return Workflow(name=name, get_existing=True)

    def newest(name: str) -> int:
        return int(job(name).runs(refresh=True)[0]["run_id"])

    def end(name: str) -> int:
        run_id = newest(name)
        until(lambda: job(name).run_details(run_id)["state"] in FINISHED)
        return run_id

    (project / "shop").mkdir(parents=True)
    (project / "shop" / "__init__.py").touch()
    for number in (1, 2):
        source = textwrap.dedent(SOURCE).format(version=number)
        (project / "shop" / "flows.py").write_text(source, encoding="utf-8")
        call(project, "good")
        end("good")
    first = newest("good")
    assert job("good").rerun(first)[0]
    until(lambda: newest("good") > first)
    end("good")
    call(project, "bad")
    end("bad")
    call(project, "expiring")
    run_id = end("expiring")
    until(lambda: job("expiring").run_details(run_id)["state"] == "expired")
    call(project, "stopped")
    until(lambda: "waiting" in job("stopped").logs(newest("stopped"), task_name="endless"))
    assert job("stopped").stop()[0]
    end("stopped")
    call(project, "active")
    until(lambda: "attempt 1" in job("active").logs(newest("active"), task_name="second_time"))
    time.sleep(1.5)  # for the ends of all logs: nothing tells when they have arrived
    return {
        "release": version("opentailr"),
        "jobs": {name: describe(job(name)) for name in ("good", "bad", "expiring", "stopped", "active")},
    }


def describe(job: Any) -> dict[str, Any]:
    """What the SDK says of a job and its runs; results as JSON text."""
    runs = {}
    for listed in job.runs(refresh=True):
        run_id = listed["run_id"]
        details = job.run_details(run_id)
        runs[str(run_id)] = {
            "state": details["state"],
            "version": details["job_version"],
            "original_run_id": details["original_run_id"],
            "partial_rerun": details["partial_rerun"],
            "tasks": {
                task["name"]: {
                    "state": task["state"],
                    "out": job.logs(run_id, task_name=task["name"]),
                    "err": job.logs(run_id, task_name=task["name"], stderr=True),
                    "result": json.dumps(job.result(run_id, task_name=task["name"])),
                }
                for task in details["tasks"]
            },
        }
    return {"version": job.version, "runs": runs}


def call(project: Path, name: str) -> None:
    """Calls a workflow as a user's script would."""
    script = project / "deploy.py"
    script.write_text(f"from shop.flows import {name}\n\n{name}()\n", encoding="utf-8")
    subprocess.run([sys.executable, str(script)], cwd=project, check=True)


def kill_all(up: subprocess.Popen[bytes], folder: Path) -> None:
    """Ends everything hard, as a power cut would."""
    up.kill()
    up.wait()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
    time.sleep(0.5)


def pack(data: Path, facts: dict[str, Any], out: Path) -> None:
    """Packs what must be kept of the data directory; environments and caches are made anew."""
    for database in (data / "controlplane" / "state.db", data / "agent" / "journal.db"):
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    for path in (data / "agent").iterdir():
        if path.name not in KEPT_OF_AGENT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("run", "logs", "up.json", "up.lock"):
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (data.parent / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w:xz", preset=9) as archive:
        archive.add(data, "data", filter=plain)
        archive.add(data.parent / "facts.json", "facts.json", filter=plain)
    print(f"{out}: {out.stat().st_size} bytes")


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files and directories alone, of nobody in particular."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() else None


def read_json(path: Path) -> Any:
    """The content of a file that may not be there yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
