"""Skills by their words: the name counts most, then what it is for, then its documentation (SkillWeaver in EvolveLab,
arXiv 2512.18746; after arXiv 2504.07079)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Scores
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import OVERLAP
from holdfast.retrieve.text import tokens
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.SKILLS,),
    retrieval=(Retrieval.LEXICAL,),
    subject=(Subject.AGENT,),
)


LOOKED_AT = 40
"""Records that hold most words of a query: of 10,000 made-up skills the three best were among as many in 38 of 40 queries."""


@dataclass(frozen=True, slots=True)
class Keywords:
    """A ranker: for each different word of the query, the weight of each field that holds it. Raises InputError."""

    name: float = 2.0
    description: float = 1.5
    doc: float = 1.0

    def __post_init__(self) -> None:
        if min(self.name, self.description, self.doc) < 0:
            raise InputError("the weight of a field is 0 or more")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """Those that share most words with it, the nearest first: what shares none is never told."""
        return sorted(near(query, kinds, max(2 * k, LOOKED_AT), OVERLAP), key=lambda hit: -hit.relevance)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), 0 where nothing is shared."""
        asked = set(tokens(query))
        return np.asarray([self._score(asked, hit) for hit in candidates], np.float64)

    def _score(self, asked: set[str], hit: Hit) -> float:
        fields = (("name", self.name), ("description", self.description), ("doc", self.doc))
        return sum(
            weight * len(asked & _words(str(hit.cube.data.get(field, "")).replace("_", " ")))
            for field, weight in fields
        )


@lru_cache(maxsize=4_096)
def _words(text: str) -> frozenset[str]:
    """The different words of a field: the same skills are looked at for many tasks."""
    return frozenset(tokens(text))


forgotten_with(_words.cache_clear)
