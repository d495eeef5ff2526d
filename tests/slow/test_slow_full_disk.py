"""A real platform on small disks that fill up and get room again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_harness import Flow, Platform, Project, client_variables, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MIB = 1 << 20
_LOST = re.compile(r"\n\[(\d+) bytes lost: [^\]]*\]\n")


class SmallDisk:
    """A file system of its own, and a file that takes its room away."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)

        if done.returncode:
            reason = f"no file system can be mounted here: {done.stderr.strip()}"
            # Where everything is to be tested, a test that cannot run is a failure.
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    @property
    def used(self) -> int:
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self, *, leave: int) -> None:
        """Takes room away until only `leave` bytes are free."""
        with self._filler.open("ab") as file:
            more = self.free - leave
            if more > 0:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@contextlib.contextmanager
def platform_on(folder: Path, part: str, mebibytes: int) -> Iterator[tuple[Platform, SmallDisk]]:
    """A platform whose control plane or agent has a disk of its own."""
    disk = SmallDisk(folder / "data" / part, mebibytes)
    try:
        running = Platform.start(folder)
        try:
            with client_variables(running):
                yield running, disk
            disk.make_room()
            if running.process.poll() is None:
                running.stop()
        finally:
            running.kill()
    finally:
        disk.unmount()


def project_on(platform: Platform, tmp_path: Path, name: str) -> Project:
    return Project(tmp_path / name, platform, name.replace("_", " "))


HELLO = """
    from datatailr import task, workflow


    @task(memory="32m", cpu=0.1)
    def hello():
        print("hello")
        return 7


    @workflow(name="@NAME@")
    def flow():
        hello()
"""

WRITER = """
    import os
    import time

    from datatailr import task, workflow

    BLOCK = 1 << 20


    @task(memory="64m", cpu=0.1)
    def writer():
        os.close(os.open({begun!r}, os.O_CREAT))
        while not os.path.exists({away!r}):
            time.sleep(0.02)
        lines = 16
        for block in range({blocks}):
            numbers = range(block * lines, (block + 1) * lines)
            os.write(1, b"".join(b"%015d " % number + b"x" * 65519 + b"\\n" for number in numbers))
            time.sleep(0.02)
        return "all written"


    @workflow(name="@NAME@")
    def flow():
        writer()
"""


def line(number: int) -> str:
    return f"{number:015d} " + "x" * 65519 + "\n"


def check_log(stored: str, lines: int) -> int:
    """The log is what was written, apart from markers that count exactly; returns the bytes they count."""
    place = lost = 0

    for part in re.split(r"(\n\[\d+ bytes lost: [^\]]*\]\n)", stored):
        found = _LOST.fullmatch(part)
        if found:
            place += int(found[1])
            lost += int(found[1])
            continue
        first = place // 65536
        whole = "".join(line(number) for number in range(first, (place + len(part)) // 65536 + 1))
        assert part == whole[place - first * 65536 :][: len(part)], f"at byte {place}"
        place += len(part)

    assert place == lines * 65536
    return lost


def test_a_task_that_writes_without_end_does_not_fill_its_node(tmp_path: Path) -> None:
    """The control plane stands still while a task writes far more than the node has room for."""
    blocks = 500
    with platform_on(tmp_path / "platform", "agent", 1100) as (platform, disk):
        project_on(platform, tmp_path, "warm_up").run(HELLO)
        disk.fill(leave=560 * MIB)
        begun, away = tmp_path / "begun", tmp_path / "away"
        flow = project_on(platform, tmp_path, "writer").deploy(
            WRITER.format(begun=str(begun), away=str(away), blocks=blocks)
        )
        run_id = flow.run_ids()[0]
        eventually(begun.exists, what="the start of the task")
        pid = int(platform.ready["controlplane_pid"])
        os.kill(pid, signal.SIGSTOP)
        least = disk.free
        try:
            away.touch()
            before = disk.used
            # Bytes of logs are all that grows now; they may take half of what is free.
            eventually(lambda: disk.used - before > 200 * MIB, seconds=60, what="a long log")

            def settled() -> bool:
                nonlocal least
                least = min(least, disk.free)
                return not attempt_processes(platform)

            eventually(settled, seconds=60, what="the end of the task", pause=0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert least > 100 * MIB, "half of the free room is left"
        run = flow.wait(run_id, seconds=120)
        assert run.result("writer") == "all written"
        lost = eventually(lambda: ended_log(flow, run_id), seconds=90, what="the whole log")
        assert lost > 100 * MIB


def ended_log(flow: Flow, run_id: int) -> int:
    text = flow.job.logs(run_id, task_name="writer")
    if "DT USER LOGS END" not in text:
        return 0
    body = text.replace("====== DT USER LOGS START ======\n", "", 1).replace(
        "====== DT USER LOGS END ======\n", "", 1
    )
    # The line of the platform at the beginning may be among what was lost.
    if "DT USER LOGS START" not in text:
        found = _LOST.search(body)
        assert found is not None
        shorter = int(found[1]) - len("====== DT USER LOGS START ======\n")
        body = body.replace(found[0], f"\n[{shorter} bytes lost: x]\n", 1)
    return check_log(body, 500 * 16)


def attempt_processes(platform: Platform) -> list[int]:
    """Processes whose working directory lies in the folder of an attempt."""
    needle = str(platform.data / "agent" / "attempts")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd").startswith(needle):
                    found.append(int(entry.name))
    return found


LARGE = """
    import os
    import time

    from datatailr import task, workflow


    @task(memory="128m", cpu=0.1)
    def large(number):
        open(os.path.join({folder!r}, f"begun-{{number}}"), "x").close()
        while not os.path.exists(os.path.join({folder!r}, "go")):
            time.sleep(0.02)
        print("number", number, flush=True)
        return bytes([number]) * {size}


    @task(memory="128m", cpu=0.1)
    def total(parts):
        return sum(part[0] * len(part) for part in parts)


    @workflow(name="@NAME@")
    def flow():
        total([large(number) for number in range(4)])
"""


def begin_large(project: Project, folder: Path, size: int) -> tuple[Flow, int]:
    folder.mkdir()
    flow = project.deploy(LARGE.format(folder=str(folder), size=size))
    run_id = flow.run_ids()[0]
    eventually(lambda: len(list(folder.iterdir())) == 4, what="four running tasks")
    return flow, run_id


def test_a_full_node_takes_nothing_new_and_loses_nothing(tmp_path: Path) -> None:
    with platform_on(tmp_path / "platform", "agent", 1100) as (platform, disk):
        project_on(platform, tmp_path, "warm_up").run(HELLO)
        folder = tmp_path / "large"
        flow, run_id = begin_large(project_on(platform, tmp_path, "results"), folder, 3 * MIB)
        disk.fill(leave=0)
        eventually(
            lambda: "disk" in platform.dt("node", "ls").out, seconds=30, what="the reason in `dt node ls`"
        )
        (folder / "go").touch()
        waiting = project_on(platform, tmp_path, "waiting").deploy(HELLO)
        waiting_id = waiting.run_ids()[0]
        eventually(
            lambda: "disk" in platform.dt("job", "get", "waiting", "-i", "latest").out,
            seconds=30,
            what="the reason of the waiting task",
        )
        details = flow.job.run_details(run_id)
        assert {task["state"] for task in details["tasks"]} <= {"running", "pending", "provisioning"}, details
        disk.make_room()
        run = flow.wait(run_id, seconds=90)
        assert run.result("total") == sum(range(4)) * 3 * MIB
        assert waiting.wait(waiting_id, seconds=60).result("hello") == 7
        eventually(lambda: "disk" not in platform.dt("node", "ls").out, what="a node without a reason")


def test_a_full_control_plane_keeps_its_word(tmp_path: Path) -> None:
    with platform_on(tmp_path / "platform", "controlplane", 220) as (platform, disk):
        project_on(platform, tmp_path, "warm_up").run(HELLO)
        folder = tmp_path / "large"
        flow, run_id = begin_large(project_on(platform, tmp_path, "results"), folder, 3 * MIB)
        small = project_on(platform, tmp_path, "small").deploy(HELLO)
        assert small.wait().result("hello") == 7
        # Below the mark for logs and objects, far above what the database needs.
        disk.fill(leave=60 * MIB)
        (folder / "go").touch()
        again = small.job.start()
        eventually(lambda: len(small.run_ids()) == 2, what="another run")
        assert small.wait(seconds=60).result("hello") == 7, f"what is small goes on: {again}"
        details = flow.job.run_details(run_id)
        assert details["state"] == "running", details
        # Now to the last byte.
        disk.fill(leave=0)
        new = project_on(platform, tmp_path, "refused")
        new.write("shop/flow.py", HELLO)
        ran = new.script("from shop.flow import flow\n\nflow()\n", code=None)
        assert "ERROR" in ran.err
        assert "no room" in ran.err or "cannot grow" in ran.err, ran.err
        assert "free" in ran.err.lower(), ran.err
        disk.make_room()
        run = flow.wait(run_id, seconds=120)
        assert run.result("total") == sum(range(4)) * 3 * MIB
        for number, name in enumerate(["large", "large-1", "large-2", "large-3"]):
            eventually(
                lambda name=name, number=number: run.out(name) == f"number {number}\n",
                what=f"the whole log of {name}",
            )
        eventually(
            lambda: "ERROR" not in new.script("from shop.flow import flow\n\nflow()\n").err,
            what="a save that is taken again",
        )
        assert new.flow.wait(seconds=60).result("hello") == 7
