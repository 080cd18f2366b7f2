"""The ranker's seam: what is to be looked at, and in which order it is worth telling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.hits import Hit

if TYPE_CHECKING:
    from holdfast.retrieve.search import Ranking

Scores = npt.NDArray[np.float64]

Near = Callable[[str, Sequence[str], int, "Ranking"], Sequence[Hit]]
"""The k best records of some kinds for a query, in the order of an index, best first; they are lent, and only to be looked at."""

MOST = 1_000
"""Records that are looked at, at most, where few of them pass."""


class Ranker(Protocol):
    """Scores what was found; ``hit.relevance`` says how well it fits the query, ``hit.cube`` all that is known of it.

    It only looks: the data of a cube are those that others are shown too.
    """

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """A score each, shape (len(candidates),), the higher the better; -inf for what is to be left out."""
        ...


class Seeker(Ranker, Protocol):
    """A ranker that knows where its best records are, so that no others need be read."""

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """What to rank: the k best are among it."""
        ...


def sought(
    ranker: Ranker, query: str, kinds: Sequence[str], k: int, near: Near, pool: int | None = None
) -> Sequence[Hit]:
    """What a ranker is to rank, so that its k best are among it; of one that cannot say, the ``pool`` nearest in meaning, k where
    that is not given."""
    if hasattr(ranker, "seek"):
        found: Sequence[Hit] = ranker.seek(query, kinds, k, near)
        return found
    from holdfast.retrieve.likeness import ALIKE

    return near(query, kinds, pool or k, ALIKE)


def passing(
    find: Callable[[int], Sequence[Hit]], k: int, passes: Callable[[Hit], bool], first: int | None = None
) -> list[Hit]:
    """The first k hits that pass, of as many as it takes: ``find`` gives so many of the best, at first ``first``, or k."""
    many = first or k
    while True:
        found = find(many)
        kept = [hit for hit in found if passes(hit)]
        if len(kept) >= k or len(found) < many or many >= MOST:
            return kept[:k]
        many = min(4 * many, MOST)


def foremost(ranker: Ranker, query: str, candidates: Sequence[Hit], most: int) -> tuple[Scores, list[int]]:
    """A ranker's scores, and the places of the ``most`` best that it does not leave out, best first."""
    scores = ranker.rank(query, candidates)
    order = np.argsort(-scores, kind="stable").tolist()
    return scores, [at for at in order if np.isfinite(scores[at])][:most]
