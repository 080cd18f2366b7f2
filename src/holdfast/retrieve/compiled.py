"""The loops of ``loops``, compiled by numba when they first run (the extra ``fast``): they give the same, in one pass each.

Nothing compiled is kept on disk: numba keeps it by pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np
from numba.extending import intrinsic

from holdfast.retrieve import loops
from holdfast.retrieve.arrays import Floats, Rows
from holdfast.retrieve.loops import REBIAS, SIGN_AND_MAGNITUDE, AnyRows, Bytes, Halves, Rows32, Shorts, Words

F = TypeVar("F", bound=Callable[..., Any])
_compile: Callable[[F], F] = numba.njit(nogil=True)
_compile_sums: Callable[[F], F] = numba.njit(
    nogil=True, fastmath={"reassoc", "contract"}
)  # in any order: so in vectors


def products(half: Halves, rows: AnyRows, query: Floats) -> Floats:
    """See ``Loops``."""
    found = np.empty(len(rows), np.float32)
    _products(half.view(np.int16), rows, query * REBIAS, found)
    return found


def differences(columns: Sequence[Words], bits: Words, out: Bytes) -> None:
    """See ``Loops``."""
    if len(columns) == 3:
        (a, b, c), (x, y, z) = columns, bits
        _differences(a, b, c, x, y, z, out)
    else:
        loops.differences(columns, bits, out)


def differences_of(rest: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
    """See ``Loops``."""
    found = np.empty(len(rows), np.uint16)
    _differences_of(rest, rows, bits, first, found)
    return found


@_compile
def add_gains(found: Floats, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32) -> None:
    """See ``Loops``."""
    for at in range(len(rows)):
        row, count = rows[at], np.float32(counts[at])
        found[row] += weight * count / (count + norms[row])


@_compile
def counts_at(held: Rows32, counts: Bytes, rows: Rows32, out: Floats) -> None:
    """See ``Loops``. Looks from the last place on in growing steps: fastest where ``rows`` are sorted."""
    low = 0
    for at in range(len(rows)):
        row = rows[at]
        if low > 0 and held[low - 1] >= row:
            low = 0
        high, step = low, 1
        while high < len(held) and held[high] < row:
            low = high + 1
            high += step
            step *= 2
        high = min(high, len(held))
        while low < high:
            middle = (low + high) >> 1
            if held[middle] < row:
                low = middle + 1
            else:
                high = middle
        if low < len(held) and held[low] == row:
            out[at] = counts[low]


@_compile_sums
def _products(half: Any, rows: Any, query: Any, out: Any) -> None:
    for at in range(len(rows)):
        row = rows[at]
        total = np.float32(0)
        if 0 <= row < len(half):
            for i in range(half.shape[1]):
                bits = np.int32((np.int32(half[row, i]) << np.int32(13)) & np.int32(SIGN_AND_MAGNITUDE))
                total += bits.view(np.float32) * query[i]
        out[at] = total


@intrinsic  # type: ignore[untyped-decorator]
def _ones(_context: Any, _word: Any) -> Any:
    """The number of ones in a word: numba has no function for it, processors do."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return numba.uint64(numba.uint64), generate


@_compile
def _differences(a: Any, b: Any, c: Any, x: Any, y: Any, z: Any, out: Any) -> None:
    for row in range(len(out)):
        out[row] = _ones(a[row] ^ x) + _ones(b[row] ^ y) + _ones(c[row] ^ z)


@_compile
def _differences_of(rest: Any, rows: Any, bits: Any, first: Any, out: Any) -> None:
    for at in range(len(rows)):
        row = rows[at]
        total = np.uint64(first[row])
        for word in range(rest.shape[1]):
            total += _ones(rest[row, word] ^ bits[word])
        out[at] = total
