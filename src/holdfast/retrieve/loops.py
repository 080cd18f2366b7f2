"""The loops in which a search of a large scope spends its time, by numpy.

``compiled`` has the same ones compiled by numba (the extra ``fast``): one pass over memory each, where numpy makes several.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Floats, Rows, distinct
from holdfast.retrieve.pool import AFTER, ASSISTANT, BEFORE, K1, NAMED, USER, B, Feature, Pool
from holdfast.retrieve.signs import Sign

log = logging.getLogger("holdfast")

LARGE = 10_000
"""From so many rows on the compiled loops are worth compiling."""

HIDDEN = 255
"""More differences than a row can have in three words."""

SAMPLE = 4_096
"""From so many rows ``nearest`` learns how they are spread."""

BLOCK = 65_536
"""So many rows stay in the cache between the passes over them."""

FEW = 16_384

QUESTION, INSTRUCTION, PREFERENCE = int(Sign.QUESTION), int(Sign.INSTRUCTION), int(Sign.PREFERENCE)

SIGN_AND_MAGNITUDE = -0x70000001  # 0x8fffffff
REBIAS = np.float32(2.0**112)

Halves = npt.NDArray[np.float16]
Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.uint16]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows32 = npt.NDArray[np.int32]
AnyRows = npt.NDArray[np.integer]


class Loops(Protocol):
    """What this module and ``compiled`` offer."""

    def products(self, half: Halves, rows: AnyRows, query: Floats) -> Floats:
        """The products of some rows of a table with a vector; shape (len(rows),), 0 for a row that is not in the table."""

    def nearest(self, columns: Sequence[Words], bits: Words, shown: Bools, count: int, out: Bytes) -> tuple[Rows, int]:
        """About ``count`` shown rows that differ from ``bits`` in the fewest places: one column a word, three at most.

        Sets ``out`` to the differences of each row, HIDDEN where it is not shown. Returns all rows of at most so many
        differences, sorted, and that number, less than HIDDEN.
        """

    def differences(self, words: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
        """In how many places some rows of a table differ from ``bits``, beside the ``first`` that are known of all rows."""

    def smallest(self, values: Shorts, count: int) -> Rows:
        """Where the ``count`` smallest of some values are, in no order; the earlier of those that tie."""

    def add_gains(
        self, found: Floats, seen: Rows32, size: int, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32
    ) -> int:
        """Add weight * count / (count + norm) to some rows, each of which comes once.

        Those that had nothing before are put into ``seen`` from ``size`` on, which has one place more than there are rows; returns
        how many are there then.
        """

    def add_ones(self, found: Shorts, seen: Rows32, size: int, rows: Rows32, shown: Bools) -> int:
        """Add 1 to those of some rows that are shown; each comes once. ``seen`` is as in ``add_gains``."""

    def shown_of(self, rows: Rows32, ends: Rows, shown: Bools) -> Rows:
        """How many of the rows of each word are shown: they follow one another up to its end; shape (len(ends),)."""

    def add_counts(
        self, found: Doubles, seen: Rows32, rows: Rows32, counts: Bytes, ends: Rows, shown: Bools, weights: Doubles
    ) -> int:
        """Add weight * count of each word to those of its rows that are shown; each comes once under a word.

        Words and their ends are as in ``shown_of``, ``seen`` is as in ``add_gains``, and nothing was found before.
        """

    def reached(self, found: Floats, seen: Rows32, count: int, most: float) -> float:
        """What at least ``count`` of the rows ``seen`` reach: mostly hardly less than the most such. None has over ``most``."""

    def taken(self, found: Floats, seen: Rows32, least: float) -> tuple[Rows, Floats]:
        """Those of the rows ``seen`` of which at least so much is found, with it; what is found of all of these becomes 0."""

    def counts_at(self, held: Rows32, counts: Bytes, rows: AnyRows, out: Floats) -> None:
        """Set ``out`` where one of ``rows`` is held, to its count; ``held`` is sorted, and not empty."""

    def surroundings(
        self, rows: AnyRows, previous: Rows32, following: Rows32, shown: Bools
    ) -> tuple[Rows, Rows, Rows, Rows]:
        """Some rows and those before and after them, each once, and a last one of -1; and where in this the first are.

        A neighbour that is -1 or not shown is none. The others say where each of ``rows``, its previous and its following one
        are; for none that is the end.
        """

    def channels(self, pool: Pool, counted: Bools) -> Floats:
        """The table of ``fusion.Features``; zeros for a channel that is not to be ``counted``, shape (channels,)."""


def suited(rows: int) -> Loops:
    """The loops for a scope of so many rows."""
    return fastest() if rows >= LARGE else plain()


def fastest() -> Loops:
    """The compiled loops where numba is installed and fits this numpy, else these.

    To compile them takes seconds: it begins in the background with the first call, and until it is done these are used.
    """
    return _compiler.loops


def compiled() -> Loops:
    """As ``fastest``, but waits until the loops are compiled."""
    return _compiler.wait()


def plain() -> Loops:
    """The loops of this module."""
    return cast(Loops, sys.modules[__name__])


def widened(half: Halves) -> Floats:
    """Finite float16 as float32, exactly, in three passes of whole-number arithmetic: several times as fast as ``astype``.

    Shifted by 13 bits the fraction is in its place, and the exponent is too small by 127 - 15.
    """
    found = _shifted(half)
    found *= REBIAS
    return found


def _shifted(half: Halves) -> Floats:
    bits = half.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(SIGN_AND_MAGNITUDE)  # the sign was copied into bits 28 to 30 too
    found: Floats = bits.view(np.float32)
    return found


def products(half: Halves, rows: AnyRows, query: Floats) -> Floats:
    """See ``Loops``. The exponents are put right in the query, which is shorter."""
    found = np.zeros(len(rows), np.float32)
    here = np.flatnonzero((rows >= 0) & (rows < len(half)))
    found[here] = _shifted(half.take(rows[here], axis=0)) @ (query * REBIAS)  # take is faster than brackets
    return found


def nearest(columns: Sequence[Words], bits: Words, shown: Bools, count: int, out: Bytes) -> tuple[Rows, int]:
    """See ``Loops``."""
    unlike = np.empty(min(len(out), BLOCK), np.uint64)
    ones = np.empty(len(unlike), np.uint8)
    out[:] = 0
    for start in range(0, len(out), BLOCK):
        here = out[start : start + BLOCK]
        for column, word in zip(columns, bits, strict=True):
            np.bitwise_xor(column[start : start + BLOCK], word, out=unlike[: len(here)])
            here += np.bitwise_count(unlike[: len(here)], out=ones[: len(here)])
    if not shown.all():
        out |= -(~shown).view(np.uint8)
    sample = out[:: max(1, len(out) // SAMPLE)]
    at = min(-(-count * len(sample) // len(out)), len(sample) - 1)
    bound = min(int(np.partition(sample, at)[at]), HIDDEN - 1)
    return np.flatnonzero(out <= bound), bound


def differences(words: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
    """See ``Loops``."""
    counts = np.bitwise_count(words.take(rows, axis=0) ^ bits)
    found = first[rows].astype(np.uint16)
    for some in counts.T:  # a few long sums cost less than many short ones
        found += some
    return found


def smallest(values: Shorts, count: int) -> Rows:
    """See ``Loops``."""
    if len(values) <= count:
        return np.arange(len(values))
    last = np.partition(values, count - 1)[count - 1]
    smaller = np.flatnonzero(values < last)
    return np.concatenate((smaller, np.flatnonzero(values == last)[: count - len(smaller)]))


def add_gains(
    found: Floats, seen: Rows32, size: int, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32
) -> int:
    """See ``Loops``."""
    before = found[rows]
    fresh = rows[before == 0]
    end = size + len(fresh)
    seen[size:end] = fresh
    before += weight * counts / (counts + norms[rows])
    found[rows] = before
    return end


def add_ones(found: Shorts, seen: Rows32, size: int, rows: Rows32, shown: Bools) -> int:
    """See ``Loops``."""
    rows = rows[shown[rows]]
    before = found[rows]
    fresh = rows[before == 0]
    end = size + len(fresh)
    seen[size:end] = fresh
    found[rows] = before + np.uint16(1)
    return end


def shown_of(rows: Rows32, ends: Rows, shown: Bools) -> Rows:
    """See ``Loops``."""
    return np.diff(np.concatenate(([0], np.cumsum(shown[rows])))[np.concatenate(([0], ends))])


def add_counts(
    found: Doubles, seen: Rows32, rows: Rows32, counts: Bytes, ends: Rows, shown: Bools, weights: Doubles
) -> int:
    """See ``Loops``."""
    size = start = 0
    for end, weight in zip(ends.tolist(), weights, strict=True):
        some = rows[start:end]
        here = shown[some]
        some = some[here]
        before = found[some]
        fresh = some[before == 0]
        seen[size : size + len(fresh)] = fresh
        size += len(fresh)
        found[some] = before + weight * counts[start:end][here]
        start = end
    return size


def reached(found: Floats, seen: Rows32, count: int, most: float) -> float:  # noqa: ARG001  (compiled, it is needed)
    """See ``Loops``."""
    if len(seen) > FEW:  # among so many it costs more to find than it spares
        return 0.0
    return float(np.partition(found[seen], len(seen) - count)[len(seen) - count])


def taken(found: Floats, seen: Rows32, least: float) -> tuple[Rows, Floats]:
    """See ``Loops``."""
    scores = found[seen]
    found[seen] = 0.0
    enough = scores >= least
    return seen[enough].astype(np.int64), scores[enough]


def counts_at(held: Rows32, counts: Bytes, rows: AnyRows, out: Floats) -> None:
    """See ``Loops``."""
    rows = rows.astype(held.dtype, copy=False)  # else every look-up would widen all that are held
    at = held.searchsorted(rows)
    np.minimum(at, len(held) - 1, out=at)
    here = held[at] == rows
    out[here] = counts[at[here]]


def surroundings(rows: AnyRows, previous: Rows32, following: Rows32, shown: Bools) -> tuple[Rows, Rows, Rows, Rows]:
    """See ``Loops``."""
    sides = [rows]
    for column in (previous, following):
        beside = column[rows]
        beside[~shown[beside]] = -1  # where there is none, -1 takes the last row's mask, and stays -1 either way
        sides.append(beside)
    found = distinct(np.concatenate((*sides, (-1,))))
    here, before, after = (found.searchsorted(some) - 1 for some in sides)
    # -1 was the first, and goes to the end.
    for some in (before, after):
        some[some < 0] = len(found) - 1
    return np.concatenate((found[1:], found[:1])), here, before, after


def channels(pool: Pool, counted: Bools) -> Floats:
    """See ``Loops``: this is what the channels are."""
    rows, before = pool.rows[pool.here], pool.rows[pool.before]
    lengths, sessions, flags = pool.lengths[rows], pool.session[rows], pool.flags[rows]
    roles = pool.roles[pool.author[rows]]
    found = np.zeros((len(Feature), len(rows)), np.float32)

    weights = pool.idf * np.float32((K1 + 1) / max(float(pool.idf.sum()), 1e-9))
    gains = pool.counts.take(pool.here, axis=1)
    held = pool.counts > 0
    near = np.maximum(held.take(pool.before, axis=1) * BEFORE, held.take(pool.after, axis=1) * AFTER)
    near[gains > 0] = 1.0
    gains /= gains + (lengths * np.float32(K1 * B / max(pool.mean_length, 1.0)) + np.float32(K1 * (1 - B)))
    words = np.matmul(weights, gains, out=found[Feature.WORDS])
    np.divide(words, max(float(words.max(initial=0.0)), 1e-9), out=found[Feature.BEST_WORDS])
    found[Feature.SESSION_WORDS] = _most(sessions, words)
    np.divide(weights @ near, np.float32(K1 + 1), out=found[Feature.WINDOW])
    if len(pool.segments):
        parts = pool.segments * pool.idf
        parts *= (K1 + 1) / np.maximum(parts.sum(1), 1e-9)[:, None]
        np.max(parts @ gains, axis=0, out=found[Feature.SEGMENT])
    else:
        found[Feature.SEGMENT] = words

    found[Feature.MEANING] = pool.cosine
    found[Feature.PASSAGE] = pool.passage
    found[Feature.MEANING_AFTER] = pool.cosine_after
    found[Feature.SESSION_MEANING] = _most(sessions, pool.cosine)
    found[Feature.ENTITIES] = pool.entities
    found[Feature.TIME] = pool.time

    found[Feature.AUTHOR] = (roles & NAMED) > 0
    found[Feature.USER] = (roles & USER) > 0
    for feature in (Feature.RECOUNTED, Feature.SUMMED_UP):
        if counted[feature]:
            found[feature] = (roles & ASSISTANT) > 0
    np.divide(np.log1p(lengths), 5, out=found[Feature.LENGTH])
    found[Feature.ANSWER] = (before >= 0) & ((pool.flags[before] & QUESTION) > 0)
    if counted[Feature.DATED]:
        found[Feature.DATED] = pool.dated[rows]
    for feature, sign in ((Feature.INSTRUCTION, INSTRUCTION), (Feature.PREFERENCE, PREFERENCE)):
        if counted[feature]:
            found[feature] = (flags & sign) > 0
    return found


def _most(groups: AnyRows, values: Floats) -> Floats | np.float32:
    """The largest value in the group of each; groups are small numbers, 0 or more."""
    last = int(groups.max(initial=0))
    if last == groups.min(initial=last):
        largest: np.float32 = values.max(initial=-np.inf)
        return largest
    found = np.full(last + 1, -np.inf, np.float32)
    np.maximum.at(found, groups, values)
    return found[groups]


class _Compiler:
    """Compiles the loops once a process, in a thread of its own."""

    def __init__(self) -> None:
        self._found: Loops | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def loops(self) -> Loops:
        if self._found is None and self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._compile, name="holdfast-compile", daemon=True)
                    self._thread.start()
        return self._found or plain()

    def wait(self) -> Loops:
        found = self.loops
        if self._thread is not None:
            self._thread.join()
        return self._found or found

    def after_fork(self) -> None:
        # The parent's thread is not in the child, and may have held numba's own lock: what was not ready stays undone.
        self._lock = threading.Lock()
        if self._thread is not None and self._found is None:
            self._found = plain()
        self._thread = None

    def _compile(self) -> None:
        found = plain()
        try:
            if find_spec("numba") is not None:
                from holdfast.retrieve import compiled

                compiled.warm_up()
                found = cast(Loops, compiled)
        except Exception as error:  # numba lags behind numpy's and Python's newest versions, and says so in many ways
            log.warning("the extra 'fast' cannot be used, so searches go by numpy: %s", error)
        self._found = found


_compiler = _Compiler()


def _after_fork() -> None:
    _compiler.after_fork()


if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(after_in_child=_after_fork)
