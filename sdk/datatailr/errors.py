"""Errors that the package raises, in one tree (clause B283).

    DatatailrError
    ├── TaskError                          a task, or the graph of a workflow, is wrong
    │   ├── DuplicateJobNameError          two tasks of one name
    │   ├── CodePackageMismatchError       tasks from different packages
    │   ├── CyclicDependencyError          tasks that wait for one another
    │   ├── MissingDagError                a task without a workflow
    │   ├── ArgumentPickleError            an argument that cannot travel
    │   ├── ResultPickleError              a result that cannot travel
    │   ├── ResultLoadError                a result that cannot be loaded here
    │   └── RepoValidationError            the repository is not ready for promotion
    ├── ScheduleError                      the platform refused a schedule
    ├── BundleError                        code that cannot be packaged
    │   └── EmptyEntrypointBundleError     nothing is left to package
    └── PlatformError                      the platform could not do what was asked
        ├── NotConfiguredError             no platform is known: set an address
        ├── UnavailableError               no answer: try again later
        ├── UnauthenticatedError           no or wrong token: sign in
        ├── PermissionDeniedError          a permission is missing: ask for it
        ├── NotFoundError                  no such job, version, run, task or user
        ├── ConflictError                  the state of the thing forbids it
        │   ├── NotSupportedError          this release of the platform cannot do it yet
        │   └── ScheduleRefusedError       also a ScheduleError: no such predecessor, or a circle
        ├── InvalidRequestError            a value that the platform refuses: change it
        ├── ProtocolMismatchError          client and server speak different versions
        └── ImageBuildError                the image of a version could not be built

Mistakes in plain values (a size, a duration, a schedule) are `ValueError`, a value of the wrong
type is `TypeError` (clause B284). Messages name the job, task, field or value at fault (B285).

Each class has a stable code such as DT0102, which ends the first line of its message; the platform
may tell a more precise one. `dt explain DT0102` prints its page, see `datatailr.catalogue`.
"""

from __future__ import annotations

import re

__all__ = [
    "ArgumentPickleError",
    "BundleError",
    "CodePackageMismatchError",
    "ConflictError",
    "CyclicDependencyError",
    "DatatailrError",
    "DuplicateJobNameError",
    "EmptyEntrypointBundleError",
    "ImageBuildError",
    "InvalidRequestError",
    "MissingDagError",
    "NotConfiguredError",
    "NotFoundError",
    "NotSupportedError",
    "PermissionDeniedError",
    "PlatformError",
    "ProtocolMismatchError",
    "RepoValidationError",
    "ResultLoadError",
    "ResultPickleError",
    "ScheduleError",
    "ScheduleRefusedError",
    "TaskError",
    "UnauthenticatedError",
    "UnavailableError",
]


_MARKED = re.compile(r"\[DT\d{4}\]")


class DatatailrError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Names the page that tells what it means and what to do, for instance `DT0102`.
    """

    code: str = "DT0001"

    def __str__(self) -> str:
        """What happened with the code at the end of the first line, then `hint:` with the remedy."""
        head, newline, rest = super().__str__().partition("\n")

        # Words taken over from another error bring its code, which is the more precise one.
        mark = "" if _MARKED.search(head) else f" [{self.code}]"
        return f"{head}{mark}{newline}{rest}".lstrip()


class TaskError(DatatailrError):
    """A task, a job or the graph of a workflow is wrong."""

    code = "DT0100"


class DuplicateJobNameError(TaskError):
    """A task name is used already in the workflow; `job_name` is that name (clause B29)."""

    code = "DT0101"

    def __init__(self, job_name: str) -> None:
        super().__init__(f"a task named {job_name!r} is already in the workflow; choose another name")
        self.job_name = job_name

    def __reduce__(self) -> tuple[type[DuplicateJobNameError], tuple[str]]:
        return type(self), (self.job_name,)


class CodePackageMismatchError(TaskError):
    """The tasks of a workflow come from different package directories (clause B38)."""

    code = "DT0102"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CyclicDependencyError(TaskError):
    """Tasks wait for one another, so none of them could start (clause B27)."""

    code = "DT0103"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class MissingDagError(TaskError):
    """A task was created without a workflow (clause B36)."""

    code = "DT0104"

    def __init__(self) -> None:
        super().__init__(
            "a Task needs a workflow: create it inside a @workflow function or a `with Workflow(...)` "
            "block, or pass dag=..."
        )


class ArgumentPickleError(TaskError):
    """An argument of a task cannot be pickled (clause B44); the message names task and parameter."""

    code = "DT0105"


class ResultPickleError(TaskError):
    """A result of a task cannot be pickled (clause B44); the message names the task."""

    code = "DT0106"


class ResultLoadError(TaskError):
    """A stored result needs something that this interpreter lacks; the message names it and the remedy."""

    code = "DT0107"


class RepoValidationError(TaskError):
    """The repository of the code is not committed and in sync with its remote (clause B165)."""

    code = "DT0108"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ScheduleError(DatatailrError):
    """The platform refused a schedule for a reason that only it can find (clause B284)."""

    code = "DT0110"


class BundleError(DatatailrError):
    """The code of a job cannot be packaged; the message says why and how to lay it out."""

    code = "DT0200"


class EmptyEntrypointBundleError(BundleError):
    """Nothing is left to package in the directory of the entrypoint (clause B187)."""

    code = "DT0201"


class PlatformError(DatatailrError):
    """The platform could not do what was asked.

    Attributes:
        request_id: Finds the call in the log of the server; empty where no call was answered.
        reason: The server's own word for the refusal, for programs; empty where it gave none.
    """

    code = "DT0300"
    request_id: str = ""
    reason: str = ""


class NotConfiguredError(PlatformError):
    """No platform is configured on this machine (clause B61)."""

    code = "DT0301"

    def __init__(
        self,
        message: str = "no platform is configured on this machine\n"
        "hint: start one with `datatailr up`, or set DATATAILR_ADDRESS and DATATAILR_TOKEN",
    ) -> None:
        super().__init__(message)


class UnavailableError(PlatformError):
    """The platform did not answer; the same call may succeed later."""

    code = "DT0302"


class UnauthenticatedError(PlatformError):
    """The platform does not accept the token, or none was sent."""

    code = "DT0303"


class PermissionDeniedError(PlatformError):
    """The signed-in user lacks the permission that the message names (clause B241)."""

    code = "DT0304"


class NotFoundError(PlatformError):
    """The platform knows no such job, version, run, task or user."""

    code = "DT0400"


class ConflictError(PlatformError):
    """The present state of the job or run does not allow the operation."""

    code = "DT0500"


class NotSupportedError(ConflictError):
    """This release of the platform does not do that yet, for instance run a job of that type."""

    code = "DT0501"


class ScheduleRefusedError(ScheduleError, ConflictError):
    """A schedule names a predecessor that does not exist, or leads back to its own job (clause B94)."""

    code = "DT0502"


class InvalidRequestError(PlatformError):
    """The platform refuses a value; the message names the field."""

    code = "DT0600"


class ProtocolMismatchError(PlatformError):
    """Client and server speak different versions of the protocol; upgrade the older one."""

    code = "DT0305"


class ImageBuildError(PlatformError):
    """The image of a version could not be built; the message holds the end of the build log."""

    code = "DT0202"
