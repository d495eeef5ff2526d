"""Helpers of the scheduler that users import by name."""

from __future__ import annotations

from datatailr.errors import RepoValidationError
from datatailr.scheduler._names import normalize_name
from datatailr.scheduler._repository import set_allow_unsafe_scheduling

__all__ = ["RepoValidationError", "normalize_name", "set_allow_unsafe_scheduling"]
