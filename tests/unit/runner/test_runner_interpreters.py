"""A prepared interpreter as its keeper sees it: who hears of its end is told once and may let go."""

from __future__ import annotations

import signal
import subprocess

import pytest

from datatailr.runner.interpreters import Process
from datatailr.runner.loop import Loop


@pytest.mark.parametrize("notices", ["pidfd", "socket"])
def test_letting_go_while_hearing_of_the_end(notices: str, capfd: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    heard: list[str] = []

    def on_end() -> None:
        process.close()
        heard.append("after letting go")

    process = Process(loop, lambda message: None, on_end)
    sleeper = subprocess.Popen(["sleep", "60"], pass_fds=[process.far_end.fileno()])
    process.far_end.close()
    if notices == "pidfd":
        process.know(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    while not heard:
        loop.run_once()
    assert process.ended and heard == ["after letting go"]
    process.close()
    loop.close()
    assert capfd.readouterr().err == ""
