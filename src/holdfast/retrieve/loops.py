"""The loops in which a search of a large scope spends its time, by numpy.

``compiled`` has the same ones compiled by numba (the extra ``fast``): one pass over memory each, where numpy makes several.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Floats, Rows

log = logging.getLogger("holdfast")

LARGE = 10_000
"""From so many rows on the compiled loops are worth the seconds that it takes to compile them."""

SIGN_AND_MAGNITUDE = -0x70000001  # 0x8fffffff
REBIAS = np.float32(2.0**112)

Halves = npt.NDArray[np.float16]
Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.uint16]
Rows32 = npt.NDArray[np.int32]
AnyRows = npt.NDArray[np.integer]


class Loops(Protocol):
    """What this module and ``compiled`` offer."""

    def products(self, half: Halves, rows: AnyRows, query: Floats) -> Floats:
        """The products of some rows of a table with a vector; shape (len(rows),), 0 for a row that is not in the table."""

    def differences(self, columns: Sequence[Words], bits: Words, out: Bytes) -> None:
        """In how many bits each row differs from ``bits``: one column a word, three at most."""

    def differences_of(self, rest: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
        """The same of some rows of a table of words, shape (rows, words), beside those that ``first`` says of all rows."""

    def add_gains(self, found: Floats, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32) -> None:
        """Add weight * count / (count + norm) to some rows, each of which comes once."""

    def counts_at(self, held: Rows32, counts: Bytes, rows: Rows32, out: Floats) -> None:
        """Set ``out`` where one of ``rows`` is held, to its count; ``held`` is sorted, and not empty."""


@functools.cache
def fastest() -> Loops:
    """The compiled loops where numba is installed and fits this numpy, else these."""
    if find_spec("numba") is None:
        return plain()
    try:
        from holdfast.retrieve import compiled
    except ImportError as error:  # numba lags behind numpy's and Python's newest versions, and says so then
        log.warning("the extra 'fast' cannot be used, so searches go by numpy: %s", error)
        return plain()
    return cast(Loops, compiled)


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


def differences(columns: Sequence[Words], bits: Words, out: Bytes) -> None:
    """See ``Loops``."""
    unlike = np.empty(len(out), np.uint64)
    count = np.empty(len(out), np.uint8)
    out[:] = 0
    for column, word in zip(columns, bits, strict=True):
        np.bitwise_xor(column, word, out=unlike)
        out += np.bitwise_count(unlike, out=count)


def differences_of(rest: Words, rows: Rows, bits: Words, first: Bytes) -> Shorts:
    """See ``Loops``."""
    counts = np.bitwise_count(rest.take(rows, axis=0) ^ bits)
    found = first[rows].astype(np.uint16)
    for some in counts.T:  # a few long sums cost less than many short ones
        found += some
    return found


def add_gains(found: Floats, rows: Rows32, counts: Bytes, norms: Floats, weight: np.float32) -> None:
    """See ``Loops``."""
    found[rows] += weight * counts / (counts + norms[rows])


def counts_at(held: Rows32, counts: Bytes, rows: Rows32, out: Floats) -> None:
    """See ``Loops``."""
    at = held.searchsorted(rows)
    np.minimum(at, len(held) - 1, out=at)
    here = held[at] == rows
    out[here] = counts[at[here]]
