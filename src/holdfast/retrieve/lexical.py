"""Okapi BM25 over one partition, as a fold of the rows' terms.

Postings lie in a few sorted segments that are merged as they grow, so that a new row costs microseconds and a query one
pass over the postings of its words. Statistics are the partition's own: how rare a word is for Ana says nothing about Ben,
and must not leak from him.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.retrieve.arrays import Column, Floats, Rows, best_of, in_order
from holdfast.retrieve.loops import Loops, Rows32, Shorts, suited
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.LEXICAL,),
    subject=(Subject.USER, Subject.WORLD),
)

K1, B = 1.5, 0.75
"""BM25 of the first stage, which chooses the candidates; the fused score has its own (``fusion``)."""

_KNOWN_WORDS = 4_096  # looked up and kept until the next row comes
_MANY_ROWS = 50_000  # from so many rows on, a word that stands in one of _COMMON is counted row by row ...
_COMMON = 16
_COMMON_WORDS = 64  # ... for so many words at most

RECORD = np.dtype([("term", "<u4"), ("count", "u1")])
"""A record of a fold, as ``text.RECORD`` packs it."""

Counts = npt.NDArray[np.uint8]


_NOWHERE: Rows32 = np.empty(0, np.int32)
_NEVER: Counts = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class _Segment:
    terms: npt.NDArray[np.uint32]  # distinct, sorted
    starts: npt.NDArray[np.int64]  # postings of terms[i] are [starts[i], starts[i + 1])
    rows: Rows32  # sorted under each term
    counts: Counts

    def postings(self, terms: npt.NDArray[np.uint32]) -> Iterator[tuple[int, tuple[Rows32, Counts]]]:
        """Of those of some terms that stand here: which one it is, and where it stands."""
        places = self.terms.searchsorted(terms)
        places[places == len(self.terms)] = 0  # behind the last: another one stands at the first, or none
        here = np.flatnonzero(self.terms[places] == terms) if len(self.terms) else places[:0]
        places = places[here]
        for which, start, end in zip(
            here.tolist(), self.starts[places].tolist(), self.starts[places + 1].tolist(), strict=True
        ):
            yield which, (self.rows[start:end], self.counts[start:end])


class _Word:
    """A word as a search needs it: how rare it is, and where it stands."""

    __slots__ = ("counted", "idf", "postings", "rows", "weight")

    def __init__(self, postings: list[tuple[Rows32, Counts]], documents: int) -> None:
        self.postings = postings
        self.rows = sum(len(rows) for rows, _ in postings)
        self.idf = float(np.log1p((documents - self.rows + 0.5) / (self.rows + 0.5)))
        self.weight = np.float32(self.idf * (K1 + 1))  # a row gains less than this
        self.counted: Counts | None = None


class LexicalIndex:
    """Postings of one partition; rows are the partition's own numbers."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._lengths = Column(np.float32)
        self._flags = Column(np.uint8)
        self._sizes: Column | None = None  # most partitions are never asked for them
        self._documents = 0
        self._tokens = 0.0
        self._norms: Floats | None = None
        self._scratch: tuple[Floats, Rows32] | None = None  # zeros, and room for rows
        self._allowed: tuple[npt.NDArray[np.bool_], bool] | None = None
        self._words: dict[int, _Word] = {}
        self._common = 0

    def append(self, rows: Sequence[int], folds: Sequence[bytes]) -> None:
        """Add rows by their lexical folds (``text.fold_terms``); a row is added once, the rows of a call in order."""
        if not rows:
            return
        sizes = np.fromiter(map(len, folds), np.int64, len(folds))
        if (sizes == 0).any() or (sizes % RECORD.itemsize).any():
            raise ValueError("a row's words are cut short")
        sizes //= RECORD.itemsize
        records = np.frombuffer(b"".join(folds), RECORD)
        numbers = np.asarray(rows, np.int64)
        heads = np.cumsum(sizes) - sizes
        lengths = (records["term"][heads] & 0xFFFFFF).astype(np.float32)
        size = max(len(self._lengths.values), int(numbers.max()) + 1)
        self._lengths.fill(numbers, size, lengths)
        self._flags.fill(numbers, size, records["term"][heads] >> 24)
        self._documents += len(numbers)
        self._tokens += float(lengths.sum())
        self._norms = None
        self._forget_words()
        body = np.ones(len(records), np.bool_)
        body[heads] = False
        if self._sizes is not None:
            squares = np.where(body, records["count"].astype(np.float32) ** 2, 0)
            self._sizes.fill(numbers, size, np.sqrt(np.add.reduceat(squares, heads)))
        owner = np.repeat(numbers.astype(np.int32), sizes)
        self._segments.append(_segment(records["term"][body], owner[body], records["count"][body]))
        while len(self._segments) > 1 and 2 * len(self._segments[-1].rows) >= len(self._segments[-2].rows):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(_merge(before, last))

    def resize(self, size: int) -> None:
        """Make room for rows up to ``size``, be it that the last of them have no words."""
        self._lengths.resize(size)
        self._flags.resize(size)
        if self._sizes is not None:
            self._sizes.resize(size)

    def idf(self, term: int) -> float:
        """ln(1 + (N - df + 0.5) / (df + 0.5)): never negative, and the most for a word that nothing holds."""
        return self._word(term).idf

    def weights(self, terms: Sequence[int]) -> Floats:
        """The ``idf`` of each of some terms, shape (len(terms),)."""
        return np.asarray([word.idf for word in self._looked_up(terms)], np.float32)

    def scores(self, terms: Sequence[int], size: int) -> Floats:
        """BM25 of every row for a query's distinct terms; shape (size,), 0 where no word matches."""
        found, seen = np.zeros(size, np.float32), np.empty(size + 1, np.int32)
        norms = self._norm(size)
        held = 0
        for word in self._looked_up(terms):
            for rows, counts in word.postings:
                held = self._loops.add_gains(found, seen, held, rows, counts, norms, word.weight)
        return found

    def best(self, terms: Sequence[int], k: int, allowed: npt.NDArray[np.bool_]) -> Rows:
        """The k allowed rows of the highest BM25 above 0 for a query's distinct terms, best first; ties by row.

        The same rows as from ``scores``, without a pass over the common words' postings where the rare words settle it
        (MaxScore, Turtle and Flood 1995): a row that holds only words of the rest cannot beat the k-th best so far.
        ``allowed`` has shape (size,).
        """
        loops, norms = self._loops, self._norm(len(allowed))
        found, seen = scratch = self._scratched(len(allowed))
        rarest = sorted(self._looked_up(terms), key=lambda word: word.idf, reverse=True)
        bounds = [0.0]  # of each word on: no row gains more from it and the rest
        for word in reversed(rarest):
            bounds.insert(0, bounds[0] + float(word.weight))
        least = 0.0  # at least k rows score this much
        everything = self._all(allowed)
        done = held = 0
        while done < len(rarest) and bounds[done] >= least:
            word = rarest[done]
            for where, counts in word.postings:
                if not everything:
                    here = allowed[where]
                    where, counts = where[here], counts[here]
                held = loops.add_gains(found, seen, held, where, counts, norms, word.weight)
            done += 1
            if held >= k:
                least = loops.reached(found, seen[:held], k, bounds[0] - bounds[done])
        rows, scores = loops.taken(found, seen[:held], least - bounds[done])
        self._scratch = scratch
        if done < len(rarest):  # the rest is looked up in these rows alone, in order, as the postings are
            rows, scores = in_order(rows, scores)
        for at in range(done, len(rarest)):
            if at > done:
                hopeful = scores >= least - bounds[at]
                rows, scores = rows[hopeful], scores[hopeful]
            counted = np.zeros(len(rows), np.float32)
            self._count(rarest[at], rows, counted)
            scores += rarest[at].weight * counted / (counted + norms[rows])
        return best_of(rows, scores, k)

    def most_held(self, terms: Collection[int], k: int, allowed: npt.NDArray[np.bool_]) -> tuple[Rows32, Shorts]:
        """The k allowed rows that hold most of some distinct terms, and all that hold as many as the last of them; with how many.

        In the order of their numbers. As ``best`` does, without a pass over common words where the rare ones settle it.
        """
        loops = self._loops
        found, seen = np.zeros(len(allowed), np.uint16), np.empty(len(allowed) + 1, np.int32)
        rarest = sorted(self._looked_up(terms), key=lambda word: word.rows)
        done = size = 0
        for word in rarest:
            left = len(rarest) - done
            # No row holds more than the words that are done: until these are more than the rest, nothing can be settled.
            if size >= k and left < done and np.count_nonzero(found[seen[:size]] > left) >= k:
                break
            for where, _ in word.postings:
                size = loops.add_ones(found, seen, size, where, allowed)
            done += 1
        rows = seen[:size]
        held = found[rows]
        if done < len(rarest):  # k rows hold more than what is left
            enough = held >= _kth(held, k) - (len(rarest) - done)
        elif size > k:
            enough = held >= _kth(held, k)
        else:
            enough = held > 0
        rows = np.sort(rows[enough])  # the rest is looked up in these rows alone, in order, as the postings are
        held = found[rows]
        for at in range(done, len(rarest)):
            counted = np.zeros(len(rows), np.float32)
            self._count(rarest[at], rows, counted)
            held += counted > 0
        if len(rows) > k:
            enough = held >= _kth(held, k)
            rows, held = rows[enough], held[enough]
        return rows, held

    def alike(self, asked: Mapping[int, int], allowed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], Rows32]:
        """The cosine of each allowed row's counts with a query's (by term), whose words weigh 1 + ln((1 + N) / (1 + df)) each.

        N and df are of the allowed rows, so that others have no part in it. Shape (len(allowed),), 0 where no word matches; and the
        rows where one does, in no order.
        """
        found, seen = np.zeros(len(allowed), np.float64), np.empty(len(allowed) + 1, np.int32)
        words = self._looked_up(asked)
        ends = np.cumsum([word.rows for word in words], dtype=np.int64)
        # Of all words at once: most of them stand in few rows, and to begin with each takes longer than to count these.
        rows, counts = map(
            np.concatenate, zip((_NOWHERE, _NEVER), *chain(*(word.postings for word in words)), strict=True)
        )
        many = np.diff(ends, prepend=0) if self._all(allowed) else self._loops.shown_of(rows, ends, allowed)
        times = np.fromiter(asked.values(), np.int64, len(asked))
        weights = times * (1 + np.log((1 + np.count_nonzero(allowed)) / (1 + many)))
        size = self._loops.add_counts(found, seen, rows, counts, ends, allowed, weights)
        some = seen[:size]
        found[some] /= np.linalg.norm(weights) * self._norms_of_counts()[some]
        return found, some

    def postings(self, term: int) -> list[tuple[Rows32, Counts]]:
        """The rows that hold a term, sorted, with how often, in pieces."""
        return self._word(term).postings

    def rows(self, term: int) -> Rows:
        """The rows that hold a term."""
        return np.concatenate([rows for rows, _ in self._word(term).postings] or [_NOWHERE]).astype(np.int64)

    def counts(self, terms: Sequence[int], rows: npt.NDArray[np.integer]) -> Floats:
        """How often each term stands in each of some rows; shape (terms, rows). A row of -1 holds nothing."""
        found = np.zeros((len(terms), len(rows)), np.float32)
        for word, out in zip(self._looked_up(terms), found, strict=True):
            self._count(word, rows, out)
        return found

    @property
    def _loops(self) -> Loops:
        return suited(self._documents)

    def _word(self, term: int) -> _Word:
        (found,) = self._looked_up((term,))
        return found

    def _looked_up(self, terms: Iterable[int]) -> list[_Word]:
        """Some words, of which those that nobody has asked for are looked for together: a segment is asked once for all."""
        terms = list(terms)
        known = self._words
        if fresh := [term for term in dict.fromkeys(terms) if term not in known]:
            if len(known) + len(fresh) > _KNOWN_WORDS:
                self._forget_words()
                fresh = list(dict.fromkeys(terms))
            wanted = np.asarray(fresh, np.uint32)
            postings: list[list[tuple[Rows32, Counts]]] = [[] for _ in fresh]
            for segment in self._segments:
                for which, some in segment.postings(wanted):
                    postings[which].append(some)
            for term, held in zip(fresh, postings, strict=True):
                known[term] = _Word(held, self._documents)
        return [known[term] for term in terms]

    def _forget_words(self) -> None:
        self._words.clear()
        self._common = 0

    def _all(self, allowed: npt.NDArray[np.bool_]) -> bool:
        """Whether every row is allowed: mostly asked of the mask of the search before, and no mask is ever changed."""
        known = self._allowed
        if known is None or known[0] is not allowed:
            known = self._allowed = allowed, bool(allowed.all())
        return known[1]

    def _count(self, word: _Word, rows: npt.NDArray[np.integer], out: Floats) -> None:
        """Set ``out``, all zeros, to how often a word stands in each row."""
        if word.rows * _COMMON > self._documents > _MANY_ROWS and self._count_by_row(word):
            assert word.counted is not None
            out[:] = word.counted[np.minimum(rows, len(word.counted) - 1)]  # nothing stands in the last
        else:
            for held, counts in word.postings:
                self._loops.counts_at(held, counts, rows, out)

    def _count_by_row(self, word: _Word) -> bool:
        """Where rows are many, the steps of a search in a common word's postings miss the cache, each of them."""
        if word.counted is None and self._common < _COMMON_WORDS:
            word.counted = np.zeros(len(self._lengths.values) + 1, np.uint8)  # one more: row -1
            for rows, counts in word.postings:
                word.counted[rows] = counts
            self._common += 1
        return word.counted is not None

    @property
    def mean_length(self) -> float:
        """The mean number of tokens of a row, at least 1."""
        return max(self._tokens / self._documents, 1.0) if self._documents else 1.0

    @property
    def flags(self) -> npt.NDArray[np.uint8]:
        """The signs of each row (``signs.Sign``)."""
        found: npt.NDArray[np.uint8] = self._flags.values
        return found

    @property
    def lengths(self) -> Floats:
        """The number of tokens of each row."""
        found: Floats = self._lengths.values
        return found

    def _norms_of_counts(self) -> Floats:
        """The length of each row's vector of counts."""
        if self._sizes is None:
            size = len(self._lengths.values)
            squares = np.zeros(size)
            for segment in self._segments:
                squares += np.bincount(segment.rows, segment.counts.astype(np.float64) ** 2, size)
            self._sizes = Column(np.float32)
            self._sizes.put(np.arange(size), np.sqrt(squares))
        found: Floats = self._sizes.values
        return found

    def _scratched(self, size: int) -> tuple[Floats, Rows32]:
        """Zeros, and room for rows; whoever has made them zeros again gives them back."""
        scratch, self._scratch = self._scratch, None  # whoever comes meanwhile makes another
        if scratch is None or len(scratch[0]) != size:
            scratch = np.zeros(size, np.float32), np.empty(size + 1, np.int32)  # the loops write one place beyond
        return scratch

    def _norm(self, size: int) -> Floats:
        if self._norms is None or len(self._norms) < size:
            self.resize(size)
            self._norms = (K1 * (1 - B + B * self._lengths.values / self.mean_length)).astype(np.float32)
        return self._norms


def _kth(held: Shorts, k: int) -> int:
    """What the k-th of the largest of some small numbers is; there are as many."""
    many = np.bincount(held)
    return len(many) - 1 - int(np.searchsorted(np.cumsum(many[::-1]), k))


def _segment(terms: npt.NDArray[np.uint32], rows: Rows32, counts: Counts, ordered: bool = True) -> _Segment:
    """``ordered``: the rows of each term are in order already, so that a stable sort by term keeps them so."""
    order = np.argsort(terms, kind="stable") if ordered else np.lexsort((rows, terms))
    terms = terms[order]
    first = np.ones(len(terms) + 1, np.bool_)  # and the end
    np.not_equal(terms[1:], terms[:-1], out=first[1:-1])
    starts = np.flatnonzero(first)
    return _Segment(terms[starts[:-1]], starts, rows[order], counts[order])


def _merge(first: _Segment, second: _Segment) -> _Segment:
    terms = [np.repeat(part.terms, np.diff(part.starts)) for part in (first, second)]
    rows = np.concatenate((first.rows, second.rows))
    # Names and dates come when the queue gets to them, so a later segment may hold earlier rows.
    ordered = not len(first.rows) or not len(second.rows) or bool(first.rows.max() < second.rows.min())
    return _segment(np.concatenate(terms), rows, np.concatenate((first.counts, second.counts)), ordered)
