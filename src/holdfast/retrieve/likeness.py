"""How alike a task and a record are: by meaning, by words, or by both (the rankers of EvolveLab, arXiv 2512.18746).

Each is a ``Ranker``. Words are weighed over the candidates alone (TF-IDF, smoothed, cosine), so a score needs no index, and is
exact where all records of a kind are candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.retrieve.base import Scores
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.text import tokens
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.SEMANTIC, Retrieval.LEXICAL, Retrieval.HYBRID),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """By the cosine of their vectors, which is the ``relevance`` of what ``Memory.nearest`` finds."""

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [-1, 1]."""
        return np.asarray([hit.relevance for hit in candidates], np.float64)


@dataclass(frozen=True, slots=True)
class Words:
    """By the cosine of their words' TF-IDF."""

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [0, 1]."""
        return cosines(query, [hit.text for hit in candidates])


@dataclass(frozen=True, slots=True)
class Overlap:
    """By how many different words of the query they hold, as a share of these."""

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [0, 1]."""
        asked = set(tokens(query))
        return np.asarray([len(asked & set(tokens(hit.text))) / max(len(asked), 1) for hit in candidates], np.float64)


@dataclass(frozen=True, slots=True)
class Mixed:
    """By ``words`` of the one and the rest of the other. Raises InputError."""

    words: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.words <= 1.0:
            raise InputError(f"the share of words lies between 0 and 1, not {self.words}")

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),), in [-1, 1]."""
        mixed: Scores = self.words * Words().rank(query, candidates) + (1 - self.words) * Meaning().rank(
            query, candidates
        )
        return mixed


def cosines(query: str, texts: Sequence[str]) -> Scores:
    """The cosine of a query and each text by their words' TF-IDF over these texts: shape (len(texts),), in [0, 1]."""
    counts = [Counter(tokens(text)) for text in texts]
    held = Counter(word for count in counts for word in count)
    asked = _weighed(Counter(tokens(query)), held, len(counts))
    return np.asarray([_cosine(asked, _weighed(count, held, len(counts))) for count in counts], np.float64)


def _weighed(counts: Counter[str], held: Counter[str], of: int) -> dict[str, float]:
    return {word: count * (math.log((1 + of) / (1 + held[word])) + 1) for word, count in counts.items()}


def _cosine(one: dict[str, float], other: dict[str, float]) -> float:
    across = sum(weight * other.get(word, 0.0) for word, weight in one.items())
    return across / (math.hypot(*one.values()) * math.hypot(*other.values())) if across else 0.0
