"""IdentityService: who is calling."""

from __future__ import annotations

from datatailr.v1 import identity_pb2, identity_pb2_grpc

from ..security.authentication import current_user
from . import wire
from .interceptor import Context


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """The cheapest way to see whether address, token and protocol version fit."""

    def __init__(self, *, version: str) -> None:
        self._version = version

    async def GetCaller(
        self, request: identity_pb2.GetCallerRequest, context: Context
    ) -> identity_pb2.GetCallerResponse:
        """The person behind the token (clause B247). Tokens of this release do not expire.

        `public_url` stays empty: this release serves no pages of jobs, and a link that leads nowhere
        (clause B97) is worse than none.
        """
        return identity_pb2.GetCallerResponse(
            user=wire.user_out(current_user()),
            token_expires=0,
            server_version=self._version,
        )
