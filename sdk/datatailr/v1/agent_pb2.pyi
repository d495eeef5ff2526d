from datatailr.v1 import common_pb2 as _common_pb2
from datatailr.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttemptState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_STATE_UNSPECIFIED: _ClassVar[AttemptState]
    ATTEMPT_STATE_ASSIGNED: _ClassVar[AttemptState]
    ATTEMPT_STATE_ACCEPTED: _ClassVar[AttemptState]
    ATTEMPT_STATE_PREPARING: _ClassVar[AttemptState]
    ATTEMPT_STATE_STARTING: _ClassVar[AttemptState]
    ATTEMPT_STATE_RUNNING: _ClassVar[AttemptState]
    ATTEMPT_STATE_STOPPING: _ClassVar[AttemptState]
    ATTEMPT_STATE_SUCCEEDED: _ClassVar[AttemptState]
    ATTEMPT_STATE_FAILED: _ClassVar[AttemptState]
    ATTEMPT_STATE_OUT_OF_MEMORY: _ClassVar[AttemptState]
    ATTEMPT_STATE_CANCELLED: _ClassVar[AttemptState]
    ATTEMPT_STATE_REJECTED: _ClassVar[AttemptState]
    ATTEMPT_STATE_LOST: _ClassVar[AttemptState]
    ATTEMPT_STATE_WITHDRAWN: _ClassVar[AttemptState]

class VerdictKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_KIND_UNSPECIFIED: _ClassVar[VerdictKind]
    VERDICT_KIND_KEEP: _ClassVar[VerdictKind]
    VERDICT_KIND_STOP: _ClassVar[VerdictKind]
    VERDICT_KIND_FORGET: _ClassVar[VerdictKind]

class DesiredState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESIRED_STATE_UNSPECIFIED: _ClassVar[DesiredState]
    DESIRED_STATE_RUN: _ClassVar[DesiredState]
    DESIRED_STATE_STOP: _ClassVar[DesiredState]
ATTEMPT_STATE_UNSPECIFIED: AttemptState
ATTEMPT_STATE_ASSIGNED: AttemptState
ATTEMPT_STATE_ACCEPTED: AttemptState
ATTEMPT_STATE_PREPARING: AttemptState
ATTEMPT_STATE_STARTING: AttemptState
ATTEMPT_STATE_RUNNING: AttemptState
ATTEMPT_STATE_STOPPING: AttemptState
ATTEMPT_STATE_SUCCEEDED: AttemptState
ATTEMPT_STATE_FAILED: AttemptState
ATTEMPT_STATE_OUT_OF_MEMORY: AttemptState
ATTEMPT_STATE_CANCELLED: AttemptState
ATTEMPT_STATE_REJECTED: AttemptState
ATTEMPT_STATE_LOST: AttemptState
ATTEMPT_STATE_WITHDRAWN: AttemptState
VERDICT_KIND_UNSPECIFIED: VerdictKind
VERDICT_KIND_KEEP: VerdictKind
VERDICT_KIND_STOP: VerdictKind
VERDICT_KIND_FORGET: VerdictKind
DESIRED_STATE_UNSPECIFIED: DesiredState
DESIRED_STATE_RUN: DesiredState
DESIRED_STATE_STOP: DesiredState

class ConnectRequest(_message.Message):
    __slots__ = ("hello", "heartbeat", "credit", "report", "applied", "bye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    credit: Credit
    report: Report
    applied: Applied
    bye: Bye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., applied: _Optional[_Union[Applied, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("welcome", "assignments", "lease", "report_ack", "node_directive", "go_away")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REPORT_ACK_FIELD_NUMBER: _ClassVar[int]
    NODE_DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignments: Assignments
    lease: Lease
    report_ack: ReportAck
    node_directive: NodeDirective
    go_away: GoAway
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignments: _Optional[_Union[Assignments, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., report_ack: _Optional[_Union[ReportAck, _Mapping]] = ..., node_directive: _Optional[_Union[NodeDirective, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("memory_bytes", "cpu", "slots")
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    memory_bytes: int
    cpu: float
    slots: int
    def __init__(self, memory_bytes: _Optional[int] = ..., cpu: _Optional[float] = ..., slots: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_min", "protocol_max", "agent_id", "name", "boot_id", "journal_id", "software_version", "capacity", "labels", "runtime", "python_versions", "last_epoch", "last_revision", "next_report_seq", "inventory", "image_keys", "allows_pre_scripts")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_REVISION_FIELD_NUMBER: _ClassVar[int]
    NEXT_REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEYS_FIELD_NUMBER: _ClassVar[int]
    ALLOWS_PRE_SCRIPTS_FIELD_NUMBER: _ClassVar[int]
    protocol_min: int
    protocol_max: int
    agent_id: str
    name: str
    boot_id: str
    journal_id: str
    software_version: str
    capacity: Capacity
    labels: _containers.ScalarMap[str, str]
    runtime: str
    python_versions: _containers.RepeatedScalarFieldContainer[str]
    last_epoch: int
    last_revision: int
    next_report_seq: int
    inventory: _containers.RepeatedCompositeFieldContainer[InventoryEntry]
    image_keys: _containers.RepeatedScalarFieldContainer[str]
    allows_pre_scripts: bool
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., agent_id: _Optional[str] = ..., name: _Optional[str] = ..., boot_id: _Optional[str] = ..., journal_id: _Optional[str] = ..., software_version: _Optional[str] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., runtime: _Optional[str] = ..., python_versions: _Optional[_Iterable[str]] = ..., last_epoch: _Optional[int] = ..., last_revision: _Optional[int] = ..., next_report_seq: _Optional[int] = ..., inventory: _Optional[_Iterable[_Union[InventoryEntry, _Mapping]]] = ..., image_keys: _Optional[_Iterable[str]] = ..., allows_pre_scripts: bool = ...) -> None: ...

class InventoryEntry(_message.Message):
    __slots__ = ("attempt_id", "fence", "state")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    fence: int
    state: AttemptState
    def __init__(self, attempt_id: _Optional[str] = ..., fence: _Optional[int] = ..., state: _Optional[_Union[AttemptState, str]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("counter", "last_revision", "disk_free_bytes", "memory_free_bytes", "loop_delay", "pressure")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    LAST_REVISION_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOOP_DELAY_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    counter: int
    last_revision: int
    disk_free_bytes: int
    memory_free_bytes: int
    loop_delay: int
    pressure: str
    def __init__(self, counter: _Optional[int] = ..., last_revision: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., loop_delay: _Optional[int] = ..., pressure: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("attempt_limit", "build_limit")
    ATTEMPT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    BUILD_LIMIT_FIELD_NUMBER: _ClassVar[int]
    attempt_limit: int
    build_limit: int
    def __init__(self, attempt_limit: _Optional[int] = ..., build_limit: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ReportEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[ReportEntry, _Mapping]]] = ...) -> None: ...

class ReportEntry(_message.Message):
    __slots__ = ("report_seq", "attempt", "build")
    REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    report_seq: int
    attempt: AttemptReport
    build: BuildReport
    def __init__(self, report_seq: _Optional[int] = ..., attempt: _Optional[_Union[AttemptReport, _Mapping]] = ..., build: _Optional[_Union[BuildReport, _Mapping]] = ...) -> None: ...

class AttemptReport(_message.Message):
    __slots__ = ("attempt_id", "fence", "state", "observed_at", "cause", "started_at", "ended_at", "result", "preview", "peak_memory_bytes", "exception")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    fence: int
    state: AttemptState
    observed_at: int
    cause: _common_pb2.Cause
    started_at: int
    ended_at: int
    result: _common_pb2.Payload
    preview: str
    peak_memory_bytes: int
    exception: bytes
    def __init__(self, attempt_id: _Optional[str] = ..., fence: _Optional[int] = ..., state: _Optional[_Union[AttemptState, str]] = ..., observed_at: _Optional[int] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., started_at: _Optional[int] = ..., ended_at: _Optional[int] = ..., result: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., preview: _Optional[str] = ..., peak_memory_bytes: _Optional[int] = ..., exception: _Optional[bytes] = ...) -> None: ...

class BuildReport(_message.Message):
    __slots__ = ("build_id", "image_key", "state", "observed_at", "cause", "notice")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    image_key: str
    state: int
    observed_at: int
    cause: _common_pb2.Cause
    notice: str
    def __init__(self, build_id: _Optional[str] = ..., image_key: _Optional[str] = ..., state: _Optional[int] = ..., observed_at: _Optional[int] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., notice: _Optional[str] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("revision", "need_full")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NEED_FULL_FIELD_NUMBER: _ClassVar[int]
    revision: int
    need_full: bool
    def __init__(self, revision: _Optional[int] = ..., need_full: bool = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("attempts_keep_running",)
    ATTEMPTS_KEEP_RUNNING_FIELD_NUMBER: _ClassVar[int]
    attempts_keep_running: bool
    def __init__(self, attempts_keep_running: bool = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch", "protocol", "heartbeat_interval", "lease_ttl", "verdicts", "acknowledged_report_seq")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    protocol: int
    heartbeat_interval: int
    lease_ttl: int
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    acknowledged_report_seq: int
    def __init__(self, epoch: _Optional[int] = ..., protocol: _Optional[int] = ..., heartbeat_interval: _Optional[int] = ..., lease_ttl: _Optional[int] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., acknowledged_report_seq: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("attempt_id", "kind")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    kind: VerdictKind
    def __init__(self, attempt_id: _Optional[str] = ..., kind: _Optional[_Union[VerdictKind, str]] = ...) -> None: ...

class Assignments(_message.Message):
    __slots__ = ("full", "base_revision", "revision", "attempts", "builds", "removed")
    FULL_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    full: bool
    base_revision: int
    revision: int
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptAssignment]
    builds: _containers.RepeatedCompositeFieldContainer[BuildAssignment]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, full: bool = ..., base_revision: _Optional[int] = ..., revision: _Optional[int] = ..., attempts: _Optional[_Iterable[_Union[AttemptAssignment, _Mapping]]] = ..., builds: _Optional[_Iterable[_Union[BuildAssignment, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class AttemptAssignment(_message.Message):
    __slots__ = ("attempt_id", "fence", "desired", "grace", "spec")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    fence: int
    desired: DesiredState
    grace: int
    spec: AttemptSpec
    def __init__(self, attempt_id: _Optional[str] = ..., fence: _Optional[int] = ..., desired: _Optional[_Union[DesiredState, str]] = ..., grace: _Optional[int] = ..., spec: _Optional[_Union[AttemptSpec, _Mapping]] = ...) -> None: ...

class AttemptSpec(_message.Message):
    __slots__ = ("run_id", "task_id", "task_name", "entrypoint", "image_key", "image", "bundle", "arguments", "inputs", "env", "resources", "run_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    RUN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    task_id: int
    task_name: str
    entrypoint: str
    image_key: str
    image: _common_pb2.ImageRecipe
    bundle: _common_pb2.Bundle
    arguments: _common_pb2.Payload
    inputs: _containers.RepeatedCompositeFieldContainer[TaskInput]
    env: _containers.RepeatedCompositeFieldContainer[_job_pb2.EnvVar]
    resources: _common_pb2.Resources
    run_token: str
    def __init__(self, run_id: _Optional[int] = ..., task_id: _Optional[int] = ..., task_name: _Optional[str] = ..., entrypoint: _Optional[str] = ..., image_key: _Optional[str] = ..., image: _Optional[_Union[_common_pb2.ImageRecipe, _Mapping]] = ..., bundle: _Optional[_Union[_common_pb2.Bundle, _Mapping]] = ..., arguments: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[TaskInput, _Mapping]]] = ..., env: _Optional[_Iterable[_Union[_job_pb2.EnvVar, _Mapping]]] = ..., resources: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., run_token: _Optional[str] = ...) -> None: ...

class TaskInput(_message.Message):
    __slots__ = ("task_id", "result")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    result: _common_pb2.Payload
    def __init__(self, task_id: _Optional[int] = ..., result: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ...) -> None: ...

class BuildAssignment(_message.Message):
    __slots__ = ("build_id", "image_key", "recipe", "bundle")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    image_key: str
    recipe: _common_pb2.ImageRecipe
    bundle: _common_pb2.Bundle
    def __init__(self, build_id: _Optional[str] = ..., image_key: _Optional[str] = ..., recipe: _Optional[_Union[_common_pb2.ImageRecipe, _Mapping]] = ..., bundle: _Optional[_Union[_common_pb2.Bundle, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("counter", "ttl", "next_interval")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    NEXT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    counter: int
    ttl: int
    next_interval: int
    def __init__(self, counter: _Optional[int] = ..., ttl: _Optional[int] = ..., next_interval: _Optional[int] = ...) -> None: ...

class ReportAck(_message.Message):
    __slots__ = ("report_seq",)
    REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    report_seq: int
    def __init__(self, report_seq: _Optional[int] = ...) -> None: ...

class NodeDirective(_message.Message):
    __slots__ = ("schedulable", "reason")
    SCHEDULABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    schedulable: bool
    reason: str
    def __init__(self, schedulable: bool = ..., reason: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason", "reconnect_within", "superseded")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    reason: str
    reconnect_within: int
    superseded: bool
    def __init__(self, reason: _Optional[str] = ..., reconnect_within: _Optional[int] = ..., superseded: bool = ...) -> None: ...
