from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_STREAM_UNSPECIFIED: _ClassVar[LogStream]
    LOG_STREAM_STDOUT: _ClassVar[LogStream]
    LOG_STREAM_STDERR: _ClassVar[LogStream]
LOG_STREAM_UNSPECIFIED: LogStream
LOG_STREAM_STDOUT: LogStream
LOG_STREAM_STDERR: LogStream

class AppendLogsRequest(_message.Message):
    __slots__ = ("log_id", "stream", "offset", "data", "end")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    stream: LogStream
    offset: int
    data: bytes
    end: bool
    def __init__(self, log_id: _Optional[str] = ..., stream: _Optional[_Union[LogStream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., end: bool = ...) -> None: ...

class AppendLogsResponse(_message.Message):
    __slots__ = ("log_id", "stream", "durable_offset", "expected", "refused")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    stream: LogStream
    durable_offset: int
    expected: bool
    refused: bool
    def __init__(self, log_id: _Optional[str] = ..., stream: _Optional[_Union[LogStream, str]] = ..., durable_offset: _Optional[int] = ..., expected: bool = ..., refused: bool = ...) -> None: ...

class ReadLogRequest(_message.Message):
    __slots__ = ("task", "run_id", "image_key", "stream", "offset", "tail_lines", "follow")
    TASK_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    task: TaskLog
    run_id: int
    image_key: str
    stream: LogStream
    offset: int
    tail_lines: int
    follow: bool
    def __init__(self, task: _Optional[_Union[TaskLog, _Mapping]] = ..., run_id: _Optional[int] = ..., image_key: _Optional[str] = ..., stream: _Optional[_Union[LogStream, str]] = ..., offset: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: bool = ...) -> None: ...

class TaskLog(_message.Message):
    __slots__ = ("run_id", "task_id", "attempt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    task_id: int
    attempt: int
    def __init__(self, run_id: _Optional[int] = ..., task_id: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class ReadLogResponse(_message.Message):
    __slots__ = ("offset", "data", "end")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    end: bool
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., end: bool = ...) -> None: ...
