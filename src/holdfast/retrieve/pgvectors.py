"""Nearest vectors of one large partition, searched by the server that keeps them; this process holds none.

It answers what a ``VectorIndex`` answers, from which rows have a vector (a byte each) and two questions to the server: the
nearest rows of the partition, and the cosines of the few rows of a search's pool. A graph that is filtered loses right answers, so
it is asked only where most of what it finds counts; else the server goes through the partition, which loses none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.retrieve.arrays import Column, Floats, Rows
from holdfast.store import nearest as server
from holdfast.store.engine import Database
from holdfast.store.schema import PARTITION_BITS
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.SEMANTIC,),
    subject=(Subject.USER, Subject.WORLD),
    modality=(Modality.VECTOR,),
)

HELD_ROWS = int(os.environ.get("HOLDFAST_HELD_ROWS", "50000"))
"""Partitions of more rows are searched by the server, where it can. At 384 dimensions a row takes 0.8 KB of a process."""

FEW_ROWS = 2_500
"""So many allowed rows or fewer are compared one by one."""

MOSTLY = 10
"""The graph is asked where one row of so many in its table, and of the partition, may be found."""

_LOW = (1 << PARTITION_BITS) - 1


class StoredVectors:
    """The vectors of one partition in the table of one model; rows are the partition's own numbers.

    ``reading`` opens the view of the store in which a search runs; ``table_rows``: about how many rows of everybody there are.
    """

    exact = False

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Database]],
        part: int,
        model: int,
        dimension: int,
        table_rows: int,
    ) -> None:
        self.dimension = dimension
        self._reading = reading
        self._base = part << PARTITION_BITS
        self._model = model
        self._table_rows = table_rows
        self._present = Column(np.bool_)
        self._pieces: dict[int, bytes] = {}  # of the rows that were compared last

    def put_folds(self, rows: Sequence[int], _folds: Sequence[bytes]) -> None:
        """Note that some rows have a vector, which stays where it is."""
        if rows:
            self._present.resize(max(len(self._present.values), max(rows) + 1))
            self._present.values[rows] = True

    def resize(self, size: int) -> None:
        """Make room for rows up to ``size``."""
        self._present.resize(size)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which rows have a vector."""
        found: npt.NDArray[np.bool_] = self._present.values
        return found

    @property
    def complete(self) -> bool:
        """Whether no row lacks a vector."""
        return bool(self.present.all())

    def every_cosine(self, _query: Floats, _size: int) -> Floats | None:
        """None: to look some up is less work."""
        return None

    def search(
        self,
        query: Floats,
        k: int,
        allowed: npt.NDArray[np.bool_] | None = None,
        _cosines_of_all: Floats | None = None,
    ) -> tuple[Rows, Floats]:
        """The k nearest rows by cosine, best first, and their cosines; of the allowed rows only, where given."""
        mask = self.present.copy()
        if allowed is not None:
            shared = min(len(mask), len(allowed))
            mask[:shared] &= allowed[:shared]
            mask[shared:] = False
        count = int(np.count_nonzero(mask))
        if count <= FEW_ROWS:
            rows = np.flatnonzero(mask)
            cosines = self.cosines(query, rows)
        else:
            rows, cosines = self._nearest(query, k, mask, count)
        order = np.lexsort((rows, -cosines))[:k]
        return rows[order], cosines[order]

    def _nearest(self, query: Floats, k: int, mask: npt.NDArray[np.bool_], count: int) -> tuple[Rows, Floats]:
        size = int(np.count_nonzero(self.present))
        many = k * size // count + k // 4 + 1  # as what is not allowed is found too
        graph = MOSTLY * size >= self._table_rows and MOSTLY * count >= size
        while True:
            found = self._ask(query, many, exactly=not graph)
            kept = [(rid & _LOW, cosine) for rid, cosine in found if mask[rid & _LOW : (rid & _LOW) + 1].any()]
            if len(kept) >= min(k, count) or (not graph and len(found) < many):
                rows, cosines = zip(*kept, strict=True) if kept else ((), ())
                return np.asarray(rows, np.int64), np.asarray(cosines, np.float32)
            graph, many = False, 4 * many

    def _ask(self, query: Floats, many: int, *, exactly: bool) -> list[tuple[int, float]]:
        with self._reading() as connection:
            return server.nearest(connection, self._model, query, self._base, self._base + _LOW, many, exactly=exactly)

    def cosines(self, query: Floats, rows: npt.NDArray[np.integer]) -> Floats:
        """The cosines of some rows with a query; shape (len(rows),), 0 where a row has no vector or is -1."""
        found = np.zeros(len(rows), np.float32)
        here = np.flatnonzero((rows >= 0) & (rows < len(self.present)))
        here = here[self.present[rows[here]]]
        if not len(here):
            return found
        asked = np.unique(np.asarray(rows)[here])
        with self._reading() as connection:
            rids = (asked + self._base).tolist()
            records = server.likeness(connection, self._model, query, rids)
        table = np.zeros(len(asked), np.float32)
        at = np.searchsorted(asked, [rid & _LOW for rid, _, _ in records])
        table[at] = [cosine or 0.0 for _, cosine, _ in records]
        self._pieces = {rid & _LOW: pieces for rid, _, pieces in records if pieces is not None}
        found[here] = table[np.searchsorted(asked, np.asarray(rows)[here])]
        return found

    def best_passages(self, query: Floats, rows: npt.NDArray[np.integer], own: Floats) -> Floats:
        """Of each row of those compared last, the cosine of its passage nearest to a query; its ``own`` where it has none."""
        found = own.copy()
        for at, row in enumerate(rows.tolist()):
            if (pieces := self._pieces.get(row)) is not None:
                table = np.frombuffer(pieces, np.float16).reshape(-1, self.dimension)
                found[at] = (table.astype(np.float32) @ query).max()
        return found

    def vectors(self, rows: npt.NDArray[np.integer]) -> Floats:
        """The vectors of some rows, shape (len(rows), dimension), read for this call; zeros where a row has none."""
        found = np.zeros((len(rows), self.dimension), np.float32)
        with self._reading() as connection:
            rids = (np.asarray(rows, np.int64) + self._base).tolist()
            records = dict(server.bodies(connection, self._model, rids))
        for at, rid in enumerate(rids):
            if rid in records:
                found[at] = np.frombuffer(records[rid], np.float16, self.dimension)
        return found
