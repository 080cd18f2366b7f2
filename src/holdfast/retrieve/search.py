"""One search: a pool of candidates from every channel, their features, one fused score, hits that explain themselves.

Every pass over all rows is one of two: BM25's postings and the vector scan. What costs more runs on the pool only.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, compress
from typing import Protocol

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Form, Scope, from_micros, to_micros
from holdfast.encode.base import Embedder
from holdfast.errors import EmbedderError, HoldfastError
from holdfast.retrieve.arrays import Floats, best_of, distinct, top
from holdfast.retrieve.fusion import (
    CALIBRATION,
    CHANNELS,
    LEXICAL_CALIBRATION,
    LEXICAL_WEIGHTS,
    POOL,
    UNLIKELY,
    WEIGHTS,
    Weights,
    contributions,
    features,
    fuse,
    nearness,
    relevance,
)
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.loops import INSTRUCTION, PREFERENCE
from holdfast.retrieve.partition import Mask, Partition, View
from holdfast.retrieve.pool import ASSISTANT, NAMED, USER, Pool
from holdfast.retrieve.query import Query, Want, analyse
from holdfast.retrieve.resemblance import Likeness, nearest_sessions
from holdfast.retrieve.text import term
from holdfast.store.schema import PARTITION_BITS
from holdfast.store.sql import SqlStore
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(
        Retrieval.ON_REQUEST,
        Retrieval.REWRITE,
        Retrieval.DECOMPOSE,
        Retrieval.HYBRID,
        Retrieval.RERANK,
        Retrieval.FILTER,
    ),
    subject=(Subject.USER, Subject.WORLD),
)

CACHED_ROWS = 2_000_000
"""How many rows of loaded partitions a process keeps; beyond that the least recently used are dropped and reloaded."""

_NOTHING = "nothing here shares a word or a meaning with the query"

MOSTLY = 4
"""Where a view shows one row of so many, or the scope is small, the likeness of all is worked out at once."""

_AT_ONCE = 8  # rows beyond those asked for that are read together

_DAY = 86_400.0
_MAY_BE_DATED = re.compile(
    r"\d|\b(?:ago|today|tonight|yesterday|tomorrow|last|past|next|this|since|until|before|after|week|month|year|spring|"
    r"summer|autumn|fall|winter|other|(?:mon|tues|wednes|thurs|fri|satur|sun)day|jan|feb|mar|apr|may|june?|july?|aug|sep|oct|"
    r"nov|dec)",
    re.IGNORECASE,
)
"""A query without any of these names no time."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best rows of a partition, best first; arrays of shape (k,). ``parts``: what each of ``CHANNELS`` adds (k, channels)."""

    rows: Ints
    scores: Floats
    relevance: Floats
    parts: Floats


class Heard(Protocol):
    """Who chooses among hits."""

    def __call__(self, hits: Iterable[Hit], k: int, *, everyone: bool) -> list[Hit]:
        """K of them; ``everyone``: an account inside is a source like any other."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """Who is heard where some sources have too much to say: ``heard`` chooses k of ``wider`` times as many hits.

    The hits come to it best first, and are read from the store as it takes them. Where it takes all of those, the best of what
    is from inside follow, or, where ``everyone`` is a source, the best of all but the accounts that wrote half or more of what
    was seen.
    """

    wider: int
    heard: Heard
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the best rows are found: ``read`` the query, given who speaks in the scope, and ``rank`` a partition that has caught up.

    ``rank`` is called with the partition, the query, its vector (None: lexical only), what is to be seen, and how many rows.
    ``lent``: who asks only looks at what is found, as in ``rows.to_cube``.
    """

    read: Callable[[str, Collection[str]], Query]
    rank: Callable[[Partition, Query, Floats | None, View, int], Ranked]
    lent: bool = False


class Recall:
    """Searches a store; holds the partitions it has loaded and the queries it has embedded."""

    def __init__(self, store: SqlStore, embedder: Embedder | None) -> None:
        self._store = self._seen = store
        self.embedder = embedder
        self._partitions: OrderedDict[int, Partition] = OrderedDict()
        self._queries: OrderedDict[tuple[str, str], Floats] = OrderedDict()
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def through(self, store: SqlStore) -> Recall:
        """The same partitions and queries, for somebody who sees the store through another."""
        recall = copy(self)
        recall._seen = store
        return recall

    def search(
        self,
        query: str,
        scope: Scope,
        view: View,
        k: int,
        neighbours: int = 0,
        *,
        degraded: Sequence[str] = (),
        hear: Hearing | None = None,
        ranking: Ranking | None = None,
    ) -> Hits:
        """The k best visible rows of a scope for a query, each with up to ``neighbours`` turns before and after it.

        ``hear`` decides which k of more rows are shown, where the k best are not as they should be; ``ranking`` which are best: by
        default ``rank`` of what ``analyse`` reads.
        """
        ranking = ranking or Ranking(analyse, rank)
        no = self._seen.partition(scope)
        if no is None:
            # That nobody ever spoke there is not for everybody to know.
            reason = _NOTHING if view.reach is not None else f"nothing was ever remembered for {scope.partition}"
            return Hits(abstain=True, reason=reason, degraded=(*degraded, *self.degraded(None)))
        partition = self.partition(no)
        for again in (True, False):
            with partition.lock:
                if not partition.watermark:
                    partition.catch_up()
                authors, model = partition.speakers(view), partition.model
            read = ranking.read(query, authors)
            # Outside the lock: an embedder behind a network must not hold up the searches of others.
            embeds = bool(read.spoken) and model is not None and model == self._model
            vector = self.embed(read.spoken, scope.partition) if embeds else None
            # One view of the store: what is ranked is what is read.
            with partition.lock, self._store.connections.reading(scope.tenant):
                partition.catch_up()
                if again and (partition.speakers(view), partition.model) != (authors, model):
                    continue  # somebody has spoken here for the first time: the query may name them
                vector = vector if partition.model == model else None
                wanted = k if hear is None else hear.wider * k
                ranked = self._readable(scope, no, partial(ranking.rank, partition, read, vector, view), wanted)
                rows = ranked.rows.tolist()
                around = {row: _around(partition, row, neighbours, view) for row in rows} if neighbours else {}
                cubes = self._read(no, scope, rows[:k], around, lent=ranking.lent)
            break
        hits = _hits(ranked, 0, k, cubes, around)
        best = max((hit.relevance for hit in hits), default=0.0)
        if hear is not None:
            rest = self._more(no, scope, ranked, k, around)
            apart = self._apart(no, scope, read, vector, view, ranked, wanted, neighbours, hear.everyone, ranking)
            hits = hear.heard(chain(hits, rest, apart), k, everyone=hear.everyone)
        if not hits:
            reason = _NOTHING
        elif best < UNLIKELY:
            reason = f"nothing here is likely to answer: the best hit has a chance of {best:.2f}"
        else:
            reason = ""
        return Hits(hits, abstain=bool(reason), reason=reason, degraded=(*degraded, *self.degraded(model)))

    def _readable(self, scope: Scope, no: int, ranked: Callable[[int], Ranked], wanted: int) -> Ranked:
        """The best rows that the store shows: a view knows of scopes and kinds, and not whom a memory names as its readers."""
        many, found = wanted, ranked(wanted)
        if self._seen is self._store:
            return found
        while True:
            rids = [no << PARTITION_BITS | row for row in found.rows.tolist()]
            shown = self._seen.cubes_at(scope, rids)
            kept = [at for at, rid in enumerate(rids) if rid in shown][:wanted]
            if len(kept) == wanted or len(rids) < many:
                return Ranked(found.rows[kept], found.scores[kept], found.relevance[kept], found.parts[kept])
            many *= 4
            found = ranked(many)

    def _more(
        self, no: int, scope: Scope, ranked: Ranked, first: int, around: Mapping[int, tuple[list[int], list[int]]]
    ) -> Iterator[Hit]:
        """The hits from some rank on. A row never changes: read after the view has ended, it is as ranked, or was erased."""
        for start in range(first, len(ranked.rows), _AT_ONCE):
            cubes = self._read(no, scope, ranked.rows[start : start + _AT_ONCE].tolist(), around)
            yield from _hits(ranked, start, start + _AT_ONCE, cubes, around)

    def _apart(
        self,
        no: int,
        scope: Scope,
        query: Query,
        vector: Floats | None,
        view: View,
        seen: Ranked,
        wanted: int,
        neighbours: int,
        everyone: bool,
        ranking: Ranking,
    ) -> Iterator[Hit]:
        """The best hits of a narrower view that are not among ``wanted`` seen ones, however many others come before them.

        Looked for when the first of them is asked for, which is when the others fill all that was seen.
        """
        if len(seen.rows) < wanted:
            return
        partition = self.partition(no)
        with partition.lock, self._store.connections.reading(scope.tenant):
            partition.catch_up()
            vector = vector if partition.model == self._model else None
            view = replace(view, without=partition.crowding(seen.rows)) if everyone else replace(view, inside=True)
            found = self._readable(scope, no, partial(ranking.rank, partition, query, vector, view), wanted)
            new = ~np.isin(found.rows, seen.rows)
            found = Ranked(found.rows[new], found.scores[new], found.relevance[new], found.parts[new])
            rows = found.rows.tolist() if neighbours else []
            around = {row: _around(partition, row, neighbours, view) for row in rows}
        yield from self._more(no, scope, found, 0, around)

    def _read(
        self,
        no: int,
        scope: Scope,
        rows: Sequence[int],
        around: Mapping[int, tuple[list[int], list[int]]],
        *,
        lent: bool = False,
    ) -> dict[int, Cube]:
        """The cubes in some rows of a partition and in those around them."""
        wanted = {row for at in rows for side in around.get(at, ()) for row in side}.union(rows)
        found = self._seen.cubes_at(scope, [no << PARTITION_BITS | row for row in sorted(wanted)], lent=lent)
        return {rid & ((1 << PARTITION_BITS) - 1): cube for rid, cube in found.items()}

    def tally(self, scope: Scope, view: View, back: int) -> tuple[int, datetime | None]:
        """How many rows of a scope a view shows, and when the ``back``-th newest was recorded; None where there are no more."""
        no = self._seen.partition(scope)
        if no is None:
            return 0, None
        partition = self.partition(no)
        with partition.lock:
            partition.catch_up()
            found = partition.column("known_from")[partition.visible(view)]
        count = len(found)
        return count, from_micros(int(np.partition(found, count - back)[count - back])) if count > back else None

    def changed(self, scope: Scope, view: View, since: datetime) -> list[Cube]:
        """What a view shows of a scope that was recorded or changed since a time, in the order of these changes."""
        no = self._seen.partition(scope)
        if no is None:
            return []
        partition = self.partition(no)
        with partition.lock, self._store.connections.reading(scope.tenant):
            partition.catch_up()
            fresh = partition.visible(view) & (partition.column("known_from") >= to_micros(since))
            rows = np.flatnonzero(fresh).tolist()
            return list(self._read(no, scope, rows, {}).values())

    def page(
        self, scope: Scope, view: View, limit: int, after: tuple[int, int] | None
    ) -> tuple[list[Cube], int, tuple[int, int] | None, tuple[int, int] | None]:
        """What a view shows, the newest first: some cubes, how many there are in all, where the next page begins, and the first
        and last moment (microseconds) at which any was recorded. ``after``: where this page begins."""
        no = self._seen.partition(scope)
        if no is None:
            return [], 0, None, None
        partition = self.partition(no)
        with partition.lock, self._store.connections.reading(scope.tenant):
            partition.catch_up()
            rows = np.flatnonzero(partition.visible(view))
            known = partition.column("known_from")[rows]
            if not len(rows):
                return [], 0, None, None
            count, ends = len(rows), (int(known.min()), int(known.max()))
            if after is not None:
                rest = (known < after[0]) | ((known == after[0]) & (rows < after[1]))
                rows, known = rows[rest], known[rest]
            order = np.lexsort((rows, known))[::-1][: limit + 1]
            some = rows[order[:limit]].tolist()
            cubes = self._read(no, scope, some, {})
            last = order[limit - 1] if len(order) > limit else None
            following = None if last is None else (int(known[last]), int(rows[last]))
            return [cubes[row] for row in some if row in cubes], count, following, ends

    def alike(self, texts: Sequence[str], scope: Scope, view: View, k: int) -> list[Likeness]:
        """The k sessions whose visible rows are most like some texts. Raises EmbedderError where nothing can embed them."""
        if self.embedder is None:
            raise EmbedderError(
                "likeness is a matter of meaning, and this memory has no embedder; see: holdfast status"
            )
        no = self._seen.partition(scope)
        if no is None:
            return []
        vectors = np.asarray(self.embedder.embed(list(texts)), np.float32)
        partition = self.partition(no)
        with partition.lock:
            partition.catch_up()
            if partition.model != self._model:
                raise EmbedderError(
                    f"the store's vectors are of {partition.model or 'no model yet'}, not of {self._model}; call flush, or open "
                    "the store again"
                )
            return nearest_sessions(partition, vectors, partition.visible(view), k)

    def degraded(self, serving: str | None) -> tuple[str, ...]:
        """What this recall cannot use, where the store's vectors are of the model ``serving``."""
        found = (self._trouble,) if self._trouble else ()
        if self._model is None or serving in (None, self._model):
            return found
        return (
            f"the store's vectors are of {serving} by now, so search is lexical here: open the store again",
            *found,
        )

    @property
    def _model(self) -> str | None:
        return self.embedder.model if self.embedder is not None else None

    def embed(self, query: str, whose: str = "") -> Floats | None:
        """A query's vector, from the cache where it was asked before; None without an embedder, or when it fails.

        ``whose``: the partition that asks. From a cache for all, one user could tell by the time what another has asked.
        """
        if self.embedder is None:
            return None
        key = whose, query
        with self._lock:
            if key in self._queries:
                self._queries.move_to_end(key)
                return self._queries[key]
        try:
            vector: Floats = self.embedder.embed([query])[0]
        except HoldfastError as error:
            self._trouble = f"the embedder fails ({error}); search is lexical"
            return None
        self._trouble = None
        with self._lock:
            self._queries[key] = vector
            while len(self._queries) > 1024:
                self._queries.popitem(last=False)
        return vector

    def partition(self, no: int) -> Partition:
        """A partition, loaded on first use; call its ``catch_up`` before reading."""
        with self._lock:
            found = self._partitions.get(no)
            if found is None:
                # Only when one more comes: with thousands of them, the sum would cost more than the search.
                held = sum(partition.size for partition in self._partitions.values())
                while held > CACHED_ROWS and len(self._partitions) > 1:
                    _, dropped = self._partitions.popitem(last=False)
                    held -= dropped.size
                found = self._partitions[no] = Partition(self._store, no)
            self._partitions.move_to_end(no)
        return found


def rank(
    partition: Partition, query: Query, vector: Floats | None, view: View, k: int, weights: Weights | None = None
) -> Ranked:
    """The k best rows of a partition that has caught up. ``vector`` is the embedded ``query.spoken``, None: lexical only."""
    if not partition.size:
        none = np.empty(0, np.float32)
        return Ranked(np.empty(0, np.int64), none, none, np.empty((0, len(CHANNELS)), np.float32))
    shown = partition.visible(view)
    terms = [term(token) for token in query.tokens]
    vectors = partition.vectors if vector is not None else None
    activation = partition.entities.activation(query.names, shown) if query.names else None
    likeness = None
    small = partition.size <= POOL
    if (
        vectors is not None
        and vector is not None
        and vectors.exact
        and (small or MOSTLY * np.count_nonzero(shown) >= partition.size)
    ):
        likeness = vectors.every_cosine(vector, partition.size)
    everything = _count_all(partition, terms) if small else None
    rows = _candidates(partition, query, terms, vector, activation, shown, likeness, everything)
    # What is looked up of a row, of the one before and of the one after is looked up once: mostly they are the same.
    if everything is not None:
        counts, here = everything, rows
        needed = np.arange(partition.size + 1)
        needed[-1] = -1
        before, after = (_beside(partition, side, rows, shown) for side in ("previous", "next"))
    else:
        needed, here, before, after = partition.surroundings(rows, shown)
        counts = partition.lexical.counts(terms, needed)
    cosine = passage = cosine_after = silent = np.zeros(len(rows), np.float32)
    waiting: Mask | None = None
    by_words = True
    if vectors is not None and vector is not None:
        if not vectors.complete:
            waiting = ~vectors.present[rows]
        by_words = waiting is not None and bool(waiting.all())
        if likeness is None:
            asked = np.full(len(needed), -1)  # nothing is asked of a row that is only before another
            asked[here], asked[after] = rows, needed[after]
            cosines = vectors.cosines(vector, asked)
        else:
            cosines = likeness[needed]
        cosine, cosine_after = cosines[here], cosines[after]
        passage = vectors.best_passages(vector, rows, cosine)
        if waiting is not None:
            # A row whose vector is still in the queue is given the benefit of the doubt: what was said a moment ago must not
            # lose to rows that have nothing but a meaning.
            cosine[waiting] = cosine[~waiting].max(initial=0.0)
            passage[waiting] = passage[~waiting].max(initial=0.0)
    spans = _spans(query.text, view)
    lexical = partition.lexical
    pool = Pool(
        rows=needed,
        here=here,
        before=before,
        after=after,
        counts=counts,
        idf=lexical.weights(terms),
        segments=np.asarray([[token in some for token in query.tokens] for some in query.segments], np.bool_).reshape(
            len(query.segments), len(terms)
        ),
        cosine=cosine,
        passage=passage,
        cosine_after=cosine_after,
        entities=activation[rows] if activation is not None else silent,
        time=nearness(partition.column("said")[rows] / (_DAY * 1e6), spans) if spans else silent,
        lengths=lexical.lengths,
        mean_length=lexical.mean_length,
        session=partition.codes("session"),
        author=partition.codes("author"),
        roles=_roles(partition, query, view),
        flags=lexical.flags,
        dated=partition.dated,
    )
    found = features(pool, query.wants, partition.loops)
    fitted = weights or (LEXICAL_WEIGHTS if by_words else WEIGHTS)
    scores = fuse(found, fitted)
    best = best_of(np.arange(len(rows)), scores, k)  # the rows are in order, so ties go by row
    chance = relevance(found, scores, LEXICAL_CALIBRATION if by_words else CALIBRATION, best)
    if not by_words and waiting is not None and waiting.any():
        # Nor must it look unlikely for want of a meaning: by its words alone it may be just what was asked for.
        told = relevance(found, fuse(found, LEXICAL_WEIGHTS), LEXICAL_CALIBRATION, best)
        chance = np.where(waiting[best], np.maximum(chance, told), chance)
    return Ranked(rows[best], scores[best], chance, contributions(found, fitted, best))


def _candidates(
    partition: Partition,
    query: Query,
    terms: Sequence[int],
    vector: Floats | None,
    activation: Floats | None,
    shown: Mask,
    likeness: Floats | None,
    everything: Floats | None,
) -> Ints:
    if everything is not None:  # too few to choose among: whatever has a word or a likeness
        hopeful: Mask = np.logical_or.reduce(everything, axis=0)
        if likeness is not None:
            hopeful |= likeness > 0
        if activation is not None:
            hopeful[:-1] |= activation > 0
        hopeful[:-1] &= shown
        some = np.flatnonzero(hopeful[:-1])
        for side in ("previous", "next"):
            hopeful[_beside(partition, side, some, shown)] = True
        chosen = [np.flatnonzero(hopeful[:-1])]
    else:
        chosen = [partition.lexical.best(terms, POOL, shown)]
        if vector is not None and partition.vectors is not None:
            near, cosines = partition.vectors.search(vector, POOL, shown, likeness)
            chosen.append(near[cosines > 0])
        if activation is not None:
            chosen.append(top(activation, POOL))
        chosen = [partition.surroundings(np.concatenate(chosen), shown)[0][:-1]]
    if Want.REQUEST in query.wants:
        standing = (partition.lexical.flags & (INSTRUCTION | PREFERENCE)) > 0
        chosen.append(np.flatnonzero(standing & shown)[-POOL:])  # the newest, where somebody has laid down very many
    return np.sort(chosen[0]) if len(chosen) == 1 else distinct(np.concatenate(chosen))


def _count_all(partition: Partition, terms: Sequence[int]) -> Floats:
    """How often each term stands in each row of a small scope, shape (terms, size + 1); nothing stands in the last: row -1."""
    counts = np.zeros((len(terms), partition.size + 1), np.float32)
    for at, word in enumerate(terms):
        for rows, some in partition.lexical.postings(word):
            counts[at, rows] = some
    return counts


def _beside(partition: Partition, side: str, rows: Ints, shown: Mask) -> Ints:
    """The turn before or after each row in its session; -1 where there is none, or none that may be seen."""
    beside = partition.neighbours(side)[rows].astype(np.int64)
    beside[~shown[beside]] = -1  # where there is none, -1 takes the last row's mask, and stays -1 either way
    return beside


def _roles(partition: Partition, query: Query, view: View) -> npt.NDArray[np.uint8]:
    """What the author of each number is to a query."""
    labels = partition.labels("author")
    found = np.zeros(len(labels), np.uint8)
    for role, names in (
        (NAMED, query.authors if len(query.authors) == 1 else ()),
        (USER, () if partition.speakers(view) else (None, "user")),
        (ASSISTANT, ("assistant",)),
    ):
        for name in names:
            if name in labels:
                found[labels[name]] |= role
    return found


def _spans(text: str, view: View) -> list[tuple[float, float]]:
    """The times that a query names, in days since 1970; relative ones count from the view's present."""
    if not _MAY_BE_DATED.search(text):
        return []
    from holdfast.encode.dates import find_dates  # a large grammar: compiled when a query may need it

    return [
        (span.first.timestamp() / _DAY, span.last.timestamp() / _DAY)
        for span in find_dates(text, from_micros(view.now if view.asked is None else view.asked))
    ]


def _around(partition: Partition, row: int, count: int, view: View) -> tuple[list[int], list[int]]:
    shown = partition.visible(view)
    sides = []
    for side in ("previous", "next"):
        beside = partition.neighbours(side)
        found: list[int] = []
        at = row
        while len(found) < count and beside[at] >= 0 and shown[beside[at]]:
            at = int(beside[at])
            found.append(at)
        sides.append(found)
    return sides[0][::-1], sides[1]


def _hits(
    ranked: Ranked, first: int, last: int, cubes: dict[int, Cube], around: Mapping[int, tuple[list[int], list[int]]]
) -> list[Hit]:
    """The hits of some ranks, where their rows are there."""
    some = slice(first, last)
    said = ranked.parts[some]
    # Where nothing but a likeness counts, no channel says anything.
    parts = [dict(compress(zip(CHANNELS, part, strict=True), part)) for part in said.tolist()] if said.any() else None
    return [
        Hit(
            cubes[row],
            score,
            chance,
            {} if parts is None else parts[at],
            *(_pick(cubes, side) for side in around.get(row, ())),
        )
        for at, (row, score, chance) in enumerate(
            zip(
                ranked.rows[some].tolist(),
                ranked.scores[some].tolist(),
                ranked.relevance[some].tolist(),
                strict=True,
            )
        )
        if row in cubes
    ]


def _pick(cubes: dict[int, Cube], rows: Sequence[int]) -> tuple[Cube, ...]:
    return tuple(cubes[row] for row in rows if row in cubes)
