"""Nearest vectors in one partition, without a graph.

A filtered graph index loses most of the right answers (FAISS-HNSW 0.38, pgvector 0.08 with a 1 % filter); a scan loses
none. So: up to EXACT_ROWS rows an exact product in float32; above, a scan over sign bits (``sign_scan``), whose best rows are
scored again from float16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.retrieve.arrays import Column, Floats, Rows
from holdfast.retrieve.loops import Loops, suited, widened
from holdfast.retrieve.sign_scan import SignScan
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.SEMANTIC,),
    subject=(Subject.USER, Subject.WORLD),
    modality=(Modality.VECTOR,),
)

EXACT_ROWS = 4_096
"""Above, reading all vectors takes longer than the rest of a search: at 10,000 rows of 384 twice as long."""

SCANNED_ROWS = 2_500
"""Above EXACT_ROWS, so many allowed rows or fewer are scored one by one rather than scanned for."""


class VectorIndex:
    """Unit vectors of one partition; rows are the partition's own numbers, a row without a vector scores 0."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._exact: Column | None = Column(np.float32, dimension)
        self._half = Column(np.float16, dimension)
        self._scan: SignScan | None = None  # above EXACT_ROWS: most scopes never get there
        self._present = Column(np.bool_)
        self._complete: bool | None = None  # None: to be counted
        self._shown: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], int] | None = None
        self._passages = Column(np.float16, dimension)
        self._first = Column(np.int64)  # of each row, where its passages begin
        self._count = Column(np.int32)

    def put_folds(self, rows: Sequence[int], folds: Sequence[bytes]) -> None:
        """Set rows from their vector folds: float16, the row's own vector, then those of its passages, if any."""
        if not rows:
            return
        numbers = np.asarray(rows, np.int64)
        sizes = np.fromiter(map(len, folds), np.int64, len(folds))
        if (sizes == 0).any() or (sizes % (2 * self.dimension)).any():
            raise ValueError("a row's vectors have another length than their dimension")
        counts = sizes // (2 * self.dimension)
        table = np.frombuffer(b"".join(folds), np.float16).reshape(-1, self.dimension)
        heads = np.cumsum(counts) - counts
        self.put(numbers, table[heads])
        body = np.ones(len(table), np.bool_)
        body[heads] = False
        start = len(self._passages.values)
        self._passages.put(np.arange(start, start + int(body.sum())), table[body])
        self._first.put(numbers, start + heads - np.arange(len(heads)))
        self._count.put(numbers, (counts - 1).astype(np.int32))

    def best_passages(self, query: Floats, rows: npt.NDArray[np.integer], own: Floats) -> Floats:
        """Of each row, the cosine of its passage nearest to a query; its ``own`` cosine where it has none."""
        found = own.copy()
        if not len(self._passages.values):
            return found
        inside = np.flatnonzero(np.asarray(rows) < len(self._count.values))
        counts = self._count.values[rows[inside]]
        inside, counts = inside[counts > 0], counts[counts > 0]
        if len(inside):
            ends = np.cumsum(counts)
            which = np.repeat(self._first.values[rows[inside]] - (ends - counts), counts) + np.arange(ends[-1])
            cosines = self._loops.products(self._passages.values, which, query)
            found[inside] = np.maximum.reduceat(cosines, ends - counts)
        return found

    def put(self, rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float16]) -> None:
        """Set the vectors of some rows: float16, shape (len(rows), dimension)."""
        if not len(rows):
            return
        self._shown = self._complete = None
        before = np.flatnonzero(self._present.values)
        self._present.resize(int(rows.max()) + 1)
        self._present.values[rows] = True
        if self._exact is not None and len(self._present.values) > EXACT_ROWS:
            exact, self._exact = self._exact.values, None
            self._scan = SignScan(self.dimension, lambda: self._loops)
            self._put_scanned(before, exact[before].astype(np.float16))  # they came from float16, so nothing is lost
        if self._exact is not None:
            self._exact.put(rows, widened(vectors))
        else:
            self._put_scanned(rows, vectors)

    def resize(self, size: int) -> None:
        """Make room for rows up to ``size``, be it that the last of them have no vectors yet."""
        self._shown = self._complete = None
        self._present.resize(size)

    @property
    def _loops(self) -> Loops:
        return suited(len(self._present.values))

    def _put_scanned(self, rows: Rows, vectors: npt.NDArray[np.float16]) -> None:
        assert self._scan is not None
        self._half.put(rows, vectors)
        for start in range(0, len(rows), 8192):
            some = slice(start, start + 8192)
            self._scan.put(rows[some], widened(vectors[some]))

    def search(
        self,
        query: Floats,
        k: int,
        allowed: npt.NDArray[np.bool_] | None = None,
        cosines_of_all: Floats | None = None,
    ) -> tuple[Rows, Floats]:
        """The k nearest rows by cosine, best first, and their cosines; of the allowed rows only, where given.

        ``allowed`` has shape (size,); a shorter one allows nothing beyond its end. ``cosines_of_all`` are those of
        ``every_cosine``, where they are known.
        """
        near, cosines = self._near(query, k, allowed, cosines_of_all)
        order = np.lexsort((near, -cosines))[:k]
        return near[order], cosines[order]

    def cosines(self, query: Floats, rows: npt.NDArray[np.integer]) -> Floats:
        """The cosines of some rows with a query; shape (len(rows),), 0 where a row has no vector or is -1."""
        if self._exact is None:
            return self._loops.products(self._half.values, rows, query)
        found = np.zeros(len(rows), np.float32)
        here = np.flatnonzero((rows >= 0) & (rows < len(self._exact.values)))
        found[here] = self._exact.values.take(rows[here], axis=0) @ query  # take is faster than brackets
        return found

    @property
    def exact(self) -> bool:
        """Whether the vectors are few enough to be compared one by one."""
        return self._exact is not None

    def every_cosine(self, query: Floats, size: int) -> Floats | None:
        """The cosines of all rows below ``size``, and a zero for row -1; None where that is more work than to look some up."""
        if self._exact is None:
            return None
        found = np.zeros(size + 1, np.float32)
        np.matmul(self._exact.values, query, out=found[: len(self._exact.values)])
        return found

    def vectors(self, rows: npt.NDArray[np.integer]) -> Floats:
        """The vectors of some rows, shape (len(rows), dimension); zeros where a row has none."""
        source = self._half if self._exact is None else self._exact
        found = np.zeros((len(rows), self.dimension), np.float32)
        here = np.flatnonzero(np.asarray(rows) < len(source.values))
        found[here] = source.values[rows[here]]
        return found

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which rows have a vector."""
        found: npt.NDArray[np.bool_] = self._present.values
        return found

    @property
    def complete(self) -> bool:
        """Whether no row lacks a vector."""
        if self._complete is None:
            self._complete = bool(self._present.values.all())
        return self._complete

    def _near(
        self, query: Floats, k: int, allowed: npt.NDArray[np.bool_] | None, cosines_of_all: Floats | None
    ) -> tuple[Rows, Floats]:
        mask, count = self._mask(self.present if allowed is None else allowed)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if self._exact is not None or count <= SCANNED_ROWS:
            rows = np.flatnonzero(mask)
            cosines = self.cosines(query, rows) if cosines_of_all is None else cosines_of_all[rows]
            if len(rows) > 4 * k:
                keep = np.argpartition(-cosines, k)[: k + 1]
                rows, cosines = rows[keep], cosines[keep]
            return rows, cosines
        assert self._scan is not None
        return self._scan.near(query, k, mask, lambda some: self.cosines(query, some))

    def _mask(self, allowed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], int]:
        """Which of the rows that have a vector are allowed, and how many: mostly the same as for the search before."""
        if self._shown is not None and self._shown[0] is allowed:
            return self._shown[1:]
        mask = np.zeros(len(self._present.values if self._exact is not None else self._half.values), np.bool_)
        shared = min(len(mask), len(allowed))
        np.logical_and(self._present.values[:shared], allowed[:shared], out=mask[:shared])
        count = int(np.count_nonzero(mask))
        self._shown = allowed, mask, count
        return mask, count
