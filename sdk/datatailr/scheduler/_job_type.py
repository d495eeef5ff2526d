"""The kinds of jobs (clause B195)."""

from __future__ import annotations

from enum import Enum

__all__ = ["JobType"]


class JobType(Enum):
    """What kind of work a job is. BATCH and WORKFLOW name the same kind; its text is `batch`."""

    BATCH = "batch"
    WORKFLOW = "workflow"
    SERVICE = "service"
    APP = "app"
    EXCEL = "excel"
    WORKSTATION = "workstation"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return "batch" if self is JobType.WORKFLOW else self.value

    @classmethod
    def from_str(cls, value: JobType | str | None) -> JobType:
        """Read a member or its text in any letter case; None and "" are UNKNOWN, "batch" is
        WORKFLOW.

        Raises:
            ValueError: no such type.
        """
        if isinstance(value, cls):
            return value
        if not value:
            return cls.UNKNOWN
        text = str(value).strip().lower()
        if text == "batch":
            return cls.WORKFLOW
        for member in cls:
            if member.value == text:
                return member
        known = ", ".join(member.value for member in cls)
        raise ValueError(f"job type {value!r} is unknown; it must be one of {known}")

    def display_name(self) -> str:
        """The name of the type for people."""
        return {
            JobType.BATCH: "Workflow",
            JobType.WORKFLOW: "Workflow",
            JobType.SERVICE: "Service",
            JobType.APP: "App",
            JobType.EXCEL: "Excel Add-in",
            JobType.WORKSTATION: "Workstation",
            JobType.UNKNOWN: "Job",
        }[self]
