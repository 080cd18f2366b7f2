"""Only what came of runs that succeeded (ExpeL's examples, arXiv 2308.10144; EvolveLab, arXiv 2512.18746)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.cube import Form
from holdfast.retrieve.base import Near, Ranker, Scores, passing, sought
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import Mixed
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES,),
    retrieval=(Retrieval.FILTER,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Solved:
    """A ranker over raw records: ``of``, which sees only those with a reward above 0."""

    of: Ranker = field(default_factory=lambda: Mixed(0.3))

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The k best of those that succeeded."""

        def best(many: int) -> Sequence[Hit]:
            return sought(self.of, query, kinds, many, near)

        # To read a few more costs less than to look through the index twice.
        return passing(best, k, lambda hit: _reward(hit) > 0, first=4 * k)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """As ``of`` ranks; -inf for what did not succeed, or nobody knows of."""
        scores: Scores = np.full(len(candidates), -np.inf)
        solved = [at for at, hit in enumerate(candidates) if _reward(hit) > 0]
        if solved:
            scores[solved] = self.of.rank(query, [candidates[at] for at in solved])
        return scores


def _reward(hit: Hit) -> float:
    held = hit.cube.data.get("reward")
    return float(held) if isinstance(held, int | float) else 0.0
