"""The control plane of Opentailr: one process that knows and decides, agents elsewhere that do."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("opentailr")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"
