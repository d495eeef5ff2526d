"""Runs the commands of a build: output to files, whole process group ended on cancel."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 4096
_TAIL_LINES: Final = 20


class StepError(RuntimeError):
    """A command failed; the message names it, how it ended and its last lines."""


class BuildLog:
    """The two spool files of a build.

    Args:
        folder: Made if needed; files are appended to, because what was shipped stays shipped.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.stdout = folder / "stdout"
        self.stderr = folder / "stderr"

        for path in (self.stdout, self.stderr):
            path.touch()

    def say(self, line: str) -> None:
        """Writes a line of ours to standard output."""
        with self.stdout.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")

    def join(self, folder: Path) -> None:
        """Gives another build the same files, so that who joins sees the same log while it grows."""
        folder.mkdir(parents=True, exist_ok=True)

        for path in (self.stdout, self.stderr):
            target = folder / path.name
            target.unlink(missing_ok=True)
            os.link(path, target)


async def run_step(
    log: BuildLog,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    shown: str = "",
) -> None:
    """Runs one command to its end.

    Args:
        log: Announced there as `$ command`, output appended.
        command: Program and arguments.
        env: Its whole environment.
        cwd: Its working directory.
        shown: What to announce instead of the command.

    Raises:
        StepError: It cannot be started or ends with a code that is not 0.
    """
    words = shown or shlex.join(command)
    log.say(f"$ {words}")

    with log.stdout.open("ab") as out, log.stderr.open("ab") as err:
        began = (out.tell(), err.tell())

        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise StepError(f"`{_short(words)}` could not be started: {error}") from error

    try:
        code = await process.wait()
    finally:
        # Also after a good end: nothing that a script left behind outlives its step.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

        if process.returncode is None:
            await process.wait()

    if code:
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = await asyncio.to_thread(_tail, log, began)
        raise StepError(f"`{_short(words)}` {ended}" + (f":\n{last}" if last else ""))


def _short(words: str) -> str:
    line = words.strip().splitlines()[0] if words.strip() else words
    return line if len(line) <= 200 else line[:199] + "…"


def _tail(log: BuildLog, began: tuple[int, int]) -> str:
    """Last lines of the step: of its standard error, or of its output if that is silent."""
    for path, start in ((log.stderr, began[1]), (log.stdout, began[0])):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]

        if any(line.strip() for line in lines):
            return "\n".join(lines).strip("\n")

    return ""
