"""A user's process that saves one workflow for each line it reads; answers with a line each.

A line is JSON: `name`, `python` (version or `auto`), and `tasks`, each with `plan` and `parents` (numbers of
earlier tasks).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from typing import Any

from datatailr import Workflow


def save(wanted: dict[str, Any]) -> tuple[bool, str]:
    """Saves one workflow; the SDK's own answer."""
    # The package lies beside this file, wherever that is.
    step = importlib.import_module("chaosload.steps").step
    workflow = Workflow(name=wanted["name"], python_version=wanted["python"])
    workflow.set_autorun(False)
    with workflow:
        made: list[Any] = []
        for entry in wanted["tasks"]:
            made.append(step(entry["plan"], [made[parent] for parent in entry["parents"]]))
    return workflow.save()


def main() -> None:
    """Serves until its input ends."""
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = save(json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
