"""The tasks of the chaos runs, as a user would write them; nothing here knows the platform's inside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from datatailr import task

MODULUS = (1 << 61) - 1


def log_line(stream: str, number: int, width: int) -> str:
    """One numbered line of a log; its length varies, so that a lost or repeated piece shows."""
    return f"{stream} {number:05d} {'-' * ((number * 7 + width) % 97)}\n"


def value_of(salt: int, upstream: list[int]) -> int:
    """What a task computes from what the tasks before it computed."""
    value = salt
    for number in upstream:
        value = (value * 31 + number) % MODULUS
    return value


def padding_of(value: int, size: int) -> bytes:
    """Bytes that make a result large; they depend on its value."""
    return (value.to_bytes(8, "big") * (size // 8 + 1))[:size]


def note(ledger: str, event: str) -> None:
    """Appends one line to the file outside of the platform that tells what really happened."""
    entry = {
        "event": event,
        "run": int(os.environ["DATATAILR_BATCH_RUN_ID"]),
        "task": int(os.environ["DATATAILR_BATCH_CHILD_NUMBER"]),
        "attempt": os.environ["DATATAILR_ATTEMPT_ID"],
        "fence": int(os.environ["DATATAILR_ATTEMPT_FENCE"]),
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "at": time.monotonic(),
    }
    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(entry).encode() + b"\n")
    finally:
        os.close(handle)


@task(memory="48m", cpu=0.1)
def step(plan: dict[str, Any], parents: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes numbered lines for the planned time, then returns or fails as planned."""
    note(plan["ledger"], "start")
    if plan["litter"]:
        # Left behind on purpose: the platform has to end it with the attempt.
        subprocess.Popen(["sleep", "900"], start_new_session=True)
    pause = plan["seconds"] / plan["lines"]
    for number in range(plan["lines"]):
        sys.stdout.write(log_line("out", number, plan["width"]))
        sys.stdout.flush()
        sys.stderr.write(log_line("err", number, plan["width"]))
        sys.stderr.flush()
        time.sleep(pause)
    if plan["fail"] == "raise":
        raise ValueError("failed on purpose")
    if plan["fail"] == "exit":
        sys.exit(3)
    if plan["fail"] == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    value = value_of(plan["salt"], [parent["value"] for parent in parents])
    note(plan["ledger"], "finish")
    return {"value": value, "padding": padding_of(value, plan["size"])}
