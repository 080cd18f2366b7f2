"""Small array tools that the indexes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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


def distinct(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The different values of a small array, sorted; several times as fast as ``np.unique``."""
    ordered = np.sort(rows)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def top(scores: Floats, k: int) -> Rows:
    """The rows of the k largest positive scores, best first; ties by row.

    Exact. On a large array a threshold from a sample spares the full partition, which costs more than the scores did.
    """
    n = len(scores)
    if n > 16_384 and k * 64 < n:
        stride = n // 4096
        sample = scores[::stride]
        rank = min(len(sample), 4 + 2 * k // stride)
        threshold = np.partition(sample, len(sample) - rank)[len(sample) - rank]
        if threshold > 0:
            found = np.flatnonzero(scores >= threshold)
            if len(found) >= k:
                return _best(found, scores[found], k)
    found = np.flatnonzero(scores > 0)
    return _best(found, scores[found], k)


def _best(rows: Rows, scores: Floats, k: int) -> Rows:
    if len(rows) > k:
        keep = np.argpartition(-scores, k - 1)[:k]
        # Every row that ties with the last must be weighed by its number, not by the partition's whim.
        least = scores[keep].min()
        rows, scores = rows[scores >= least], scores[scores >= least]
    return rows[np.lexsort((rows, -scores))][:k]
