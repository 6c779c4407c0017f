"""The weights of an ONNX model that lie in a file of their own, as arrays that map that file.

onnxruntime would map the file by itself, but wants ``/proc/self/fd`` for it, and a zygote has no ``/proc``.

Source: onnx.proto3 of the ONNX repository for the numbers of fields and types; protobuf's wire format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_GRAPH, _INITIALIZER = 7, 5
"""Fields of ModelProto and GraphProto."""
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA = 1, 2, 8, 13
"""Fields of TensorProto; the last holds pairs of texts."""
_TYPES = MappingProxyType(
    {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
     10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}
)  # fmt: skip
"""TensorProto.DataType → numpy's."""
_VARINT, _I64, _BYTES, _I32 = 0, 1, 2, 5
_FIXED_BYTES = MappingProxyType({_I64: 8, _I32: 4})


def mapped_weights(model: Path) -> Iterator[tuple[str, Array]]:
    """Name and value of each weight that lies in another file of the model's folder; nothing is read but what is asked.

    Raises:
        ValueError, LookupError: the model is not one, or has weights of another type.
        OSError: a file cannot be read.
    """
    files: dict[str, Array] = {}
    content = memoryview(model.read_bytes())
    for graph in _all(content, _GRAPH):
        for tensor in _all(graph, _INITIALIZER):
            place = dict(_pair(pair) for pair in _all(tensor, _EXTERNAL_DATA))
            if not place:
                continue
            location = place["location"]
            if location not in files:
                files[location] = np.memmap(model.parent / location, mode="r")
            start = int(place.get("offset", "0"))
            [kind], [name] = _all(tensor, _DATA_TYPE), _all(tensor, _NAME)
            value: Array = files[location][start : start + int(place["length"])].view(_TYPES[kind])
            yield bytes(name).decode(), value.reshape(_dimensions(tensor))


def _dimensions(tensor: memoryview) -> list[int]:
    """One by one, or many in one field: the wire format allows both."""
    found: list[int] = []
    for given in _all(tensor, _DIMS):
        if isinstance(given, int):
            found.append(given)
            continue
        at = 0
        while at < len(given):
            size, at = _varint(given, at)
            found.append(size)
    return found


def _pair(entry: memoryview) -> tuple[str, str]:
    """A StringStringEntryProto: key and value."""
    [key], [value] = _all(entry, 1), _all(entry, 2)
    return bytes(key).decode(), bytes(value).decode()


def _all(message: memoryview, wanted: int) -> list[Any]:
    """All values of one field of a message: numbers, or the bytes of texts and messages."""
    return [value for field, value in _fields(message) if field == wanted]


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, form = tag >> 3, tag & 7
        if form == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if form == _BYTES:
            length, at = _varint(message, at)
        else:
            length = _FIXED_BYTES[form]
        yield field, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first; and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 1 << 7:
            return number, at
