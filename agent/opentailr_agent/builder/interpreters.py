"""Python interpreters of this host, and which of them serves a wanted version."""

from __future__ import annotations

import asyncio
import glob
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OLDEST: Final = (3, 10)
"""Oldest minor version that the runner supports."""
_NAME: Final = re.compile(r"python3\.\d+$|python3?$")
_WANTED: Final = re.compile(r"^3\.(\d+)(?:\.(\d+))?$")
_ASK: Final = (
    "import sys; print('%d.%d.%d' % sys.version_info[:3]); "
    "print(getattr(sys, '_base_executable', None) or sys.executable); print(sys.implementation.name)"
)
_QUERY_SECONDS: Final = 10.0
_PARALLEL: Final = 4


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter of the host, outside of any virtual environment."""

    path: Path
    version: tuple[int, int, int]

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor version."""
        return self.version[:2]

    @property
    def text(self) -> str:
        """For instance `3.12.1`."""
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Choice:
    """The interpreter for a wanted version."""

    interpreter: Interpreter
    notice: str = ""
    """Says that another version than the wanted one is used; empty when it is the wanted one."""


class PythonVersionError(RuntimeError):
    """No interpreter of this host serves the wanted version."""


def choose(wanted: str, found: Iterable[Interpreter], *, strict: bool = False) -> Choice:
    """Picks the interpreter for `major.minor` or `major.minor.patch` (clause B169).

    A minor version that is not there is replaced by the nearest newer one, else by the nearest
    older one; a patch version that is not there by the newest of the minor version. Both are told.

    Args:
        wanted: The version of a recipe.
        found: Interpreters of the host.
        strict: Make a replacement an error.

    Raises:
        PythonVersionError: The text is no version, the host has no interpreter, or `strict`.
    """
    match = _WANTED.match(wanted)

    if match is None:
        raise PythonVersionError(f"python_version {wanted!r} is not a version like 3.12 or 3.12.1")

    minor = (3, int(match[1]))
    patch = int(match[2]) if match[2] else None
    usable = [one for one in found if one.minor >= OLDEST]

    if not usable:
        raise PythonVersionError(
            f"no Python interpreter from 3.{OLDEST[1]} on was found on this host; install one, "
            f"for instance with `uv python install {wanted}`"
        )

    newer = [one.minor for one in usable if one.minor >= minor]
    nearest = min(newer) if newer else max(one.minor for one in usable)
    candidates = [one for one in usable if one.minor == nearest]
    exact = [one for one in candidates if minor == nearest and one.version[2] == patch]
    chosen = max(exact or candidates, key=lambda one: one.version)

    if nearest == minor and (patch is None or exact):
        return Choice(chosen)

    if strict:
        have = ", ".join(sorted({one.text for one in usable}, key=lambda text: [*map(int, text.split("."))]))
        raise PythonVersionError(
            f"Python {wanted} is not on this host and the agent runs with --strict-python; it has {have}. "
            f"Install it, for instance with `uv python install {wanted}`"
        )

    return Choice(chosen, f"Python {wanted} is not on this host: Python {chosen.text} is used instead")


async def discover(*, path: str | None = None, home: Path | None = None) -> list[Interpreter]:
    """Looks for interpreters on PATH, among those of pyenv and uv, and beside this one.

    Those that do not answer within 10 s are left out. The interpreter that runs the agent comes
    first among equals.

    Args:
        path: Search path; None means that of the process.
        home: Home directory; None means that of the process.
    """
    gate = asyncio.Semaphore(_PARALLEL)

    async def ask(candidate: str) -> Interpreter | None:
        async with gate:
            return await _query(candidate)

    candidates = _candidates(os.environ.get("PATH", "") if path is None else path, home or Path.home())
    answers = await asyncio.gather(*(ask(candidate) for candidate in candidates))
    found: dict[Path, Interpreter] = {}

    for interpreter in answers:
        if interpreter is not None:
            found.setdefault(interpreter.path.resolve(), interpreter)

    return list(found.values())


def minors(found: Iterable[Interpreter]) -> Sequence[str]:
    """Minor versions for people and for Hello, ascending."""
    return [f"{major}.{minor}" for major, minor in sorted({one.minor for one in found})]


def _candidates(path: str, home: Path) -> list[str]:
    own = getattr(sys, "_base_executable", None) or sys.executable
    found = [str(own)]
    pyenv = os.environ.get("PYENV_ROOT", os.fspath(home / ".pyenv"))
    data = os.environ.get("XDG_DATA_HOME", os.fspath(home / ".local" / "share"))
    managed = os.environ.get("UV_PYTHON_INSTALL_DIR", os.path.join(data, "uv", "python"))

    for root in (os.path.join(pyenv, "versions"), managed):
        found += sorted(glob.glob(os.path.join(glob.escape(root), "*", "bin", "python3.*")))

    for folder in dict.fromkeys([*path.split(os.pathsep), "/usr/local/bin", "/usr/bin"]):
        # Shims of pyenv are scripts that stand for the versions found above.
        if folder and os.path.basename(folder) != "shims" and os.path.isdir(folder):
            found += sorted(os.path.join(folder, name) for name in os.listdir(folder) if _NAME.match(name))

    chosen: dict[str, str] = {}

    for candidate in found:
        if _NAME.search(os.path.basename(candidate)) and os.access(candidate, os.X_OK):
            chosen.setdefault(os.path.realpath(candidate), candidate)

    return list(chosen.values())


async def _query(candidate: str) -> Interpreter | None:
    try:
        process = await asyncio.create_subprocess_exec(
            candidate,
            "-I",
            "-S",
            "-c",
            _ASK,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None

    try:
        output, _ = await asyncio.wait_for(process.communicate(), _QUERY_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as error:
        process.kill()
        await process.wait()

        if isinstance(error, asyncio.CancelledError):
            raise

        return None

    lines = output.decode(errors="replace").splitlines()

    if process.returncode or len(lines) != 3 or lines[2] != "cpython":
        return None

    major, minor, patch = (int(part) for part in lines[0].split("."))
    return Interpreter(Path(lines[1]), (major, minor, patch)) if (major, minor) >= OLDEST else None
