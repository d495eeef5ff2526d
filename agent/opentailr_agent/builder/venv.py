"""Virtual environments from recipes, one per image key.

    environments/
      <image key>/                 made in place, because environments hold absolute paths
        .opentailr.json            written last: without it the folder is a ruin and removed
        code/<directory>/          copy of the code, only if a post script worked in it

Order of a build (clause B175): environment, pre script, requirements, code, post script. Equal keys
build once, whoever asks; a build that everybody has left is ended with its processes and leaves
nothing. A recipe without requirements needs no network.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sysconfig
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from opentailr_agent.builder.interpreters import (
    Choice,
    Interpreter,
    PythonVersionError,
    choose,
    discover,
    minors,
)
from opentailr_agent.builder.platform import PlatformLibraries
from opentailr_agent.builder.steps import BuildLog, StepError, run_step
from opentailr_agent.bundles import remove_tree
from opentailr_agent.config import ConfigError
from opentailr_agent.flights import Flights

MARKER: Final = ".opentailr.json"
_KEPT: Final = ("PATH", "HOME", "LANG", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
"""Variables of the agent that build steps see, besides those that configure uv, proxies and TLS."""
_PREFIXES: Final = ("UV_", "SSL_", "PIP_")
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})


class BuildError(RuntimeError):
    """An environment cannot be built; the message names the failing step with its last lines."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an environment is made from."""

    python_version: str
    requirements: str = ""
    pre_script: str = ""
    post_script: str = ""


@dataclass(frozen=True, slots=True)
class BuiltEnvironment:
    """An environment that is ready."""

    key: str
    root: Path
    notice: str = ""
    """Says that another Python version than the wanted one is used."""
    has_code: bool = False
    """True when a post script worked in a copy of the code, which attempts then use."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def code(self) -> Path | None:
        """Folder that takes the place of the unpacked bundle, or None."""
        return self.root / "code" if self.has_code else None


Code = Callable[[], Awaitable[Path]]
"""Gives the folder that holds the unpacked package directory."""


class VenvBuilder:
    """Builds and finds environments.

    Args:
        data_dir: Data directory of the agent; `environments`, `platform`, `builds` and `cache` lie there.
        uv: The `uv` program; None means the one beside this interpreter.
        allow_pre_scripts: Let recipes run shell text on this host before the requirements (B174).
        strict: Make another Python version than the wanted one an error.
        interpreters: Known interpreters; None means to look for them when first needed.
        env: The agent's own variables, from which those for build steps are chosen.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        uv: Path | None = None,
        allow_pre_scripts: bool = False,
        strict: bool = False,
        interpreters: list[Interpreter] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._root = data_dir / "environments"
        self._builds = data_dir / "builds"
        self._cache = data_dir / "cache" / "uv"
        self._uv = uv or find_uv()
        self._allow_pre_scripts = allow_pre_scripts
        self._strict = strict
        self._interpreters = interpreters
        self._env = _build_env(os.environ if env is None else env, self._cache)
        self._flights: Flights[BuiltEnvironment] = Flights()
        self._logs: dict[str, BuildLog] = {}
        self._platform = PlatformLibraries(data_dir / "platform", uv=self._uv, env=self._env)
        self._log = structlog.get_logger("builder")

        for folder in (self._root, self._builds, self._cache, data_dir / "platform"):
            folder.mkdir(parents=True, exist_ok=True)

    def ready(self, key: str) -> BuiltEnvironment | None:
        """The environment of this key if it was built completely."""
        root = self._root / key

        try:
            marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

        # The interpreter may have been removed from the host since.
        if not (root / "bin" / "python").exists():
            return None

        return BuiltEnvironment(key, root, marker["notice"], marker["has_code"])

    def keys(self) -> list[str]:
        """Keys of all environments that are ready."""
        return sorted(path.name for path in self._root.iterdir() if (path / MARKER).exists())

    async def interpreters(self, *, again: bool = False) -> list[Interpreter]:
        """Interpreters of the host; looked for once, or `again`."""
        if self._interpreters is None or again:
            self._interpreters = await discover()

        return self._interpreters

    async def python_versions(self) -> list[str]:
        """Minor versions that the host has, ascending."""
        return list(minors(await self.interpreters()))

    async def ensure(
        self, key: str, recipe: Recipe, *, code: Code | None = None, build_id: str = ""
    ) -> BuiltEnvironment:
        """The environment of this key, built if needed.

        Args:
            key: Image key.
            recipe: What it is made from.
            code: Where the code is, for the post script.
            build_id: Whose log the build is; empty when an attempt asks by itself.

        Raises:
            BuildError: It cannot be built; nothing is left of it.
        """
        ready = self.ready(key)

        if ready is not None:
            if build_id:
                BuildLog(self._builds / build_id).say(
                    f"Environment {key[:12]} is ready on this node already."
                )

            return ready

        return await self._flights.join(key, lambda: self._build(key, recipe, code, build_id))

    def open_log(self, build_id: str, key: str) -> Path:
        """Folder of a build's log, to be opened before `ensure`.

        A build that goes on already for somebody else is joined: the folder then holds its log.
        """
        folder = self._builds / build_id
        running = self._logs.get(key)

        if running is not None and running.folder != folder:
            running.join(folder)
        else:
            BuildLog(folder)

        return folder

    def old_logs(self) -> list[Path]:
        """Folders of logs that an earlier process of the agent left; those of nobody are deleted."""
        for path in self._builds.glob("local-*"):
            shutil.rmtree(path, ignore_errors=True)

        return sorted(self._builds.iterdir())

    def drop_log(self, build_id: str) -> None:
        """Deletes the log of a build after it was shipped."""
        shutil.rmtree(self._builds / build_id, ignore_errors=True)

    async def close(self) -> None:
        """Ends all builds."""
        await self._flights.close()

    async def _build(self, key: str, recipe: Recipe, code: Code | None, build_id: str) -> BuiltEnvironment:
        name = build_id or f"local-{key}"
        log = self._logs[key] = BuildLog(self._builds / name)
        root = self._root / key
        built = False

        try:
            await asyncio.to_thread(remove_tree, root)
            environment = await self._steps(key, root, recipe, code, log)
            built = True
            return environment
        except (StepError, PythonVersionError) as error:
            # What the step said last stands right above in this log already.
            log.say(f"Build failed: {str(error).splitlines()[0].rstrip(':')}")
            raise BuildError(str(error)) from error
        except OSError as error:
            log.say(f"Build failed: {error}")
            raise BuildError(f"the environment could not be written: {error}") from error
        finally:
            del self._logs[key]

            if not built:
                await asyncio.shield(asyncio.to_thread(remove_tree, root))

            if not build_id:
                self.drop_log(name)

    async def _steps(
        self, key: str, root: Path, recipe: Recipe, code: Code | None, log: BuildLog
    ) -> BuiltEnvironment:
        if recipe.pre_script.strip() and not self._allow_pre_scripts:
            raise StepError(
                "build_script_pre is refused: this node runs jobs as plain processes, so the script would "
                "run on the host itself. Start the agent with --allow-pre-scripts to allow it"
            )

        choice = await self._choose(recipe.python_version)
        interpreter = choice.interpreter
        self._log.info("build begins", image_key=key, python=interpreter.text, notice=choice.notice)

        if choice.notice:
            log.say(choice.notice)

        # Scripts and uv see the environment as if it were activated.
        env = {
            **self._env,
            "VIRTUAL_ENV": os.fspath(root),
            "PATH": os.pathsep.join([os.fspath(root / "bin"), self._env.get("PATH", os.defpath)]),
        }
        uv = os.fspath(self._uv)
        venv = [
            uv,
            "venv",
            "--quiet",
            "--no-project",
            "--python",
            os.fspath(interpreter.path),
            os.fspath(root),
        ]
        await run_step(log, venv, env=self._env, cwd=self._root)

        if recipe.pre_script.strip():
            await _script(log, recipe.pre_script, env=env, cwd=root)

        if recipe.requirements.strip():
            wanted = root / "requirements.txt"
            wanted.write_text(recipe.requirements.strip() + "\n", encoding="utf-8")
            python = os.fspath(root / "bin" / "python")
            install = [uv, "pip", "install", "--compile-bytecode", "--python", python, "-r", wanted.name]
            await run_step(log, install, env=env, cwd=root)

        await self._platform.attach(_site_packages(root, interpreter), interpreter, log)
        has_code = bool(recipe.post_script.strip())

        if has_code:
            if code is None:
                raise StepError("build_script_post needs the code of the job, and none was named")

            folder = await asyncio.to_thread(_copy_code, await code(), root / "code")
            await _script(
                log, recipe.post_script, env={**env, "PYTHONPATH": os.fspath(root / "code")}, cwd=folder
            )

        # What the marker promises must be on disk before it: a crash of the machine leaves a ruin
        # without marker, never a marker on a ruin.
        await asyncio.to_thread(os.sync)
        marker = {"python": interpreter.text, "notice": choice.notice, "has_code": has_code}
        incoming = root / f"{MARKER}.incoming"
        incoming.write_text(json.dumps(marker), encoding="utf-8")
        incoming.rename(root / MARKER)
        log.say(f"Environment {key[:12]} is ready.")
        return BuiltEnvironment(key, root, choice.notice, has_code)

    async def _choose(self, wanted: str) -> Choice:
        try:
            choice = choose(wanted, await self.interpreters(), strict=self._strict)
        except PythonVersionError:
            return choose(wanted, await self.interpreters(again=True), strict=self._strict)

        if choice.notice:
            # It may have been installed since the agent started.
            choice = choose(wanted, await self.interpreters(again=True), strict=self._strict)

        return choice


def find_uv() -> Path:
    """The `uv` program of the package of that name, else the one on PATH.

    Raises:
        ConfigError: There is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "uv"

    if beside.exists():
        return beside

    found = shutil.which("uv")

    if found is None:
        raise ConfigError("the program `uv` was not found; install it with `pip install uv`")

    return Path(found)


async def _script(log: BuildLog, text: str, *, env: Mapping[str, str], cwd: Path) -> None:
    await run_step(log, ["/bin/sh", "-e", "-c", text], env=env, cwd=cwd, shown=text.strip())


def _build_env(own: Mapping[str, str], cache: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in own.items()
        if name in _KEPT or name.startswith(_PREFIXES) or name.lower() in _PROXIES
    }
    kept["UV_CACHE_DIR"] = os.fspath(cache)
    kept["UV_NO_PROGRESS"] = "1"
    kept["UV_PYTHON_DOWNLOADS"] = "never"
    kept.setdefault("LANG", "C.UTF-8")
    return kept


def _site_packages(root: Path, interpreter: Interpreter) -> Path:
    major, minor = interpreter.minor
    return root / "lib" / f"python{major}.{minor}" / "site-packages"


def _copy_code(source: Path, target: Path) -> Path:
    """Copies the unpacked bundle, writable; returns the package directory."""
    shutil.copytree(source, target, copy_function=_copy_writable)

    for folder, names, _ in os.walk(target):
        for name in names:
            os.chmod(os.path.join(folder, name), 0o755)

    os.chmod(target, 0o755)
    return next(iter(sorted(target.iterdir())))


def _copy_writable(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, os.stat(source).st_mode | 0o644)
