"""What a job or task asks of a machine (clauses B7 to B9, B62 to B65)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datatailr.scheduler._platform import ResourceRequest
from datatailr.scheduler.constants import DEFAULT_TASK_CPU, DEFAULT_TASK_MEMORY, is_default

__all__ = ["Resources", "memory_bytes"]

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([bkmgt]?)\s*", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def memory_bytes(size: str, *, field: str = "memory") -> int:
    """Bytes of a size such as `256m` or `2G`: units b, k, m, g, t, base 1024 (clause B7).

    Raises:
        ValueError: unreadable or not positive (clause B8).
    """
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    count = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if count <= 0:
        raise ValueError(
            f"{field} is {size!r}; it must be a positive number with an optional unit b, k, m, g or t, "
            "for instance '512m' or '2g'"
        )
    return count


def _cores(value: object, *, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise ValueError(f"{field} is {value!r}; it must be a positive number of cores, for instance 0.5 or 2")


@dataclass
class Resources:
    """Compute resources of a container.

    Attributes:
        memory: Limit as text, for instance `"512m"`; default `"128m"`.
        cpu: Number of cores, for instance `0.5`; default `0.25`.
    """

    memory: str = DEFAULT_TASK_MEMORY
    cpu: float = DEFAULT_TASK_CPU

    @classmethod
    def from_job_dict(cls, job_dict: Mapping[str, Any]) -> Resources:
        """Resources of a platform answer (clause B9).

        A memory in bytes is shown in whole mebibytes; the cores stand under `cpu` or `num_cpus`;
        what is missing falls back to the default.
        """
        memory = job_dict.get("memory")
        cores = job_dict.get("cpu")
        if cores is None:
            cores = job_dict.get("num_cpus")
        if memory is None:
            memory = DEFAULT_TASK_MEMORY
        elif not isinstance(memory, str):
            memory = f"{int(memory) >> 20}m"
        return cls(memory=memory, cpu=DEFAULT_TASK_CPU if cores is None else float(cores))

    def request(self, *, owner: str) -> ResourceRequest:
        """The checked form for the platform; `owner` names the job or task in errors.

        Raises:
            ValueError: an unreadable size or a number of cores that is not positive (clause B8).
        """
        return ResourceRequest(
            memory=str(self.memory),
            memory_bytes=memory_bytes(self.memory, field=f"memory of {owner}"),
            cpu=_cores(self.cpu, field=f"cpu of {owner}"),
            memory_is_default=is_default(self.memory),
        )
