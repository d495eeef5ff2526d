"""Which release is installed here, and which of the servers can run with this interpreter."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

# What the servers import beside this package: the extras bring them.
_NEEDED: Final = {
    "opentailr_controlplane": ("sqlalchemy", "aiosqlite", "structlog", "grpc_health", "grpc_reflection"),
    "opentailr_agent": ("structlog",),
}


def installed_release() -> str:
    """Version of this installation; `unknown` when the package is used without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("opentailr")
    except PackageNotFoundError:
        return "unknown"


def startable_servers() -> list[str]:
    """`controlplane`, `agent`, as far as all that they need is here."""
    return [name.removeprefix("opentailr_") for name in _NEEDED if not lacking(name)]


def lacking(module: str) -> list[str]:
    """What is missing to run a server, by import name."""
    if sys.version_info < (3, 11):
        return ["Python 3.11"]

    return [name for name in (module, *_NEEDED[module]) if importlib.util.find_spec(name) is None]
