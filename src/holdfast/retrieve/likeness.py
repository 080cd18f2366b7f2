"""How alike a task and a record are: by meaning, by words, or by both (the rankers of EvolveLab, arXiv 2512.18746).

Each finds its best records by one pass over the index, and reads none that it does not return. Words are weighed as SMART's
``lnc.ltc``-like cosine does with natural term counts: by their rarity among what may be seen on the query's side alone, so that
what a record's words weigh stays the same when others come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.retrieve.arrays import Floats, best_of, distinct
from holdfast.retrieve.base import Near, Scores
from holdfast.retrieve.fusion import CHANNELS
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.partition import Mask, Partition, View
from holdfast.retrieve.query import Query, verbatim
from holdfast.retrieve.search import MOSTLY, Ints, Ranked, Ranking
from holdfast.retrieve.text import content, term, tokens
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.SEMANTIC, Retrieval.LEXICAL, Retrieval.HYBRID),
    subject=(Subject.AGENT,),
)

Doubles = npt.NDArray[np.float64]


def near(partition: Partition, query: Query, vector: Floats | None, view: View, k: int) -> Ranked:
    """The k rows of a partition most like a query: by cosine, and those without a vector by the share of its words they hold."""
    rows, likeness = _near(partition, query, vector, partition.visible(view), k)
    best = best_of(np.arange(len(rows)), likeness, k)
    return _ranked(rows[best], likeness[best], likeness[best])


def _near(partition: Partition, query: Query, vector: Floats | None, shown: Mask, k: int) -> tuple[Ints, Floats]:
    """Rows among which these are, each once, and how like they are: the k nearest, and beside them what has no vector yet."""
    rows, likeness = np.empty(0, np.int64), np.empty(0, np.float32)
    waiting = shown
    vectors = partition.vectors if vector is not None else None
    if vectors is not None and vector is not None:
        mostly = MOSTLY * np.count_nonzero(shown) >= partition.size
        everything = vectors.every_cosine(vector, partition.size) if mostly else None
        rows, likeness = vectors.search(vector, k, shown, everything)
        waiting = shown & ~vectors.present[: len(shown)]
    terms = [term(token) for token in query.tokens]
    if terms and waiting.any():
        spoken = np.flatnonzero(waiting)  # mostly what the last runs left: few enough to be compared one by one
        if vectors is None or len(spoken) > max(k, _SOME):
            spoken = partition.lexical.best(terms, k, waiting)
        held = _held(partition, terms, spoken)
        rows = np.concatenate([rows, spoken[held > 0]])
        likeness = np.concatenate([likeness, held[held > 0]])
    return rows, likeness


def by_words(share: float, partition: Partition, query: Query, vector: Floats | None, view: View, k: int) -> Ranked:
    """The k best rows by ``share`` of the likeness of their words and the rest of that of their meaning; this is ``relevance``."""
    shown = partition.visible(view)
    alike, spoken = partition.lexical.alike(Counter(map(term, tokens(query.text))), shown)
    rows: npt.NDArray[Any]
    vectors = partition.vectors if vector is not None else None
    nearest, likeness = np.empty(0, np.int64), np.empty(0, np.float32)
    if share == 1:
        rows = _first(spoken, alike, k)
    elif vectors is None or vectors.exact:
        rows = np.flatnonzero(shown)
    else:  # more than can be compared one by one: the nearest, and those that share most words
        some = max(4 * k, _SOME)
        nearest, likeness = _near(partition, query, vector, shown, some)
        rows = distinct(np.concatenate([nearest, _first(spoken, alike, some)]))
    meaning = np.zeros(len(rows), np.float64)
    unknown = np.ones(len(rows), np.bool_)
    found = np.searchsorted(rows, nearest)
    meaning[found], unknown[found] = likeness, False
    if vectors is not None and vector is not None:
        mostly = MOSTLY * len(rows) >= partition.size
        everything = vectors.every_cosine(vector, partition.size) if mostly else None
        rest = rows[unknown]
        meaning[unknown] = vectors.cosines(vector, rest) if everything is None else everything[rest]
        unknown &= ~vectors.present[rows]
    if share < 1 and unknown.any():
        meaning[unknown] = _held(partition, [term(token) for token in query.tokens], rows[unknown])
    scores = share * alike[rows] + (1 - share) * meaning
    first = _first(np.arange(len(rows)), scores, k)  # to sort all of them takes longer than to compare them
    best = first[np.lexsort((rows[first], -meaning[first], -scores[first]))][:k]
    return _ranked(rows[best], scores[best], meaning[best])


def by_overlap(partition: Partition, query: Query, vector: Floats | None, view: View, k: int) -> Ranked:
    """The k best rows by how many different words of the query they hold, as a share; of equals the nearer ones."""
    shown = partition.visible(view)
    asked = {term(token) for token in tokens(query.text)}
    here, held = partition.lexical.most_held(asked, k, shown)
    vectors = partition.vectors if vector is not None else None
    meaning = np.zeros(len(here), np.float32)
    if vectors is not None and vector is not None:
        meaning = vectors.cosines(vector, here)
    best = np.lexsort((here, -meaning, -held))[:k]
    return _ranked(here[best], held[best].astype(np.float64) / max(len(asked), 1), meaning[best])


def words_first(partition: Partition, query: Query, _vector: Floats | None, view: View, k: int) -> Ranked:
    """All rows up to k: by the likeness of their words, and those that share none after them, the newest first."""
    shown = partition.visible(view)
    alike, spoken = partition.lexical.alike(Counter(map(term, tokens(query.text))), shown)
    rows = _first(spoken, alike, k)
    best = rows[np.lexsort((-rows, -alike[rows]))][:k]
    if len(best) < k:  # the others are in order already
        best = np.concatenate((best, np.flatnonzero(shown & (alike == 0))[len(best) - k :][::-1]))
    return _ranked(best, alike[best], alike[best])


def newest(partition: Partition, _query: Query, _vector: Floats | None, view: View, k: int) -> Ranked:
    """The k newest rows, whatever they say: for who asks whether there are any."""
    rows = np.flatnonzero(partition.visible(view))[-k:][::-1]
    none = np.zeros(len(rows), np.float32)
    return _ranked(rows, none, none)


_SOME = 200  # rows that are compared at least, where not all are

ALIKE = Ranking(verbatim, near)
"""What is most like a text in meaning, whatever it answers."""

OVERLAP = Ranking(verbatim, by_overlap)


def _unspoken(text: str, _authors: Collection[str]) -> Query:
    """A text of which a ranking looks at the words alone, if at any: it is not embedded."""
    return Query(text, "", "", frozenset(), (), (), (), frozenset())


ANY = Ranking(_unspoken, newest)
"""Whether there is anything: nothing is compared, nor embedded."""

ALL = Ranking(_unspoken, words_first)
"""As many as are asked for, what shares no word too: where somebody is to choose from all, as far as they can be shown."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """By the cosine of their vectors."""

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The k nearest."""
        return near(query, kinds, k, ALIKE)

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """The ``relevance`` of each, shape (len(candidates),), in [-1, 1]."""
        return np.asarray([hit.relevance for hit in candidates], np.float64)


@dataclass(frozen=True, slots=True)
class Mixed:
    """By ``words`` of their words' likeness and the rest of their meaning's. Raises InputError."""

    words: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.words <= 1.0:
            raise InputError(f"the share of words lies between 0 and 1, not {self.words}")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The k best."""
        return near(query, kinds, k, Ranking(verbatim, partial(by_words, self.words)))

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [-1, 1]."""
        return _scores(candidates)


@dataclass(frozen=True, slots=True)
class Words:
    """By the cosine of their words, the rare ones weighing more."""

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The k best; nothing that shares no word."""
        return near(query, kinds, k, Ranking(verbatim, partial(by_words, 1.0)))

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [0, 1]."""
        return _scores(candidates)


@dataclass(frozen=True, slots=True)
class Overlap:
    """By how many different words of the query they hold, as a share of these."""

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The k best; nothing that shares no word."""
        return near(query, kinds, k, OVERLAP)

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [0, 1]."""
        return _scores(candidates)


def _scores(candidates: Sequence[Hit]) -> Scores:
    """What the index gave: a score of words is over all that may be seen, and not over the candidates."""
    return np.asarray([hit.score for hit in candidates], np.float64)


Counted = tuple[Mapping[str, int], float]
"""How often each word stands in a text, and the length of that vector."""


def counted(texts: Iterable[str]) -> Counted:
    """What ``compared`` looks at of a text that is given in pieces, of which other texts may have some too."""
    texts = tuple(texts)
    count = Counter(chain.from_iterable(map(_content, texts))) or Counter(tokens(" ".join(texts)))  # stop words alone
    return count, math.hypot(*count.values())


_content = lru_cache(maxsize=16_384)(content)
forgotten_with(_content.cache_clear)


def compared(query: str, texts: Sequence[Counted]) -> Scores:
    """The cosine of a query's words and those of each text, weighed likewise, where no index has them: shape (len(texts),)."""
    times = Counter(tokens(query))
    shared = [times.keys() & count.keys() for count, _ in texts]  # mostly none, or one
    held = Counter(chain.from_iterable(shared))
    asked = {word: many * (1 + math.log((1 + len(texts)) / (1 + held[word]))) for word, many in times.items()}
    size = math.hypot(*asked.values())
    found: Scores = np.zeros(len(texts), np.float64)
    for at, ((count, length), some) in enumerate(zip(texts, shared, strict=True)):
        if some:  # in one order, whatever a set's is: a sum depends on it
            found[at] = sum(weight * count[word] for word, weight in asked.items() if word in some) / (size * length)
    return found


def _first(rows: npt.NDArray[np.integer], scores: npt.NDArray[Any], k: int) -> npt.NDArray[np.integer]:
    """Those of some rows that may be among the k of the largest scores: equals of the k-th too."""
    if len(rows) <= k:
        return rows
    here = scores[rows]
    found: npt.NDArray[np.integer] = rows[here >= np.partition(here, len(rows) - k)[len(rows) - k]]
    return found


def _held(partition: Partition, terms: Sequence[int], rows: npt.NDArray[np.integer]) -> Floats:
    """The share of a query's words that each row holds, the rare ones counting more."""
    weights = partition.lexical.weights(terms)
    found: Floats = weights @ (partition.lexical.counts(terms, rows) > 0) / max(float(weights.sum()), 1e-9)
    return found.astype(np.float32)


def _ranked(rows: npt.NDArray[np.integer], scores: npt.ArrayLike, relevance: npt.ArrayLike) -> Ranked:
    none = np.zeros((len(rows), len(CHANNELS)), np.float32)
    return Ranked(rows.astype(np.int64), np.asarray(scores, np.float32), np.asarray(relevance, np.float32), none)
