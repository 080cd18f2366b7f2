"""Near-copies of texts, by the runs of three words that they share (Broder 1997): as sets, or as MinHash sketches of them."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.text import tokens

Sketch = npt.NDArray[np.uint32]

SIZE = 64
"""So many numbers make a sketch."""

_BLOCK = 4096  # runs at a time: all of a long text's would take a gigabyte
_SEEDS = np.random.default_rng(3).integers(1, 2**32, (2, SIZE), np.uint64)


def runs(text: str) -> frozenset[int]:
    """The runs of three words of a text, as 32 bits each; never empty."""
    found = tokens(text) or [text]
    return frozenset(
        zlib.crc32(" ".join(found[at : at + 3]).encode("utf-8", "surrogatepass"))
        for at in range(max(1, len(found) - 2))
    )


def shared(one: frozenset[int], other: frozenset[int]) -> float:
    """The share of their runs that two texts have in common, between 0 and 1."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def sketch(text: str) -> Sketch:
    """64 numbers, of which two texts share about the share of the runs of three words that they have in common."""
    codes = np.fromiter(runs(text), np.uint64)[:, None]
    least = np.full(SIZE, 2**32 - 1, np.uint64)
    for start in range(0, len(codes), _BLOCK):
        mixed = (codes[start : start + _BLOCK] * (_SEEDS[0] | np.uint64(1)) + _SEEDS[1]) & np.uint64(0xFFFFFFFFFFFF)
        np.minimum(least, (mixed >> np.uint64(16)).min(0), out=least)
    return least.astype(np.uint32)
