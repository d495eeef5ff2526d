from datatailr.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_STATE_UNSPECIFIED: _ClassVar[ImageState]
    IMAGE_STATE_QUEUED: _ClassVar[ImageState]
    IMAGE_STATE_BUILDING: _ClassVar[ImageState]
    IMAGE_STATE_READY: _ClassVar[ImageState]
    IMAGE_STATE_FAILED: _ClassVar[ImageState]
IMAGE_STATE_UNSPECIFIED: ImageState
IMAGE_STATE_QUEUED: ImageState
IMAGE_STATE_BUILDING: ImageState
IMAGE_STATE_READY: ImageState
IMAGE_STATE_FAILED: ImageState

class Image(_message.Message):
    __slots__ = ("image_key", "recipe", "state", "cause", "build_id", "create_time", "start_time", "end_time", "notice", "node", "waiting_for")
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    image_key: str
    recipe: _common_pb2.ImageRecipe
    state: ImageState
    cause: _common_pb2.Cause
    build_id: str
    create_time: int
    start_time: int
    end_time: int
    notice: str
    node: str
    waiting_for: str
    def __init__(self, image_key: _Optional[str] = ..., recipe: _Optional[_Union[_common_pb2.ImageRecipe, _Mapping]] = ..., state: _Optional[_Union[ImageState, str]] = ..., cause: _Optional[_Union[_common_pb2.Cause, _Mapping]] = ..., build_id: _Optional[str] = ..., create_time: _Optional[int] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., notice: _Optional[str] = ..., node: _Optional[str] = ..., waiting_for: _Optional[str] = ...) -> None: ...

class EnsureImageRequest(_message.Message):
    __slots__ = ("recipe", "bundle")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    recipe: _common_pb2.ImageRecipe
    bundle: _common_pb2.Bundle
    def __init__(self, recipe: _Optional[_Union[_common_pb2.ImageRecipe, _Mapping]] = ..., bundle: _Optional[_Union[_common_pb2.Bundle, _Mapping]] = ...) -> None: ...

class EnsureImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: Image
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("image_key",)
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    image_key: str
    def __init__(self, image_key: _Optional[str] = ...) -> None: ...

class GetImageResponse(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: Image
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class WatchBuildRequest(_message.Message):
    __slots__ = ("image_key", "stdout_offset", "stderr_offset")
    IMAGE_KEY_FIELD_NUMBER: _ClassVar[int]
    STDOUT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STDERR_OFFSET_FIELD_NUMBER: _ClassVar[int]
    image_key: str
    stdout_offset: int
    stderr_offset: int
    def __init__(self, image_key: _Optional[str] = ..., stdout_offset: _Optional[int] = ..., stderr_offset: _Optional[int] = ...) -> None: ...

class WatchBuildResponse(_message.Message):
    __slots__ = ("image", "output")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    image: Image
    output: BuildOutput
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., output: _Optional[_Union[BuildOutput, _Mapping]] = ...) -> None: ...

class BuildOutput(_message.Message):
    __slots__ = ("stderr", "offset", "data")
    STDERR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    stderr: bool
    offset: int
    data: bytes
    def __init__(self, stderr: bool = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
