"""ImageService: recipes, the images made of them, and their builds."""

from __future__ import annotations

from collections.abc import AsyncIterator

from datatailr.v1 import image_pb2, image_pb2_grpc

from ..core import commands
from ..core.errors import FailedPrecondition, NotFound
from ..core.rows import ImageRow
from ..core.values import ImageState
from ..errors import Aborted
from ..logstore import FileLogStore, Stream
from ..objects import FileObjectStore
from ..ports import Engine, ImageChange
from ..security.authentication import current_user
from ..store.reads import Reads
from . import wire
from .follow import Merge, Subscription
from .interceptor import Context
from .logfollow import follow_log

_SILENCE = 15.0
"""Seconds after which the image is sent again although nothing changed."""

_DONE = frozenset({ImageState.READY, ImageState.FAILED})


class ImageService(image_pb2_grpc.ImageServiceServicer):
    """Any user may ask for an image and follow its build: equal recipes are shared."""

    def __init__(self, engine: Engine, reads: Reads, objects: FileObjectStore, logs: FileLogStore) -> None:
        self._engine = engine
        self._reads = reads
        self._objects = objects
        self._logs = logs

    async def EnsureImage(
        self, request: image_pb2.EnsureImageRequest, context: Context
    ) -> image_pb2.EnsureImageResponse:
        """Makes sure that the image exists or is being built."""
        bundle = wire.bundle_in(request.bundle) if request.HasField("bundle") else None
        recipe = wire.recipe_in(request.recipe)
        if bundle is not None and recipe.needs_bundle and not await self._objects.has(bundle.digest):
            raise FailedPrecondition(
                "object_missing",
                f"bundle.digest: object {bundle.digest} is not in the object store",
                field="bundle.digest",
                hint="write the object with ObjectService.WriteObject first",
            )
        reply = await self._engine.execute(commands.EnsureImage(current_user().name, recipe, bundle))
        assert isinstance(reply, commands.ImageReply)
        return image_pb2.EnsureImageResponse(image=self._out(await self._image(reply.image_key)))

    async def GetImage(
        self, request: image_pb2.GetImageRequest, context: Context
    ) -> image_pb2.GetImageResponse:
        """State of an image."""
        return image_pb2.GetImageResponse(image=self._out(await self._image(request.image_key)))

    async def WatchBuild(
        self, request: image_pb2.WatchBuildRequest, context: Context
    ) -> AsyncIterator[image_pb2.WatchBuildResponse]:
        """The build's output from the offsets given, its changes of state, then the end.

        When the platform starts the build anew (its node was lost), the output of the new build
        follows from its first byte.
        """
        async with Subscription(self._engine.subscribe(image_key=request.image_key)) as changes:
            row = await self._image(request.image_key)
            if row.state == ImageState.READY:
                yield image_pb2.WatchBuildResponse(image=self._out(row))
                return
            offsets = {Stream.STDOUT: request.stdout_offset, Stream.STDERR: request.stderr_offset}
            while True:
                if row.state not in _DONE:
                    yield image_pb2.WatchBuildResponse(image=self._out(row))
                async with Merge[image_pb2.BuildOutput | ImageRow]() as merge:
                    merge.add(self._until_other_build(row, changes))
                    if row.build_id:
                        for stream, offset in offsets.items():
                            merge.add(self._output(row.build_id, stream, offset))
                    following: ImageRow | None = None
                    final = row
                    async for item in merge.items():
                        if isinstance(item, image_pb2.BuildOutput):
                            yield image_pb2.WatchBuildResponse(output=item)
                        elif item.build_id != row.build_id:
                            following = item
                            break
                        else:
                            final = item
                            if item.state not in _DONE:
                                yield image_pb2.WatchBuildResponse(image=self._out(item))
                if following is None:
                    yield image_pb2.WatchBuildResponse(image=self._out(final))
                    return
                row, offsets = following, {Stream.STDOUT: 0, Stream.STDERR: 0}

    async def _until_other_build(self, row: ImageRow, changes: Subscription) -> AsyncIterator[ImageRow]:
        """Changes of the image up to its end, or to the first one of another build."""
        current = row
        while current.state not in _DONE and current.build_id == row.build_id:
            try:
                change = await changes.next(_SILENCE)
            except EOFError:
                raise Aborted("closing", "the server stops", hint="call again once it is back") from None
            current = change.image if isinstance(change, ImageChange) else await self._image(row.image_key)
            yield current

    async def _output(
        self, build_id: str, stream: Stream, offset: int
    ) -> AsyncIterator[image_pb2.BuildOutput]:
        async def over() -> bool:
            rows = await self._reads.builds([build_id])
            return not rows or rows[0].end_time > 0

        async for position, data in follow_log(self._logs, build_id, stream, offset, over=over):
            if data:
                yield image_pb2.BuildOutput(stderr=stream is Stream.STDERR, offset=position, data=data)

    async def _image(self, key: str) -> ImageRow:
        row = (await self._reads.images([key])).get(key)
        if row is None:
            raise NotFound(
                "image_not_found",
                f"there is no image {key[:80]!r}",
                field="image_key",
                hint="ask for it with EnsureImage; SaveJob does so by itself",
            )
        return row

    def _out(self, row: ImageRow) -> image_pb2.Image:
        waiting = self._engine.image_waiting_for(row.image_key) if row.state == ImageState.QUEUED else ""
        names = {node.agent_id: node.name for node in self._engine.nodes()} if row.agent_id else {}
        return wire.image_out(row, waiting, node=names.get(row.agent_id, ""))
