"""Makes the SDK importable in every environment without shadowing anything of the user's.

    platform/<3.12>/
      datatailr          link to the installed package
      grpc, google, …    for calls from inside a task: links for the agent's own minor version,
                         an installation of the same versions for others

A `.pth` file in the environment appends this directory at the end of `sys.path`: what the user
pinned is found first.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opentailr_agent.builder.interpreters import Interpreter
from opentailr_agent.builder.steps import BuildLog, StepError, run_step

PTH: Final = "zz_opentailr.pth"
"""Sorted behind other `.pth` files, so that ours is the last entry."""
_DISTRIBUTIONS: Final = ("grpcio", "protobuf", "typing_extensions")


class PlatformLibraries:
    """The directories, made when first needed.

    Args:
        folder: Made if needed.
        uv: The `uv` program.
        env: Environment for `uv`.
    """

    def __init__(self, folder: Path, *, uv: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._uv = uv
        self._env = dict(env)
        self._made: dict[tuple[int, int], Path] = {}
        self._gate = asyncio.Lock()

    async def attach(self, site_packages: Path, interpreter: Interpreter, log: BuildLog) -> None:
        """Lets an environment find the platform's packages."""
        async with self._gate:
            folder = self._made.get(interpreter.minor)

            if folder is None:
                folder = await self._make(interpreter, log)
                self._made[interpreter.minor] = folder

        (site_packages / PTH).write_text(f"{folder}\n", encoding="utf-8")

    async def _make(self, interpreter: Interpreter, log: BuildLog) -> Path:
        folder = self._folder / ".".join(map(str, interpreter.minor))
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder / "datatailr", _package("datatailr"))

        if interpreter.minor == sys.version_info[:2]:
            for name in _DISTRIBUTIONS:
                _link_distribution(folder, name)
        elif not (folder / "grpc").exists():
            await self._install(folder, interpreter, log)

        return folder

    async def _install(self, folder: Path, interpreter: Interpreter, log: BuildLog) -> None:
        """Tried once per agent process; without a network tasks run all the same."""
        incoming = folder.with_name(f"{folder.name}.incoming")
        shutil.rmtree(incoming, ignore_errors=True)
        wanted = [f"{name}=={importlib.metadata.version(name)}" for name in ("grpcio", "protobuf")]
        command = [os.fspath(self._uv), "pip", "install", "--quiet", "--python", os.fspath(interpreter.path)]

        try:
            await run_step(
                log, [*command, "--target", os.fspath(incoming), *wanted], env=self._env, cwd=self._folder
            )

            for path in sorted(incoming.iterdir()):
                target = folder / path.name

                if not target.exists():
                    path.rename(target)
        except StepError:
            log.say(
                "The client for calls from inside a task could not be installed for Python "
                f"{interpreter.text}; tasks run without it."
            )
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)

    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {name!r} is not installed beside the agent")

    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _link_distribution(folder: Path, name: str) -> None:
    """Links the top-level entries of an installed distribution; shared namespaces one level below."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return

    for file in files:
        parts = file.parts

        if ".." in parts or parts[0].endswith(".dist-info") or parts[0] == "__pycache__":
            continue

        shared = parts[0] == "google"
        inner = Path(*parts[: 2 if shared else 1])
        _link(folder / inner, Path(str(file.locate())).parents[len(parts) - 1] / inner)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and os.readlink(link) == os.fspath(target):
        return

    link.parent.mkdir(parents=True, exist_ok=True)
    incoming = link.with_name(f"{link.name}.incoming")
    incoming.unlink(missing_ok=True)
    incoming.symlink_to(target)
    incoming.replace(link)
