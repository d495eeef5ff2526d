"""The wire's enumerations in the words that people and documents use.

`STATE_OUT_OF_MEMORY` is `out_of_memory`, `JOB_TYPE_BATCH` is `batch`, `ENVIRONMENT_PRE` is `pre`:
the name without the prefix of its enumeration, in lower case; the value 0 is the empty text.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from datatailr._near import suggestion
from datatailr.catalogue import code_of_cause
from datatailr.errors import InvalidRequestError
from datatailr.v1 import common_pb2, image_pb2, node_pb2, run_pb2

PERMISSIONS: Final = ("read", "write", "operate", "access", "promote")
"""Fields of an access list."""

_ENVIRONMENTS: Final = {
    "dev": common_pb2.ENVIRONMENT_DEV,
    "pre": common_pb2.ENVIRONMENT_PRE,
    "prod": common_pb2.ENVIRONMENT_PROD,
}
_JOB_TYPES: Final = {
    "batch": common_pb2.JOB_TYPE_BATCH,
    "service": common_pb2.JOB_TYPE_SERVICE,
    "app": common_pb2.JOB_TYPE_APP,
    "excel": common_pb2.JOB_TYPE_EXCEL,
}


def state_word(state: common_pb2.State) -> str:
    """State of a version, run or task (clause B107)."""
    return _word(common_pb2.State, state, "STATE_")


def environment_word(environment: common_pb2.Environment) -> str:
    """`dev`, `pre` or `prod`."""
    return _word(common_pb2.Environment, environment, "ENVIRONMENT_")


def job_type_word(job_type: common_pb2.JobType) -> str:
    """`batch`, `service`, `app` or `excel`."""
    return _word(common_pb2.JobType, job_type, "JOB_TYPE_")


def cause_word(kind: common_pb2.CauseKind) -> str:
    """Why something ended, for instance `exit_code`."""
    return _word(common_pb2.CauseKind, kind, "CAUSE_KIND_")


CAUSE_HINTS: Final = {
    common_pb2.CAUSE_KIND_EXCEPTION: "the traceback names the line; mend it and call the workflow again",
    common_pb2.CAUSE_KIND_EXIT_CODE: "look for what called exit in the task's error log",
    common_pb2.CAUSE_KIND_SIGNAL: "SIGKILL comes from outside (the system ran out of memory, a person), "
    "SIGSEGV from native code; the error log has the last words",
    common_pb2.CAUSE_KIND_OUT_OF_MEMORY: "give the task more with @task(memory=...)",
    common_pb2.CAUSE_KIND_RESULT: "return something that can be pickled; if it could not be stored, "
    "look at the disks of node and server, then run it again",
    common_pb2.CAUSE_KIND_IMPORT: "the module must be importable on the node: inside the package, "
    "or in python_requirements",
    common_pb2.CAUSE_KIND_FAIL_AFTER: "raise fail_after of the workflow, or make its tasks faster",
    common_pb2.CAUSE_KIND_STOPPED: "`dt job rerun RUN` goes on from where it was stopped",
    common_pb2.CAUSE_KIND_UPSTREAM: "mend the task that it names; `dt job rerun RUN` then runs only the rest",
    common_pb2.CAUSE_KIND_BUILD_FAILED: "`dt job get NAME --build-logs stderr` shows the whole log",
    common_pb2.CAUSE_KIND_LEASE_LOST: "look at the node: is it running, does it reach the server?",
    common_pb2.CAUSE_KIND_NODE_RESTARTED: "the machine of the node restarted; run it again",
    common_pb2.CAUSE_KIND_LOST_BY_RUNTIME: "something ended the platform's process on the node; "
    "look at the system's log there for an out-of-memory killer",
    common_pb2.CAUSE_KIND_NODE_FAULT: "look at disk and permissions of the node's data directory",
    common_pb2.CAUSE_KIND_NODE_DRAINED: "planned by the operator of the node; run it again",
}
"""What to do about each kind of end, for people; docs/design/causes.md has the same table."""

_PLANNED: Final = common_pb2.CAUSE_KIND_NODE_DRAINED
"""The one failure of the platform that is charged to no budget."""


def cause_label(cause: common_pb2.Cause) -> str:
    """The kind of an end with its most telling field: `exit code 3`, `signal SIGKILL`, `stopped by alice`."""
    word = cause_word(cause.kind).replace("_", " ")

    if cause.kind == common_pb2.CAUSE_KIND_EXIT_CODE and cause.exit_code:
        return f"{word} {cause.exit_code}"

    if cause.kind == common_pb2.CAUSE_KIND_SIGNAL and cause.signal:
        return f"{word} {cause.signal_name or cause.signal}"

    if cause.kind == common_pb2.CAUSE_KIND_OUT_OF_MEMORY and cause.peak_memory_bytes:
        limit = f" of {_mebibytes(cause.memory_limit_bytes)}" if cause.memory_limit_bytes else ""
        return f"{word}, {_mebibytes(cause.peak_memory_bytes)}{limit}"

    if cause.kind == common_pb2.CAUSE_KIND_STOPPED and cause.user:
        return f"{word} by {cause.user}"

    if cause.kind == common_pb2.CAUSE_KIND_BUILD_FAILED and cause.build_id:
        return f"{word}, {cause.build_id}"

    if cause.kind == common_pb2.CAUSE_KIND_UPSTREAM and cause.task:
        return f"{word} {cause.task}"

    return word


def code_text(kind: common_pb2.CauseKind) -> str:
    """The code of a kind of cause as it ends a line, for `dt explain`; empty where there is none."""
    code = code_of_cause(cause_word(kind))
    return f" [{code}]" if code else ""


def outcome_word(outcome: run_pb2.AttemptOutcome) -> str:
    """How an attempt ended: `completed`, `failed`, `out_of_memory`, `lost`, …"""
    return _word(run_pb2.AttemptOutcome, outcome, "ATTEMPT_OUTCOME_")


def lineage(run: run_pb2.Run) -> str:
    """Which run this one repeats, after a comma; empty for one that repeats none."""
    if run.original_run_id <= 0:
        return ""

    return f", {'goes on from' if run.partial_rerun else 'repeats'} run {run.original_run_id}"


def failed_tries(task: run_pb2.RunTask) -> int:
    """How many attempts of a task that goes on the platform failed; 0 once it has ended."""
    if not task.HasField("last_failure"):
        return 0

    has_next = task.state in (common_pb2.STATE_STARTING, common_pb2.STATE_RUNNING)
    return task.tried_to_start_time - has_next


def retry_text(task: run_pb2.RunTask) -> str:
    """What the platform failed and that it tries again: `lost node n1 (…), trying again 2 of 4`."""
    why = task.last_failure.message.partition("\n")[0].rstrip(".") or cause_label(task.last_failure)
    node = task.last_failure.node
    where = f" (node {node})" if node and node not in why else ""
    text = f"{why[:1].lower()}{why[1:]}{where}, trying again"

    if task.last_failure.kind != _PLANNED and task.platform_failure_limit:
        text += f" {task.platform_failures + 1} of {task.platform_failure_limit + 1}"

    return text


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


def image_state_word(state: image_pb2.ImageState) -> str:
    """`queued`, `building`, `ready` or `failed`."""
    return _word(image_pb2.ImageState, state, "IMAGE_STATE_")


def node_state_word(state: node_pb2.NodeState) -> str:
    """`syncing`, `ready`, `draining`, `drained`, `suspect` or `down`."""
    return _word(node_pb2.NodeState, state, "NODE_STATE_")


def environment_number(word: str | None) -> common_pb2.Environment:
    """The environment of a name; None is the unspecified one.

    Raises:
        InvalidRequestError: no such environment; the message names the value.
    """
    if word is None:
        return common_pb2.ENVIRONMENT_UNSPECIFIED

    if word not in _ENVIRONMENTS:
        raise InvalidRequestError(_unknown_word("environment", word, _ENVIRONMENTS))

    return _ENVIRONMENTS[word]


def job_type_number(word: str) -> common_pb2.JobType:
    """The job type of a name.

    Raises:
        InvalidRequestError: no such type; the message names the value.
    """
    if word not in _JOB_TYPES:
        raise InvalidRequestError(_unknown_word("type", word, _JOB_TYPES))

    return _JOB_TYPES[word]


def _unknown_word(field: str, word: str, known: Collection[str]) -> str:
    text = f"{field}: {word!r} is none of {', '.join(known)}"
    near = suggestion(word, known, otherwise="take one of them")
    return f"{text}\nhint: {near}"


def _word(enumeration: EnumTypeWrapper, number: int, prefix: str) -> str:
    if not number:
        return ""

    try:
        return enumeration.Name(number).removeprefix(prefix).lower()
    except ValueError:
        # A newer server may know numbers that this client does not.
        return str(number)
