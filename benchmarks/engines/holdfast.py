"""Holdfast through its public facade, with an embedder that hands over the given vectors; numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.data import DIMENSION, Batch, Data, Floats, Lookup, Query
from holdfast import Memory, Scope, __version__
from holdfast.cube import to_micros
from holdfast.retrieve import loops
from holdfast.retrieve.partition import View
from holdfast.store.schema import PARTITION_BITS

VERSION = __version__
SETTINGS = "durability full, rules for facts off (encoders=()), numpy only"
MODES = ("hybrid", "dense")


def prepare() -> None:
    """Search by numpy, whatever is installed."""
    loops.fastest = loops.plain


class Given:
    """An embedder whose vectors were made beforehand."""

    model = "given/1"
    dimension = DIMENSION

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors of shape (len(texts), 384)."""
        return self._lookup(texts)


class Engine:
    """One memory a row; a scope is a user, which is a partition of its own."""

    def __init__(self, folder: Path, data: Data, queries: Sequence[Query]) -> None:
        # Without queries it is opened to be loaded: then ``finish`` does what a thread does otherwise.
        self._memory = Memory(
            folder / "store.holdfast", embedder=Given(Lookup(data, queries)), encoders=(), background=bool(queries)
        )

    def load(self, batch: Batch) -> None:
        rows = zip(batch.scopes.tolist(), batch.numbers, batch.texts, strict=True)
        for scope, some in groupby(rows, key=lambda row: row[0]):
            messages = [{"role": "user", "content": text, "id": str(number)} for _, number, text in some]
            self._memory.add(messages, user=str(scope))

    def finish(self) -> None:
        self._memory.flush()

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        self._memory.add({"role": "user", "content": text, "id": str(number)}, user=str(scope))

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        user = "0" if scope is None else str(scope)
        if mode == "dense":
            return self._nearest(vector, self._memory.scope(user=user), k)
        hits = self._memory.search(text, k=k, user=user)
        return [int(hit.cube.data["turn"]) for hit in hits]

    def _nearest(self, vector: Floats, scope: Scope, k: int) -> Sequence[int]:
        """The vector channel alone, which the facade does not offer, to compare it with stores that have no other."""
        store = self._memory.store
        number = store.partition(scope)
        if number is None:
            return []
        partition = self._memory.recall.partition(number)
        with partition.lock:
            partition.catch_up()
            if partition.vectors is None:
                return []
            shown = partition.visible(View(now=to_micros(store.now())))
            rows, _ = partition.vectors.search(vector, k, shown)
        rids = [number << PARTITION_BITS | row for row in rows.tolist()]
        found = store.cubes_at(scope, rids)
        return [int(found[rid].data["turn"]) for rid in rids if rid in found]

    def settle(self) -> None:
        self._memory.flush()

    def close(self) -> None:
        self._memory.close()
