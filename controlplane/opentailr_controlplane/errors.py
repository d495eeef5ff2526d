"""Errors of the services that the core has no use for.

CoreError                 one sentence, a stable reason, the field, a remedy
├── (those of core.errors)
├── Unauthenticated       no valid token
├── Aborted               correct, but overtaken; try again from the start
└── DataLoss              what was stored is damaged
"""

from __future__ import annotations

from .core.errors import CoreError


class Unauthenticated(CoreError):
    """The call carries no token, or one that is not valid."""


class Aborted(CoreError):
    """The call was right but something else came between; trying again may succeed."""


class DataLoss(CoreError):
    """Stored bytes are not what they were."""
