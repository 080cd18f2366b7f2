"""Small array tools that the indexes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_FEW = 200  # are sorted sooner than parted

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Column:
    """A one- or two-dimensional array that grows at its end, doubling its room."""

    def __init__(self, dtype: Any, width: int | None = None, fill: Any = 0) -> None:
        self._shape = () if width is None else (width,)
        self._room = np.full((0, *self._shape), fill, dtype)
        self._fill = fill
        self._size = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        """What is there: a view, shape (size,) or (size, width)."""
        return self._room[: self._size]

    def resize(self, size: int) -> None:
        """Make room for rows up to ``size``; new ones hold the fill value."""
        if size > len(self._room):
            room = np.full((max(size, 2 * len(self._room), 16), *self._shape), self._fill, self._room.dtype)
            room[: self._size] = self._room[: self._size]
            self._room = room
        self._size = max(size, self._size)

    def put(self, rows: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Set some rows, growing as needed."""
        if len(rows):
            self.resize(int(rows.max()) + 1)
            self._room[rows] = values

    def fill(self, where: slice | npt.NDArray[Any], size: int, values: npt.ArrayLike) -> None:
        """As ``put``, for who knows that there are ``size`` rows then."""
        self.resize(size)
        self._room[where] = values


def distinct(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The different values of a small array, sorted; several times as fast as ``np.unique``."""
    ordered = np.sort(rows)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def in_order(rows: Rows, scores: Floats) -> tuple[Rows, Floats]:
    """Rows below 2**32 in order, each with its score: packed into one word they are sorted three times as fast as by an index."""
    packed = rows << 32
    packed |= scores.view(np.uint32)
    packed.sort()
    return packed >> 32, packed.astype(np.uint32).view(np.float32)


def top(scores: Floats, k: int) -> Rows:
    """The rows of the k largest positive scores, best first; ties by row."""
    floor = _floor(scores, k)
    found = np.flatnonzero(scores >= floor if floor > 0 else scores > 0)
    return best_of(found, scores[found], k)


def best_of(rows: npt.NDArray[Any], scores: Floats, k: int) -> npt.NDArray[Any]:
    """Of some rows the k of the largest scores, best first; ties by row."""
    if (floor := _floor(scores, k)) > 0:
        kept = scores >= floor
        rows, scores = rows[kept], scores[kept]
    if len(rows) > max(k, _FEW):
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[kept], scores[kept]
    return rows[np.lexsort((rows, -scores))][:k]


def _floor(scores: Floats, k: int) -> float:
    """Of many scores one that k of them reach, from a sample: to find the k-th itself would cost more than the scores did."""
    n = len(scores)
    if n <= 16_384 or k * 64 >= n:
        return 0.0
    stride = n // 4096
    sample = scores[::stride]
    rank = min(len(sample), 4 + 2 * k // stride)
    floor = float(np.partition(sample, len(sample) - rank)[len(sample) - rank])
    return floor if np.count_nonzero(scores >= floor) >= k else 0.0
