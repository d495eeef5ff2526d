"""A platform of the benchmark's own, and user projects deployed to it as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType


class Platform:
    """`datatailr up` on free ports in a temporary folder, for the length of a `with` block."""

    def __enter__(self) -> Platform:
        self._folder = tempfile.TemporaryDirectory(prefix="opentailr-bench-")
        self.folder = Path(self._folder.name)
        ready = self.folder / "ready.json"
        program = Path(sys.executable).with_name("datatailr")
        self._process = subprocess.Popen(
            [program, "up", "--data-dir", self.folder / "data", "--grpc-port", "0", "--http-port", "0",
             "--ready-file", ready],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the platform did not start")
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self._folder.cleanup()

    def project(self, name: str, source: str) -> Path:
        """Writes a one-module project and returns its file."""
        folder = self.folder / "projects" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.py"
        path.write_text(source)
        return path

    def python(self, *arguments: str | Path, cwd: Path) -> str:
        """Runs the SDK's interpreter in a project, connected to this platform; returns its stdout."""
        env = {
            **os.environ,
            "DATATAILR_ADDRESS": self.ready["grpc"],
            "DATATAILR_TOKEN": self.ready["token"],
            "DATATAILR_PROGRESS": "0",
        }
        done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout
