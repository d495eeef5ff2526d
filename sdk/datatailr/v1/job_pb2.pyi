from datatailr.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskDefinition(_message.Message):
    __slots__ = ("id", "name", "entrypoint", "resources", "depends_on", "env", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    entrypoint: str
    resources: _common_pb2.Resources
    depends_on: _containers.RepeatedScalarFieldContainer[int]
    env: _containers.RepeatedCompositeFieldContainer[EnvVar]
    arguments: _common_pb2.Payload
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., entrypoint: _Optional[str] = ..., resources: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., depends_on: _Optional[_Iterable[int]] = ..., env: _Optional[_Iterable[_Union[EnvVar, _Mapping]]] = ..., arguments: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ...) -> None: ...

class EnvVar(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ScheduleDefinition(_message.Message):
    __slots__ = ("cron", "timezone", "run_after_job_id", "run_after_job_name", "run_after_condition", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CRON_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    RUN_AFTER_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_AFTER_JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_AFTER_CONDITION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    cron: str
    timezone: str
    run_after_job_id: str
    run_after_job_name: str
    run_after_condition: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, cron: _Optional[str] = ..., timezone: _Optional[str] = ..., run_after_job_id: _Optional[str] = ..., run_after_job_name: _Optional[str] = ..., run_after_condition: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JobDefinition(_message.Message):
    __slots__ = ("name", "display_name", "environment", "type", "run_as", "resources", "image", "origin", "bundle", "entrypoint", "env", "app_section", "tasks", "schedule", "fail_after", "expire_after", "acl", "repository_verified", "base_version", "base_job_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RUN_AS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    APP_SECTION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    FAIL_AFTER_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_AFTER_FIELD_NUMBER: _ClassVar[int]
    ACL_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    environment: _common_pb2.Environment
    type: _common_pb2.JobType
    run_as: str
    resources: _common_pb2.Resources
    image: _common_pb2.ImageRecipe
    origin: _common_pb2.CodeOrigin
    bundle: _common_pb2.Bundle
    entrypoint: str
    env: _containers.RepeatedCompositeFieldContainer[EnvVar]
    app_section: str
    tasks: _containers.RepeatedCompositeFieldContainer[TaskDefinition]
    schedule: ScheduleDefinition
    fail_after: int
    expire_after: int
    acl: AccessList
    repository_verified: bool
    base_version: int
    base_job_id: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., type: _Optional[_Union[_common_pb2.JobType, str]] = ..., run_as: _Optional[str] = ..., resources: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., image: _Optional[_Union[_common_pb2.ImageRecipe, _Mapping]] = ..., origin: _Optional[_Union[_common_pb2.CodeOrigin, _Mapping]] = ..., bundle: _Optional[_Union[_common_pb2.Bundle, _Mapping]] = ..., entrypoint: _Optional[str] = ..., env: _Optional[_Iterable[_Union[EnvVar, _Mapping]]] = ..., app_section: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[TaskDefinition, _Mapping]]] = ..., schedule: _Optional[_Union[ScheduleDefinition, _Mapping]] = ..., fail_after: _Optional[int] = ..., expire_after: _Optional[int] = ..., acl: _Optional[_Union[AccessList, _Mapping]] = ..., repository_verified: bool = ..., base_version: _Optional[int] = ..., base_job_id: _Optional[str] = ...) -> None: ...

class AccessList(_message.Message):
    __slots__ = ("read", "write", "operate", "access", "promote")
    READ_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    OPERATE_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    read: _containers.RepeatedScalarFieldContainer[int]
    write: _containers.RepeatedScalarFieldContainer[int]
    operate: _containers.RepeatedScalarFieldContainer[int]
    access: _containers.RepeatedScalarFieldContainer[int]
    promote: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, read: _Optional[_Iterable[int]] = ..., write: _Optional[_Iterable[int]] = ..., operate: _Optional[_Iterable[int]] = ..., access: _Optional[_Iterable[int]] = ..., promote: _Optional[_Iterable[int]] = ...) -> None: ...

class SaveJobRequest(_message.Message):
    __slots__ = ("idempotency_key", "definition", "definition_digest", "instant")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    definition: JobDefinition
    definition_digest: str
    instant: bool
    def __init__(self, idempotency_key: _Optional[str] = ..., definition: _Optional[_Union[JobDefinition, _Mapping]] = ..., definition_digest: _Optional[str] = ..., instant: bool = ...) -> None: ...

class SaveJobResponse(_message.Message):
    __slots__ = ("job_id", "version", "state", "create_time", "image_key", "run_as")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_AS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    version: int
    state: _common_pb2.State
    create_time: int
    image_key: str
    run_as: str
    def __init__(self, job_id: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[_common_pb2.State, str]] = ..., create_time: _Optional[int] = ..., image_key: _Optional[str] = ..., run_as: _Optional[str] = ...) -> None: ...

class StartJobRequest(_message.Message):
    __slots__ = ("idempotency_key", "name", "environment", "version", "run_date", "now")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_DATE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    name: str
    environment: _common_pb2.Environment
    version: int
    run_date: str
    now: bool
    def __init__(self, idempotency_key: _Optional[str] = ..., name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., version: _Optional[int] = ..., run_date: _Optional[str] = ..., now: bool = ...) -> None: ...

class StartJobResponse(_message.Message):
    __slots__ = ("run_id", "version", "state", "job_id", "notices")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    version: int
    state: _common_pb2.State
    job_id: str
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[int] = ..., version: _Optional[int] = ..., state: _Optional[_Union[_common_pb2.State, str]] = ..., job_id: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

class StopJobRequest(_message.Message):
    __slots__ = ("name", "environment", "run_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    run_id: int
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., run_id: _Optional[int] = ...) -> None: ...

class StopJobResponse(_message.Message):
    __slots__ = ("run_ids",)
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, run_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("name", "environment", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    version: int
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., version: _Optional[int] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "version", "state", "create_time", "created_by", "definition", "task_count", "image_key", "cause", "removed", "image_notice")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_NOTICE_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: int
    state: _common_pb2.State
    create_time: int
    created_by: str
    definition: JobDefinition
    task_count: int
    image_key: str
    cause: _common_pb2.Cause
    removed: bool
    image_notice: str
    def __init__(self, id: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[_common_pb2.State, str]] = ..., create_time: _Optional[int] = ..., created_by: _Optional[str] = ..., definition: _Optional[_Union[JobDefinition, _Mapping]] = ..., task_count: _Optional[int] = ..., image_key: _Optional[str] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., removed: bool = ..., image_notice: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("environment", "page_size", "page_token", "include_removed", "type", "filter", "sort", "offset")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SORT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    environment: _common_pb2.Environment
    page_size: int
    page_token: str
    include_removed: bool
    type: _common_pb2.JobType
    filter: str
    sort: str
    offset: int
    def __init__(self, environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_removed: bool = ..., type: _Optional[_Union[_common_pb2.JobType, str]] = ..., filter: _Optional[str] = ..., sort: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("name", "environment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...

class ListVersionTasksRequest(_message.Message):
    __slots__ = ("job_id", "environment", "version", "page_size", "page_token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    environment: _common_pb2.Environment
    version: int
    page_size: int
    page_token: str
    def __init__(self, job_id: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., version: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVersionTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskDefinition]
    next_page_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskDefinition, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PromoteJobRequest(_message.Message):
    __slots__ = ("name", "from_environment", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    from_environment: _common_pb2.Environment
    version: int
    def __init__(self, name: _Optional[str] = ..., from_environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., version: _Optional[int] = ...) -> None: ...

class PromoteJobResponse(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, moves: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveJobRequest(_message.Message):
    __slots__ = ("name", "environment", "all_versions", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ALL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    all_versions: bool
    version: int
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., all_versions: bool = ..., version: _Optional[int] = ...) -> None: ...

class RemoveJobResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...

class RestoreJobRequest(_message.Message):
    __slots__ = ("name", "environment", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: _common_pb2.Environment
    version: int
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[_Union[_common_pb2.Environment, str]] = ..., version: _Optional[int] = ...) -> None: ...

class RestoreJobResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...
