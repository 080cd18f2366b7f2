"""Okapi BM25 over one partition, as a fold of the rows' terms.

Postings lie in a few sorted segments that are merged as they grow, so that a new row costs microseconds and a query one
pass over the postings of its words. Statistics are the partition's own: how often a word is rare for Ana says nothing
about Ben, and must not leak from him.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Column, Floats

K1 = 1.5
B = 0.75

_RECORD = np.dtype([("term", "<u4"), ("count", "u1")])  # as text.RECORD packs it


@dataclass(frozen=True, slots=True)
class _Segment:
    terms: npt.NDArray[np.uint32]  # distinct, sorted
    starts: npt.NDArray[np.int64]  # postings of terms[i] are [starts[i], starts[i + 1])
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint8]

    def postings(self, term: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        at = int(np.searchsorted(self.terms, np.uint32(term)))
        if at == len(self.terms) or self.terms[at] != term:
            return self.rows[:0], self.counts[:0]
        here = slice(self.starts[at], self.starts[at + 1])
        return self.rows[here], self.counts[here]


class LexicalIndex:
    """Postings of one partition; rows are the partition's own numbers."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._lengths = Column(np.float32)
        self._norms: Floats | None = None
        self._documents = 0
        self._tokens = 0.0

    def append(self, rows: Sequence[int], folds: Sequence[bytes]) -> None:
        """Add rows by their lexical folds (``text.fold_terms``); a row is added once."""
        if not rows:
            return
        sizes = np.fromiter((len(fold) for fold in folds), np.int64, len(folds)) // _RECORD.itemsize
        records = np.frombuffer(b"".join(folds), _RECORD)
        numbers = np.asarray(rows, np.int64)
        heads = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        lengths = records["term"][heads].astype(np.float32)
        self._lengths.put(numbers, lengths)
        self._documents += len(numbers)
        self._tokens += float(lengths.sum())
        self._norms = None
        body = np.ones(len(records), bool)
        body[heads] = False
        owner = np.repeat(numbers.astype(np.int32), sizes)
        self._segments.append(_segment(records["term"][body], owner[body], records["count"][body]))
        while len(self._segments) > 1 and 2 * len(self._segments[-1].rows) >= len(self._segments[-2].rows):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(_merge(before, last))

    def idf(self, term: int) -> float:
        """ln(1 + (N - df + 0.5) / (df + 0.5)), never negative; 0 for a word that nothing holds."""
        df = sum(len(segment.postings(term)[0]) for segment in self._segments)
        return float(np.log1p((self._documents - df + 0.5) / (df + 0.5))) if df else 0.0

    def scores(self, terms: Sequence[int], size: int) -> Floats:
        """BM25 of every row for a query's distinct terms; shape (size,), 0 where no word matches."""
        found = np.zeros(size, np.float32)
        norms = self._norm(size)
        for term in terms:
            parts = [segment.postings(term) for segment in self._segments]
            df = sum(len(rows) for rows, _ in parts)
            if not df:
                continue
            idf = np.float32(np.log1p((self._documents - df + 0.5) / (df + 0.5)))
            for rows, counts in parts:
                if len(rows):
                    tf = counts.astype(np.float32)
                    # Within a segment a row stands once under a term, so += by index is safe.
                    found[rows] += idf * (K1 + 1) * tf / (tf + norms[rows])
        return found

    def rows_with(self, term: int) -> npt.NDArray[np.int32]:
        """The rows that hold a term."""
        return np.concatenate([segment.postings(term)[0] for segment in self._segments] or [np.empty(0, np.int32)])

    def _norm(self, size: int) -> Floats:
        if self._norms is None or len(self._norms) < size:
            self._lengths.resize(size)
            mean = self._tokens / self._documents if self._documents else 1.0
            lengths: Floats = self._lengths.values
            self._norms = (K1 * (1 - B + B * lengths / max(mean, 1.0))).astype(np.float32)
        return self._norms


def _segment(terms: npt.NDArray[np.uint32], rows: npt.NDArray[np.int32], counts: npt.NDArray[np.uint8]) -> _Segment:
    order = np.argsort(terms, kind="stable")
    terms = terms[order]
    distinct, starts = np.unique(terms, return_index=True)
    return _Segment(distinct, np.append(starts, len(terms)), rows[order], counts[order])


def _merge(first: _Segment, second: _Segment) -> _Segment:
    terms = [np.repeat(part.terms, np.diff(part.starts)) for part in (first, second)]
    rows = np.concatenate((first.rows, second.rows))
    return _segment(np.concatenate(terms), rows, np.concatenate((first.counts, second.counts)))
