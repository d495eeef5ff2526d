"""What can go wrong with the database."""

from __future__ import annotations


class StoreError(Exception):
    """The database cannot be used; the message says why and what to do."""


class NewerSchema(StoreError):
    """The database was written by a newer version of the program, which must be used to open it."""


class StoreFull(StoreError):
    """A write failed for lack of space; nothing of it was kept."""


class StoreUnavailable(StoreError):
    """A read or write failed for another reason; nothing of it was kept."""
