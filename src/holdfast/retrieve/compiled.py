"""The loops of ``loops``, compiled by numba (the extra ``fast``): they give the same, in one pass each.

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
from holdfast.retrieve.loops import (
    HIDDEN,
    REBIAS,
    SAMPLE,
    SIGN_AND_MAGNITUDE,
    AnyRows,
    Bools,
    Bytes,
    Halves,
    Rows32,
    Shorts,
    Words,
)

F = TypeVar("F", bound=Callable[..., Any])
_compile: Callable[[F], F] = numba.njit(nogil=True)
_compile_sums: Callable[[F], F] = numba.njit(
    nogil=True, fastmath={"reassoc", "contract"}
)  # in any order: so in vectors


def warm_up() -> None:
    """Compile everything, by calling it as a search does."""
    rows, narrow = np.arange(2), np.arange(2, dtype=np.int32)
    counts, first = np.ones(2, np.uint8), np.empty(2, np.uint8)
    found, norms = np.zeros(2, np.float32), np.ones(2, np.float32)
    words = np.ones((2, 3), np.uint64)
    products(np.ones((2, 3), np.float16), rows, np.ones(3, np.float32))
    some, _ = nearest([np.ones(2, np.uint64)] * 3, words[0], np.ones(2, np.bool_), 2, first)
    smallest(differences(words, some, words[0], first), 1)
    add_gains(found, narrow, counts, norms, np.float32(1))
    counts_at(narrow, counts, narrow, found)


def products(half: Halves, rows: AnyRows, query: Floats) -> Floats:
    """See ``Loops``."""
    found = np.empty(len(rows), np.float32)
    _products(half.view(np.int16), rows, query * REBIAS, found)
    return found


def nearest(columns: Sequence[Words], bits: Words, shown: Bools, count: int, out: Bytes) -> tuple[Rows, int]:
    """See ``Loops``."""
    if len(columns) != 3:
        return loops.nearest(columns, bits, shown, count, out)
    (a, b, c), (x, y, z) = columns, bits
    found: tuple[Rows, int] = _nearest(a, b, c, x, y, z, shown, count, out)
    return found


@_compile
def differences(words: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
    """See ``Loops``."""
    found = np.empty(len(rows), np.uint16)
    for at in range(len(rows)):
        row = rows[at]
        total = np.uint64(first[row])
        for word in range(words.shape[1]):
            total += _ones(words[row, word] ^ bits[word])
        found[at] = total
    return found


@_compile
def smallest(values: Shorts, count: int) -> Rows:
    """See ``Loops``."""
    if len(values) <= count:
        return np.arange(len(values))
    many = np.zeros(65_536, np.int32)
    most = 0
    for at in range(len(values)):
        many[values[at]] += 1
        most = max(most, values[at])
    last, before = 0, 0
    while last < most and before + many[last] < count:
        before += many[last]
        last += 1
    ties = count - before
    rows = np.empty(count, np.int64)
    size = 0
    for at in range(len(values)):
        if values[at] < last or (values[at] == last and ties > 0):
            ties -= values[at] == last
            rows[size] = at
            size += 1
    return rows


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
def _nearest(a: Any, b: Any, c: Any, x: Any, y: Any, z: Any, shown: Any, count: Any, out: Any) -> Any:
    for row in range(len(out)):
        unlike = _ones(a[row] ^ x) + _ones(b[row] ^ y) + _ones(c[row] ^ z)
        out[row] = unlike | (np.uint64(shown[row]) - np.uint64(1))  # HIDDEN is all ones
    step = max(1, len(out) // SAMPLE)
    many = np.zeros(256, np.int64)
    for row in range(0, len(out), step):
        many[out[row]] += 1
    bound, held = 0, many[0]
    while bound < HIDDEN - 1 and held * step < count:
        bound += 1
        held += many[bound]
    most = np.uint8(bound)
    rows = np.empty(2 * count + SAMPLE, np.int64)
    size = 0
    for start in range(0, len(out), SAMPLE):
        if size + SAMPLE > len(rows):
            more = np.empty(2 * len(rows), np.int64)
            more[:size] = rows[:size]
            rows = more
        for row in range(start, min(start + SAMPLE, len(out))):
            rows[size] = row  # kept where the next does not take its place: no branch to guess wrong
            size += out[row] <= most
    return rows[:size], bound
