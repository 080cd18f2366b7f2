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
    HIDDEN,
    INSTRUCTION,
    PREFERENCE,
    QUESTION,
    REBIAS,
    SAMPLE,
    SIGN_AND_MAGNITUDE,
    AnyRows,
    Bools,
    Bytes,
    Doubles,
    Halves,
    Rows32,
    Shorts,
    Words,
)
from holdfast.retrieve.pool import AFTER, ASSISTANT, BEFORE, K1, NAMED, USER, B, Feature, Pool

FEATURES = len(Feature)

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
    seen = np.zeros(3, np.int32)
    add_ones(np.zeros(2, np.uint16), seen, 0, narrow, shown)
    ends = np.full(1, 2)
    add_counts(np.zeros(2), seen, narrow, counts, ends, shown, shown_of(narrow, ends, shown).astype(np.float64))
    reached(found, seen[: add_gains(found, seen, 0, narrow, counts, norms, np.float32(1))], 1, 1.0)
    taken(found, seen, 1.0)
    needed, here, before, after = surroundings(rows, narrow, narrow, shown)
    table = np.ones((1, len(needed)), np.float32)
    counts_at(narrow, counts, needed, table[0])
    pool = Pool(
        rows=needed,
        here=here,
        before=before,
        after=after,
        counts=table,
        idf=norms[:1],
        segments=np.ones((1, 1), np.bool_),
        cosine=norms,
        passage=norms,
        cosine_after=norms,
        entities=norms,
        time=norms,
        lengths=norms,
        mean_length=1.0,
        session=narrow,
        author=narrow,
        roles=counts,
        flags=counts,
        dated=shown,
    )
    channels(pool, np.ones(FEATURES, np.bool_))


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
        seen[size] = row  # kept where the next does not take its place
        size += before == 0
        found[row] = before + weight * count / (count + norms[row])
    return size


@_compile
def add_ones(found: Shorts, seen: Rows32, size: int, rows: Rows32, shown: Bools) -> int:
    """See ``Loops``."""
    for at in range(len(rows)):
        row = rows[at]
        if shown[row]:
            before = found[row]
            seen[size] = row  # kept where the next does not take its place
            size += before == 0
            found[row] = before + 1
    return size


@_compile
def shown_of(rows: Rows32, ends: Rows, shown: Bools) -> Rows:
    """See ``Loops``."""
    found = np.zeros(len(ends), np.int64)
    start = 0
    for word in range(len(ends)):
        for at in range(start, ends[word]):
            found[word] += shown[rows[at]]
        start = ends[word]
    return found


@_compile
def add_counts(
    found: Doubles, seen: Rows32, rows: Rows32, counts: Bytes, ends: Rows, shown: Bools, weights: Doubles
) -> int:
    """See ``Loops``."""
    size = start = 0
    for word in range(len(ends)):
        for at in range(start, ends[word]):
            row = rows[at]
            if shown[row]:
                before = found[row]
                seen[size] = row  # kept where the next does not take its place
                size += before == 0
                found[row] = before + weights[word] * counts[at]
        start = ends[word]
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
def taken(found: Floats, seen: Rows32, least: float) -> tuple[Rows, Floats]:
    """See ``Loops``."""
    rows, scores = np.empty(len(seen), np.int64), np.empty(len(seen), np.float32)
    size = 0
    for at in range(len(seen)):
        score = found[seen[at]]
        found[seen[at]] = 0
        rows[size], scores[size] = seen[at], score  # kept where the next does not take its place
        size += score >= least
    return rows[:size], scores[:size]


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


@_compile
def channels(pool: Pool, counted: Bools) -> Floats:
    """See ``Loops``. Candidate by candidate, so that the table is written in order."""
    n, terms, segments = len(pool.here), len(pool.idf), len(pool.segments)
    found = np.empty((n, FEATURES), np.float32)
    weights, parts = _shares(pool.idf), np.empty((segments, terms), np.float32)
    for segment in range(segments):
        parts[segment] = _shares(pool.idf * pool.segments[segment])
    slope, least = np.float32(K1 * B / max(pool.mean_length, 1.0)), np.float32(K1 * (1 - B))
    gains = np.empty(terms, np.float32)
    sessions, most = 0, np.float32(1e-9)
    for at in range(n):
        if at + AHEAD < n:
            ahead = pool.rows[pool.here[at + AHEAD]]
            _fetch(pool.lengths, ahead, 0)
            _fetch(pool.session, ahead, 0)
            _fetch(pool.author, ahead, 0)
        here, before, after = pool.here[at], pool.before[at], pool.after[at]
        row, previous = pool.rows[here], pool.rows[before]
        flags, role = pool.flags[row], pool.roles[pool.author[row]]
        norm = pool.lengths[row] * slope + least
        words = window = segment_words = np.float32(0)
        for term in range(terms):  # without a branch: which of a row's words are there cannot be foretold
            count = pool.counts[term, here]
            gains[term] = count / (count + norm)
            words += weights[term] * gains[term]
            beside = max((pool.counts[term, before] > 0) * BEFORE, (pool.counts[term, after] > 0) * AFTER)
            window += weights[term] * max(np.float32(count > 0), beside)
        for segment in range(segments):
            segment_words = max(segment_words, (parts[segment] * gains).sum())
        sessions, most = max(sessions, pool.session[row] + 1), max(most, words)

        line = found[at]
        line[Feature.WORDS] = words
        line[Feature.WINDOW] = window / np.float32(K1 + 1)
        line[Feature.SEGMENT] = segment_words if segments else words
        line[Feature.MEANING] = pool.cosine[at]
        line[Feature.PASSAGE] = pool.passage[at]
        line[Feature.MEANING_AFTER] = pool.cosine_after[at]
        line[Feature.ENTITIES] = pool.entities[at]
        line[Feature.AUTHOR] = (role & NAMED) > 0
        line[Feature.USER] = (role & USER) > 0
        line[Feature.RECOUNTED] = counted[Feature.RECOUNTED] and (role & ASSISTANT) > 0
        line[Feature.SUMMED_UP] = counted[Feature.SUMMED_UP] and (role & ASSISTANT) > 0
        line[Feature.LENGTH] = np.log1p(pool.lengths[row]) / np.float32(5)
        line[Feature.ANSWER] = (previous >= 0) & ((pool.flags[previous] & QUESTION) > 0)
        line[Feature.DATED] = counted[Feature.DATED] and pool.dated[row]
        line[Feature.INSTRUCTION] = counted[Feature.INSTRUCTION] and (flags & INSTRUCTION) > 0
        line[Feature.PREFERENCE] = counted[Feature.PREFERENCE] and (flags & PREFERENCE) > 0
        line[Feature.TIME] = pool.time[at]
    best = np.full((sessions, 2), -np.inf, np.float32)
    for at in range(n):
        session = pool.session[pool.rows[pool.here[at]]]
        best[session, 0] = max(best[session, 0], found[at, Feature.WORDS])
        best[session, 1] = max(best[session, 1], found[at, Feature.MEANING])
    for at in range(n):
        session = pool.session[pool.rows[pool.here[at]]]
        found[at, Feature.BEST_WORDS] = found[at, Feature.WORDS] / most
        found[at, Feature.SESSION_WORDS], found[at, Feature.SESSION_MEANING] = best[session]
    return found.T


@_compile
def _shares(idf: Any) -> Any:
    return idf * np.float32((K1 + 1) / max(idf.sum(), 1e-9))


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
