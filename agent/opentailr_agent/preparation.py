"""From an assignment to an order for the runtime: everything present as files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import common_pb2
from opentailr_agent import inventory
from opentailr_agent.builder.venv import BuiltEnvironment, Recipe, VenvBuilder
from opentailr_agent.bundles import BundleStore
from opentailr_agent.objects import ObjectCache
from opentailr_agent.ports import AttemptOrder

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_SYSTEM_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")


class BadAssignmentError(RuntimeError):
    """The control plane sent something that cannot be carried out; the message names the field."""


def recipe_of(message: common_pb2.ImageRecipe) -> Recipe:
    """The recipe of a message."""
    return Recipe(
        message.python_version,
        message.python_requirements,
        message.build_script_pre,
        message.build_script_post,
    )


def checked_name(name: str, *, field: str) -> str:
    """A name that is also the name of a folder.

    Raises:
        BadAssignmentError: It is not plain enough for that.
    """
    if not _NAME.match(name):
        raise BadAssignmentError(f"{field} {name!r} is no plain name of at most 128 letters and digits")

    return name


class Preparation:
    """Makes environment, code, arguments and inputs of attempts present.

    Args:
        attempts: Folder in which each attempt gets one of its own.
        soft_memory_limit: Bytes at which an attempt ends whose memory came from a default (B65a).
    """

    def __init__(
        self,
        attempts: Path,
        *,
        builder: VenvBuilder,
        objects: ObjectCache,
        bundles: BundleStore,
        soft_memory_limit: int,
    ) -> None:
        self._attempts = attempts
        self._builder = builder
        self._objects = objects
        self._bundles = bundles
        self._soft_memory_limit = soft_memory_limit

    def folder(self, attempt_id: str) -> Path:
        """Where everything of an attempt lies; inside of the folder of attempts for any id."""
        if _NAME.match(attempt_id):
            return self._attempts / attempt_id

        return self._attempts / f"~{hashlib.sha256(attempt_id.encode()).hexdigest()}"

    async def prepare(self, attempt_id: str, spec: pb.AttemptSpec) -> AttemptOrder:
        """Puts together what the runtime needs.

        Raises:
            BuildError: The environment cannot be built.
            BundleError: The code is no sound archive.
            ObjectError: Something cannot be had from the control plane.
            BadAssignmentError: The assignment itself is wrong.
            OSError: The disk.
        """
        checked_name(attempt_id, field="attempt_id")
        module, colon, function = spec.entrypoint.partition(":")

        if not (module and colon and function):
            raise BadAssignmentError(f"entrypoint {spec.entrypoint!r} is not module:function")

        folder = self.folder(attempt_id)

        for place in (folder, folder / "work", folder / "tmp"):
            place.mkdir(exist_ok=True)

        environment = await self._environment(attempt_id, spec)
        code = environment.code or await self._bundles.get(
            spec.bundle.digest,
            checked_name(spec.bundle.directory, field="bundle.directory"),
            owner=attempt_id,
        )
        path = [code, code / spec.bundle.directory] if spec.bundle.top_level else [code]
        arguments = folder / "arguments.pkl"
        await self._payload(attempt_id, spec.arguments, arguments)
        inputs = {}

        for entry in spec.inputs:
            # Beside the rest: each file or folder less counts, for short tasks most of all.
            inputs[entry.task_id] = folder / f"input-{entry.task_id}.pkl"
            await self._payload(attempt_id, entry.result, inputs[entry.task_id])

        return AttemptOrder(
            attempt_id=attempt_id,
            image_key=spec.image_key,
            python=environment.python,
            bundle_digest=spec.bundle.digest,
            python_path=path,
            module=module,
            function=function,
            folder=folder,
            arguments=arguments,
            inputs=inputs,
            env=self._env(spec, environment, path, folder),
            memory_bytes=self._memory(spec.resources),
        )

    async def code(self, bundle: common_pb2.Bundle, *, owner: str) -> Path:
        """The unpacked bundle, for a post script."""
        return await self._bundles.get(
            bundle.digest, checked_name(bundle.directory, field="bundle.directory"), owner=owner
        )

    def hold(self, attempt_id: str, spec: pb.AttemptSpec) -> None:
        """Notes after a restart that a living attempt uses its bundle."""
        self._bundles.hold(spec.bundle.digest, owner=attempt_id)

    def release(self, owner: str) -> None:
        """An attempt or build uses nothing any more."""
        self._objects.release(owner)
        self._bundles.release(owner)

    async def _environment(self, attempt_id: str, spec: pb.AttemptSpec) -> BuiltEnvironment:
        ready = self._builder.ready(checked_name(spec.image_key, field="image_key"))

        if ready is not None:
            return ready

        return await self._builder.ensure(
            spec.image_key, recipe_of(spec.image), code=lambda: self.code(spec.bundle, owner=attempt_id)
        )

    async def _payload(self, attempt_id: str, payload: common_pb2.Payload, target: Path) -> None:
        if payload.WhichOneof("content") == "digest":
            await self._objects.link(payload.digest, target, owner=attempt_id)
        else:
            # At most 64 KiB into the page cache: less than the way to a thread and back.
            target.write_bytes(payload.inline)  # noqa: ASYNC240

    def _memory(self, resources: common_pb2.Resources) -> int:
        """Clause B65a: what the user gave is exact, a default ends only at the soft limit."""
        if resources.memory_is_default:
            return max(self._soft_memory_limit, resources.memory_bytes)

        return resources.memory_bytes

    def _env(
        self, spec: pb.AttemptSpec, environment: BuiltEnvironment, path: list[Path], folder: Path
    ) -> Mapping[str, str]:
        """The whole environment of the process: what the control plane put together (B226 to B231), then
        what only the node knows. `HOME`, `LANG` and `TMPDIR` may be the user's own."""
        given = {entry.name: entry.value for entry in spec.env}
        node = {
            "PATH": os.pathsep.join([os.fspath(environment.root / "bin"), *_SYSTEM_PATH]),
            "VIRTUAL_ENV": os.fspath(environment.root),
            "PYTHONPATH": os.pathsep.join(map(os.fspath, path)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "UTF-8",
            # Whose process it is only the node knows (B227); a user's variable cannot say otherwise.
            "DATATAILR_GROUP": inventory.group_name(),
            "DATATAILR_UID": str(os.getuid()),
            "DATATAILR_GID": str(os.getgid()),
        }

        if spec.run_token:
            node["DATATAILR_TOKEN"] = spec.run_token

        return {
            "HOME": os.path.expanduser("~"),
            "LANG": "C.UTF-8",
            "TMPDIR": os.fspath(folder / "tmp"),
            **given,
            **node,
        }
