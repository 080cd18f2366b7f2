"""Nearest vectors by numpy alone: a scan over sign bits of the rotated vectors, one popcount a word.

The RESCORED rows that agree with the query in most bits are scored again by their vectors, and as many more, up to
MOST_RESCORED, as the bits cannot tell from them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Column, Floats, Rows, top

RESCORED = 250
MOST_RESCORED = 20_000
DEVIATIONS = 2.5
CERTAIN = 10
"""So many first results are looked for that thoroughly; a pool's tail is no nearer than thousands of others."""
_PARALLEL_ROWS = 250_000
_BLOCK = 65_536
_WORDS_A_BYTE = 3  # of 64 bits each: so many differences at most still fit a byte, and bytes add up fastest


class SignScan:
    """The sign bits of some rows' vectors."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        # One column a word: adding up six popcounts a row is then six straight passes over memory.
        self._bits = [Column(np.uint64) for _ in range(_words(dimension))]

    def put(self, rows: Rows, vectors: Floats) -> None:
        """Set the unit vectors of some rows; shape (len(rows), dimension)."""
        for column, bits in zip(self._bits, _sign_bits(vectors).T, strict=True):
            column.put(rows, bits)

    def near(
        self, query: Floats, k: int, allowed: npt.NDArray[np.bool_], cosines: Callable[[Rows], Floats]
    ) -> tuple[Rows, Floats]:
        """Rows among which the k nearest of the allowed ones are, in no order, with their cosines.

        ``allowed`` has shape (number of rows,) and allows only rows that were put; ``cosines`` are those with the query.
        """
        # Agreeing bits + 1, so that 0 can mean "not allowed" and ``top`` takes positive scores only.
        agreeing = self._agreement(query)
        if np.count_nonzero(allowed) < len(allowed):
            agreeing *= allowed
        count = max(RESCORED, 2 * k)
        rows = top(agreeing, count)
        found = cosines(rows)
        least = self._least_agreement(found, min(k, CERTAIN))
        if len(rows) == count and least < agreeing[rows[-1]]:
            rows = top(agreeing * (agreeing >= least), max(MOST_RESCORED, len(rows)))
            found = cosines(rows)
        return rows, found

    def _least_agreement(self, cosines: Floats, k: int) -> float:
        """The agreement below which a row as near as the k-th best so far is hardly ever found.

        Two unit vectors at angle a differ in a bit with chance p = a / pi, so in d bits about d p times, give or take
        the root of d p (1 - p). Where many rows lie close together this lets all of them be scored again.
        """
        angle = float(np.arccos(np.clip(np.partition(cosines, len(cosines) - k)[len(cosines) - k], -1.0, 1.0)))
        p = angle / np.pi
        differing = self._dimension * p + DEVIATIONS * float(np.sqrt(self._dimension * p * (1 - p)))
        return max(64 * len(self._bits) + 1 - differing, 1.0)

    def _agreement(self, query: Floats) -> Floats:
        bits = _sign_bits(query[None])[0]
        columns: list[npt.NDArray[np.uint64]] = [column.values for column in self._bits]
        size = len(columns[0])
        found = np.empty(size, np.float32)
        most = 64 * len(columns) + 1

        def scan(part: slice) -> None:
            block = found[part]
            unlike = np.empty(len(block), np.uint64)
            count = np.empty(len(block), np.uint8)
            block[:] = most
            for start in range(0, len(columns), _WORDS_A_BYTE):
                differing = np.zeros(len(block), np.uint8)
                for column, word in zip(columns[start : start + _WORDS_A_BYTE], bits[start:], strict=False):
                    np.bitwise_xor(column[part], word, out=unlike)
                    differing += np.bitwise_count(unlike, out=count)
                block -= differing

        # Blocks that stay in the cache; numpy lets go of the interpreter lock, so two of them run at once.
        parts = [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
        if size < _PARALLEL_ROWS:
            for part in parts:
                scan(part)
        else:
            list(_pool().map(scan, parts))
        return found


def _words(dimension: int) -> int:
    return -(-dimension // 64)


@cache
def _rotation(dimension: int) -> Floats:
    """A fixed random rotation: it spreads what the vectors say evenly over all sign bits."""
    gaussian = np.random.default_rng(384).standard_normal((dimension, dimension))
    orthogonal, triangular = np.linalg.qr(gaussian)
    rotated: Floats = (orthogonal * np.sign(np.diag(triangular))).astype(np.float32)
    return rotated


def _sign_bits(vectors: Floats) -> npt.NDArray[np.uint64]:
    """Signs of the rotated vectors, 64 to a word; shape (n, words)."""
    bits = np.packbits(vectors @ _rotation(vectors.shape[1]) > 0, axis=1)
    padded = np.zeros((len(bits), 8 * _words(vectors.shape[1])), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="holdfast-scan")
