"""Chain and fan-out of tasks that do nothing, each durable and in a process of its own."""

from __future__ import annotations

import json

from benchmarks.limits import fork_and_wait
from benchmarks.platform import Platform
from benchmarks.report import Row

SOURCE = """
import json, sys, time
from datatailr import Workflow, task
{imports}

@task()
def first():
    return 0

@task()
def nothing(previous):
    return previous

def build(kind, count):
    wf = Workflow(name=f"Bench {{kind}}")
    with wf:
        wf.set_autorun(False)
        task = first()
        for _ in range(count):
            following = nothing(task)
            if kind == "chain":
                task = following
    return wf

if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    wf = build(kind, count)
    ok, answer = wf.run()
    assert ok, answer
    run_id = wf.runs(refresh=True)[0]["run_id"]
    while True:
        details = wf.run_details(run_id)
        if details["end_time"]:
            break
        time.sleep(0.2)
    assert details["state"] == "completed", details
    tasks = details["tasks"]
    begin = min(entry["end_time"] for entry in tasks)
    print(json.dumps((max(entry["end_time"] for entry in tasks) - begin).total_seconds()))
"""


def _measure(platform: Platform, kind: str, count: int, imports: str = "") -> float:
    path = platform.project(f"bench_{kind}", SOURCE.format(imports=imports))
    seconds = []
    for _ in range(4):
        out = platform.python(path.name, kind, str(count), cwd=path.parent)
        seconds.append(float(json.loads(out.splitlines()[-1])))
    return sorted(seconds[1:])[1] / count * 1000


def chain(platform: Platform) -> list[Row]:
    """Milliseconds per task of a chain of 50; the first run warms up, the median of three counts."""
    figure = _measure(platform, "chain", 50)
    return [
        Row("chain of 50", figure, fork_and_wait(), "ms/task", "bare + 3.5 ms, at most 4 ms", "fork and wait")
    ]


def fan_out(platform: Platform) -> list[Row]:
    """Tasks per second of a fan-out of 500."""
    figure = 1000 / _measure(platform, "fan", 500)
    return [
        Row(
            "fan-out of 500",
            figure,
            1000 / fork_and_wait(alive=8),
            "tasks/s",
            "at least 600",
            "forks, 8 alive",
        )
    ]
