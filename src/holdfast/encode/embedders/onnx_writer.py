"""Writes an ONNX model byte by byte, so that building one needs no dependency beyond numpy.

Field numbers are those of onnx.proto (ONNX IR version 8). Only what a plain feed-forward graph needs is here: nodes with
int, float and int-list attributes, initialisers, and named inputs and outputs of symbolic shape.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Attribute = int | float | Sequence[int]

_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int64): 7}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers travel as two's complement of 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        body = _number(3, value) + _number(20, 2)
    elif isinstance(value, float):
        body = _varint(2 << 3 | _FIXED32) + struct.pack("<f", value) + _number(20, 1)
    else:
        body = b"".join(_number(8, item) for item in value) + _number(20, 7)
    return _message(1, name) + body


def _port(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> bytes:
    dims = [_message(1, _number(1, d) if isinstance(d, int) else _message(2, d)) for d in shape]
    return _message(1, name) + _message(2, _message(1, _number(1, _TYPES[np.dtype(dtype)]), _message(2, *dims)))


class Graph:
    """A graph under construction: each call appends one node and returns the name of what it yields."""

    def __init__(self) -> None:
        self._fields: list[bytes] = []
        self._names = 0

    def _fresh(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        """Declares a graph input; string dimensions are symbolic."""
        self._fields.append(_message(11, _port(name, dtype, shape)))
        return name

    def output(self, value: str, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> None:
        """Names ``value`` as a graph output."""
        self._fields += [_message(1, _message(1, value), _message(2, name), _message(4, "Identity"))]
        self._fields.append(_message(12, _port(name, dtype, shape)))

    def constant(self, array: npt.NDArray[np.generic]) -> str:
        """Stores an array in the model."""
        name = self._fresh()
        dims = b"".join(_number(1, d) for d in array.shape)
        data = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
        self._fields.append(_message(5, dims, _number(2, _TYPES[array.dtype]), _message(8, name), _message(9, data)))
        return name

    def scalar(self, value: float, dtype: npt.DTypeLike = np.float32) -> str:
        """Stores a 0-d constant."""
        return self.constant(np.asarray(value, dtype=dtype))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Appends a node with one output; ``""`` stands for an absent optional input."""
        name = self._fresh()
        fields = [_message(1, value) for value in inputs]
        fields += [_message(2, name), _message(4, kind)]
        fields += [_message(5, _attribute(key, value)) for key, value in attributes.items()]
        if domain:
            fields.append(_message(7, domain))
        self._fields.append(_message(1, *fields))
        return name

    def model(self, opset: int, domains: Sequence[str] = ()) -> bytes:
        """The serialised ModelProto."""
        opsets = _message(8, _number(2, opset)) + b"".join(
            _message(8, _message(1, domain), _number(2, 1)) for domain in domains
        )
        return _number(1, 8) + _message(2, "holdfast") + _message(7, _message(2, "holdfast"), *self._fields) + opsets
