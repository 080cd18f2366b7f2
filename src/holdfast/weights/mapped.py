"""A tensor on disk that is larger than memory: rows read and written where they lie, in a safetensors file with its key.

The file is made with holes, so that rows which nobody has written take no room on most file systems. Its header has a fixed room,
so that rows can be added without moving any. Any reader of safetensors can read it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import InputError, StaleError, StoreError
from holdfast.latent.tensors import differing
from holdfast.torched import Tensor, torch

PROFILE = ()  # where memory lies, and none itself

_HEADER = 4096
"""Bytes before the rows: the length of the header, the header, blanks. Rows begin at a page of the system."""
_NAME = "rows"
_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}


def put(path: Path, data: bytes) -> None:
    """A small file beside the rows, on disk when this returns: the whole of it, or after a crash what was there before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class MappedTensor:
    """Rows of one shape in a file, zeros at first: ``shape`` is that of all of them, (rows, ...).

    The file is opened where it is there already. Raises StaleError where that one was made for another ``key`` or another shape of
    its rows, InputError for a kind of numbers that is not kept, StoreError where the file cannot be made or read.
    """

    def __init__(self, path: Path, shape: Sequence[int], key: Mapping[str, Any], dtype: torch.dtype = torch.float32):
        if dtype not in _KINDS:
            raise InputError(f"rows are kept as {', '.join(map(str, _KINDS))}, not as {dtype}")
        self.path, self.dtype, self._key = path, dtype, dict(key)
        self._row = tuple(shape[1:])
        self._width = math.prod(self._row) * dtype.itemsize
        try:
            if path.exists():
                self._rows = self._read_header()
                if self._rows < shape[0]:
                    self._extend(shape[0])
            else:
                self._extend(shape[0])
            self._map()
        except OSError as error:
            raise StoreError(f"the file {path.name} cannot be read or made: {error}") from error

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""
        return self._rows, *self._row

    def read(self, rows: Tensor) -> Tensor:
        """A copy of some rows, shape (N, ...), in memory of its own."""
        return self._tensor[rows]

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Put values of shape (N, ...) into rows, none of them twice. They are in the file once ``flush`` returns."""
        self._tensor[rows] = values.detach().to("cpu", self.dtype)

    def erase(self, rows: Sequence[int]) -> None:
        """Zeros over rows, in the file when this returns."""
        self._tensor[torch.tensor([*rows], dtype=torch.int64)] = 0
        self.flush()

    def grow(self, rows: int) -> None:
        """Have so many rows in all; the new ones are zeros. Raises InputError for fewer than there are."""
        if rows < self._rows:
            raise InputError(f"there are {self._rows} rows, and none is taken away: not {rows}")
        if rows > self._rows:
            self.flush()
            self._close()
            self._extend(rows)
            self._map()

    def flush(self) -> None:
        """Wait until all that was written is in the file."""
        self._bytes.flush()

    def close(self) -> None:
        """Let the file go. Nothing can be read any more."""
        self.flush()
        self._close()

    def _close(self) -> None:
        del self._tensor  # a map that is looked at cannot be closed
        self._bytes.close()

    def _map(self) -> None:
        with self.path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
        count = self._rows * math.prod(self._row)
        self._tensor = torch.frombuffer(self._bytes, dtype=self.dtype, count=count, offset=_HEADER).view(self.shape)

    def _extend(self, rows: int) -> None:
        size = rows * self._width
        told = {
            "__metadata__": {"holdfast": json.dumps(self._key, sort_keys=True)},
            _NAME: {"dtype": _KINDS[self.dtype], "shape": [rows, *self._row], "data_offsets": [0, size]},
        }
        header = json.dumps(told).encode().ljust(_HEADER - 8)
        if not size or len(header) > _HEADER - 8:
            raise InputError("a file of rows has one row at least, and a short key")
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(_HEADER + size)  # before the header, which says that they are there
            file.write((_HEADER - 8).to_bytes(8, "little") + header)
        self._rows = rows

    def _read_header(self) -> int:
        """How many rows there are."""
        with self.path.open("rb") as file:
            data = file.read(_HEADER)
        try:
            told = json.loads(data[8:])
            found, rows = json.loads(told["__metadata__"]["holdfast"]), told[_NAME]
            kind, shape = rows["dtype"], tuple(rows["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path.name} is no file of rows that Holdfast has written") from error
        if wrong := differing(found, self._key):
            raise StaleError(f"{self.path.name} is of another {', '.join(wrong)}: make it anew")
        if kind != _KINDS[self.dtype] or shape[1:] != self._row:
            raise StaleError(f"{self.path.name} holds {kind} of shape {shape}, not what is wanted: make it anew")
        if self.path.stat().st_size < _HEADER + shape[0] * self._width:
            raise StoreError(f"{self.path.name} is cut off: bring it back from a copy, or make it anew")
        return int(shape[0])
