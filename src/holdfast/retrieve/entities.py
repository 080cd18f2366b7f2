"""Whom and what a query names, and what is named beside it: activation that spreads over names (arXiv 2603.14588, graph channel).

Names and rows are a graph: a name leads to the rows that hold it, and these to their other names. So a question about a ship
finds the turn that names only its captain. A name in very many rows passes next to nothing on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from holdfast.cube import Form
from holdfast.retrieve.arrays import Column, Floats, Rows
from holdfast.retrieve.lexical import RECORD, LexicalIndex
from holdfast.retrieve.text import term
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.PLANAR,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.GRAPH,),
    subject=(Subject.USER, Subject.WORLD),
)

DECAY, LEAST, HOPS = 0.7, 0.1, 3
"""Each hop keeps this share, ends under that activation, and there are at most so many."""


class EntityIndex:
    """The names of one partition's rows, both ways: a name's rows, and a row's names."""

    def __init__(self) -> None:
        self.postings = LexicalIndex()
        self._names = Column(np.uint32)
        self._first = Column(np.int64)  # of each row, where its names begin
        self._count = Column(np.int32)

    def append(self, rows: Sequence[int], folds: Sequence[bytes]) -> None:
        """Add rows by their folds of names (``text.pack_terms``); a row is added once, the rows of a call in order."""
        if not rows:
            return
        self.postings.append(rows, folds)
        records = np.frombuffer(b"".join(folds), RECORD)
        sizes = np.fromiter(map(len, folds), np.int64, len(folds)) // RECORD.itemsize
        names = np.delete(records["term"], np.cumsum(sizes) - sizes)  # without the heads
        counts = (sizes - 1).astype(np.int32)
        start = len(self._names.values)
        self._names.put(np.arange(start, start + len(names)), names)
        numbers = np.asarray(rows, np.int64)
        self._first.put(numbers, start + np.cumsum(counts) - counts)
        self._count.put(numbers, counts)

    def activation(self, names: Collection[str], shown: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
        """How far a query's names lead to each shown row, between 0 and 1; shape (len(shown),).

        A row that holds the names themselves has their share by rarity; one that is reached over other names has what
        these kept of it.
        """
        found = np.zeros(len(shown), np.float32)
        seeds = {term(name): 1.0 for name in names}
        rarity = {seed: self.postings.idf(seed) for seed in seeds}
        total = sum(rarity.values())
        for seed in seeds:
            found[self._rows(seed, shown)] += np.float32(rarity[seed] / total)
        active: dict[int, float] = {}
        frontier = seeds
        for _ in range(HOPS):
            reached: dict[int, float] = {}
            for name, level in frontier.items():
                rows = self._rows(name, shown)
                passed = DECAY * level / max(len(rows), 1) ** 0.5
                if passed < LEAST:
                    continue
                for other in self._beside(rows):
                    if other not in seeds and passed > active.get(other, 0.0):
                        active[other] = reached[other] = passed
            frontier = reached
        for name, level in active.items():
            rows = self._rows(name, shown)
            found[rows] = np.maximum(found[rows], np.float32(level))
        return found

    def _rows(self, name: int, shown: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Rows:
        rows = self.postings.rows(name)
        rows = rows[rows < len(shown)]
        visible: Rows = rows[shown[rows]]
        return visible

    def _beside(self, rows: Rows) -> list[int]:
        """The names of some rows, each once."""
        starts, counts = self._first.values[rows].tolist(), self._count.values[rows].tolist()
        held = [
            name
            for start, count in zip(starts, counts, strict=True)
            for name in self._names.values[start : start + count].tolist()
        ]
        return list(dict.fromkeys(held))
