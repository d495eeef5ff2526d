"""From an edited file to the first line of the first task."""

from __future__ import annotations

import json

from benchmarks.limits import fork_and_wait
from benchmarks.platform import Platform
from benchmarks.report import Row

SOURCE = """
import time
from datatailr import Workflow, task

EDIT = {edit}

@task()
def first():
    return (EDIT, time.time())

def main():
    entered = time.time()
    wf = Workflow(name="Bench Edit")
    with wf:
        wf.set_autorun(False)
        first()
    ok, answer = wf.run()
    assert ok, answer
    run_id = wf.runs(refresh=True)[0]["run_id"]
    while not wf.run_details(run_id)["end_time"]:
        time.sleep(0.02)
    edit, began = wf.result(run_id, "first")
    assert edit == EDIT, (edit, EDIT)
    print((began - entered) * 1000)

if __name__ == "__main__":
    main()
"""


def edit_to_run(platform: Platform) -> list[Row]:
    """Milliseconds from the call in a new client process, the code just changed, to the first line."""
    figures = []
    for edit in range(8):
        path = platform.project("bench_edit", SOURCE.format(edit=edit))
        out = platform.python(path.name, cwd=path.parent)
        figures.append(float(json.loads(out.splitlines()[-1])))
    median = sorted(figures[1:])[3]
    return [Row("edit to run", median, fork_and_wait(), "ms", "at most 120 ms", "fork and wait")]
