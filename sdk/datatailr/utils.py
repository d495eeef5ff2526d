"""Environments and small questions about where this process runs."""

from __future__ import annotations

import os
from enum import Enum

__all__ = ["Environment", "get_dt_env", "is_dt_installed"]


class Environment(Enum):
    """Where a job lives; members stand in the order of promotion (clause B6).

    `str(member)` is its value.
    """

    DEV = "dev"
    PRE = "pre"
    PROD = "prod"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, value: Environment | str | None, *, field: str = "environment") -> Environment | None:
        """Read a member, a name in any letter case, or None, which stays None.

        Raises:
            ValueError: the value is none of these; the message names `field`.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str):
            for member in cls:
                if member.value == value.strip().lower():
                    return member
        raise ValueError(f"{field} is {value!r}; it must be dev, pre or prod")

    @classmethod
    def parse_or_dev(cls, value: Environment | str | None) -> Environment:
        """Like `parse`, with None meaning dev."""
        return cls.parse(value) or cls.DEV

    @property
    def following(self) -> Environment | None:
        """The environment that promotion leads to, None after prod."""
        return {Environment.DEV: Environment.PRE, Environment.PRE: Environment.PROD}.get(self)


def get_dt_env() -> Environment:
    """The environment this process runs in: DATATAILR_JOB_ENVIRONMENT, default DEV (clause B232).

    Raises:
        ValueError: the variable holds another value.
    """
    text = os.environ.get("DATATAILR_JOB_ENVIRONMENT", "")
    return (
        Environment.parse(text, field="DATATAILR_JOB_ENVIRONMENT") or Environment.DEV
        if text
        else Environment.DEV
    )


def is_dt_installed() -> bool:
    """True when a platform is configured here, by environment or by the configuration file."""
    from datatailr.client.config import load_config

    return load_config() is not None
