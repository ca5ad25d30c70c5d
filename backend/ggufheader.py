"""The header of a GGUF file: its fields, tensor shapes, and whether the file is whole.

gguf.GGUFReader keeps every string of the vocabulary as an array of its own, which takes seconds for 262,144 of them;
a look before loading must not. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from backend.modelref import bad_model

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ITEMS = 1024  # longer arrays are vocabularies: only their length is of use here


@dataclass(frozen=True)
class GgufHeader:
    """Scalar fields by name (arrays as lists, long ones as their length), and tensor shapes by name."""

    fields: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # in GGUF's order: the contiguous dimension first


class _Broken(Exception):
    """The bytes end too early or make no sense."""


def read_gguf(file: Path) -> GgufHeader:
    """Read and check the header.

    Raises:
        RecipeError: when it is no GGUF file, or is cut short.
    """
    remedy = "Download the file again."
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise bad_model(file.name, "a GGUF file", "It does not begin with the letters GGUF. " + remedy)
        try:
            header, need = _read(stream, size)
        except (_Broken, UnicodeDecodeError):
            raise bad_model(f"{file.name} ({size:,} bytes)", "a whole GGUF file of version 2 or 3", remedy) from None
    if size < need:
        raise bad_model(f"{file.name} ({size:,} of {need:,} bytes)", "a whole GGUF file", "It was cut short. " + remedy)
    return header


def _read(stream: BinaryIO, size: int) -> tuple[GgufHeader, int]:
    """The header, and how many bytes the file must have for all of its tensors."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if _scalar(stream, "I") not in (2, 3):
        raise _Broken
    tensors, pairs = _scalar(stream, "Q"), _scalar(stream, "Q")
    fields: dict[str, Any] = {}
    for _ in range(pairs):
        name = _string(stream, size)
        fields[name] = _value(stream, _scalar(stream, "I"), size)
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for _ in range(tensors):
        name = _string(stream, size)
        shape = tuple(_scalar(stream, "Q") for _ in range(_scalar(stream, "I")))
        kind, offset = _scalar(stream, "I"), _scalar(stream, "Q")
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise _Broken from None
        shapes[name] = shape
        end = max(end, offset + prod(shape) // block * block_bytes)
    alignment = int(fields.get("general.alignment", 32))
    start = -(-stream.tell() // alignment) * alignment
    return GgufHeader(fields, shapes), start + end


def _scalar(stream: BinaryIO, code: str) -> Any:
    width = struct.calcsize("<" + code)
    raw = stream.read(width)
    if len(raw) < width:
        raise _Broken
    return struct.unpack("<" + code, raw)[0]


def _string(stream: BinaryIO, size: int) -> str:
    length = _scalar(stream, "Q")
    if length > size:
        raise _Broken
    raw = stream.read(length)
    if len(raw) < length:
        raise _Broken
    return raw.decode("utf-8")


def _value(stream: BinaryIO, kind: int, size: int) -> Any:
    if kind == _STRING:
        return _string(stream, size)
    if kind != _ARRAY:
        if kind not in _SCALARS:
            raise _Broken
        return _scalar(stream, _SCALARS[kind])
    item, count = _scalar(stream, "I"), _scalar(stream, "Q")
    if count > size:
        raise _Broken
    if count <= _KEPT_ITEMS:
        return [_value(stream, item, size) for _ in range(count)]
    _skip(stream, item, count)
    return count


def _skip(stream: BinaryIO, item: int, count: int) -> None:
    """Pass over a long array."""
    if item == _STRING:
        read, unpack, seek = stream.read, struct.Struct("<Q").unpack, stream.seek
        for _ in range(count):
            raw = read(8)
            if len(raw) < 8:
                raise _Broken
            seek(unpack(raw)[0], 1)
    elif item in _SCALARS:
        stream.seek(struct.calcsize("<" + _SCALARS[item]) * count, 1)
    else:
        raise _Broken
