"""A memory as it was: what was known, and what was true, at some time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from holdfast.chat import count_tokens
from holdfast.cube import RECALLABLE, Cube, Scope, to_micros
from holdfast.errors import NotFoundError
from holdfast.retrieve.context import Packed
from holdfast.retrieve.hits import Hits
from holdfast.store.base import Where
from holdfast.store.sql import SqlStore

RECALLED = Where(statuses=tuple(sorted(RECALLABLE)))
"""All that can be recalled."""

Count = Callable[[str], int]


_Search = Callable[[str, Scope, int, Sequence[str], int, datetime | None, datetime | None], Hits]
_Pack = Callable[[str, Scope, int, int, Count, datetime | None, datetime | None], Packed]
"""As ``Memory`` searches and packs: query, scope, what is wanted, then known at and true at."""


@dataclass(frozen=True, slots=True)
class AsOf:
    """A read-only view of a memory, made by ``Memory.as_of``: what was known at ``known`` and true at ``true_at`` (None: any)."""

    _store: SqlStore = field(repr=False)
    _scope: Callable[..., Scope] = field(repr=False)
    _search: _Search = field(repr=False)
    _pack: _Pack = field(repr=False)
    known: datetime | None
    true_at: datetime | None

    def search(
        self, query: str, *, k: int = 10, kinds: Sequence[str] = (), neighbours: int = 0, **scope: str | None
    ) -> Hits:
        """As ``Memory.search``, over what was known and true then."""
        return self._search(query, self._scope(**scope), k, kinds, neighbours, self.known, self.true_at)

    def context(
        self, query: str, *, budget: int = 800, k: int = 50, count: Count = count_tokens, **scope: str | None
    ) -> str:
        """As ``Memory.context``, over what was known and true then."""
        return self.pack(query, budget=budget, k=k, count=count, **scope).text

    def pack(
        self, query: str, *, budget: int = 800, k: int = 50, count: Count = count_tokens, **scope: str | None
    ) -> Packed:
        """As ``Memory.pack``, over what was known and true then."""
        return self._pack(query, self._scope(**scope), budget, k, count, self.known, self.true_at)

    def select(self, where: Where | None = None, **scope: str | None) -> Iterator[Cube]:
        """The memories known then (and true then) that pass a filter, oldest first."""
        wanted = replace(where or RECALLED, known_at=self.known, valid_at=self.true_at)
        return self._store.select(self._scope(**scope), wanted)

    def get(self, id: str, **scope: str | None) -> Cube:
        """One memory in the version that was known then. Raises NotFoundError."""
        here = self._scope(**scope)
        if self.known is None:
            return self._store.get(id, here)
        moment = to_micros(self.known)
        for row in self._store.versions(id, here):
            if row.known_from <= moment and (row.known_to is None or moment < row.known_to):
                return row.cube
        raise NotFoundError(f"memory {id} was not known in {here.path} at {self.known.isoformat()}")
