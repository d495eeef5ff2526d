"""The wire's enumerations in the words that people and documents use.

`STATE_OUT_OF_MEMORY` is `out_of_memory`, `JOB_TYPE_BATCH` is `batch`, `ENVIRONMENT_PRE` is `pre`:
the name without the prefix of its enumeration, in lower case; the value 0 is the empty text.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from datatailr.errors import InvalidRequestError
from datatailr.v1 import common_pb2, image_pb2, node_pb2

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
        raise InvalidRequestError(f"environment: {word!r} is none of {', '.join(_ENVIRONMENTS)}")

    return _ENVIRONMENTS[word]


def job_type_number(word: str) -> common_pb2.JobType:
    """The job type of a name.

    Raises:
        InvalidRequestError: no such type; the message names the value.
    """
    if word not in _JOB_TYPES:
        raise InvalidRequestError(f"type: {word!r} is none of {', '.join(_JOB_TYPES)}")

    return _JOB_TYPES[word]


def _word(enumeration: EnumTypeWrapper, number: int, prefix: str) -> str:
    if not number:
        return ""

    try:
        return enumeration.Name(number).removeprefix(prefix).lower()
    except ValueError:
        # A newer server may know numbers that this client does not.
        return str(number)
