from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Environment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENVIRONMENT_UNSPECIFIED: _ClassVar[Environment]
    ENVIRONMENT_DEV: _ClassVar[Environment]
    ENVIRONMENT_PRE: _ClassVar[Environment]
    ENVIRONMENT_PROD: _ClassVar[Environment]

class JobType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_TYPE_UNSPECIFIED: _ClassVar[JobType]
    JOB_TYPE_BATCH: _ClassVar[JobType]
    JOB_TYPE_SERVICE: _ClassVar[JobType]
    JOB_TYPE_APP: _ClassVar[JobType]
    JOB_TYPE_EXCEL: _ClassVar[JobType]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_CREATED: _ClassVar[State]
    STATE_BUILDING: _ClassVar[State]
    STATE_READY: _ClassVar[State]
    STATE_SCHEDULED: _ClassVar[State]
    STATE_PENDING: _ClassVar[State]
    STATE_STARTING: _ClassVar[State]
    STATE_RUNNING: _ClassVar[State]
    STATE_COMPLETED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_FAILED_AFTER: _ClassVar[State]
    STATE_OUT_OF_MEMORY: _ClassVar[State]
    STATE_STOPPED: _ClassVar[State]
    STATE_EXPIRED: _ClassVar[State]
    STATE_DID_NOT_RUN: _ClassVar[State]

class CauseKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_KIND_UNSPECIFIED: _ClassVar[CauseKind]
    CAUSE_KIND_EXCEPTION: _ClassVar[CauseKind]
    CAUSE_KIND_EXIT_CODE: _ClassVar[CauseKind]
    CAUSE_KIND_SIGNAL: _ClassVar[CauseKind]
    CAUSE_KIND_OUT_OF_MEMORY: _ClassVar[CauseKind]
    CAUSE_KIND_RESULT: _ClassVar[CauseKind]
    CAUSE_KIND_IMPORT: _ClassVar[CauseKind]
    CAUSE_KIND_FAIL_AFTER: _ClassVar[CauseKind]
    CAUSE_KIND_STOPPED: _ClassVar[CauseKind]
    CAUSE_KIND_UPSTREAM: _ClassVar[CauseKind]
    CAUSE_KIND_BUILD_FAILED: _ClassVar[CauseKind]
    CAUSE_KIND_LEASE_LOST: _ClassVar[CauseKind]
    CAUSE_KIND_NODE_RESTARTED: _ClassVar[CauseKind]
    CAUSE_KIND_LOST_BY_RUNTIME: _ClassVar[CauseKind]
    CAUSE_KIND_NODE_FAULT: _ClassVar[CauseKind]
    CAUSE_KIND_NODE_DRAINED: _ClassVar[CauseKind]
ENVIRONMENT_UNSPECIFIED: Environment
ENVIRONMENT_DEV: Environment
ENVIRONMENT_PRE: Environment
ENVIRONMENT_PROD: Environment
JOB_TYPE_UNSPECIFIED: JobType
JOB_TYPE_BATCH: JobType
JOB_TYPE_SERVICE: JobType
JOB_TYPE_APP: JobType
JOB_TYPE_EXCEL: JobType
STATE_UNSPECIFIED: State
STATE_CREATED: State
STATE_BUILDING: State
STATE_READY: State
STATE_SCHEDULED: State
STATE_PENDING: State
STATE_STARTING: State
STATE_RUNNING: State
STATE_COMPLETED: State
STATE_FAILED: State
STATE_FAILED_AFTER: State
STATE_OUT_OF_MEMORY: State
STATE_STOPPED: State
STATE_EXPIRED: State
STATE_DID_NOT_RUN: State
CAUSE_KIND_UNSPECIFIED: CauseKind
CAUSE_KIND_EXCEPTION: CauseKind
CAUSE_KIND_EXIT_CODE: CauseKind
CAUSE_KIND_SIGNAL: CauseKind
CAUSE_KIND_OUT_OF_MEMORY: CauseKind
CAUSE_KIND_RESULT: CauseKind
CAUSE_KIND_IMPORT: CauseKind
CAUSE_KIND_FAIL_AFTER: CauseKind
CAUSE_KIND_STOPPED: CauseKind
CAUSE_KIND_UPSTREAM: CauseKind
CAUSE_KIND_BUILD_FAILED: CauseKind
CAUSE_KIND_LEASE_LOST: CauseKind
CAUSE_KIND_NODE_RESTARTED: CauseKind
CAUSE_KIND_LOST_BY_RUNTIME: CauseKind
CAUSE_KIND_NODE_FAULT: CauseKind
CAUSE_KIND_NODE_DRAINED: CauseKind

class Payload(_message.Message):
    __slots__ = ("inline", "digest", "size")
    INLINE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    inline: bytes
    digest: str
    size: int
    def __init__(self, inline: _Optional[bytes] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("memory", "memory_bytes", "cpu", "memory_is_default")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    memory: str
    memory_bytes: int
    cpu: float
    memory_is_default: bool
    def __init__(self, memory: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., cpu: _Optional[float] = ..., memory_is_default: bool = ...) -> None: ...

class ImageRecipe(_message.Message):
    __slots__ = ("python_version", "python_requirements", "build_script_pre", "build_script_post")
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    BUILD_SCRIPT_PRE_FIELD_NUMBER: _ClassVar[int]
    BUILD_SCRIPT_POST_FIELD_NUMBER: _ClassVar[int]
    python_version: str
    python_requirements: str
    build_script_pre: str
    build_script_post: str
    def __init__(self, python_version: _Optional[str] = ..., python_requirements: _Optional[str] = ..., build_script_pre: _Optional[str] = ..., build_script_post: _Optional[str] = ...) -> None: ...

class CodeOrigin(_message.Message):
    __slots__ = ("branch_name", "commit_hash", "path_to_repo", "path_to_module")
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    COMMIT_HASH_FIELD_NUMBER: _ClassVar[int]
    PATH_TO_REPO_FIELD_NUMBER: _ClassVar[int]
    PATH_TO_MODULE_FIELD_NUMBER: _ClassVar[int]
    branch_name: str
    commit_hash: str
    path_to_repo: str
    path_to_module: str
    def __init__(self, branch_name: _Optional[str] = ..., commit_hash: _Optional[str] = ..., path_to_repo: _Optional[str] = ..., path_to_module: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("digest", "size", "directory", "top_level")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    TOP_LEVEL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    directory: str
    top_level: bool
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., directory: _Optional[str] = ..., top_level: bool = ...) -> None: ...

class Cause(_message.Message):
    __slots__ = ("kind", "message", "traceback", "exit_code", "signal", "signal_name", "node", "since", "memory_limit_bytes", "peak_memory_bytes", "time_limit", "user", "build_id", "task")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    kind: CauseKind
    message: str
    traceback: str
    exit_code: int
    signal: int
    signal_name: str
    node: str
    since: int
    memory_limit_bytes: int
    peak_memory_bytes: int
    time_limit: int
    user: str
    build_id: str
    task: str
    def __init__(self, kind: _Optional[_Union[CauseKind, str]] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., signal_name: _Optional[str] = ..., node: _Optional[str] = ..., since: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., peak_memory_bytes: _Optional[int] = ..., time_limit: _Optional[int] = ..., user: _Optional[str] = ..., build_id: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("reason", "field", "hint", "request_id")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    reason: str
    field: str
    hint: str
    request_id: str
    def __init__(self, reason: _Optional[str] = ..., field: _Optional[str] = ..., hint: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
