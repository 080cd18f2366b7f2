"""Nearest vectors by turbovec (the extra ``fast``): a compiled scan over codes of 4 bits a dimension.

The codes are those of TurboQuant (arXiv 2504.19874). Its best rows are scored again by their vectors; 50 would hold the
nearest ten of 100,000 sentences, more are needed where many rows lie close together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Column, Floats, Rows

RESCORED = 200
_BITS = 4


def installed(dimension: int) -> bool:
    """Whether turbovec can be had for vectors of this dimension, on a processor where it measured faster than numpy.

    Over 100,000 rows it took 0.2 ms with AVX-512, and 4 ms with AVX2 alone, where ``sign_scan`` took 1; on other processors
    nobody has measured it.
    """
    return dimension % 8 == 0 and _has_avx512() and find_spec("turbovec") is not None


@functools.cache
def _has_avx512() -> bool:
    found: Any = np.show_config(mode="dicts")
    extensions = found["SIMD Extensions"]
    return any(
        name == "X86_V4" or name.startswith("AVX512") for name in (*extensions["baseline"], *extensions["found"])
    )


class CodeScan:
    """The codes of some rows' vectors."""

    def __init__(self, dimension: int) -> None:
        from turbovec import TurboQuantIndex

        self._codes: Any = TurboQuantIndex(dim=dimension, bit_width=_BITS)
        self._rows = Column(np.int64)  # of each code, its row
        self._held = Column(np.bool_)

    def put(self, rows: Rows, vectors: Floats) -> None:
        """Set the unit vectors of some rows; shape (len(rows), dimension)."""
        self._held.resize(int(rows.max()) + 1)
        for row in rows[self._held.values[rows]].tolist():
            self._drop(row)
        self._held.put(rows, np.ones(len(rows), np.bool_))
        at = len(self._codes)
        self._codes.add(np.ascontiguousarray(vectors, np.float32))
        self._rows.put(np.arange(at, at + len(rows)), rows)

    def near(
        self, query: Floats, k: int, allowed: npt.NDArray[np.bool_], cosines: Callable[[Rows], Floats]
    ) -> tuple[Rows, Floats]:
        """Rows among which the k nearest of the allowed ones are, in no order, with their cosines.

        ``allowed`` has shape (number of rows,) and allows only rows that were put; ``cosines`` are those with the query.
        """
        owners = self._rows.values[: len(self._codes)]
        mask = None if allowed.all() else allowed[owners]
        _, at = self._codes.search(np.ascontiguousarray(query[None], np.float32), max(RESCORED, 2 * k), mask=mask)
        rows: Rows = owners[at[0].astype(np.int64)]
        return rows, cosines(rows)

    def _drop(self, row: int) -> None:
        at = int(np.flatnonzero(self._rows.values[: len(self._codes)] == row)[0])
        self._codes.swap_remove(at)  # the last one takes its place
        self._rows.values[at] = self._rows.values[len(self._codes)]
