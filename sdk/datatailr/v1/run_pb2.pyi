from datatailr.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttemptOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_OUTCOME_UNSPECIFIED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_STARTING: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_RUNNING: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_COMPLETED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_FAILED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_OUT_OF_MEMORY: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_STOPPED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_REJECTED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_LOST: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_WITHDRAWN: _ClassVar[AttemptOutcome]
ATTEMPT_OUTCOME_UNSPECIFIED: AttemptOutcome
ATTEMPT_OUTCOME_STARTING: AttemptOutcome
ATTEMPT_OUTCOME_RUNNING: AttemptOutcome
ATTEMPT_OUTCOME_COMPLETED: AttemptOutcome
ATTEMPT_OUTCOME_FAILED: AttemptOutcome
ATTEMPT_OUTCOME_OUT_OF_MEMORY: AttemptOutcome
ATTEMPT_OUTCOME_STOPPED: AttemptOutcome
ATTEMPT_OUTCOME_REJECTED: AttemptOutcome
ATTEMPT_OUTCOME_LOST: AttemptOutcome
ATTEMPT_OUTCOME_WITHDRAWN: AttemptOutcome

class Run(_message.Message):
    __slots__ = ("run_id", "job_id", "job_name", "display_name", "environment", "type", "job_version", "state", "original_run_id", "partial_rerun", "submit_time", "start_provisioning_time", "start_time", "end_time", "scheduled_time", "tried_to_start_time", "cost", "run_as", "started_by", "cause", "counts", "cancel_requested", "waiting_for")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    JOB_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RERUN_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    START_PROVISIONING_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_TIME_FIELD_NUMBER: _ClassVar[int]
    TRIED_TO_START_TIME_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    RUN_AS_FIELD_NUMBER: _ClassVar[int]
    STARTED_BY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    job_id: str
    job_name: str
    display_name: str
    environment: _common_pb2.Environment
    type: _common_pb2.JobType
    job_version: int
    state: _common_pb2.State
    original_run_id: int
    partial_rerun: bool
    submit_time: int
    start_provisioning_time: int
    start_time: int
    end_time: int
    scheduled_time: int
    tried_to_start_time: int
    cost: float
    run_as: str
    started_by: str
    cause: _common_pb2.Cause
    counts: TaskCounts
    cancel_requested: bool
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[int] = ..., job_id: _Optional[str] = ..., job_name: _Optional[str] = ..., display_name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., type: _Optional[_Union[_common_pb2.JobType, str]] = ..., job_version: _Optional[int] = ..., state: _Optional[_Union[_common_pb2.State, str]] = ..., original_run_id: _Optional[int] = ..., partial_rerun: bool = ..., submit_time: _Optional[int] = ..., start_provisioning_time: _Optional[int] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., scheduled_time: _Optional[int] = ..., tried_to_start_time: _Optional[int] = ..., cost: _Optional[float] = ..., run_as: _Optional[str] = ..., started_by: _Optional[str] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., counts: _Optional[_Union[TaskCounts, _Mapping]] = ..., cancel_requested: bool = ..., waiting_for: _Optional[_Iterable[str]] = ...) -> None: ...

class TaskCounts(_message.Message):
    __slots__ = ("total", "pending", "running", "completed", "failed", "other")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    total: int
    pending: int
    running: int
    completed: int
    failed: int
    other: int
    def __init__(self, total: _Optional[int] = ..., pending: _Optional[int] = ..., running: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., other: _Optional[int] = ...) -> None: ...

class RunTask(_message.Message):
    __slots__ = ("run_id", "task_id", "name", "state", "dependencies", "resources", "submit_time", "start_provisioning_time", "start_time", "end_time", "scheduled_time", "tried_to_start_time", "cost", "cause", "node", "attempt_id", "fence", "preview", "peak_memory_bytes", "reused", "waiting_for", "entrypoint", "platform_failures", "platform_failure_limit", "last_failure")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    START_PROVISIONING_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_TIME_FIELD_NUMBER: _ClassVar[int]
    TRIED_TO_START_TIME_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FAILURE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    task_id: int
    name: str
    state: _common_pb2.State
    dependencies: _containers.RepeatedScalarFieldContainer[int]
    resources: _common_pb2.Resources
    submit_time: int
    start_provisioning_time: int
    start_time: int
    end_time: int
    scheduled_time: int
    tried_to_start_time: int
    cost: float
    cause: _common_pb2.Cause
    node: str
    attempt_id: str
    fence: int
    preview: str
    peak_memory_bytes: int
    reused: bool
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    entrypoint: str
    platform_failures: int
    platform_failure_limit: int
    last_failure: _common_pb2.Cause
    def __init__(self, run_id: _Optional[int] = ..., task_id: _Optional[int] = ..., name: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.State, str]] = ..., dependencies: _Optional[_Iterable[int]] = ..., resources: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., submit_time: _Optional[int] = ..., start_provisioning_time: _Optional[int] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., scheduled_time: _Optional[int] = ..., tried_to_start_time: _Optional[int] = ..., cost: _Optional[float] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., node: _Optional[str] = ..., attempt_id: _Optional[str] = ..., fence: _Optional[int] = ..., preview: _Optional[str] = ..., peak_memory_bytes: _Optional[int] = ..., reused: bool = ..., waiting_for: _Optional[_Iterable[str]] = ..., entrypoint: _Optional[str] = ..., platform_failures: _Optional[int] = ..., platform_failure_limit: _Optional[int] = ..., last_failure: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("attempt_id", "run_id", "task_id", "fence", "outcome", "node", "assigned_time", "start_time", "end_time", "cause", "peak_memory_bytes", "late")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    run_id: int
    task_id: int
    fence: int
    outcome: AttemptOutcome
    node: str
    assigned_time: int
    start_time: int
    end_time: int
    cause: _common_pb2.Cause
    peak_memory_bytes: int
    late: LateOutcome
    def __init__(self, attempt_id: _Optional[str] = ..., run_id: _Optional[int] = ..., task_id: _Optional[int] = ..., fence: _Optional[int] = ..., outcome: _Optional[_Union[AttemptOutcome, str]] = ..., node: _Optional[str] = ..., assigned_time: _Optional[int] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., peak_memory_bytes: _Optional[int] = ..., late: _Optional[_Union[LateOutcome, _Mapping]] = ...) -> None: ...

class LateOutcome(_message.Message):
    __slots__ = ("outcome", "heard_time", "start_time", "end_time", "cause")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    HEARD_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    outcome: AttemptOutcome
    heard_time: int
    start_time: int
    end_time: int
    cause: _common_pb2.Cause
    def __init__(self, outcome: _Optional[_Union[AttemptOutcome, str]] = ..., heard_time: _Optional[int] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("name", "environment", "start_time_from", "start_time_to", "page_size", "page_token", "filter", "sort", "offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FROM_FIELD_NUMBER: _ClassVar[int]
    START_TIME_TO_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SORT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    start_time_from: int
    start_time_to: int
    page_size: int
    page_token: str
    filter: str
    sort: str
    offset: int
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., start_time_from: _Optional[int] = ..., start_time_to: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., sort: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListRunTasksRequest(_message.Message):
    __slots__ = ("run_id", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[RunTask]
    next_page_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[RunTask, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListAttemptsRequest(_message.Message):
    __slots__ = ("run_id", "task_ids", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    task_ids: _containers.RepeatedScalarFieldContainer[int]
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[int] = ..., task_ids: _Optional[_Iterable[int]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAttemptsResponse(_message.Message):
    __slots__ = ("attempts", "next_page_token")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    next_page_token: str
    def __init__(self, attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetTaskResultRequest(_message.Message):
    __slots__ = ("run_id", "task_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    task_id: int
    def __init__(self, run_id: _Optional[int] = ..., task_id: _Optional[int] = ...) -> None: ...

class GetTaskResultResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _common_pb2.Payload
    def __init__(self, result: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RerunRunRequest(_message.Message):
    __slots__ = ("idempotency_key", "run_id", "version", "full", "name", "environment")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    run_id: int
    version: int
    full: bool
    name: str
    environment: _common_pb2.Environment
    def __init__(self, idempotency_key: _Optional[str] = ..., run_id: _Optional[int] = ..., version: _Optional[int] = ..., full: bool = ..., name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ...) -> None: ...

class RerunRunResponse(_message.Message):
    __slots__ = ("run_id", "version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    version: int
    def __init__(self, run_id: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run", "tasks", "synced")
    RUN_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    run: Run
    tasks: _containers.RepeatedCompositeFieldContainer[RunTask]
    synced: bool
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[RunTask, _Mapping]]] = ..., synced: bool = ...) -> None: ...
