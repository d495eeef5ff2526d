"""ObjectService: content-addressed bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from datatailr.v1 import object_pb2, object_pb2_grpc

from ..core.errors import InvalidArgument
from ..objects import CHUNK, FileObjectStore, ObjectWriter
from .interceptor import Context

_ASK_LIMIT = 10_000


class ObjectService(object_pb2_grpc.ObjectServiceServicer):
    """For users, agents and runs alike: a digest is known only to those who know the content or its name."""

    def __init__(self, objects: FileObjectStore) -> None:
        self._objects = objects

    async def FindMissingObjects(
        self, request: object_pb2.FindMissingObjectsRequest, context: Context
    ) -> object_pb2.FindMissingObjectsResponse:
        """Which of these objects are not there."""
        if len(request.digests) > _ASK_LIMIT:
            raise InvalidArgument(
                "too_many_digests",
                f"digests has {len(request.digests)} entries",
                field="digests",
                hint=f"ask for at most {_ASK_LIMIT} at once",
            )
        return object_pb2.FindMissingObjectsResponse(digests=await self._objects.missing(request.digests))

    async def WriteObject(
        self, request_iterator: AsyncIterator[object_pb2.WriteObjectRequest], context: Context
    ) -> AsyncIterator[object_pb2.WriteObjectResponse]:
        """Takes one object; a write that was cut goes on at the offset answered first."""
        first = await anext(aiter(request_iterator), None)
        if first is None:
            raise InvalidArgument(
                "digest_missing", "nothing was sent", field="digest", hint="name digest and size first"
            )
        async with self._objects.writer(first.digest, first.size) as writer:
            if not writer.complete and writer.offset == writer.size:
                await writer.commit()
            told = writer.durable
            yield object_pb2.WriteObjectResponse(durable_offset=told, complete=writer.complete)
            if writer.complete:
                return
            await self._take(writer, first)
            async for request in request_iterator:
                if writer.offset == writer.size:
                    break
                await self._take(writer, request)
                if writer.durable > told and writer.offset < writer.size:
                    told = writer.durable
                    yield object_pb2.WriteObjectResponse(durable_offset=told)
                if writer.offset == writer.size:
                    break
            await writer.commit()
            yield object_pb2.WriteObjectResponse(durable_offset=writer.durable, complete=True)

    async def _take(self, writer: ObjectWriter, request: object_pb2.WriteObjectRequest) -> None:
        if not request.data:
            return
        if len(request.data) > CHUNK:
            raise InvalidArgument(
                "chunk_too_large",
                f"data has {len(request.data)} bytes",
                field="data",
                hint=f"send chunks of at most {CHUNK} bytes",
            )
        if request.offset > writer.offset or request.offset < 0:
            raise InvalidArgument(
                "wrong_offset",
                f"offset is {request.offset}, expected {writer.offset}",
                field="offset",
                hint="go on at the durable offset that was answered",
            )
        # What lies below the offset is here already: a sender may begin before it heard the offset.
        data = request.data[writer.offset - request.offset :]
        if data:
            await writer.write(data)

    async def ReadObject(
        self, request: object_pb2.ReadObjectRequest, context: Context
    ) -> AsyncIterator[object_pb2.ReadObjectResponse]:
        """An object from an offset; the first message carries its size."""
        size = await self._objects.size(request.digest)
        first = True
        async for chunk in self._objects.read(request.digest, request.offset):
            yield object_pb2.ReadObjectResponse(size=size if first else 0, data=chunk)
            first = False
        if first:
            yield object_pb2.ReadObjectResponse(size=size)
