"""Slow work on single attempts and builds; each piece ends in an event for the core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import structlog

from datatailr.v1 import agent_pb2 as pb
from opentailr_agent.builder.venv import BuildError, BuiltEnvironment, VenvBuilder
from opentailr_agent.bundles import BundleError, remove_tree
from opentailr_agent.core import effects as do
from opentailr_agent.core import events as ev
from opentailr_agent.core.model import BuildState, Cause, CauseKind, StoredResult
from opentailr_agent.logs.shipper import LogShipper
from opentailr_agent.objects import ObjectCache
from opentailr_agent.ports import AttemptOrder, Outcome, Runtime
from opentailr_agent.preparation import BadAssignmentError, Preparation, checked_name, recipe_of
from opentailr_agent.room import ATTEMPT_PATIENCE, BUILD_PATIENCE, Room
from opentailr_agent.transfer import ObjectError, ObjectTransfer, hash_file


class Work:
    """What effects of the core lead to, apart from messages and the journal.

    Args:
        feed: Takes the event that ends a piece of work.
        shipper: The shipper of logs, which is attached after this is made.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        builder: VenvBuilder,
        preparation: Preparation,
        objects: ObjectCache,
        transfer: ObjectTransfer,
        feed: Callable[[ev.Event], None],
        shipper: Callable[[], LogShipper],
    ) -> None:
        self._runtime = runtime
        self._builder = builder
        self._preparation = preparation
        self._objects = objects
        self._transfer = transfer
        self._feed = feed
        self._shipper = shipper
        self.room = Room(lambda: objects.give_back())
        """What waits for room on the disk, and why."""
        self._orders: dict[str, AttemptOrder] = {}
        self._doomed: set[Path] = set()
        """Folders to be deleted."""
        self._deleting = asyncio.Lock()
        self._log = structlog.get_logger("work")

    async def prepare(self, attempt_id: str, spec: object) -> None:
        """Makes everything of an attempt present: Prepared or PrepareFailed."""
        try:
            order = await self.room.wait_for(
                f"attempt {attempt_id}",
                lambda: self._preparation.prepare(attempt_id, cast("pb.AttemptSpec", spec)),
                patience=ATTEMPT_PATIENCE,
            )
        except BuildError as error:
            self._feed(ev.PrepareFailed(attempt_id, Cause(CauseKind.BUILD_FAILED, str(error))))
        except (BundleError, ObjectError, BadAssignmentError, OSError) as error:
            self._log.warning("attempt cannot be prepared", attempt=attempt_id, error=str(error))
            words = f"the node could not prepare the task: {error}"
            self._feed(ev.PrepareFailed(attempt_id, Cause(CauseKind.NODE_FAULT, words)))
        else:
            self._orders[attempt_id] = order
            self._shipper().follow(attempt_id, order.folder)
            self._feed(ev.Prepared(attempt_id))

    async def start(self, attempt_id: str) -> None:
        """Hands a prepared attempt to the runtime: HandedOver or StartFailed."""
        order = self._orders.pop(attempt_id)

        try:
            await self.room.wait_for(
                f"attempt {attempt_id}", lambda: self._runtime.start(order), patience=ATTEMPT_PATIENCE
            )
        except (OSError, RuntimeError) as error:
            self._log.warning("attempt cannot be started", attempt=attempt_id, error=str(error))
            self._feed(ev.StartFailed(attempt_id, str(error)))
        else:
            self._feed(ev.HandedOver(attempt_id))

    async def store(self, attempt_id: str, outcome: Outcome) -> None:
        """Puts a large result into the object store: ResultStored or StoreFailed."""
        path = outcome.result_file
        assert path is not None

        try:
            # Reading it forces it to the disk, which may find only now that there is no room.
            digest, size = await self.room.wait_for(
                f"the result of {attempt_id}",
                lambda: asyncio.to_thread(hash_file, path),
                patience=BUILD_PATIENCE,
            )
            await self._transfer.write(digest, path, size)
            self._objects.adopt(digest, path, size)
        except (ObjectError, OSError) as error:
            self._log.warning("result cannot be stored", attempt=attempt_id, error=str(error))
            self._feed(ev.StoreFailed(attempt_id, str(error)))
        else:
            self._feed(ev.ResultStored(attempt_id, StoredResult(size, digest=digest)))

    async def remove(self, attempt_id: str) -> None:
        """Removes what is left of an attempt: Removed."""
        self._orders.pop(attempt_id, None)
        await self._runtime.remove(attempt_id)
        await self._delete(self._preparation.folder(attempt_id))
        self._preparation.release(attempt_id)
        self._feed(ev.Removed(attempt_id))

    async def remove_stray(self, attempt_id: str, folder: Path) -> None:
        """Removes what is left of an attempt that the journal does not know."""
        await self._runtime.remove(attempt_id)
        await self._delete(folder)

    async def _delete(self, folder: Path) -> None:
        """Deletes a folder in a thread; those that come meanwhile go together in the next one."""
        self._doomed.add(folder)

        async with self._deleting:
            if folder in self._doomed:
                doomed, self._doomed = self._doomed, set()
                await asyncio.to_thread(_remove_trees, doomed)

    async def build(self, effect: do.Build) -> None:
        """Builds an environment and has its log shipped: BuildEnded."""
        order = cast("pb.BuildAssignment", effect.spec)

        try:
            checked_name(effect.build_id, field="build_id")
            checked_name(effect.image_key, field="image_key")
            built = await self.room.wait_for(
                f"environment {effect.image_key[:12]}",
                lambda: self._ensure(effect, order),
                patience=BUILD_PATIENCE,
            )
        except (BuildError, BundleError, ObjectError, BadAssignmentError, OSError) as error:
            cause = Cause(CauseKind.BUILD_FAILED, str(error))
            self._feed(ev.BuildEnded(effect.build_id, BuildState.FAILED, cause))
        else:
            self._feed(ev.BuildEnded(effect.build_id, BuildState.READY, notice=built.notice))
        finally:
            self._preparation.release(effect.build_id)
            self._shipper().finish(effect.build_id)

    async def _ensure(self, effect: do.Build, order: pb.BuildAssignment) -> BuiltEnvironment:
        folder = self._builder.open_log(effect.build_id, effect.image_key)
        self._shipper().follow(effect.build_id, folder, frees=False)
        return await self._builder.ensure(
            effect.image_key,
            recipe_of(order.recipe),
            code=lambda: self._preparation.code(order.bundle, owner=effect.build_id),
            build_id=effect.build_id,
        )


def _remove_trees(folders: Iterable[Path]) -> None:
    for folder in folders:
        remove_tree(folder)
