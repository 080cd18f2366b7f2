"""Two-phase retrieval by learned utility (MemRL, arXiv 2601.03192, §4.2; eq. of the mix: (1 - λ) ŝ + λ Q̂).

Likeness finds memories that look like the task, not those that helped. So the ``pool`` most alike are found first, of which those
no more alike than ``least`` are left out (then there may be none: nothing is better than something misleading), and are ranked
by a mix of likeness and utility, both as z-scores. The utility is that of ``cube.use``: what rewards have said
(``store.rewards``). Of a memory in which something from outside had a part it counts against, never for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Form
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Scores
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.likeness import ALIKE
from holdfast.store.rewards import Terms
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Modality, Retrieval, Subform, Subject, Trainable

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.ON_REQUEST, Retrieval.SEMANTIC, Retrieval.RERANK, Retrieval.FILTER),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.VECTOR),
    trainable=Trainable.ASSISTED,
)


class Running:
    """Mean and standard deviation of every likeness seen so far (Welford): another scale than the pool's own, for tiny pools."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._lock = threading.Lock()

    def see(self, values: npt.ArrayLike) -> tuple[float, float]:
        """Take some values in; the mean and the population's standard deviation of all so far."""
        with self._lock:
            for value in np.asarray(values, np.float64).ravel().tolist():
                self._count += 1
                gap = value - self._mean
                self._mean += gap / self._count
                self._squares += gap * (value - self._mean)
            return self._mean, math.sqrt(self._squares / max(self._count, 1))


@dataclass(frozen=True, slots=True)
class Utility:
    """A ranker. Raises InputError for settings that make none.

    Fields
        pool: how many of the most alike are ranked (k1); ``k`` of them are told (k2).
        least: what is no more alike than this is left out (δ): a cosine, or the share of the query's words where there are
            no vectors.
        weight: the share of utility in the mix (λ); 0 is likeness alone, 1 utility alone.
        terms: how a reward counts, and the utility of a memory that has none yet.
        explore: the chance that ``k`` of the pool are drawn at random instead (ε).
        clamp: z-scores end here, on both sides.
        floor: the least standard deviation that a z-score is by: of two memories that hardly differ, neither is far ahead.
        scale: a running scale for likeness, in place of the pool's.
    """

    pool: int = 10
    k: int = 5
    least: float = 0.35
    weight: float = 0.5
    terms: Terms = field(default_factory=Terms)
    explore: float = 0.0
    clamp: float = 3.0
    floor: float = 0.05
    scale: Running | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.pool:
            raise InputError(
                f"of a pool of {self.pool} memories, {self.k} cannot be told; k lies between 1 and the pool"
            )
        if not (0 <= self.weight <= 1 and 0 <= self.explore <= 1 and self.clamp > 0 and self.floor > 0):
            raise InputError("weight and explore lie between 0 and 1, clamp and floor above 0")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The ``pool`` most alike, or more where k is."""
        return near(query, kinds, max(k, self.pool), ALIKE)

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """The mix for each hit, whose ``relevance`` is its likeness; -inf for what is not alike enough."""
        scores: Scores = self.shares(candidates).sum(axis=0)
        return scores

    def shares(self, candidates: Sequence[Hit]) -> Scores:
        """What likeness and utility add to the score of each hit, shape (2, n)."""
        likeness = np.asarray([hit.relevance for hit in candidates], np.float64)
        utility = np.asarray([worth(hit.cube, self.terms.start) for hit in candidates], np.float64)
        found = np.full((2, len(candidates)), -np.inf)
        alike = likeness > self.least
        if alike.any():
            about = self.scale.see(likeness[alike]) if self.scale is not None else None
            found[0, alike] = (1 - self.weight) * z_scores(likeness[alike], self.clamp, self.floor, about)
            found[1, alike] = self.weight * z_scores(utility[alike], self.clamp, self.floor)
        return found

    def choose(self, candidates: Hits, random: np.random.Generator | None = None) -> Hits:
        """The hits to tell, best first; their scores, and what is in them, are the mix. Raises InputError where ``explore`` asks
        for ``random`` and there is none."""
        if self.explore and random is None:
            raise InputError("to explore is to draw at random: give random=, a seed or a numpy Generator")
        shares = self.shares(candidates)
        scores = shares.sum(axis=0)
        order = np.argsort(-scores, kind="stable")
        order = order[np.isfinite(scores[order])]
        if self.explore and random is not None and random.random() < self.explore:
            order = order[np.sort(random.choice(len(order), min(self.k, len(order)), replace=False))]
        told = [
            replace(
                candidates[at],
                score=float(scores[at]),
                channels={"likeness": float(shares[0, at]), "utility": float(shares[1, at])},
            )
            for at in order[: self.k].tolist()
        ]
        reason = candidates.reason if not candidates else "nothing here is alike enough to be of use"
        return Hits(told, abstain=not told, reason="" if told else reason, degraded=candidates.degraded)


@dataclass(frozen=True, slots=True)
class Useful:
    """What was recalled for a task, and the token to reward it by when it is known how that went.

    Of each hit, ``relevance`` is the likeness, ``score`` the mix of likeness and utility. ``token`` is "" where there is nothing
    that whoever asked may rate.
    """

    hits: Hits
    token: str = ""


def worth(cube: Cube, start: float = 0.0) -> float:
    """A memory's utility as it counts: what is tainted has none above that of the unknown."""
    known = cube.use.known(start)
    return min(known, start) if cube.tainted else known


def z_scores(values: Scores, clamp: float, floor: float, about: tuple[float, float] | None = None) -> Scores:
    """(values - mean) / max(deviation, floor), at most ``clamp`` from 0; ``about``: mean and deviation, where not their own."""
    if about is None:
        mean = float(values.sum()) / len(values)
        apart = values - mean
        deviation = math.sqrt(
            float(apart @ apart) / len(values)
        )  # of ten values, a quarter of the time that ``std`` takes
    else:
        mean, deviation = about
        apart = values - mean
    found: Scores = np.minimum(np.maximum(apart / max(deviation, floor), -clamp), clamp)
    return found
