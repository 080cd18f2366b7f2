"""One search: a pool of candidates from every channel, their features, one fused score, hits that explain themselves."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from holdfast.cube import Scope
from holdfast.encode.base import Embedder
from holdfast.errors import HoldfastError
from holdfast.retrieve.arrays import Floats, Rows, top
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.partition import Partition, View
from holdfast.retrieve.text import terms
from holdfast.store.schema import PARTITION_BITS
from holdfast.store.sqlite import SqliteStore

POOL = 200
CACHED_ROWS = 2_000_000
"""How many rows of loaded partitions a process keeps; beyond that the least recently used are dropped and reloaded."""


class Recall:
    """Searches a store; holds the partitions it has loaded and the queries it has embedded."""

    def __init__(self, store: SqliteStore, embedder: Embedder | None) -> None:
        self._store = store
        self._embedder = embedder
        self._partitions: OrderedDict[int, Partition] = OrderedDict()
        self._queries: OrderedDict[str, Floats] = OrderedDict()
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def search(
        self, query: str, scope: Scope, view: View, k: int, neighbours: int = 0, *, extra_degraded: tuple[str, ...] = ()
    ) -> Hits:
        """The k best visible rows of a scope for a query."""
        no = self._store.partition(scope)
        degraded = (*extra_degraded, *self.degraded())
        if no is None:
            return Hits(reason=f"nothing was ever remembered for {scope.partition}", degraded=degraded)
        vector = self._embed(query)
        partition = self._partition(no)
        with partition.lock:
            partition.catch_up()
            rows, scores = self._rank(partition, query, vector, view, k)
        found = self._store.by_rids(scope, [no << PARTITION_BITS | int(row) for row in rows])
        hits = []
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            here = found.get(no << PARTITION_BITS | row)
            if here is not None:
                hits.append(Hit(here.cube, score, score, {"lexical": score}))
        reason = "" if hits else "no memory here shares a word or a meaning with the query"
        return Hits(hits, reason=reason, degraded=degraded)

    def degraded(self) -> tuple[str, ...]:
        """What this recall cannot use."""
        return (self._trouble,) if self._trouble else ()

    def _rank(self, partition: Partition, query: str, vector: Floats | None, view: View, k: int) -> tuple[Rows, Floats]:
        shown = partition.visible(view)
        lexical = partition.lexical.scores(terms(query), partition.size) * shown
        rows = top(lexical, POOL)
        scores = lexical[rows] / max(float(lexical[rows].max(initial=0.0)), 1e-9)
        if vector is not None and partition.vectors is not None and partition.model == self._model:
            near, _ = partition.vectors.search(vector, POOL, shown)
            rows = np.union1d(rows, near)
            scores = lexical[rows] / max(float(lexical[rows].max(initial=0.0)), 1e-9)
            scores = scores + partition.vectors.cosines(vector, rows)
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]

    @property
    def _model(self) -> str | None:
        return self._embedder.model if self._embedder is not None else None

    def _embed(self, query: str) -> Floats | None:
        if self._embedder is None:
            return None
        with self._lock:
            if query in self._queries:
                self._queries.move_to_end(query)
                return self._queries[query]
        try:
            vector: Floats = self._embedder.embed([query])[0]
        except HoldfastError as error:
            self._trouble = f"the embedder fails ({error}); search is lexical"
            return None
        self._trouble = None
        with self._lock:
            self._queries[query] = vector
            while len(self._queries) > 1024:
                self._queries.popitem(last=False)
        return vector

    def _partition(self, no: int) -> Partition:
        with self._lock:
            found = self._partitions.get(no)
            if found is None:
                found = self._partitions[no] = Partition(self._store, no)
            self._partitions.move_to_end(no)
            held = sum(partition.size for partition in self._partitions.values())
            while held > CACHED_ROWS and len(self._partitions) > 1:
                _, dropped = self._partitions.popitem(last=False)
                held -= dropped.size
        return found
