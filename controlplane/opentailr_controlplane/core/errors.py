"""Why the core refuses something.

```
CoreError
├── InvalidArgument      the request cannot be understood or can never work
├── NotFound             what it names does not exist
├── AlreadyExists        the same key or name is taken by something else
├── FailedPrecondition   it would work in another state
├── PermissionDenied     the caller may not
├── ResourceExhausted    a bound was reached
└── Unavailable          the platform cannot now; the same request may work later
```

Each carries a stable `reason` for programs, a `message` for people, the `field` at fault and a `hint`
that says what to do.
"""

from __future__ import annotations


class CoreError(Exception):
    """A refused command. It changed nothing."""

    def __init__(self, reason: str, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.hint = hint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r}, {self.message!r}, field={self.field!r})"


class InvalidArgument(CoreError):
    """The request cannot be understood or can never work."""


class NotFound(CoreError):
    """What the request names does not exist."""


class AlreadyExists(CoreError):
    """The key or name is taken by something else."""


class FailedPrecondition(CoreError):
    """The request would work in another state of the platform."""


class PermissionDenied(CoreError):
    """The caller may not do this."""


class ResourceExhausted(CoreError):
    """A bound was reached: disk, queue or quota."""


class Unavailable(CoreError):
    """The platform cannot do it now; the same request may work later."""


class IllegalTransition(AssertionError):
    """A state machine was asked for a step that its table does not have; always a defect of ours."""

    def __init__(self, machine: str, source: str, target: str, owner: str, subject: str) -> None:
        super().__init__(f"{machine} {subject}: {source} -> {target} by {owner} is not in the table")
        self.machine = machine
        self.source = source
        self.target = target
        self.owner = owner


class InvariantViolation(AssertionError):
    """`validate` found a state that must not exist; always a defect of ours."""
