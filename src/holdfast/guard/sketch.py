"""Sketches of texts by which near-copies are known: MinHash (Broder 1997) over runs of three words."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.text import tokens

Sketch = npt.NDArray[np.uint32]

_HASHES = 64
_SEEDS = np.random.default_rng(3).integers(1, 2**32, (2, _HASHES), np.uint64)


def sketch(text: str) -> Sketch:
    """64 numbers, of which two texts share about the share of the runs of three words that they have in common."""
    found = tokens(text) or [text]
    runs = {" ".join(found[at : at + 3]) for at in range(max(1, len(found) - 2))}
    codes = np.asarray([zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs], np.uint64)[:, None]
    mixed = (codes * (_SEEDS[0] | np.uint64(1)) + _SEEDS[1]) & np.uint64(0xFFFFFFFFFFFF)
    least: Sketch = (mixed >> np.uint64(16)).min(0).astype(np.uint32)
    return least


def likeness(one: Sketch, other: Sketch) -> float:
    """The share that two sketches have in common, between 0 and 1."""
    return float((one == other).mean())


def likenesses(one: Sketch, others: Sequence[Sketch]) -> npt.NDArray[np.float64]:
    """The share that a sketch has in common with each of some others, shape (len(others),)."""
    table = np.asarray(others, np.uint32).reshape(len(others), len(one))
    shares: npt.NDArray[np.float64] = (table == one).mean(axis=1)
    return shares
