"""One quick question to a server, for commands that must not wait for one that is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datatailr.client.connection import Connection
    from datatailr.v1 import identity_pb2

QUICK_SECONDS: Final = 3.0
"""How long such a question may take."""


@dataclass(frozen=True)
class Server:
    """What a server says of itself and of whoever asks.

    Attributes:
        address: `HOST:PORT` of its gRPC.
        version: Its release.
        protocol: The protocol that both sides speak.
        user: Whom the token belongs to.
        expires: Microseconds since the epoch; 0 when the token does not expire.
        page: Address of its pages; empty if there are none.
    """

    address: str
    version: str
    protocol: int
    user: str
    expires: int
    page: str


def ask(address: str, token: str) -> Server:
    """Ask a server who the token belongs to.

    Raises:
        PlatformError: it cannot be reached in time, or refuses the token or the protocol.
    """
    from datatailr.client.status import PROTOCOL_VERSION

    connection = quick_connection(address, token)

    try:
        caller = _caller(connection)
    finally:
        connection.close()

    return Server(
        address,
        caller.server_version,
        PROTOCOL_VERSION,
        caller.user.name,
        caller.token_expires,
        caller.public_url,
    )


def quick_connection(address: str, token: str) -> Connection:
    """A connection that tells at once that its server is away."""
    from datatailr.client.connection import Connection, RetryPolicy

    return Connection(address, token, retry=RetryPolicy(repetitions=0), patience=0.0)


def _caller(connection: Connection) -> identity_pb2.GetCallerResponse:
    from datatailr.v1 import identity_pb2

    return connection.call(
        lambda s: s.identity.GetCaller, identity_pb2.GetCallerRequest(), timeout=QUICK_SECONDS
    )
