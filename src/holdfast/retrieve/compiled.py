"""The loops of ``loops``, compiled by numba (the extra ``fast``): they give the same, in one pass each.

Nothing compiled is kept on disk: numba keeps it by pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from holdfast.retrieve import loops
from holdfast.retrieve.arrays import Floats, Rows
from holdfast.retrieve.loops import (
    AFTER,
    BEFORE,
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

AHEAD = 8
"""So many rows before it is read a row is asked for."""

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
    shown = np.ones(2, np.bool_)
    products(np.ones((2, 3), np.float16), rows, np.ones(3, np.float32))
    some, _ = nearest([np.ones(2, np.uint64)] * 3, words[0], shown, 2, first)
    smallest(differences(words, some, words[0], first), 1)
    seen = np.empty(2, np.int32)
    reached(found, seen[: add_gains(found, seen, 0, narrow, counts, norms, np.float32(1))], 1, 1.0)
    needed, here, before, after = surroundings(rows, narrow, narrow, shown)
    table = np.ones((1, len(needed)), np.float32)
    counts_at(narrow, counts, needed, table[0])
    weigh(table, here, before, after, norms, norms[:1], np.ones((1, 1), np.float32))
    most(narrow, norms)


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


def differences(words: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
    """See ``Loops``."""
    if len(bits) != 3:
        return loops.differences(words, rows, bits, first)
    x, y, z = bits
    found: Shorts = _differences(words, rows, x, y, z, first)
    return found


@_compile
def smallest(values: Shorts, count: int) -> Rows:
    """See ``Loops``."""
    if len(values) <= count:
        return np.arange(len(values))
    most = 0
    for at in range(len(values)):
        most = max(most, values[at])
    many = np.zeros(most + 1, np.int32)
    for at in range(len(values)):
        many[values[at]] += 1
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
def add_gains(
    found: Floats, seen: Rows32, size: int, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32
) -> int:
    """See ``Loops``."""
    for at in range(len(rows)):
        row, count = rows[at], np.float32(counts[at])
        before = found[row]
        seen[min(size, len(seen) - 1)] = row  # kept where the next does not take its place
        size += before == 0
        found[row] = before + weight * count / (count + norms[row])
    return size


@_compile
def reached(found: Floats, seen: Rows32, count: int, most: float) -> float:
    """See ``Loops``. Counts them in steps of a thousandth of ``most``."""
    steps = np.float32(1000 / most)
    many = np.zeros(1002, np.int32)
    for at in range(len(seen)):
        many[min(int(found[seen[at]] * steps), 1001)] += 1
    step, held = 1001, many[1001]
    while held < count and step > 0:
        step -= 1
        held += many[step]
    return step * most / 1000 * (1 - 1e-5)  # rounding must not bring it above


@_compile
def counts_at(held: Rows32, counts: Bytes, rows: AnyRows, out: Floats) -> None:
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


@_compile
def surroundings(rows: AnyRows, previous: Rows32, following: Rows32, shown: Bools) -> tuple[Rows, Rows, Rows, Rows]:
    """See ``Loops``. They come in the order in which they are met."""
    n = len(rows)
    found, size = np.empty(3 * n + 1, np.int64), 0
    where = np.empty((3, n), np.int64)
    room = 16
    while room < 6 * n:
        room *= 2
    # A small hash table: each row at its own place or the next free one.
    places = np.zeros(room, np.int32)
    for at in range(n):
        row = rows[at]
        for side in range(3):
            if side == 0:
                one = np.int64(previous[row])
            elif side == 1:
                one = np.int64(row)
            else:
                one = np.int64(following[row])
            if side != 1 and (one < 0 or not shown[one]):
                where[side, at] = -1
                continue
            slot = one & (room - 1)
            while places[slot] > 0 and found[places[slot] - 1] != one:
                slot = (slot + 1) & (room - 1)
            if places[slot] == 0:
                found[size] = one
                size += 1
                places[slot] = size
            where[side, at] = places[slot] - 1
    found[size] = -1
    for at in range(n):
        for side in (0, 2):
            if where[side, at] < 0:
                where[side, at] = size
    return found[: size + 1], where[1], where[0], where[2]


def weigh(
    counts: Floats, here: Rows, before: Rows, after: Rows, norms: Floats, weights: Floats, parts: Floats
) -> tuple[Floats, Floats, Floats]:
    """See ``Loops``."""
    words, window, segment = _weigh(counts, here, before, after, norms, weights, parts)
    return words, window, segment if len(parts) else words


@_compile
def _weigh(
    counts: Floats, here: Rows, before: Rows, after: Rows, norms: Floats, weights: Floats, parts: Floats
) -> tuple[Floats, Floats, Floats]:
    n = len(here)
    words, window, segment = np.zeros(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    some = np.empty(len(parts), np.float32)
    for at in range(n):
        norm = norms[at]
        some[:] = 0
        for term in range(len(weights)):
            count = counts[term, here[at]]
            if count > 0:
                gain = count / (count + norm)
                words[at] += weights[term] * gain
                window[at] += weights[term]
                for part in range(len(parts)):
                    some[part] += parts[part, term] * gain
            elif counts[term, before[at]] > 0:
                window[at] += weights[term] * BEFORE
            elif counts[term, after[at]] > 0:
                window[at] += weights[term] * AFTER
        for part in range(len(parts)):
            segment[at] = max(segment[at], some[part])
    return words, window, segment


@_compile
def most(groups: AnyRows, values: Floats) -> Floats:
    """See ``Loops``."""
    size = 0
    for at in range(len(groups)):
        size = max(size, groups[at] + 1)
    best = np.full(size, -np.inf, np.float32)
    for at in range(len(groups)):
        best[groups[at]] = max(best[groups[at]], values[at])
    found = np.empty(len(groups), np.float32)
    for at in range(len(groups)):
        found[at] = best[groups[at]]
    return found


@_compile_sums
def _products(half: Any, rows: Any, query: Any, out: Any) -> None:
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            for offset in range(0, 2 * half.shape[1], 64):
                _fetch(half, rows[at + AHEAD], offset)
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


@intrinsic  # type: ignore[untyped-decorator]
def _zeros(_context: Any, _word: Any) -> Any:
    """The number of zeros below the lowest one of a word that has any."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.uint64(numba.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(_context: Any, table: Any, _row: Any, _offset: Any) -> Any:
    """Ask for a place in a row of a table before it is read: rows met at random are what a scan waits for. Never fails."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(data.strides, 0)
        place = builder.add(builder.mul(arguments[1], stride), arguments[2])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.inttoptr(builder.add(builder.ptrtoint(data.data, ir.IntType(64)), place), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fetch, [address, number(0), number(3), number(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return numba.void(table, numba.int64, numba.int64), generate


@_compile
def _differences(words: Any, rows: Any, x: Any, y: Any, z: Any, first: Any) -> Any:
    found = np.empty(len(rows), np.uint16)
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            _fetch(words, rows[at + AHEAD], 0)
        row = rows[at]
        more = _ones(words[row, 0] ^ x) + _ones(words[row, 1] ^ y) + _ones(words[row, 2] ^ z)
        found[at] = np.uint64(first[row]) + more
    return found


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
    return _no_more_than(out, bound, 2 * count), bound


@_compile
def _no_more_than(values: Any, bound: Any, room: Any) -> Any:
    """Where the bytes are that are no more than a bound, which is under 255; eight of them at once."""
    high, low, one = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0101010101010101)
    large = bound >= 128
    # To the lower seven bits of each byte so much is added that the eighth says: they are more than those of the bound.
    added = one * np.uint64(127 - bound % 128)
    words = values[: len(values) // 8 * 8].view(np.uint64)
    rows, size = np.empty(room + 8, np.int64), 0
    for at in range(len(words)):
        word = words[at]
        more = (word & low) + added
        found = ~(more & word if large else more | word) & high
        if size + 8 > len(rows):
            longer = np.empty(2 * len(rows), np.int64)
            longer[:size] = rows[:size]
            rows = longer
        while found != 0:
            rows[size] = 8 * at + np.int64(_zeros(found) >> np.uint64(3))
            size += 1
            found &= found - np.uint64(1)
    rest = np.empty(len(values) - 8 * len(words), np.int64)
    more_rows = 0
    for row in range(8 * len(words), len(values)):
        if values[row] <= bound:
            rest[more_rows] = row
            more_rows += 1
    return np.concatenate((rows[:size], rest[:more_rows]))
