"""Okapi BM25 over one partition, as a fold of the rows' terms: over whole rows, and over the pieces of long ones.

Postings name pieces; they lie in a few sorted segments that are merged as they grow, so that a new row costs microseconds
and a query one pass over the postings of its words. Statistics are the partition's own: how rare a word is for Ana says
nothing about Ben, and must not leak from him.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Column, Floats

K1 = 1.2
B = 0.75

_RECORD = np.dtype([("term", "<u4"), ("count", "u1")])  # as text.RECORD packs it


@dataclass(frozen=True, slots=True)
class _Segment:
    terms: npt.NDArray[np.uint32]  # distinct, sorted
    starts: npt.NDArray[np.int64]  # postings of terms[i] are [starts[i], starts[i + 1])
    pieces: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint8]

    def postings(self, term: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        at = int(np.searchsorted(self.terms, np.uint32(term)))
        if at == len(self.terms) or self.terms[at] != term:
            return self.pieces[:0], self.counts[:0]
        here = slice(self.starts[at], self.starts[at + 1])
        return self.pieces[here], self.counts[here]


@dataclass(frozen=True, slots=True)
class Matches:
    """How a query's words meet the rows.

    Attributes:
        rows: BM25 of every row, shape (size,), float32; 0 where no word matches.
        pieces: the best BM25 of any piece of the row; the same array where every row is one piece.
        held: for each term, the rows that hold it (sorted).
        idf: the weight of each term; of an absent one, the most a term can weigh.
    """

    rows: Floats
    pieces: Floats
    held: tuple[npt.NDArray[np.int32], ...]
    idf: Floats


class LexicalIndex:
    """Postings of one partition; rows are the partition's own numbers, pieces count through."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._owner = Column(np.int32)  # of each piece, its row
        self._piece_lengths = Column(np.float32)
        self._row_lengths = Column(np.float32)
        self._flags = Column(np.uint8)
        self._documents = 0
        self._tokens = 0.0
        self._norms: tuple[Floats, Floats] | None = None
        self._whole = True  # every row is one piece

    def append(self, rows: Sequence[int], folds: Sequence[bytes]) -> None:
        """Add rows by their lexical folds (``text.fold_terms``); a row is added once, after all smaller ones."""
        if not rows:
            return
        sizes = np.fromiter((len(fold) for fold in folds), np.int64, len(folds)) // _RECORD.itemsize
        records = np.frombuffer(b"".join(folds), _RECORD)
        owner = np.repeat(np.asarray(rows, np.int32), sizes)
        head = records["count"] == 0
        lengths = (records["term"][head] & 0xFFFFFF).astype(np.float32)
        owners = owner[head]
        first = len(self._owner.values)
        numbers = np.arange(first, first + len(owners))
        self._owner.put(numbers, owners)
        self._piece_lengths.put(numbers, lengths)
        self._row_lengths.resize(int(rows[-1]) + 1)
        self._flags.resize(int(rows[-1]) + 1)
        np.add.at(self._row_lengths.values, owners, lengths)
        self._flags.values[owners] = (records["term"][head] >> 24).astype(np.uint8)
        self._documents += len(rows)
        self._tokens += float(lengths.sum())
        self._norms = None
        self._whole = self._whole and len(owners) == len(rows)
        piece = (first - 1 + np.cumsum(head)).astype(np.int32)
        body = ~head
        self._segments.append(_segment(records["term"][body], piece[body], records["count"][body]))
        while len(self._segments) > 1 and 2 * len(self._segments[-1].pieces) >= len(self._segments[-2].pieces):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(_merge(before, last))

    def match(self, terms: Sequence[int], size: int) -> Matches:
        """BM25 of every row, and of every row's best piece, for a query's distinct terms."""
        rows = np.zeros(size, np.float32)
        pieces = rows if self._whole else np.zeros(len(self._owner.values), np.float32)
        row_norms, piece_norms = self._norm(size)
        owner: npt.NDArray[np.int32] = self._owner.values
        held: list[npt.NDArray[np.int32]] = []
        weights = np.zeros(len(terms), np.float32)
        for at, term in enumerate(terms):
            parts = [segment.postings(term) for segment in self._segments]
            own = [_by_row(owner[where], counts) for where, counts in parts]
            held.append(np.concatenate([one for one, _ in own] or [np.empty(0, np.int32)]))
            weights[at] = self._idf(len(held[-1]))
            for (where, counts), (one, total) in zip(parts, own, strict=True):
                # Within a segment a row stands once under a term, so += by index is safe.
                rows[one] += weights[at] * (K1 + 1) * total / (total + row_norms[one])
                if not self._whole:
                    pieces[where] += weights[at] * (K1 + 1) * counts / (counts + piece_norms[where])
        return Matches(rows, rows if self._whole else self._best(pieces, size), tuple(held), weights)

    def scores(self, terms: Sequence[int], size: int) -> Floats:
        """BM25 of every row: shape (size,)."""
        return self.match(terms, size).rows

    @property
    def flags(self) -> npt.NDArray[np.uint8]:
        """The signs of each row."""
        found: npt.NDArray[np.uint8] = self._flags.values
        return found

    @property
    def lengths(self) -> Floats:
        """The number of tokens of each row."""
        found: Floats = self._row_lengths.values
        return found

    def _idf(self, df: int) -> float:
        return float(np.log1p((self._documents - df + 0.5) / (df + 0.5)))

    def _best(self, pieces: Floats, size: int) -> Floats:
        """The best piece of each row: pieces of a row lie together."""
        found = np.zeros(size, np.float32)
        hit = np.flatnonzero(pieces)
        if len(hit):
            owners = self._owner.values[hit]
            starts = np.flatnonzero(np.diff(owners, prepend=-1))
            found[owners[starts]] = np.maximum.reduceat(pieces[hit], starts)
        return found

    def _norm(self, size: int) -> tuple[Floats, Floats]:
        if self._norms is None or len(self._norms[0]) < size:
            self._row_lengths.resize(size)
            self._flags.resize(size)
            lengths = self._row_lengths.values, self._piece_lengths.values
            counts = max(self._documents, 1), max(len(lengths[1]), 1)
            norms = [
                (K1 * (1 - B + B * some / max(self._tokens / count, 1.0))).astype(np.float32)
                for some, count in zip(lengths, counts, strict=True)
            ]
            self._norms = norms[0], norms[1]
        return self._norms


def _by_row(owners: npt.NDArray[np.int32], counts: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], Floats]:
    """Rows with the sum of their pieces' counts; ``owners`` is sorted."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(starts) == len(owners):
        return owners, counts.astype(np.float32)
    return owners[starts], np.add.reduceat(counts.astype(np.float32), starts)


def _segment(terms: npt.NDArray[np.uint32], pieces: npt.NDArray[np.int32], counts: npt.NDArray[np.uint8]) -> _Segment:
    order = np.argsort(terms, kind="stable")
    terms = terms[order]
    distinct, starts = np.unique(terms, return_index=True)
    return _Segment(distinct, np.append(starts, len(terms)), pieces[order], counts[order])


def _merge(first: _Segment, second: _Segment) -> _Segment:
    terms = [np.repeat(part.terms, np.diff(part.starts)) for part in (first, second)]
    pieces = np.concatenate((first.pieces, second.pieces))
    return _segment(np.concatenate(terms), pieces, np.concatenate((first.counts, second.counts)))
