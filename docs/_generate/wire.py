"""The gRPC reference, made from the comments of the protos."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

_PACKAGE: Final = ".datatailr.v1."
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED, _VALUE, _METHOD = 2, 3, 2, 2
"""Numbers of the parts of a descriptor, of which the paths of comments are made."""
_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}


@dataclass(frozen=True)
class Commented:
    """A file of the protos with its comments by path."""

    file: FileDescriptorProto
    comments: Mapping[tuple[int, ...], str]

    def comment(self, *path: int) -> str:
        """The comment before the thing at a path, as Markdown; empty when there is none."""
        return self.comments.get(path, "")


@cache
def files(protos: Path) -> tuple[Commented, ...]:
    """The compiled protos below a folder, by name of the file."""
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if buf is None:
        raise FileNotFoundError("buf is not installed; `pip install buf-bin` brings it")
    command = [buf, "build", str(protos), "--output", "-#format=binpb"]
    built = FileDescriptorSet.FromString(subprocess.run(command, check=True, capture_output=True).stdout)
    return tuple(
        Commented(
            file, {tuple(spot.path): _text(spot.leading_comments) for spot in file.source_code_info.location}
        )
        for file in sorted(built.file, key=lambda file: file.name)
        if file.package == _PACKAGE.strip(".")
    )


def reference(protos: Path) -> str:
    """Services with their calls, then messages and enumerations, as Markdown below a page's title."""
    return "\n".join(_reference(files(protos)))


def enumeration(protos: Path, name: str) -> str:
    """One enumeration as a table of words and meanings; the words without the prefix, as people see them.

    Raises:
        KeyError: the protos have none of this name.
    """
    for commented in files(protos):
        for number, enum in enumerate(commented.file.enum_type):
            if enum.name == name:
                prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
                rows = [
                    (
                        f"`{value.name.removeprefix(prefix).lower()}`",
                        commented.comment(_ENUM, number, _VALUE, index),
                    )
                    for index, value in enumerate(enum.value)
                    if value.number
                ]
                return "\n".join(_table(("word", "meaning"), rows))
    raise KeyError(name)


def _reference(commented: Sequence[Commented]) -> Iterator[str]:
    yield "## Services\n"
    for file in commented:
        for number, service in enumerate(file.file.service):
            yield f"### {service.name}\n"
            yield file.comment(_SERVICE, number) + "\n"
            for index, method in enumerate(service.method):
                yield f"#### {service.name}.{method.name}\n"
                yield _signature(method) + "\n"
                yield file.comment(_SERVICE, number, _METHOD, index) + "\n"
    yield "## Messages\n"
    for file in commented:
        for number, message in enumerate(file.file.message_type):
            yield from _message(file, message, message.name, (_MESSAGE, number))
    yield "## Enumerations\n"
    for file in commented:
        for number, enum in enumerate(file.file.enum_type):
            yield from _enum(file, enum, (_ENUM, number))


def _signature(method: MethodDescriptorProto) -> str:
    asks = f"stream {_short(method.input_type)}" if method.client_streaming else _short(method.input_type)
    answers = (
        f"stream {_short(method.output_type)}" if method.server_streaming else _short(method.output_type)
    )
    links = ", ".join(
        _link(kind) for kind in (method.input_type, method.output_type) if kind.startswith(_PACKAGE)
    )
    return f"`rpc {method.name}({asks}) returns ({answers})` ({links})"


def _message(file: Commented, message: DescriptorProto, title: str, path: tuple[int, ...]) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield f"### {title}\n"
    yield file.comment(*path) + "\n"
    nested = {f"{_PACKAGE}{title}.{inner.name}": inner for inner in message.nested_type}
    rows = [
        (
            f"`{field.name}` ({field.number})",
            _type(field, nested),
            _meaning(file, message, field, (*path, _FIELD, index)),
        )
        for index, field in enumerate(message.field)
    ]
    if rows:
        yield from _table(("field", "type", "meaning"), rows)
    for index, inner in enumerate(message.nested_type):
        yield from _message(file, inner, f"{title}.{inner.name}", (*path, _NESTED, index))


def _meaning(
    file: Commented, message: DescriptorProto, field: FieldDescriptorProto, path: tuple[int, ...]
) -> str:
    text = file.comment(*path)
    if field.HasField("oneof_index") and not field.proto3_optional:
        text = f"One of `{message.oneof_decl[field.oneof_index].name}`. {text}".strip()
    return text


def _type(field: FieldDescriptorProto, nested: Mapping[str, DescriptorProto]) -> str:
    entry = nested.get(field.type_name)
    if entry is not None and entry.options.map_entry:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = _link(field.type_name) if field.type_name else f"`{_SCALARS[field.type]}`"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _enum(file: Commented, enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {enum.name}\n"
    yield file.comment(*path) + "\n"
    rows = [
        (f"`{value.name}` ({value.number})", file.comment(*path, _VALUE, index))
        for index, value in enumerate(enum.value)
    ]
    yield from _table(("value", "meaning"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in row) + " |"
    yield ""


def _short(kind: str) -> str:
    return kind.removeprefix(_PACKAGE)


def _link(kind: str) -> str:
    if not kind.startswith(_PACKAGE):
        return f"`{kind.strip('.')}`"
    name = _short(kind)
    return f"[{name}](#{name.lower().replace('.', '')})"


def _text(comment: str) -> str:
    """A comment as Markdown; indented lines are kept as they stand."""
    lines = [line.removeprefix(" ") for line in comment.rstrip().split("\n")]
    parts = re.split(r"(`[^`]*`)", "\n".join(lines).strip("\n"))
    return "".join(part if part.startswith("`") else re.sub(r"([<>*_{}$])", r"\\\1", part) for part in parts)
